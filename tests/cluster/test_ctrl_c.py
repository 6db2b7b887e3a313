"""Ctrl-C in a terminal, and a task that fails, as the user sees them: what is told, what is left, and how it goes on."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from shard_files import files_of

INTERRUPTED = "\nInterrupted. Finished requests are in the journal: the same command goes on from there.\n"


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_an_interrupted_and_a_failing_run_go_on(kind, recipe, command, plain, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if kind == "ray":
        pytest.importorskip("ray")
    command = [*command, "--executor", kind, "--tasks", "4", "--workers", "2"]
    work = Path(recipe.output + ".work")

    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 100
    while not list(work.glob("rows/*.parquet")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.02)
    processes = psutil.Process(first.pid).children(recursive=True)
    assert processes
    os.killpg(first.pid, signal.SIGINT)  # to all of its processes, as a terminal does
    _, told = first.communicate(timeout=30)
    assert first.returncode == 130 and told == INTERRUPTED
    assert not psutil.wait_procs(processes, timeout=20)[1]
    assert not (work / "lock.json").exists() and not Path(recipe.output).exists()

    shard = work / "seeds" / "00003.parquet"
    good = shard.read_bytes()
    shard.write_bytes(b"PAR1")
    failing = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert failing.returncode == 1 and failing.stdout == f"{recipe.dataset}: evolving with wide\n"
    assert failing.stderr.startswith("Error: 1 of 4 tasks are not completed. The first: ArrowInvalid")
    assert failing.stderr.count("\n") == 1 and f"Logs: {work}/logs/shards/logs." in failing.stderr
    log = (work / "logs" / "shards" / "logs" / "task_00003.log").read_text()
    assert "Traceback (most recent call last)" in log and "ArrowInvalid" in log

    shard.write_bytes(good)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and not again.stderr
    assert files_of(Path(recipe.output)) == plain and not work.exists()
