"""``hf-evol self-instruct``: the set, its card, what follows in a chain, and a kill."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from datasets import load_dataset
from talkative import make_talkative

pytest.importorskip("rapidfuzz")
FEW = ["--requests", "16", "--per-round", "8", "--max-new-tokens", "16", "--temperature", "1"]


def test_a_set_its_card_and_the_commands_after_it(here, call, wide_model):
    code, said = call("self-instruct", "demo/general", "--model", wide_model, "-n", 5, *FEW, "--output", "new")
    assert code == 0 and "5 rows in new" in said and "It ended: 5 of 5 rows are kept" in said
    rows, rejected = (load_dataset("new", *name, split="train") for name in ((), ("rejected",)))
    assert len(rows) == 5 and set(rows["instruction_status"]) == {"ok"} and set(rows["input"]) == {""}
    assert len(rejected) and "ok" not in rejected["instruction_status"]
    record = json.loads((here / "new" / "provenance.json").read_text(encoding="utf-8"))
    own = record["stages"][0]
    assert (own["rows_in"], own["rows_out"]) == (len(rows) + len(rejected), 5)
    assert own["variety"]["rouge_l"]["n"] == 5 and own["settings"]["per_round"] == 8
    assert [model["role"] for model in record["models"]] == ["generator"]
    card = (here / "new" / "README.md").read_text(encoding="utf-8")
    assert "\n5 rows, made from demo/general by the command `hf-evol self-instruct`." in card
    assert "The instructions were made up, from those of the seed set, by **wide, a model of" in card
    assert "| self-instruct | instruction\\_status |" in card.replace("instruction_status", "instruction\\_status")
    assert "general, extended by wide" in card and "arXiv:2212.10560" in card
    assert "evolver" not in card and "What the generator wrote is unchecked" in card

    assert (
        call("respond", "--dataset", "new", "--model", wide_model, "--response-max-new-tokens", 8, "--output", "2")[0]
        == 0
    )
    assert call("evolve", "--dataset", "2", "--model", wide_model, "--max-new-tokens", 8, "--output", "3")[0] == 0
    record = json.loads((here / "3" / "provenance.json").read_text(encoding="utf-8"))
    assert [stage["stage"] for stage in record["stages"]] == ["self-instruct", "respond", "evolve"]
    evolved = load_dataset("3", split="train")
    assert evolved["id"] == rows["id"] and evolved["seed_instruction"] == rows["instruction"]


def test_too_few_rows_and_wrong_calls(here, call, wide_model):
    code, said = call("self-instruct", "demo/general", "--model", wide_model, "-n", 50, *FEW, "--output", "new")
    assert code == 1 and "of 50 rows are kept, of 16 requests." in said and (here / "new" / "README.md").exists()
    (here / "seeds.jsonl").write_text('{"instruction": "Sort it.", "input": "3, 1", "output": "1, 3"}\n')
    code, said = call("self-instruct", "seeds.jsonl", "--model", wide_model, "--output", "other")
    assert code == 2 and "None of the 1 seeds can be shown" in said and not (here / "other").exists()


def test_a_killed_run_goes_on(tmp_path, wide_model, monkeypatch):
    """No finished request is made again, and the files are those of a run that nothing ended."""
    make_talkative(monkeypatch, processes=True)
    options = ["demo/general", "--model", wide_model, "-n", "30", "--per-round", "8", "--requests", "24", "--overwrite"]
    options += ["--batch-size", "1", "--max-new-tokens", "32", "--temperature", "1"]

    def start(folder):
        names = {"HF_EVOL_CACHE": "cache", "HF_HOME": "home", "HF_DATASETS_CACHE": "datasets"}
        env = os.environ | {name: str(folder / part) for name, part in names.items()}
        command = [sys.executable, "-m", "hf_evol.cli.main", "self-instruct", *options, "--output", str(folder / "set")]
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def finished(folder):
        with contextlib.suppress(sqlite3.Error):
            file = f"file:{folder / 'cache' / 'journal.sqlite'}?mode=ro"
            with contextlib.closing(sqlite3.connect(file, uri=True)) as connection:
                return connection.execute("SELECT COUNT(*) FROM requests").fetchone()[0]
        return 0

    process, deadline = start(tmp_path), time.monotonic() + 100
    while finished(tmp_path) < 10 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL and 10 <= finished(tmp_path) < 24
    assert start(tmp_path).wait(timeout=200) == start(tmp_path / "whole").wait(timeout=200) == 1  # fewer than 30 rows
    assert finished(tmp_path) == finished(tmp_path / "whole") == 24
    whole = tmp_path / "whole" / "set"
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "set" / name).read_bytes() == (whole / name).read_bytes()
