"""What is handed to Slurm and HF Jobs, and what happens there."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dill
import huggingface_hub
import pytest
from loguru import logger
from shard_files import files_of

from hf_evol import __version__
from hf_evol.cluster import Execution, executors, run
from hf_evol.errors import ConfigError, OutputError

SBATCH = """#!{python}
# Notes the script and its options, and gives a job id.
import os, shutil, sys
from pathlib import Path

folder = Path({folder!r})
number = len(list(folder.glob("*.slurm"))) + 1
shutil.copy(sys.argv[-1], folder / f"{{number}}.slurm")
(folder / f"{{number}}.options").write_text(" ".join(sys.argv[1:-1]))
print("Submitted batch job", number)
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands, which note what they are given; gives the folder of the notes."""
    commands, folder = tmp_path / "bin", tmp_path / "submitted"
    commands.mkdir()
    folder.mkdir()
    scripts = {
        "sbatch": SBATCH.format(python=sys.executable, folder=str(folder)),
        "squeue": f"#!/bin/sh\ncat {tmp_path}/queue 2>/dev/null; exit 0\n",
        "scontrol": "#!/bin/sh\necho node-1\n",
        "srun": '#!/bin/sh\nwhile [ "$1" != launch_pickled_pipeline ]; do shift; done\nexec "$@"\n',
        "launch_pickled_pipeline": f'#!/bin/sh\nexec {sys.executable} -m datatrove.tools.launch_pickled_pipeline "$@"\n',
    }
    for name, text in scripts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    return folder


OPTIONS = {
    "partition": "gpu",
    "time": "24:00:00",
    "gpus_per_task": 1,
    "mem_per_cpu_gb": 8,
    "sbatch_args": {"account": "us"},
}


def submitted(folder):
    """Of each job: its script, its options, and the command that it ends with, but for those that merge statistics."""
    jobs = {}
    for script in sorted(folder.glob("*.slurm"), key=lambda path: int(path.stem)):
        text = script.read_text()
        if "merge_stats" not in text:
            jobs[script.stem] = (text, script.with_suffix(".options").read_text())
    return jobs


def test_a_chain_is_submitted_to_slurm_and_gives_the_set(slurm, recipe, plain, tmp_path):
    execution = Execution("slurm", tasks=4, workers=2, options=OPTIONS)
    notes = []
    sink = logger.add(notes.append)
    ids = run(recipe, execution)
    logger.remove(sink)
    assert not notes  # of datatrove: the terminal is ours
    jobs = submitted(slurm)
    assert ids == list(jobs) and len(ids) == 4
    for place, (script, options) in enumerate(jobs.values()):
        lines = script.splitlines()
        for line in ("partition=gpu", "time=24:00:00", "mem-per-cpu=8G", "account=us"):
            assert f"#SBATCH --{line}" in lines
        assert ("#SBATCH --gpus=1" in lines) == (place < 3)  # the last step needs none
        assert f"#SBATCH --array={'0-0%1' if place == 3 else '0-1%2'}" in lines  # each runs half of the tasks
        assert f'export PATH="{Path(sys.executable).parent}:$PATH"' in lines
        assert ("--dependency=afterok:" + ids[place - 1] in options) == (place > 0)
    (tmp_path / "queue").write_text("1 PENDING")
    with pytest.raises(OutputError, match=f"jobs {', '.join(ids)}"):
        run(recipe, execution)
    (tmp_path / "queue").unlink()
    execute(jobs)
    assert files_of(Path(recipe.output)) == plain
    left = {path.relative_to(recipe.output + ".work").parts[0] for path in Path(recipe.output + ".work").rglob("*")}
    assert left == {"logs"}


def execute(jobs):
    """Do in one process what the jobs would do on their nodes."""
    for place, (script, _) in enumerate(jobs.values()):
        pickled = script.rpartition("launch_pickled_pipeline ")[2].strip()
        for number in range(1 if place == 3 else 2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SLURM_ARRAY_TASK_ID", str(number))
                patch.setenv("SLURM_NODELIST", "node-1")
                dill.loads(Path(pickled).read_bytes()).run()


def test_only_what_is_missing_is_submitted_again(slurm, recipe):
    execution = Execution("slurm", tasks=4, workers=2, options=OPTIONS)
    run(recipe, execution)
    for rank in range(4):
        mark = Path(recipe.output + ".work", "logs", "evolve", "completions", f"{rank:05d}")
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    assert len(run(recipe, execution)) == 3
    new = list(submitted(slurm).values())[4:]
    assert "hf-evol-respond" in new[0][0] and "--dependency" not in new[0][1]


def test_the_submitted_script_runs(slurm, recipe):
    """The script itself, by a shell, for one task."""
    run(replace(recipe, rounds=1), Execution("slurm", tasks=4, workers=4, options=OPTIONS))
    script = slurm / f"{next(iter(submitted(slurm)))}.slurm"
    env = os.environ | {"SLURM_ARRAY_TASK_ID": "1", "SLURM_NODELIST": "node-1", "RUN_OFFSET": "0"}
    done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    work = Path(recipe.output + ".work")
    assert [path.name for path in (work / "evolved").iterdir()] == ["00001.parquet"]
    assert [path.name for path in (work / "logs" / "evolve" / "completions").iterdir()] == ["00001"]
    assert (work / "journals" / "00001.sqlite").exists() and not Path(recipe.journal).exists()


def test_jobs_get_a_pickled_pipeline_and_all_they_need(recipe, bucket, monkeypatch):
    calls, stages = [], {}

    class Job:
        url = "https://huggingface.co/jobs/user/1"

        def __init__(self, number):
            self.id = f"job-{number}"

    def submit(script, **options):
        calls.append((script, options))
        return Job(len(calls))

    def inspect(job_id, **_):
        """The job has ended; its tasks are done here, as there."""
        if job_id not in stages:
            _, options = calls[int(job_id.rpartition("-")[2]) - 1]
            import fsspec

            with pytest.MonkeyPatch.context() as patch, fsspec.open(options["script_args"][0], "rb") as file:
                patch.setenv("DATATROVE_JOB_ARRAY_INDEX", options["env"]["DATATROVE_JOB_ARRAY_INDEX"])
                dill.load(file).run()
            stages[job_id] = "COMPLETED"
        status = type("Status", (), {"stage": stages[job_id]})
        return type("Info", (), {"status": status})

    monkeypatch.setattr(huggingface_hub, "run_uv_job", submit)
    monkeypatch.setattr(huggingface_hub, "inspect_job", inspect)
    options = {"flavor": "a10g-small", "timeout": "6h", "poll_interval": 0, "token": "hf_secret", "namespace": "us"}
    execution = Execution("jobs", tasks=4, workers=2, options=options, work_folder=f"{bucket}/work")
    result = run(recipe, execution)
    assert result.provenance["n_seeds"] == 12 and (Path(recipe.output) / "README.md").exists()
    assert len(calls) == 6  # three stages of two jobs, each with half of the tasks
    for script, given in calls:
        assert script.endswith("launch_pickled_pipeline.py") and given["script_args"][0].startswith(
            f"{bucket}/work/logs/"
        )
        assert given["dependencies"] == [f"hf_evol[cluster]=={__version__}"]
        assert given["flavor"] == "a10g-small" and given["timeout"] == "6h" and given["namespace"] == "us"
        assert given["secrets"] == {"HF_TOKEN": "hf_secret"} and "hf_secret" not in str(given["env"])


def test_ray_is_an_extra(monkeypatch):
    from hf_evol import errors

    monkeypatch.setattr(executors, "require_extra", lambda *_: (_ for _ in ()).throw(errors.MissingExtraError("ray")))
    with pytest.raises(errors.MissingExtraError, match="ray"):
        Execution("ray")


def test_ray_options_that_our_workers_can_not_keep_are_refused(monkeypatch):
    monkeypatch.setattr(executors, "require_extra", lambda *_: None)
    Execution("ray", options={"gpus_per_task": 1, "time": 3600, "ray_remote_kwargs": {"resources": {"fast": 1}}})
    for name in ("nodes_per_task", "tasks_per_job", "log_first"):
        with pytest.raises(
            ConfigError, match=rf"Unknown option of the ray executor: {name}\. Options: .*gpus_per_task"
        ):
            Execution("ray", options={name: 2})
