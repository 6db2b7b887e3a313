"""The same set as without datatrove, whatever the number of tasks, and after anything that goes wrong."""

import contextlib
import errno
import os
import signal
import sqlite3
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from shard_files import files_of

from hf_evol.cluster import Execution, run
from hf_evol.errors import ConfigError, OutputError, TaskError
from hf_evol.evolve.respond import Respond
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.scoring.ic_ifd import IcIfd


@pytest.mark.parametrize("tasks", [1, 2, 20])
def test_the_number_of_tasks_changes_nothing(recipe, plain, within, tasks):
    result = run(recipe, Execution(tasks=tasks))
    assert files_of(Path(recipe.output)) == plain
    assert result.provenance["n_seeds"] == 12
    assert not Path(recipe.output + ".work").exists()


def test_worker_processes_change_nothing(recipe, plain):
    run(recipe, Execution(tasks=4, workers=2))
    assert files_of(Path(recipe.output)) == plain


def test_a_task_that_raises_leaves_the_others_and_is_done_anew(recipe, plain, within, monkeypatch):
    apply, batches = Respond.apply, []

    def noted(self, batch):
        batches.append(batch["id"])
        if len(batches) == 2:
            raise RuntimeError("no more")
        return apply(self, batch)

    monkeypatch.setattr(Respond, "apply", noted)
    with pytest.raises(TaskError, match=r"1 of 4 tasks are not completed.*RuntimeError: no more"):
        run(recipe, Execution(tasks=4))
    done, failed = len(batches), batches[1]
    assert not Path(recipe.output).exists()
    run(recipe, Execution(tasks=4))
    again = [row for batch in batches[done:] for row in batch]
    assert set(failed) <= set(again) and len(set(again)) == 3  # the rows of that task
    assert files_of(Path(recipe.output)) == plain


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk(recipe, plain, within, monkeypatch, code):
    import pyarrow.parquet as pq

    write, calls = pq.ParquetWriter.write_table, []

    def failing(self, table, *args, **kwargs):
        calls.append(table)
        if len(calls) in (6, 11):  # the first three are the seeds'
            raise OSError(code, os.strerror(code))
        return write(self, table, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(TaskError, match=os.strerror(code)):
        patch.setattr(pq.ParquetWriter, "write_table", failing)
        run(recipe, Execution(tasks=3))
    left = [path.name for path in Path(recipe.output + ".work").rglob("*.part")]
    assert not left
    run(recipe, Execution(tasks=3))
    assert files_of(Path(recipe.output)) == plain


@pytest.fixture
def refusals(s3_server, monkeypatch):
    """Parts of paths to which the S3 server answers 503 when something is to be uploaded there."""
    answer, parts = s3_server._server.app, []

    def refusing(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT" and any(part in environ["PATH_INFO"] for part in parts):
            length = environ.get("CONTENT_LENGTH")  # without one, the body is chunked and ends by itself
            environ["wsgi.input"].read(int(length) if length else -1)
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        return answer(environ, start_response)

    monkeypatch.setattr(s3_server._server, "app", refusing)
    return parts


def test_an_object_store_that_is_unavailable(recipe, plain, within, bucket, refusals, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    execution = Execution(tasks=2, work_folder=f"{bucket}/work")
    refusals.append("work/rows/00001")
    with pytest.raises(TaskError, match=r"1 of 2 tasks .*reduce your request rate"):
        run(recipe, execution)
    refusals.clear()
    run(recipe, execution)
    assert files_of(Path(recipe.output)) == plain
    s3fs.S3FileSystem.clear_instance_cache()
    assert not s3fs.S3FileSystem().find(f"{bucket}/work")


def test_a_second_call_asks_for_nothing_twice(recipe, plain, within, monkeypatch):
    """The journal knows what a task had finished before it failed."""
    score, stream, asked = IcIfd.apply, TransformersEngine.stream, []

    def noted(self, chats, params, keys):
        asked.extend(zip(map(str, chats), keys, strict=True))
        return stream(self, chats, params, keys)

    monkeypatch.setattr(TransformersEngine, "stream", noted)
    monkeypatch.setattr(IcIfd, "apply", lambda self, batch: 1 / 0)
    with pytest.raises(TaskError, match=r"2 of 2 tasks .*ZeroDivisionError"):
        run(recipe, Execution(tasks=2))
    monkeypatch.setattr(IcIfd, "apply", score)
    before = len(asked)
    run(recipe, Execution(tasks=2))
    assert before and all(key.endswith("alpaca-5") for _, key in asked[before:])  # too long for the model
    assert files_of(Path(recipe.output)) == plain


def requests_in(file):
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT COUNT(*) FROM requests").fetchall()[0][0]
    return 0


def test_a_killed_run_goes_on(recipe, command, plain):
    command = [*command, "--executor", "local", "--tasks", "4", "--workers", "2"]
    for victim, code, requests in (("worker", 1, 4), ("launcher", -signal.SIGKILL, 24)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 100
        while requests_in(recipe.journal) < requests and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        children = psutil.Process(process.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        os.kill(workers[0].pid if victim == "worker" else process.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert ("The same command does what is missing" in errors) == (victim == "worker")
        assert not psutil.wait_procs(workers, timeout=20)[1]  # none is left behind
        assert not Path(recipe.output).exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert files_of(Path(recipe.output)) == plain


def test_another_recipe_does_not_take_over_the_shards(recipe, within, monkeypatch):
    monkeypatch.setattr(IcIfd, "apply", lambda self, batch: 1 / 0)
    with pytest.raises(TaskError):
        run(recipe, Execution(tasks=2))
    with pytest.raises(OutputError, match="differs in seed"):
        run(replace(recipe, seed=1), Execution(tasks=2))
    with pytest.raises(OutputError, match="differs in tasks"):
        run(recipe, Execution(tasks=3))
    with Path(recipe.dataset).open() as file:
        other = Path(recipe.output).with_name("rows.jsonl")
        other.write_text(file.read().replace("So.", "No."))
    with pytest.raises(OutputError, match="differs in dataset, seeds"):
        run(replace(recipe, dataset=str(other)), Execution(tasks=2))


def test_wrong_settings_are_told_before_anything_is_done(recipe, tmp_path):
    with pytest.raises(ConfigError, match="executor must be local, slurm"):
        Execution("spark")
    with pytest.raises(ConfigError, match="tasks must be 1 or more"):
        Execution(tasks=0)
    with pytest.raises(ConfigError, match=r"Unknown option of the local executor: foo"):
        Execution(options={"foo": 1})
    with pytest.raises(ConfigError, match=r"slurm executor needs time, partition"):
        Execution("slurm")
    with pytest.raises(ConfigError, match="--work-folder"):
        Execution().folder("hf://datasets/user/set")
    with pytest.raises(ConfigError, match="a bucket"):
        Execution(work_folder="hf://datasets/user/work").folder(str(tmp_path / "set"))
    with pytest.raises(ConfigError, match="can't reach the local work folder"):
        Execution("jobs").folder(str(tmp_path / "set"))
    with pytest.raises(ConfigError, match="select_by"):
        run(replace(recipe, select_by="text"), Execution(tasks=2))
    assert not list(tmp_path.iterdir())
