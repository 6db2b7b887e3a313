"""The transform; how replies are read is tested beside the prompts."""

import pickle

import pytest
import torch
from datasets import Dataset, Value
from datasets.fingerprint import Hasher
from judged_rows import Scripted

import hf_evol
from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.models import ModelSpec, encoding
from hf_evol.models.journal import open_journal
from hf_evol.prompts.judge import level_prompt, score_prompt, task
from hf_evol.reading.replies import read_level, read_score
from hf_evol.scoring.difficulty import LEVELS, Difficulty

ASKS_LEVEL, ASKS_SCORE = "one of five levels", "a number from 0"


def rated(instruction, level, score, **columns):
    engine = Scripted(((ASKS_LEVEL, level), (ASKS_SCORE, score)))
    out = Difficulty(engine, journal=False)({"instruction": [instruction]} | columns)
    return tuple(values[0] for values in out.values())


@pytest.mark.parametrize(
    ("level", "score", "expected"),
    [
        ("Very Hard", "90", ("very hard", 90.0, "ok")),
        ("<think>easy, 10</think>\n**Hard**", "<think>0?</think>Score: 72.5/100", ("hard", 72.5, "ok")),
        ("easy or hard", "90", (None, 90.0, "unreadable_level")), ("hard", "900", ("hard", None, "unreadable_score")),
        ("?", "?", (None, None, "unreadable")), ("<think>hard", "70 CUT", (None, None, "unreadable")),
        ("engine_error: no", "90", (None, 90.0, "engine_error: no")), ("hard", "too_long: 9", ("hard", None, "too_long: 9")),
    ],
)  # fmt: skip
def test_statuses(level, score, expected):
    assert rated("Do it.", level, score) == expected


@pytest.mark.parametrize("text", [None, "", " \n", 3, "half a pair: \ud83d"])
def test_what_is_no_text_is_not_asked(text):
    assert rated(text, "hard", "90") == (None, None, "invalid_input")
    expected = "ok" if text in (None, "", " \n") else "invalid_input"
    assert rated("Do it.", "hard", "90", input=[text])[2] == expected


def test_the_judge_sees_instruction_and_input():
    hostile = "{task} {instruction} <|end|> {0}"
    for prompt in (level_prompt, score_prompt):
        assert prompt(task(hostile, "{input}"))[-1] == {"role": "user", "content": f"{hostile}\n\nInput:\n{{input}}"}
        assert prompt(task(hostile, " "))[-1]["content"] == hostile
    engine = Scripted((("Input:\n4, 2", "hard"), (ASKS_LEVEL, "easy"), ("", "1")))
    out = Difficulty(engine, journal=False)({"instruction": ["Sort."] * 3, "input": ["4, 2", "", None]})
    assert out[col.DIFFICULTY_LEVEL] == ["hard", "easy", "easy"]
    assert [LEVELS.index(level) for level in out[col.DIFFICULTY_LEVEL]] == [3, 1, 1]


def test_the_examples_give_every_level_and_rising_scores():
    levels, scores = (
        [turn["content"] for turn in prompt("x") if turn["role"] == "assistant"]
        for prompt in (level_prompt, score_prompt)
    )
    assert {read_level(level) for level in levels} == set(LEVELS)
    by_level = sorted(zip(map(LEVELS.index, levels), map(read_score, scores), strict=True))
    assert [score for _, score in by_level] == sorted(map(read_score, scores))


def test_columns_and_arrangement():
    engine = Scripted((("Task 0.", "easy"), ("Task 1.", "?"), ("Task 2.", "hard")))
    data = Dataset.from_dict({"instruction": ["Task 0.", "Task 1.", "Task 2.", None]})
    out = hf_evol.map(data, Difficulty(engine, journal=False), batch_size=1)
    assert out.features[col.DIFFICULTY_LEVEL] == Value("string") and out.features[col.DIFFICULTY_SCORE] == Value(
        "float64"
    )
    assert out[col.DIFFICULTY_LEVEL][:] == ["easy", None, "hard", None]
    assert out[col.DIFFICULTY_STATUS][:] == ["unreadable_score", "unreadable", "unreadable_score", "invalid_input"]
    plain = data.select([2, 0, 3, 1]).map(Difficulty(engine, journal=False), batched=True)
    assert plain[col.DIFFICULTY_LEVEL][:] == ["hard", "easy", None, None]


def test_a_real_judge_is_asked_greedily_and_twice(wide_model, seeds, tmp_path):
    """The model stammers, but its replies are those that the library gives, and the journal keeps them."""
    judge = Difficulty(wide_model, max_new_tokens=6, journal=tmp_path / "journal")
    out = judge(seeds[:])
    assert open_journal(judge.journal).stats().requests == 2 * len(seeds)
    spec = ModelSpec(wide_model)
    model, tokenizer = models.load_model(spec), models.load_tokenizer(spec)
    found = []
    for instruction in seeds["instruction"]:
        for prompt, read in ((level_prompt, read_level), (score_prompt, read_score)):
            ids = torch.tensor([encoding.render_chat(tokenizer, prompt(instruction))])
            said = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
            found.append(read(tokenizer.decode(said, skip_special_tokens=True)) if said[-1] == 3 else None)
    assert found[::2] == out[col.DIFFICULTY_LEVEL] and found[1::2] == out[col.DIFFICULTY_SCORE]
    assert set(out[col.DIFFICULTY_STATUS]) <= {"unreadable", "unreadable_level"} and judge(seeds[:]) == out


def test_it_pickles_and_hashes_by_its_settings(tiny_model):
    judge = Difficulty(tiny_model, max_new_tokens=9)
    assert pickle.loads(pickle.dumps(judge)) == judge
    assert (
        Hasher.hash(judge)
        == Hasher.hash(Difficulty(tiny_model, max_new_tokens=9))
        != Hasher.hash(Difficulty(tiny_model))
    )


def test_wrong_settings(tiny_model):
    with pytest.raises(ConfigError, match="max_new_tokens"):
        Difficulty(tiny_model, max_new_tokens=0)
    with pytest.raises(ConfigError, match="not int"):
        Difficulty(3)
    with pytest.raises(ColumnError, match="'instruction' not found"):
        hf_evol.map(Dataset.from_dict({"text": ["a"]}), Difficulty(tiny_model))
