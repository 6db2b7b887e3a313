"""The same set as without datatrove, whatever the number of tasks, and after anything that goes wrong."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from shard_files import files_of

from hf_evol.cluster import Execution, run
from hf_evol.cluster.run import _plan
from hf_evol.errors import ConfigError, OutputError, TaskError
from hf_evol.evolve.respond import Respond
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.run.pipeline import read_seeds
from hf_evol.run.stages import Stages
from hf_evol.scoring.ic_ifd import IcIfd


@pytest.mark.parametrize("tasks", [1, 20])
def test_the_number_of_tasks_changes_nothing(recipe, plain, within, tasks):
    result = run(recipe, Execution(tasks=tasks))
    assert files_of(Path(recipe.output)) == plain
    assert result.provenance["n_seeds"] == 12
    assert not Path(recipe.output + ".work").exists()


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


def test_a_full_disk(recipe, plain, within, monkeypatch):
    fsync, calls = os.fsync, []

    def failing(file):
        calls.append(file)
        if len(calls) in (6, 11):  # the first three are the seeds'
            raise OSError(errno.ENOSPC, "the disk is full")
        fsync(file)

    with monkeypatch.context() as patch, pytest.raises(TaskError, match="the disk is full"):
        patch.setattr(os, "fsync", failing)
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
    s3fs.S3FileSystem.clear_instance_cache()  # of those that try longer
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
    assert before and all(key.endswith("-5") for _, key in asked[before:])  # too long for the model
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
    with pytest.raises(OutputError, match="differs in seeds"):
        run(replace(recipe, dataset=str(other)), Execution(tasks=2))


def test_a_plan_knows_other_weights_of_each_model(recipe, monkeypatch):
    recipe = replace(recipe, back_translate=2, constrainer=recipe.model)
    stages, seeds = Stages.of(recipe), read_seeds(recipe)
    plan = _plan(recipe, stages, seeds, 2)
    for kind in map(type, stages.transforms):
        with monkeypatch.context() as patch:
            patch.setattr(kind, "identity", lambda self: "other weights")
            other = _plan(recipe, stages, seeds, 2)
        assert [name for name in plan if plan[name] != other[name]] == ["models"], kind


def test_wrong_settings_are_told_before_anything_is_done(recipe, tmp_path):
    with pytest.raises(ConfigError, match="executor must be local, slurm"):
        Execution("spark")
    with pytest.raises(ConfigError, match="tasks must be 1 or more"):
        Execution(tasks=0)
    with pytest.raises(ConfigError, match=r"Options of the local executor: .*'foo'"):
        Execution(options={"foo": 1})
    with pytest.raises(ConfigError, match=r"Options of the slurm executor: .*'time'"):
        Execution("slurm")
    with pytest.raises(ConfigError, match=r"would be a commit.*--work-folder"):
        Execution().folder("hf://datasets/user/set")
    with pytest.raises(ConfigError, match="hf://buckets/user/bucket"):
        Execution(work_folder="hf://datasets/user/work").folder(str(tmp_path / "set"))
    with pytest.raises(ConfigError, match="can't reach this machine"):
        Execution("jobs").folder(str(tmp_path / "set"))
    with pytest.raises(ConfigError, match="select_by"):
        run(replace(recipe, select_by="text"), Execution(tasks=2))
    assert not list(tmp_path.iterdir())
