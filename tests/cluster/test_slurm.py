"""What is handed to Slurm, and what its jobs do."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import dill
import pytest
from chat_server import ChatServer
from loguru import logger
from shard_files import files_of

from hf_evol.cluster import Execution, run, steps
from hf_evol.cluster.folder import WorkFolder
from hf_evol.errors import ConfigError, OutputError, SourceError, TaskError
from hf_evol.generation import endpoint
from hf_evol.generation.base import Completion
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models.record import describe

OPTIONS = {
    "partition": "gpu",
    "time": "24:00:00",
    "gpus_per_task": 1,
    "mem_per_cpu_gb": 8,
    "sbatch_args": {"account": "us"},
}


def submitted(folder):
    """Of each job: its script, and its options."""
    scripts = sorted(folder.glob("*.slurm"), key=lambda path: int(path.stem))
    return {path.stem: (path.read_text(), path.with_suffix(".options").read_text()) for path in scripts}


def test_tasks_and_the_last_step_are_submitted_and_give_the_set(slurm, recipe, plain, tmp_path):
    execution = Execution("slurm", tasks=4, workers=2, options=OPTIONS)
    notes: list[str] = []
    sink = logger.add(notes.append)
    ids = run(recipe, execution)
    logger.remove(sink)
    assert not notes  # of datatrove: the terminal is ours
    jobs = submitted(slurm)
    scripts = of_tasks(jobs)
    assert len(ids) == len(scripts) == 2 and set(ids) <= set(jobs)
    for place, (script, options) in enumerate(scripts):
        lines = script.splitlines()
        for line in ("partition=gpu", "time=24:00:00", "mem-per-cpu=8G", "account=us", "kill-on-invalid-dep=yes"):
            assert f"#SBATCH --{line}" in lines
        assert ("#SBATCH --gpus=1" in lines) == (place == 0)  # the last step needs none
        assert f"#SBATCH --array={'0-0%1' if place else '0-1%2'}" in lines  # each runs half of the tasks
        assert f"export PATH={Path(sys.executable).parent}:$PATH" in lines
        assert ("--dependency=afterok:" + ids[0] in options) == (place == 1)
    (tmp_path / "queue").write_text("1 PENDING")
    with pytest.raises(OutputError, match=re.escape(f"jobs {ids}")):
        run(recipe, execution)
    (tmp_path / "queue").unlink()
    execute(scripts)
    assert files_of(Path(recipe.output)) == plain
    left = {path.relative_to(recipe.output + ".work").parts[0] for path in Path(recipe.output + ".work").rglob("*")}
    assert left == {"logs", "plan.json"}  # which says that the run has ended


def test_the_last_step_knows_what_was_found_of_a_server(slurm, recipe, monkeypatch):
    """Which may be gone by then."""
    with ChatServer() as server:
        own = {"engine": "endpoint", "name": "tiny", "base_url": server.url}
        run(replace(recipe, responder=own, response_temperature=0.7), Execution("slurm", tasks=2, options=OPTIONS))
    endpoint._known.clear()  # as in a process of its own
    found = []
    monkeypatch.setattr(steps, "conclude", lambda recipe, stages, *_: found.append(stages.models["responder"]) or 1 / 0)
    monkeypatch.setattr(WorkFolder, "load_shards", lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        run_job(of_tasks(submitted(slurm))[1][0], 0)
    assert "greedy" in describe("responder", *found).note


def of_tasks(jobs):
    """The jobs that do tasks: datatrove submits others, which merge its statistics."""
    return [(script, options) for script, options in jobs.values() if "launch_pickled_pipeline" in script]


def execute(scripts):
    """Do in one process what the jobs would do on their nodes."""
    for place, (script, _) in enumerate(scripts):
        for number in range(1 if place else 2):
            run_job(script, number)


def run_job(script, number):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        patch.setenv("SLURM_NODELIST", "node-1")
        dill.loads(Path(script.rpartition("launch_pickled_pipeline ")[2].strip()).read_bytes()).run()


def test_requests_that_failed_are_asked_again_by_the_next_run_and_no_others(slurm, recipe, plain, monkeypatch):
    stream, answered, asked = TransformersEngine.stream, set(), set()

    def refusing(self, chats, params, keys):
        """Answers all but the first request of each batch."""
        for finished in stream(self, chats, params, keys):
            given = [
                (place, done if place else Completion("", "error", error="engine_error: down"))
                for place, done in finished
            ]
            answered.update((str(chats[place]), keys[place]) for place, done in given if not done.error)
            yield given

    def noted(self, chats, params, keys):
        asked.update(zip(map(str, chats), keys, strict=True))
        return stream(self, chats, params, keys)

    execution = Execution("slurm", tasks=4, workers=2, options=OPTIONS)
    monkeypatch.setattr(TransformersEngine, "stream", refusing)
    run(recipe, execution)
    execute(of_tasks(submitted(slurm)))
    assert {path.name for path in Path(recipe.output + ".work").iterdir()} == {"logs", "journals", "plan.json"}
    monkeypatch.setattr(TransformersEngine, "stream", noted)
    run(replace(recipe, overwrite=True), execution)
    execute(of_tasks(submitted(slurm))[2:])
    again = {
        key for chat, key in answered & asked if key != "greedy"
    }  # a text may come up in another round, to be answered there
    assert answered and asked and not again
    assert files_of(Path(recipe.output)) == plain
    assert {path.name for path in Path(recipe.output + ".work").iterdir()} == {"logs", "plan.json"}


def test_only_what_is_missing_is_submitted_again_and_shared_out_evenly(slurm, recipe):
    execution = Execution("slurm", tasks=4, workers=2, options=OPTIONS)
    run(recipe, execution)
    marks = Path(recipe.output + ".work", "logs", "shards", "completions")
    marks.mkdir(parents=True)
    for rank in (2, 3):
        (marks / f"{rank:05d}").touch()
    before = len(submitted(slurm))
    assert len(run(recipe, execution)) == 2
    script, _ = list(submitted(slurm).values())[before]
    assert "hf-evol-shards" in script and "#SBATCH --array=0-1%2" in script.splitlines()  # one task for each worker
    assert json.loads((marks.parent / "ranks_to_run.json").read_text()) == [0, 1]
    for rank in (0, 1):
        (marks / f"{rank:05d}").touch()
    before = len(submitted(slurm))
    assert len(run(recipe, execution)) == 1
    script, options = list(submitted(slurm).values())[before]
    assert "hf-evol-finish" in script and "--dependency" not in options


def test_a_job_that_is_refused_leaves_those_before_it_known(slurm, recipe, tmp_path):
    (slurm / "limit").write_text("2")  # the tasks, and datatrove's statistics of them
    execution = Execution("slurm", tasks=2, workers=2, options=OPTIONS)
    with pytest.raises(TaskError, match=r"sbatch refused a job \(exit status 1\)"):
        run(recipe, execution)
    (slurm / "limit").unlink()
    (tmp_path / "queue").write_text("1 PENDING")
    with pytest.raises(OutputError, match=r"jobs \['1'\]"):
        run(recipe, execution)
    (tmp_path / "queue").unlink()
    assert len(run(recipe, execution)) == 2


def test_the_submitted_script_runs_and_the_end_says_which_shards_are_missing(slurm, recipe):
    """The script itself, by a shell, for the two tasks of a job."""
    recipe = replace(recipe, rounds=1)
    run(recipe, Execution("slurm", tasks=4, workers=2, options=OPTIONS))
    work = Path(recipe.output + ".work")
    script = slurm / "1.slurm"
    env = os.environ | {"SLURM_ARRAY_TASK_ID": "1", "SLURM_NODELIST": "node-1", "RUN_OFFSET": "0"}
    done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    made = ["00002", "00003"]
    assert sorted(path.stem for path in (work / "rows").iterdir()) == made
    assert sorted(path.name for path in (work / "logs" / "shards" / "completions").iterdir()) == made
    assert {path.stem for path in (work / "journals").glob("*.sqlite")} == set(made)
    assert not Path(recipe.journal).exists()
    with pytest.raises(SourceError, match=r"rows/00000.arrow is missing"):
        run_job(of_tasks(submitted(slurm))[1][0], 0)
    assert not Path(recipe.output).exists()


def test_a_folder_that_scripts_can_not_name_is_refused(slurm, recipe, tmp_path):
    with pytest.raises(ConfigError, match="scripts for Slurm can't name it"):
        run(replace(recipe, output=str(tmp_path / "Tom's work" / "set")), Execution("slurm", options=OPTIONS))


def test_jobs_are_submitted_from_within_a_job(slurm, recipe, monkeypatch):
    inside = {
        "SLURM_JOB_ID": "7",
        "SLURM_MEM_PER_NODE": "1024",
        "SLURM_ARRAY_TASK_ID": "0",
        "SLURM_CONF": "/etc/own.conf",
    }
    for name, value in inside.items():
        monkeypatch.setenv(name, value)
    assert len(run(recipe, Execution("slurm", tasks=2, workers=2, options=OPTIONS))) == 2
    given = json.loads((slurm / "1.env").read_text())
    assert {name: given[name] for name in given if name.startswith("SLURM_")} == {"SLURM_CONF": "/etc/own.conf"}
    assert {name: os.environ[name] for name in inside} == inside


def test_without_slurm(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no sbatch here"):
        Execution("slurm", options=OPTIONS)


@pytest.fixture
def partition():
    """A partition of the Slurm cluster that this machine belongs to."""
    command = ["sinfo", "--noheader", "--states=idle,mixed", "--format=%R"]
    known = subprocess.run(command, capture_output=True, text=True) if shutil.which("sinfo") else None
    if known is None or known.returncode or not known.stdout.strip():
        pytest.skip("needs a Slurm cluster")
    return known.stdout.split()[0]


@pytest.mark.slow
def test_a_real_cluster_gives_the_same_set(recipe, plain, partition):
    """On several nodes give pytest a ``--basetemp`` that they share."""
    options = {"partition": partition, "time": "00:10:00"}
    execution = Execution("slurm", tasks=4, workers=2, options=options)
    jobs = run(recipe, execution)
    subprocess.run(["scancel", jobs[0] + "_1"], check=True)
    with pytest.raises(OutputError, match="Another launcher"):
        run(recipe, execution)
    assert wait_for(jobs) == ""  # what depended on it has gone, too
    assert not Path(recipe.output).exists()
    again = run(recipe, execution)
    assert wait_for(again) == ""
    assert files_of(Path(recipe.output)) == plain
    assert [path.name for path in Path(recipe.output + ".work").iterdir()] == ["logs", "plan.json"]


def wait_for(jobs, seconds=300):
    """Wait for the end of jobs; what is in the queue then."""
    deadline = time.monotonic() + seconds
    while True:
        queue = subprocess.run(["squeue", "--noheader", "--jobs", ",".join(jobs)], capture_output=True, text=True)
        if not queue.stdout.strip() or time.monotonic() > deadline:
            return queue.stdout.strip()
        time.sleep(1)
