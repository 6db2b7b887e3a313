"""datatrove's Slurm executor, for a chain of jobs that can break anywhere and be submitted again."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from datatrove.executor import SlurmPipelineExecutor
from datatrove.utils.stats import PipelineStats

from hf_evol.errors import ConfigError, TaskError

# Of a job's environment, what is the cluster's and not the job's.
_OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}


class SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's Slurm executor, with these differences.

    - A failed job cancels those that wait for it. They would stay in the queue for ever.
    - A task that raises leaves the job's other tasks running. The job fails at its end.
    - A stage of several arrays is waited for as a whole: `job_id` holds the ids of all, as ``12:15``.
    - Paths may hold blanks, and a job may submit others.
    - No job merges statistics: it would wait for a GPU, and write when the work folder has been cleared.
    """

    jobs: list[str]  # the ids of what was submitted

    @property
    def job_id(self) -> str | int | None:
        """The ids of the submitted arrays as ``--dependency`` takes them; -1 if nothing was to do."""
        return ":".join(self.jobs) or self._no_job

    @job_id.setter
    def job_id(self, value: str | int | None) -> None:  # datatrove sets it once for each array
        if value in (None, -1):
            self.jobs, self._no_job = [], value
        else:
            self.jobs.append(str(value))

    def launch_job(self) -> None:
        """Submit what is missing.

        Raises:
            TaskError: ``sbatch`` refused an array. `jobs` holds those before it.
        """
        try:
            with _outside_of_jobs():
                super().launch_job()
        except subprocess.CalledProcessError as error:
            raise TaskError(
                f"sbatch refused {self.job_name!r} (exit status {error.returncode}); what it said is above. Script: "
                f"{self.logging_dir.resolve_paths('launch_script.slurm')}. The same command submits what is missing."
            ) from error

    def launch_merge_stats(self) -> None:
        """Nothing."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        settings = super().get_sbatch_args(max_array)
        logs = {"output", "error"} - self._sbatch_args.keys()
        settings |= {name: shlex.quote(settings[name]) for name in logs}
        return {"kill-on-invalid-dep": "yes"} | settings

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        pickled = self.logging_dir.resolve_paths("executor.pik")
        return super().get_launch_file_contents(sbatch_args, run_script.replace(pickled, shlex.quote(pickled)))

    def run(self) -> None:
        """Run the tasks of this job, or submit jobs.

        Raises:
            TaskError: tasks failed.
        """
        self._failed: list[int] = []
        super().run()
        if self._failed:
            raise TaskError(f"Tasks that failed: {', '.join(map(str, self._failed))}. What they said is above.")

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        pipeline = self.pipeline
        self.pipeline = deepcopy(pipeline)  # each task counts for itself
        try:
            return super()._run_for_rank(rank, local_rank, node_rank)
        except Exception:  # which datatrove has logged
            self._failed.append(rank)
            return PipelineStats()
        finally:
            self.pipeline = pipeline


def check_commands() -> None:
    """Raise `ConfigError` unless jobs can be submitted here."""
    if shutil.which("sbatch") is None:
        raise ConfigError("There is no sbatch here. Submit to Slurm from a machine of the cluster.")


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the job that this process runs in, such as an interactive one: the jobs that it submits inherit its variables,
    some of which srun refuses beside their own."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}
    hidden = {name: value for name, value in hidden.items() if name not in _OF_THE_CLUSTER}
    if "SLURM_JOB_ID" not in hidden:
        hidden = {}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ |= hidden
