"""Maps and studies on Slurm: the launcher stays until its jobs have ended."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_slurm import OPTIONS, execute, submitted

import hf_evol.cluster
from hf_evol.cluster import Execution
from hf_evol.cluster.work import WorkFolder
from hf_evol.errors import OutputError, TaskError
from hf_evol.models.journal import Journal
from hf_evol.scoring.ic_ifd import IcIfd


@pytest.fixture
def cluster(slurm, tmp_path, monkeypatch):
    """Jobs stay in the queue until the launcher sleeps; then a function that a test may replace does them."""

    class Cluster:
        def __init__(self):
            self.done, self.do, self.now = [], execute, 0

        def sleep(self, seconds):
            self.now += 100
            new = {number: job for number, job in submitted(slurm).items() if number not in self.done}
            (tmp_path / "queue").write_text("".join(f"{number}_0 RUNNING\n" for number in new))
            if new:
                self.do(new)
            self.done += new
            (tmp_path / "queue").write_text("")

        def monotonic(self):
            return self.now

    stand_in = Cluster()
    (tmp_path / "queue").write_text("1_0 PENDING")
    monkeypatch.setattr("hf_evol.cluster.workers.time", stand_in)
    return stand_in


def test_a_study_stays_until_its_jobs_have_ended(cluster, slurm, recipe, wide_model):
    from hf_evol.cluster import study
    from hf_evol.study.study import Study

    small = replace(recipe, limit=3, responder=wide_model, scorer=wide_model)
    evolvers = {"a": wide_model, "b": {"name": wide_model, "dtype": "bfloat16"}}
    result = study(Study(evolvers, embedding=None), small, Execution("slurm", tasks=4, workers=2, options=OPTIONS))
    jobs = submitted(slurm)
    names = [re.search(r"job-name=hf-evol-(\S+)", script)[1] for script, _ in jobs.values()]
    assert names[:3] == ["evolve-by-a-round-1-of-2", "evolve-by-a-round-2-of-2", "evolve-by-b-round-1-of-2"]
    for script, options in jobs.values():
        assert {"#SBATCH --partition=gpu", "#SBATCH --gpus=1", "#SBATCH --array=0-1%2"} <= set(script.splitlines())
        assert "--dependency" not in options
    assert (Path(result.output) / "report.html").exists() and not Path(result.output + ".work").exists()
    assert not Journal(recipe.journal).stats().requests  # each task has one of its own


def test_while_jobs_run_others_are_kept_out(cluster, seeds, tmp_path, monkeypatch, wide_model):
    execution = Execution("slurm", tasks=2, workers=2, options=OPTIONS, work_folder=str(tmp_path / "work"))
    score = IcIfd(wide_model, journal=False)

    def look(jobs):
        lock = WorkFolder(execution.work_folder).read("lock.json")
        assert lock["jobs"] == list(jobs)
        with pytest.raises(OutputError, match=f"jobs {', '.join(jobs)}"):
            hf_evol.cluster.map(seeds, score, execution)
        (tmp_path / "queue").write_text("")  # the job has ended, but its launcher is still there
        with pytest.raises(OutputError, match="Another launcher"):
            hf_evol.cluster.map(seeds, score, execution)
        execute(jobs)

    cluster.do = look
    assert hf_evol.cluster.map(seeds, score, execution).to_list() == hf_evol.map(seeds, score).to_list()


def test_jobs_that_end_with_tasks_missing(cluster, slurm, seeds, tmp_path, wide_model):
    execution = Execution("slurm", tasks=4, workers=2, options=OPTIONS, work_folder=str(tmp_path / "work"))
    score = IcIfd(wide_model, journal=False)

    def kill(jobs):
        with pytest.raises(TaskError, match="Tasks that failed"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(IcIfd, "apply", lambda self, batch: 1 / 0)
            execute(jobs)

    cluster.do = kill
    with pytest.raises(TaskError, match=r"4 of 4 tasks of the stage 'score' are not completed. Logs: .*/logs"):
        hf_evol.cluster.map(seeds, score, execution)
    cluster.do = execute
    (tmp_path / "queue").write_text("2_0 PENDING")
    assert hf_evol.cluster.map(seeds, score, execution).to_list() == hf_evol.map(seeds, score).to_list()
    assert list(submitted(slurm)) == ["1", "2"]


def test_an_interrupted_launcher_takes_its_jobs_back(cluster, slurm, seeds, tmp_path, wide_model):
    cancel = slurm.parent / "bin" / "scancel"
    cancel.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/cancelled; : > {tmp_path}/queue\n')
    cancel.chmod(0o755)

    def interrupt(jobs):
        raise KeyboardInterrupt

    cluster.do = interrupt
    execution = Execution("slurm", tasks=2, workers=2, options=OPTIONS, work_folder=str(tmp_path / "work"))
    with pytest.raises(KeyboardInterrupt):
        hf_evol.cluster.map(seeds, IcIfd(wide_model, journal=False), execution)
    assert (tmp_path / "cancelled").read_text() == "1\n"
    assert WorkFolder(execution.work_folder).read("lock.json") is None
