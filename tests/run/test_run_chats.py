"""Chats as seeds: what was said before goes with a row through every stage, and into the card and the trainers' files."""

from __future__ import annotations

import json

import pytest
from chat_server import ChatServer, Refusal
from datasets import Dataset, load_dataset

import hf_evol
from hf_evol.cli.main import main

BEFORE = [
    {"role": "system", "content": "You are a meteorologist of the island Vesterøy."},
    {"role": "user", "content": "How warm is it in summer?"},
    {"role": "assistant", "content": "About 17 degrees."},
]
EVOLVED = "How warm is it in winter, and on how many days of January does it rain or snow?"


def chats(n=3):
    asked = {"role": "user", "content": "How warm is it in winter?"}
    answer = {"role": "assistant", "content": "About 2 degrees."}
    return Dataset.from_list([{"messages": [*BEFORE, asked, answer]} for _ in range(n)])


@pytest.fixture
def server():
    with ChatServer() as server:
        server.choice = lambda body: {"message": {"role": "assistant", "content": EVOLVED}} if is_evolving(body) else {}
        yield server


def is_evolving(body):
    return "You do not carry it out" in body["messages"][0]["content"]


def recipe_for(server, tmp_path, **settings):
    chats().to_json(tmp_path / "chats.jsonl")
    options = {"engine": "endpoint", "base_url": server.url, "model": "tiny", "best_of": 1, "tries": 1}
    return options | {"dataset": str(tmp_path / "chats.jsonl"), "output": str(tmp_path / "out")} | settings


def test_the_context_goes_through_a_run(server, tmp_path, tiny_model):
    result = hf_evol.run(hf_evol.Recipe(**recipe_for(server, tmp_path, scorer=tiny_model, methods="constraint")))
    evolving, answering = ([r.body for r in server.requests if is_evolving(r.body) == kind] for kind in (True, False))
    assert len(evolving) == 1 and len(answering) == 2  # equal chats are sent once; the other is the probe
    for text in ("meteorologist of the island Vesterøy", "How warm is it in summer?", "About 17 degrees."):
        assert text in evolving[0]["messages"][0]["content"]
    assert evolving[0]["messages"][-1]["content"] == "How warm is it in winter?"
    assert answering[-1]["messages"] == [*BEFORE, {"role": "user", "content": EVOLVED}]
    rows = load_dataset(result.output, "round_1", split="train")
    assert rows["context"][:] == [BEFORE]
    assert rows["ic_ifd_status"][:] == ["ok"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "System: You are a meteorologist of the island Vesterøy." in card
    (chat,) = hf_evol.to_training(rows)["messages"]
    assert chat[:4] == [*BEFORE, {"role": "user", "content": EVOLVED}]


def test_the_context_counts_in_scores(tiny_model):
    row = {"instruction": ["How warm is it in winter?"], "output": ["About 2 degrees."]}
    scorer = hf_evol.IcIfd(tiny_model, journal=False)
    messages = [
        [
            *BEFORE,
            {"role": "user", "content": row["instruction"][0]},
            {"role": "assistant", "content": row["output"][0]},
        ]
    ]
    with_context = scorer(row | {"context": [BEFORE]})
    as_turns = hf_evol.IcIfd(tiny_model, turns="last", journal=False)({"messages": messages})
    assert with_context == as_turns
    assert with_context["ic_ifd"] != scorer(row)["ic_ifd"] == scorer(row | {"context": [None]})["ic_ifd"]


def test_equal_instructions_of_different_chats_are_no_repeats():
    from hf_evol.evolve.eliminate import repeated

    rows = Dataset.from_dict({"instruction": ["And in winter?"] * 3, "context": [BEFORE, BEFORE[1:], BEFORE]})
    assert repeated(rows) == [False, False, True]


def test_the_summary_names_the_commonest_failure_and_a_run_of_failures_exits_with_1(
    server, tmp_path, tiny_model, capsys
):
    words = {"error": {"message": "the cache is \x1b[2Jfull"}}
    server.fault = lambda prompt, attempt: Refusal(422, body=words) if prompt != "Hello" else None
    settings = recipe_for(server, tmp_path, scorer=tiny_model)
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    assert main(["run", "--recipe", str(tmp_path / "recipe.yaml")]) == 1
    said = capsys.readouterr().out
    assert "Requests failed for 3 rows. Most often: engine_error: HTTP 422: the cache is [2Jfull." in said
    assert "\x1b[2J" not in said
    options = ["--engine", "endpoint", "--base-url", server.url, "--model", "tiny", "--tries", "1"]
    assert main(["evolve", "--dataset", settings["dataset"], *options, "--output", str(tmp_path / "evolved")]) == 1
    assert "Requests failed for 3 rows. Most often: engine_error: HTTP 422" in capsys.readouterr().out
    server.attempts.clear()
    server.fault = lambda prompt, attempt: 422 if attempt == 1 else None
    options += ["--journal", "false", "--temperature", "0.7"]  # so that equal rows are asked on their own
    assert main(["evolve", "--dataset", settings["dataset"], *options, "--output", str(tmp_path / "some")]) == 1
    assert "Requests failed for 1 rows." in capsys.readouterr().out
