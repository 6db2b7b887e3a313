"""Kills, Ctrl-C in a terminal, and a task that fails, as the user sees them: what is told, what is left, and how it goes on."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from shard_files import files_of

READING = "11 of 12 rows can be read; of the others: no_instruction 1.\n"  # of the seeds, one has no text
INTERRUPTED = "\nInterrupted. Finished requests are in the journal: the same command goes on from there.\n"


def requests_in(file):
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT COUNT(*) FROM requests").fetchall()[0][0]
    return 0


@contextlib.contextmanager
def started(command, moment):
    """The command, started and at a moment; whoever works for it must have ended when the block does."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 100
    while not moment() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    processes = psutil.Process(process.pid).children(recursive=True)
    assert processes
    yield process, processes
    assert not psutil.wait_procs(processes, timeout=20)[1]


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_killed_an_interrupted_and_a_failing_run_go_on(kind, recipe, command, plain, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if kind == "ray":
        pytest.importorskip("ray")
    command = [*command, "--executor", kind, "--tasks", "4", "--workers", "2"]
    work = Path(recipe.output + ".work")

    def killed(victim, requests):
        with started(command, lambda: requests_in(recipe.journal) >= requests) as (process, processes):
            workers = [child for child in processes if "spawn_main" in " ".join(child.cmdline())]
            assert len(workers) == 2
            os.kill(workers[0].pid if victim == "worker" else process.pid, signal.SIGKILL)
            _, told = process.communicate(timeout=60)
        return process.returncode, told

    if kind == "local":
        code, told = killed("worker", 4)
        assert code == 1 and "\nError: 4 of 4 tasks are not completed. The first: BrokenProcessPool" in told
        assert "The same command does what is missing" in told and told.count("\n") == 2
        assert killed("launcher", 24)[0] == -signal.SIGKILL

    begun = time.time()
    with started(command, lambda: any(f.stat().st_mtime > begun for f in work.glob("logs/shards/logs/*"))) as (
        process,
        _,
    ):
        os.killpg(process.pid, signal.SIGINT)  # to all of its processes, as a terminal does
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and told == READING + INTERRUPTED
    assert not (work / "lock.json").exists() and not Path(recipe.output).exists()

    shard = work / "seeds" / "00003.arrow"
    good = shard.read_bytes()
    shard.write_bytes(b"PAR1")
    failing = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert failing.returncode == 1 and failing.stdout == f"{recipe.dataset}: evolving with wide\n"
    assert "\nError: 1 of 4 tasks are not completed. The first: ArrowInvalid" in failing.stderr
    assert failing.stderr.count("\n") == 2 and f"Logs: {work}/logs/shards/logs." in failing.stderr
    log = (work / "logs" / "shards" / "logs" / "task_00003.log").read_text()
    assert "Traceback (most recent call last)" in log and "ArrowInvalid" in log

    shard.write_bytes(good)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and again.stderr == READING
    assert files_of(Path(recipe.output)) == plain and not work.exists()
