"""The workers of one launcher: what runs its stages, one after the other, on any executor."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from hf_evol import progress
from hf_evol.cluster import executors
from hf_evol.cluster.work import WorkFolder, have_ended

if TYPE_CHECKING:
    from hf_evol.cluster.run import Execution
    from hf_evol.cluster.slurm import SlurmExecutor
    from hf_evol.cluster.stages import Stage

POLL_S = 5.0
GRACE_S = 60.0  # within which a cancelled job ends, and another host sees what an ended job has written


class Workers:
    """Made by `at_work`."""

    def __init__(self, execution: Execution, folder: WorkFolder, stack: ExitStack) -> None:
        self.execution, self.folder, self._stack = execution, folder, stack
        self._pool: Any = None

    def run(self, stage: Stage, logs: str, rows: Sequence[int]) -> None:
        """Do the missing tasks of a stage, and wait for their end.

        Args:
            logs: the folder of its logs and completion marks.
            rows: how many rows each task has, for the progress bar.

        Raises:
            TaskError: a task failed, or a worker died.
        """
        kind, workers = self.execution.executor, self.execution.n_workers
        executor = executors.executor_for(kind, stage, workers, logs, self.execution.options)
        if not executor.get_incomplete_ranks():
            with progress.bar(stage.label, sum(rows)):  # full at once
                return
        if kind in ("local", "ray"):
            self._pool = self._pool or self._stack.enter_context(executors.pool_for(executor, workers))
            executors.run_tasks(executor, stage, self._pool, rows)
            return
        if kind == "slurm":
            _run_slurm(executor, stage, self.folder, rows)
        else:
            executor.run()
        executors.check_completed(executor, stage)


@contextmanager
def at_work(execution: Execution, folder: WorkFolder) -> Iterator[Workers]:
    """Workers for the stages that the block runs. Local processes stay until its end, and keep their models."""
    with ExitStack() as stack:
        yield Workers(execution, folder, stack)


def _run_slurm(executor: SlurmExecutor, stage: Stage, folder: WorkFolder, rows: Sequence[int]) -> None:
    """Submit a stage to Slurm, and wait until its tasks are completed or its jobs have left the queue."""
    try:
        with executors.quiet():
            executor.launch_job()
        folder.note_jobs(executor.jobs)
        with progress.bar(stage.label, sum(rows)):
            _follow(executor, rows)
    except BaseException:
        _cancel(executor.jobs)
        raise
    folder.note_jobs([])


def _cancel(jobs: Sequence[str]) -> None:
    """Ctrl-C ends workers on this machine, too."""
    if not jobs:
        return
    with suppress(OSError):
        subprocess.run(["scancel", *jobs])
    deadline = time.monotonic() + GRACE_S
    while not have_ended(jobs) and time.monotonic() < deadline:
        time.sleep(1)


def _follow(executor: SlurmExecutor, rows: Sequence[int]) -> None:
    missing, ended_at = set(range(len(rows))), None
    while True:
        executor.logging_dir.fs.invalidate_cache()
        done = missing - set(executor.get_incomplete_ranks())
        progress.advance(sum(rows[rank] for rank in done))
        missing -= done
        if not missing or (ended_at and time.monotonic() - ended_at > GRACE_S):
            return
        if ended_at is None and have_ended(executor.jobs):
            ended_at = time.monotonic()
        time.sleep(POLL_S)
