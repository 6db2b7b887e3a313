"""The endpoint engine under `datasets`, and with a server that is really there."""

import dataclasses
import hashlib
import os
import pickle
import subprocess
import sys
import time
import urllib.request

import pytest
from chat_server import KEY, ask, drawn, engine_for, unused_port
from datasets.fingerprint import Hasher

import hf_evol
from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation.base import SamplingParams
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models import ModelSpec


def evolved_by(turns):
    """An evolved instruction that other turns have otherwise, so that a mix-up shows."""
    pick = int.from_bytes(hashlib.sha256(repr(turns).encode()).digest()[:4], "little")
    stones = [
        ("agate", "beryl", "galena", "jasper", "pyrite", "quartz", "rutile", "topaz")[pick >> 3 * n & 7]
        for n in range(2)
    ]
    return f"{turns[-1]['content']} Name {' or '.join(dict.fromkeys(stones))} and volcano number {pick} as well."


@pytest.fixture
def server(server):
    server.choice = lambda body: {"message": {"role": "assistant", "content": evolved_by(body["messages"])}}
    return server


def expected_rows(transform, rows):
    """One round, in a line: each row gets the server's answer to its own prompt."""
    return [evolved_by(transform.prompt(row["id"], row["instruction"], 0)) for row in rows]


def test_a_map_evolves_every_row_once(server, seeds, tmp_path):
    server.fault = lambda prompt, attempt: 503 if drawn(prompt) < 0.5 and attempt == 1 else None
    options = {"journal": tmp_path / "j.sqlite", "max_new_tokens": 100}
    transform = hf_evol.EvolInstruct(engine_for(server), **options)
    evolved = hf_evol.map(seeds, transform)
    assert evolved["instruction"] == expected_rows(transform, seeds)
    assert set(evolved["evol_status"]) == {"ok"} and set(evolved["evolver"]) == {"tiny"}
    assert 1 + len(seeds) < len(server.requests) <= 1 + 2 * len(seeds)

    asked = len(server.requests)
    assert hf_evol.map(seeds, transform)["instruction"] == evolved["instruction"]  # from the cache of datasets
    other = hf_evol.EvolInstruct(engine_for(server, max_concurrency=2), **options)
    assert hf_evol.map(seeds, other, batch_size=2)["instruction"] == evolved["instruction"]  # from the journal
    assert server.prompts[asked:] == ["Hello"]  # the other engine's probe


def test_rows_that_fail_keep_their_instruction_and_a_reason(server, seeds):
    server.fault = lambda prompt, attempt: 400 if "rivers flow" in prompt else None
    evolved = hf_evol.map(seeds, hf_evol.EvolInstruct(engine_for(server), journal=False))
    failed = [row for row in evolved if row["evol_status"] != "ok"]
    assert [row["instruction"] for row in failed] == [text for text in seeds["instruction"] if "rivers flow" in text]
    assert failed and all(row["evol_status"].startswith("engine_error: HTTP 400") for row in failed)


def test_rows_that_a_server_refused_are_asked_for_again(server, seeds, tmp_path):
    seeds.to_parquet(tmp_path / "seeds.parquet")
    rows = hf_evol.load_seeds(str(tmp_path / "seeds.parquet"))  # not in memory, so that maps are cached
    evolve = hf_evol.EvolInstruct(engine_for(server), journal=tmp_path / "j.sqlite")
    steps = (evolve, hf_evol.Eliminate(keep=True), hf_evol.Respond(engine_for(server), journal=tmp_path / "j.sqlite"))

    def run():
        result = rows
        for step in steps:
            result = hf_evol.map(result, step)
        return result

    server.fault = lambda prompt, attempt: 400 if drawn(prompt) < 0.5 and prompt != "Hello" else None
    first = run()
    failed = sum(status.startswith("engine_error") for status in first["evol_status"])
    assert 0 < failed < len(rows)
    server.fault = lambda prompt, attempt: None
    asked = len(server.requests)
    second = run()
    assert set(second["evol_status"]) == set(second["response_status"]) == {"ok"}
    assert len(server.requests) - asked <= 2 * len(rows) - 2 * (len(rows) - failed) + len(rows)
    asked = len(server.requests)
    assert run()["output"] == second["output"] and len(server.requests) == asked  # from the journal


def test_a_map_with_a_wrong_key_ends_before_the_first_row(server, seeds):
    server.fault = lambda prompt, attempt: 401
    with pytest.raises(ModelError, match="401"):
        hf_evol.map(seeds, hf_evol.EvolInstruct(engine_for(server), journal=False))
    assert server.prompts == ["Hello"]


