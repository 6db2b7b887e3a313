import logging

import pytest
from datasets import Dataset

import hf_evol
from hf_evol import columns as col
from hf_evol.errors import ConfigError
from hf_evol.evolve.eliminate import Eliminate
from hf_evol.generation.base import Completion

PARENT = "List three rivers of Europe."
GOOD = "List three rivers of Europe that cross at least two borders, with their lengths."


def reason(evolved=GOOD, parent=PARENT, output=None, status="ok", **rules):
    batch = {"instruction": [evolved], "parent_instruction": [parent], "output": [output], "evol_status": [status]}
    return Eliminate(keep=True, **rules)(batch)[col.ELIMINATION][0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "kept"),
        ({"status": "cut_off"}, "not_evolved"),
        ({"evolved": GOOD + " Follow the #given prompt#."}, "leak"),
        ({"evolved": GOOD + " Given prompt", "parent": PARENT + " Given prompt"}, "kept"),
        ({"evolved": "List three long rivers of Europe."}, "near_copy"),
        ({"evolved": "Of Europe: rivers, three. List"}, "near_copy"),
        ({"evolved": "word " * 30 + " ".join(f"w{i}" for i in range(71))}, "blow_up"),
        ({"evolved": " ".join(f"w{i}" for i in range(100))}, "kept"),
        ({"output": "I am sorry, but I do not know."}, "sorry"),
        ({"output": "Sorry " + "word " * 78}, "sorry"),
        ({"output": "Sorry " + "word " * 79}, "kept"),
        ({"output": "And so on, of the... and to it!"}, "no_content"),
        ({"output": "..."}, "no_content"),
        ({"output": "4"}, "kept"),
        ({"evolved": "请列出欧洲的三条河流，并说明长度", "parent": "请列出欧洲的三条河流"}, "kept"),
        ({"evolved": None}, "not_evolved"),
    ],
)
def test_each_rule(row, expected):
    assert reason(**row) == expected


@pytest.mark.parametrize(
    ("row", "off"),
    [
        ({"evolved": "List three long rivers of Europe."}, {"min_new_words": 0}),
        ({"evolved": " ".join(f"w{i}" for i in range(101))}, {"max_growth": None}),
        ({"output": "I am sorry"}, {"sorry_max_words": 0}),
        ({"output": "..."}, {"stop_words_only": False}),
        ({"evolved": GOOD + " rewritten prompt"}, {"leaked_phrases": ()}),
    ],
)
def test_each_rule_can_be_turned_off(row, off):
    assert reason(**row) != "kept"
    assert reason(**row, **off) == "kept"


class Judge:
    name = "judge"

    def check(self):
        pass

    def stream(self, chats, params, keys):
        assert params.temperature == 0
        for place, turns in enumerate(chats):
            say = (
                "Equal."
                if "SAME" in turns[0]["content"]
                else "**Different**"
                if "OTHER" in turns[0]["content"]
                else "?"
            )
            yield [(place, Completion(say, "stop"))]


def test_judge_finds_what_gains_nothing():
    texts = [GOOD + " SAME", GOOD + " OTHER", GOOD, "SAME"]
    batch = {"instruction": texts, "parent_instruction": [PARENT] * 4}
    flags = Eliminate(keep=True, judge=Judge(), journal=False)(batch)[col.ELIMINATION]
    assert flags == ["no_gain", "kept", "kept", "near_copy"]


def test_drops_are_counted(caplog):
    data = Dataset.from_dict(
        {"id": ["a-0", "a-1", "a-2"], "instruction": [GOOD, PARENT, GOOD], "parent_instruction": [PARENT] * 3,
         "output": ["fine", "fine", "sorry"]}
    )  # fmt: skip
    kept, reasons = Eliminate().drop(data)
    assert kept["id"] == ["a-0"] and reasons == {"near_copy": 1, "sorry": 1}
    with caplog.at_level(logging.INFO, logger="hf_evol"):
        mapped = data.map(Eliminate(), batched=True)
    assert mapped["id"] == ["a-0"] and "2 of 3 rows: near_copy 1, sorry 1" in caplog.text
    assert len(hf_evol.map(data, Eliminate(keep=True))) == 3


def test_wrong_growth():
    with pytest.raises(ConfigError, match="max_growth"):
        Eliminate(max_growth=1)
