"""A command whose requests failed says so, is not pushed and exits with 1; the next one asks those again, and no others."""

import json
import random
import sys
from itertools import product

import pytest
from chat_server import ChatServer
from datasets import load_dataset
from hub_server import HubServer

from hf_evol.study.study import Study

REPO, RIVERS = "user/some-set", ("Nile", "Po", "Elbe", "Main")
MORE = (" Say how deep it is in May as well.", " Name three towns on its banks, and two bridges.")


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


@pytest.fixture
def hub(here, monkeypatch):
    with HubServer() as server:
        server.connect(monkeypatch, here / "hub-cache")
        yield server


@pytest.fixture
def rivers(here):
    rows = [{"instruction": f"How long is the {river}?", "input": "", "output": "Long."} for river in RIVERS]
    (here / "rivers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rivers.jsonl"


def endpoint(server):
    return ["--engine", "endpoint", "--base-url", server.url]


def evolving(body):
    text = body["messages"][-1]["content"].splitlines()[-1]
    return {"message": {"role": "assistant", "content": text + MORE[MORE[0] in text]}}


def refuse(server, word, times=1000):
    """Have the server refuse the first requests that hold a word."""
    left = iter(range(times))
    server.fault = lambda prompt, attempt: 400 if word in prompt and next(left, None) is not None else None


def test_a_study(hub, server, call, here, rivers, wide_model, monkeypatch):
    monkeypatch.setattr(sys.modules[Study.__module__], "draw", lambda results, rows, folder: [])
    server.choice = evolving
    with ChatServer() as judge:
        far = f"{{engine: endpoint, name: far, base_url: '{server.url}'}}"
        options = ["study", "--dataset", rivers, "--scorer", wide_model, "--responder", wide_model]
        options += [
            "--evolver",
            f"a={far}",
            "--evolver",
            f"b={wide_model}",
            "--judge",
            far.replace(server.url, judge.url),
        ]
        options += ["--embedding", "none", "--methods", "constraint", "--rounds", 1, "--max-new-tokens", 24]
        options += ["--response-max-new-tokens", 8, "--license", "mit", "--push-to", REPO, "--output", "set"]
        refuse(judge, "Elbe")
        code, said = call(*options)
        results = json.loads((here / "set" / "results.json").read_text(encoding="utf-8"))
        of_far, of_seeds = ([e["failed"] for e in results["levels"] if e["evolver"] == name] for name in ("a", "seeds"))
        assert of_far == of_seeds == [1]
        assert code == 1 and "Not measured: difficulty of 1 of 4 rows. Requests failed." in said
        assert "Requests failed for " in said and "Most often: engine_error: HTTP 400" in said
        assert "is not pushed, as requests failed" in said and ("dataset", REPO) not in hub.repos
        refuse(judge, "nothing")
        code, said = call(*options, "--overwrite")
        assert code == 0 and "Requests failed" not in said and ("dataset", REPO) in hub.repos


def test_the_judge_of_eliminate(server, call, here):
    rows = [
        {"id": f"r-{place}", "instruction": f"How long is the {river}?{MORE[0]}", "evol_status": "ok"}
        | {"parent_instruction": f"How long is the {river}?"}
        for place, river in enumerate(RIVERS)
    ]
    (here / "evolved.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server.choice = lambda body: {"message": {"content": "Equal" if "Po" in str(body) else "Different"}}
    options = ["eliminate", "--dataset", "evolved.jsonl", "--judge", "tiny", *endpoint(server), "--output"]
    refuse(server, "Elbe")
    code, said = call(*options, "kept")
    assert code == 1 and "Requests failed for 1 rows. Most often: engine_error: HTTP 400" in said
    kept = load_dataset("kept", split="train")
    assert [status.partition(":")[0] for status in kept["judge_status"]] == ["ok", "engine_error", "ok"]
    assert "kept 2, not_judged 1, no_gain 1" in (here / "kept" / "README.md").read_text().replace("\\", "")
    refuse(server, "nothing")
    server.requests.clear()
    assert call(*options, "again")[0] == 0
    assert {river for prompt in server.prompts for river in RIVERS if f"the {river}?" in prompt} == {"Elbe"}
    assert set(load_dataset("again", split="train")["judge_status"]) == {"ok"}


def test_an_earlier_round_of_evolve(server, call, rivers):
    server.choice = evolving
    options = ["evolve", "--dataset", rivers, "--model", "tiny", *endpoint(server), "--rounds", 2]
    options += ["--best-of", 1, "--methods", "constraint,deepen", "--output"]
    refuse(server, "Elbe", times=1)
    code, said = call(*options, "set")
    rows = load_dataset("set", split="train")
    assert set(rows["evol_status"]) == {"ok"} and "Last round: ok 4" in said
    assert code == 1 and "Requests failed for 1 rows. Most often: engine_error: HTTP 400" in said
    assert call(*options, "again")[0] == 0
    statuses = {entry["status"] for history in load_dataset("again", split="train")["history"] for entry in history}
    assert statuses == {"ok"}


def test_made_up_instructions(hub, server, call, here, wide_model):
    pytest.importorskip("rapidfuzz")
    words = ["".join(letters) for letters in product("bcdfghjklm", repeat=3)]

    def made_up(body):
        drawn = random.Random(str(body)).sample(words, 8)
        return {"message": {"content": f"Explain {' '.join(drawn)}."}}

    server.choice = made_up
    asked = []

    def fault(prompt, attempt):
        asked.append(prompt)
        return 400 if len(asked) in (6, 7) else None

    server.fault = fault
    options = ["--dataset", "demo/general", "--model", "tiny", *endpoint(server), "--temperature", 0.7]
    code, said = call("self-instruct", *options, "-n", 5, "--per-round", 8, "--output", "new")
    assert "5 of 5 rows are kept" in said and "engine_error 2" in said
    assert code == 1 and "Requests failed for 2 rows. Most often: engine_error: HTTP 400" in said
    asked.clear()
    options += ["--self-instruct", 5, "--scorer", wide_model, "--rounds", 1, "--best-of", 1, "--tries", 1]
    code, said = call(
        "run", *options, "--journal", "j.sqlite", "--license", "mit", "--push-to", REPO, "--output", "set"
    )
    assert "engine_error 2" in said and code == 1 and "Requests failed for 2 rows." in said
    assert (here / "set" / "README.md").exists() and ("dataset", REPO) not in hub.repos
