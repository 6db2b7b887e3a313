import logging

import pytest
from datasets import Dataset

import hf_evol
from hf_evol import columns as col
from hf_evol.errors import ConfigError
from hf_evol.evolve.eliminate import Eliminate, repeated
from hf_evol.generation.base import Completion
from hf_evol.prompts.evol_instruct import METHODS

PARENT = "List three rivers of Europe."
GOOD = "List three rivers of Europe that cross at least two borders, with their lengths."


def reason(evolved=GOOD, parent=PARENT, output=None, status="ok", method=None, **rules):
    batch = {"instruction": [evolved], "parent_instruction": [parent], "output": [output], "method": [method]}
    if status != "no column":
        batch["evol_status"] = [status]
    return Eliminate(keep=True, **rules)(batch)[col.ELIMINATION][0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "kept"),
        ({"status": "cut_off"}, "not_evolved"),
        ({"evolved": PARENT}, "kept"),
        ({"evolved": "word " * 30 + "salt " * 71}, "blow_up"),
        ({"evolved": "salt " * 100}, "kept"),
        ({"evolved": "salt " * 105, "parent": "word " * 21}, "kept"),
        ({"evolved": "salt " * 106, "parent": "word " * 21}, "blow_up"),
        ({"output": "I am sorry, but I do not know."}, "sorry"),
        ({"output": "Sorry " + "word " * 78}, "sorry"),
        ({"output": "Sorry " + "word " * 79}, "kept"),
        ({"output": "And so on, of the... and to it!"}, "no_content"),
        ({"output": "..."}, "no_content"),
        ({"output": "4"}, "kept"),
        ({"output": "- The Volga\n- The Don"}, "breaks_condition"),
        ({"evolved": "Describe the Volga.", "output": "It is a very long river. " * 4}, "repeats_itself"),
        ({"evolved": "Describe the Volga.", "output": "It is a very long river. " * 4, "repetition": False}, "kept"),
        ({"output": "- The Volga\n- The Don", "conditions": False}, "kept"),
        ({"evolved": "请列出欧洲的三条河流，并说明长度", "parent": "请列出欧洲的三条河流"}, "kept"),
        ({"evolved": None}, "not_evolved"),
        ({"parent": None}, "not_evolved"),
    ],
)
def test_each_rule(row, expected):
    assert reason(**row) == expected


def test_constraints_are_no_evolution():
    row = {
        "instruction": [f"{PARENT} Use a numbered list."],
        "parent_instruction": [PARENT],
        "output": ["1. The Volga\n2. The Ob\n3. The Don"],
    }
    assert Eliminate(keep=True)(row)[col.ELIMINATION] == ["near_copy"]
    assert Eliminate(keep=True)(row | {"back_translate_status": ["ok"]})[col.ELIMINATION] == ["kept"]
    assert Eliminate(keep=True)(row | {"back_translate_status": ["no_constraint"]})[col.ELIMINATION] == ["near_copy"]


EXAMPLE = METHODS["constraint"].prompt(PARENT)[2]["content"]
OTHER = "Explain how volcanoes in Iceland warm the greenhouses near Selfoss."


@pytest.mark.parametrize("status", [None, "no column"])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "kept"),
        ({"method": "constraint"}, "kept"),
        ({"method": "odd"}, "kept"),
        ({"evolved": PARENT}, "unchanged"),
        ({"evolved": "List three long rivers of Europe."}, "near_copy"),
        ({"evolved": "I'm sorry, but I can't help with that."}, "refusal"),
        ({"evolved": " "}, "empty"),
        ({"evolved": EXAMPLE, "method": "constraint"}, "leak"),
        ({"evolved": OTHER, "method": "constraint"}, "off_topic"),
        ({"evolved": OTHER, "method": "breadth"}, "kept"),
        ({"output": "I am sorry, but I do not know."}, "sorry"),
        ({"evolved": None}, "not_evolved"),
        ({"method": 7}, "kept"),
    ],
)
def test_rows_that_were_evolved_elsewhere(row, status, expected):
    assert reason(**row, status=status) == expected


@pytest.mark.parametrize(
    ("row", "off"),
    [
        ({"evolved": "salt " * 101}, {"max_growth": None}),
        ({"output": "I am sorry"}, {"sorry_max_words": 0}),
        ({"output": "..."}, {"stop_words_only": False}),
    ],
)
def test_each_rule_can_be_turned_off(row, off):
    assert reason(**row) != "kept"
    assert reason(**row, **off) == "kept"