def test_worker_processes_give_the_same_rows(server, seeds, key):
    transform = hf_evol.EvolInstruct(engine_for(server, api_key_env=key), journal=False)
    evolved = hf_evol.map(seeds, transform, num_proc=2)
    assert evolved["instruction"] == expected_rows(transform, seeds)
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}


def test_the_engine_pickles_and_hashes_whatever_the_key(key, monkeypatch):
    engine = EndpointEngine("tiny", "http://127.0.0.1:1/v1", api_key_env=key)
    again = pickle.loads(pickle.dumps(engine))
    assert again == engine and hash(again) == hash(engine)
    here = Hasher.hash(engine)
    monkeypatch.setenv(key, "another key")
    assert Hasher.hash(engine) == here
    assert Hasher.hash(EndpointEngine("other", "http://127.0.0.1:1/v1", api_key_env=key)) != here


@pytest.fixture(scope="module")
def served(tiny_model, tmp_path_factory):
    """The address of `transformers serve` with the tiny model."""
    for module in ("fastapi", "uvicorn", "openai", "accelerate"):
        pytest.importorskip(module, reason="needs transformers[serving]")
    folder, port = tmp_path_factory.mktemp("serve"), unused_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", tiny_model]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def wait_for(url, process, log, longest_s=60):
    end = time.monotonic() + longest_s
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"transformers serve does not answer: {log.read_text()[-2000:]}")


def test_transformers_serve_gives_the_texts_of_the_transformers_engine(served, tiny_model, waits):
    greedy = SamplingParams(temperature=0.0, top_p=1.0, max_new_tokens=20)
    texts = ["write a poem", "list three facts about the sea", "why", "sort numbers " * 12, "how many {x}"]
    engine = EndpointEngine(tiny_model, served, timeout_s=60)
    engine.check()
    there = ask(engine, texts, greedy)
    here = ask(TransformersEngine(ModelSpec(tiny_model, device="cpu", dtype="float32")), texts, greedy)
    assert [c.error for c in there] == [None] * 5
    assert [c.text for c in there] == [c.text for c in here] and len({c.text for c in there}) == 5
    assert [c.n_prompt_tokens for c in there] == [c.n_prompt_tokens for c in here]
    assert [c.finish_reason for c in there] == [c.finish_reason for c in here]


def test_transformers_serve_has_no_other_model(served, waits):
    with pytest.raises(ModelError, match=f"'no-such-model' does not answer at {served}: .*400.*pinned to"):
        EndpointEngine("no-such-model", served, timeout_s=60).check()
    assert waits == []


def test_a_run_through_an_endpoint(server, tmp_path, tiny_model):
    """The whole job, with a scorer that is loaded here; no path of the server or of this machine is in the card."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Name a river.", "input": "", "output": "The Nile."}\n' * 3)
    recipe = hf_evol.Recipe(
        dataset=str(rows), rounds=1, engine="endpoint", base_url=server.url, model="/srv/secret/served", scorer=tiny_model,
        output=str(tmp_path / "set"), journal=str(tmp_path / "journal"),
    )  # fmt: skip
    result = hf_evol.run(recipe)
    assert result.provenance["models"][0]["name"] == "served"
    assert sum(entry["rows_in"] for entry in result.provenance["rounds"]) == 3
    written = (tmp_path / "set" / "README.md").read_text() + (tmp_path / "set" / "provenance.json").read_text()
    assert "/srv/secret" not in written and server.url not in written
    with pytest.raises(ConfigError, match="no losses to score by"):
        hf_evol.run(dataclasses.replace(recipe, scorer=None, output=str(tmp_path / "other")))


def test_the_card_says_what_the_server_did_otherwise(server, tmp_path, tiny_model):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Name a river.", "input": "", "output": "The Nile."}\n')
    recipe = hf_evol.Recipe(
        dataset=str(rows), engine="endpoint", base_url=server.url, model="tiny", scorer=tiny_model, temperature=0.7,
        output=str(tmp_path / "set"), journal=False,
    )  # fmt: skip
    note = "Two seeds gave the same text at temperature 1, so its texts are greedy, whatever the temperature."
    assert [model["note"] for model in hf_evol.run(recipe).provenance["models"]] == [note, note, None]
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"The server of the evolver did not do all that the settings say. {note}\n" in card
