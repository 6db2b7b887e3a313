"""The transform; how replies are read is tested beside the prompts."""

import pickle

import pytest
from datasets import Dataset, Value
from datasets.fingerprint import Hasher
from judged_rows import Scripted

import hf_evol
from hf_evol import columns as col
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.models.journal import open_journal
from hf_evol.prompts.judge import comparison_prompt
from hf_evol.reading.replies import read_verdict
from hf_evol.scoring.judge import Judge

A_FIRST, B_FIRST = "Response 1: Alpha", "Response 1: Beta"


def judged(a_first, b_first, **columns):
    engine = Scripted(((A_FIRST, a_first), (B_FIRST, b_first)))
    row = {"instruction": ["Which?"], "output_a": ["Alpha"], "output_b": ["Beta"]} | columns
    out = Judge(engine, journal=False)(row)
    return out[col.VERDICT][0], *out[col.VERDICT_ORDERS][0], out[col.JUDGE_STATUS][0]


@pytest.mark.parametrize(
    ("a_first", "b_first", "expected"),
    [
        ("better than", "worse than", ("win", "win", "win", "ok")),
        ("**Worse than**", "Response 1 is better than Response 2.", ("lose", "lose", "lose", "ok")),
        ("equal to", "<think>better</think>Equal to.", ("tie", "tie", "tie", "ok")),
        ("better than", "better than", ("tie", "win", "lose", "disagreement")),
        ("better than", "equal to", ("tie", "win", "tie", "disagreement")),
        ("better than", "?", (None, "win", None, "unreadable")), ("?", "worse than", (None, None, "win", "unreadable")),
        ("?", "?", (None, None, None, "unreadable")), ("better than CUT", "worse than", (None, None, "win", "unreadable")),
        ("engine_error: no", "worse than", (None, None, "win", "engine_error: no")),
        ("better than", "too_long: 9", (None, "win", None, "too_long: 9")),
    ],
)  # fmt: skip
def test_statuses(a_first, b_first, expected):
    assert judged(a_first, b_first) == expected


@pytest.mark.parametrize("column", ["instruction", "output_a", "output_b"])
@pytest.mark.parametrize("value", [None, " ", 3])
def test_what_is_no_text_is_not_asked(column, value):
    assert judged("better than", "worse than", **{column: [value]}) == (None, None, None, "invalid_input")


def test_the_judge_sees_all_of_the_row_as_it_is():
    hostile = {
        "instruction": ["Sort {first}."],
        "input": ["{second} <|end|>"],
        "output_a": ["{task}"],
        "output_b": ["{x}"],
    }
    engine = Scripted(
        (
            (
                "Task: Sort {first}.\n\nInput:\n{second} <|end|>\n\nResponse 1: {task}\n\nResponse 2: {x}",
                "better than",
            ),
            (
                "Task: Sort {first}.\n\nInput:\n{second} <|end|>\n\nResponse 1: {x}\n\nResponse 2: {task}",
                "worse than",
            ),
        )
    )
    assert Judge(engine, journal=False)(hostile)[col.VERDICT] == ["win"]


def test_columns_and_arrangement():
    engine = Scripted(((A_FIRST, "better than"), ("Response 2: Alpha", "worse than"), ("", "?")))
    data = Dataset.from_dict(
        {
            "instruction": ["Which?", "Who?", None],
            "output_a": ["Alpha", "Gamma", "x"],
            "output_b": ["Beta", "Delta", "y"],
        }
    )
    out = hf_evol.map(data, Judge(engine, journal=False), batch_size=1)
    assert out[col.VERDICT][:] == ["win", None, None]
    assert out[col.VERDICT_ORDERS][:] == [["win", "win"], [None, None], [None, None]]
    assert out[col.JUDGE_STATUS][:] == ["ok", "unreadable", "invalid_input"]
    nothing = hf_evol.map(data.select([2, 1]), Judge(engine, journal=False))
    assert nothing.features[col.VERDICT] == Value("string") and nothing.features[col.VERDICT_ORDERS].feature == Value(
        "string"
    )
    plain = data.select([2, 0, 1]).map(Judge(engine, journal=False), batched=True)
    assert plain[col.VERDICT][:] == [None, "win", None]


def test_a_real_judge_is_asked_in_both_orders(wide_model, tmp_path):
    judge = Judge(wide_model, max_new_tokens=4, journal=tmp_path / "journal")
    rows = {"instruction": ["Why?", "Why?"], "output_a": ["the sea", "the"], "output_b": ["rivers", "the"]}
    out = judge(rows)
    assert out[col.JUDGE_STATUS] == ["unreadable"] * 2 and out[col.VERDICT] == [None] * 2
    assert open_journal(judge.journal).stats().requests == 3  # equal responses give one prompt
    assert judge(rows) == out


def test_it_pickles_and_hashes_by_its_settings(tiny_model):
    judge = Judge(tiny_model, max_new_tokens=9)
    assert pickle.loads(pickle.dumps(judge)) == judge
    assert Hasher.hash(judge) == Hasher.hash(Judge(tiny_model, max_new_tokens=9)) != Hasher.hash(Judge(tiny_model))


def test_wrong_settings(tiny_model):
    with pytest.raises(ConfigError, match="max_new_tokens"):
        Judge(tiny_model, max_new_tokens=0)
    with pytest.raises(ColumnError, match="'output_a', 'output_b' not found"):
        Judge(tiny_model)({"instruction": ["Why?"]})


def test_the_examples_give_every_verdict_that_is_read():
    replies = [turn["content"] for turn in comparison_prompt("t", "f", "s") if turn["role"] == "assistant"]
    assert sorted(map(read_verdict, replies)) == ["lose", "tie", "win"]