class Judge:
    name = "judge"

    def check(self, params=None):
        pass

    def stream(self, chats, params, keys):
        assert params.temperature == 0
        for place, turns in enumerate(chats):
            say = (
                "Equal."
                if "SAME" in turns[-1]["content"]
                else "**Different**"
                if "OTHER" in turns[-1]["content"]
                else "?"
            )
            yield [(place, Completion(say, "stop"))]


def test_judge_finds_what_gains_nothing():
    texts = [GOOD + " SAME", GOOD + " OTHER", GOOD, "SAME"]
    batch = {"instruction": texts, "parent_instruction": [PARENT] * 4, "evol_status": ["ok", "ok", "ok", "cut_off"]}
    flags = Eliminate(keep=True, judge=Judge(), journal=False)(batch)[col.ELIMINATION]
    assert flags == ["no_gain", "kept", "kept", "not_evolved"]


def test_drops_are_counted(caplog):
    data = Dataset.from_dict(
        {"id": ["a-0", "a-1", "a-2"], "instruction": [GOOD, PARENT, GOOD], "parent_instruction": [PARENT] * 3,
         "output": ["fine", "fine", "sorry"]}
    )  # fmt: skip
    kept, reasons = Eliminate().drop(data)
    assert kept["id"] == ["a-0"] and reasons == {"unchanged": 1, "sorry": 1}
    with caplog.at_level(logging.INFO, logger="hf_evol"):
        mapped = data.map(Eliminate(), batched=True)
    assert mapped["id"] == ["a-0"] and "2 of 3 rows: unchanged 1, sorry 1" in caplog.text
    assert len(hf_evol.map(data, Eliminate(keep=True))) == 3


SAME = "With their lengths, list three rivers of Europe that cross at least two border."  # in other words' order and endings


def test_rows_that_say_the_same_are_dropped_once():
    texts = [GOOD, SAME, GOOD, PARENT, GOOD.upper() + "!"]
    data = Dataset.from_dict(
        {"id": [f"a-{i}" for i in range(5)], "instruction": texts, "parent_instruction": [PARENT] * 5, "input": ["", None, "x", "", ""],
         "evol_status": ["ok", "ok", "ok", "unchanged", "ok"]}
    )  # fmt: skip
    kept, reasons = Eliminate().drop(data)
    assert kept["id"] == ["a-0", "a-2"] and reasons == {"duplicate": 2, "not_evolved": 1}
    first_fails = data.remove_columns("evol_status").add_column("evol_status", ["cut_off", "ok", "ok", "ok", "ok"])
    assert Eliminate().drop(first_fails)[0]["id"] == ["a-1", "a-2", "a-3"]


def test_what_counts_as_repeated():
    def rows(*texts, **more):
        return Dataset.from_dict({"instruction": list(texts), **more})

    assert repeated(rows(GOOD, PARENT, SAME, GOOD)) == [False, False, True, True]
    assert repeated(rows(GOOD, GOOD, GOOD, input=["a", "b", "a"])) == [False, False, True]
    assert repeated(rows(GOOD, SAME, input=["", None])) == [False, True]
    assert repeated(rows(GOOD, PARENT), rows(OTHER), rows(SAME)) == [True, False]
    assert repeated(rows(GOOD, input=["a"]), rows(GOOD)) == [False]
    assert repeated(rows("Who are you?", "Who is he?", "Are you who?")) == [False, False, True]
    assert repeated(rows("?", "!", None, "", "?")) == [False, False, False, True, True]
    assert repeated(rows(GOOD).select([]), rows(GOOD)) == []
    constrained = {"parent_instruction": [GOOD] * 3, "back_translate_status": ["ok", "ok", "no_constraint"]}
    texts = (f"{GOOD} Use no commas.", f"{GOOD} Use at most 50 words.", PARENT)
    assert repeated(rows(*texts, **constrained)) == [False, True, False]
    assert repeated(rows("Name a river twice", "Name a river river twice")) == [False, False]


def test_wrong_growth():
    with pytest.raises(ConfigError, match="max_growth"):
        Eliminate(max_growth=1)
