"""The main job on datatrove: the same recipe and the same set as `hf_evol.run`, by many tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fsspec.implementations.memory import MemoryFileSystem

from hf_evol import __version__
from hf_evol.cluster import executors
from hf_evol.cluster.shards import part_of, write_shards
from hf_evol.cluster.stages import Finish, Stage, finish_shards, stages_of
from hf_evol.cluster.steps import RANK
from hf_evol.cluster.work import JOURNALS, LOGS, WorkFolder
from hf_evol.cluster.workers import at_work
from hf_evol.errors import ConfigError
from hf_evol.models.journal import cache_folder
from hf_evol.run.pipeline import prepare
from hf_evol.run.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_evol.run.result import RunResult
    from hf_evol.run.stages import Stages

# Settings that change no row of a shard.
_OF_THE_END = {"output", "overwrite", "file_format", "push_to", "private", "license", "select", "select_by"}
_OF_A_MACHINE = {"num_proc", "batch_size", "device", "journal"}


@dataclass(frozen=True)
class Execution:
    """How to run the tasks of a recipe.

    Args:
        executor: ``local`` (processes on this machine), ``slurm``, ``ray`` or ``jobs`` (Hugging Face Jobs).
        tasks: into how many shards the seeds are cut; by default one for each worker. A killed task is done anew, but
            for the requests in its journal.
        workers: how many tasks run at once; by default one for each GPU of this machine.
        options: further arguments of datatrove's executor, such as ``partition``, ``time`` and ``gpus_per_task`` of Slurm.
        work_folder: for shards, completion marks and logs; by default the output with ``.work`` at its end. All
            workers must reach it. It is removed at the end.

    Raises:
        ConfigError: an unknown executor or option, a missing option, or a number below 1.
        MissingExtraError: Ray is not installed.
    """

    executor: str = "local"
    tasks: int | None = None
    workers: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    work_folder: str | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more; got {value!r}.")
        executors.check_options(self.executor, self.options)

    @property
    def n_workers(self) -> int:
        import torch

        return self.workers or self.tasks or max(1, torch.cuda.device_count())

    @property
    def n_tasks(self) -> int:
        return self.tasks or self.n_workers

    def folder(self, output: str) -> WorkFolder:
        """The work folder of a run with this output."""
        if self.work_folder is None and output.startswith("hf://"):
            raise ConfigError("An hf:// output needs --work-folder elsewhere, such as hf://buckets/user/bucket/work.")
        if (self.work_folder or "").startswith("hf://") and not self.work_folder.startswith("hf://buckets/"):
            raise ConfigError("Each file would be a commit there. Give a bucket: hf://buckets/user/bucket/work.")
        folder = WorkFolder(self.work_folder or f"{output.rstrip('/')}.work")
        if isinstance(folder.fs, MemoryFileSystem):
            raise ConfigError(
                f"Other processes can't see the work folder {folder.path!r}. Give a folder, or another store, with "
                "--work-folder."
            )
        if self.executor == "jobs" and folder.is_local:
            raise ConfigError(
                f"HF Jobs can't reach the local work folder {folder.path!r}. Give a remote one with --work-folder, such as "
                "hf://buckets/user/bucket/work."
            )
        return folder

    def journal(self, folder: WorkFolder) -> str | None:
        """A journal for each task where several machines may share a file system, which SQLite files would not survive."""
        if self.executor == "local":
            return None
        if folder.is_local:
            return folder.at(JOURNALS, f"{RANK}.sqlite")
        digest = hashlib.sha256(folder.path.encode()).hexdigest()[:16]
        return str(cache_folder() / "cluster" / f"{digest}-{RANK}.sqlite")


def run(recipe: Recipe, execution: Execution | None = None) -> RunResult | list[str]:
    """`hf_evol.run` by many tasks: the same rows, in the same order.

    A call after an interruption, of any kind, does what is missing: completed tasks are skipped by their marks, and
    finished requests of others come from the journal. Local, Ray and HF Jobs runs end with the set written; on Slurm the
    whole chain is submitted, with the last step as a job of its own.

    Returns:
        What the run made; on Slurm, the ids of the submitted jobs.

    Raises:
        HfEvolError: as `hf_evol.run` does.
        OutputError: another launcher is at work in the folder, or it belongs to another plan.
        TaskError: tasks failed or died.

    Example:
        ``run(Recipe(dataset="tatsu-lab/alpaca", output="my-set"), Execution(tasks=8, workers=2))``
    """
    execution = execution or Execution()
    folder, tasks = execution.folder(recipe.output), execution.n_tasks
    with folder.locked() as jobs:
        transforms, seeds = prepare(recipe)
        folder.claim(_plan(recipe, transforms, seeds, tasks))
        write_shards(seeds, folder.shard("seeds"), tasks)
        stages = stages_of(recipe, transforms, seeds.features, folder, tasks, execution.journal(folder))
        if execution.executor == "slurm":
            _submit(recipe, execution, folder, stages, len(seeds), jobs)
            return jobs
        rows = [len(part_of(len(seeds), rank, tasks)) for rank in range(tasks)]
        with at_work(execution, folder) as workers:
            for stage in stages:
                workers.run(stage, folder.at(LOGS, stage.name), rows * (stage.tasks // tasks))
        result = finish_shards(recipe, folder, len(seeds), tasks)
        folder.clear(keep=[JOURNALS] if result.n_failed_requests else [])  # for those that another run asks again
        return result


def deciding(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the shards."""
    return {name: value for name, value in asdict(recipe).items() if name not in _OF_THE_END | _OF_A_MACHINE}


def _plan(recipe: Recipe, transforms: Stages, seeds: Dataset, tasks: int) -> dict[str, Any]:
    """What decides the shards, as plain values."""
    from datasets.fingerprint import Hasher

    used = (transforms.evolve, transforms.eliminate, transforms.respond, transforms.score)
    models = Hasher.hash([transform.identity() for transform in used])
    of_rows = {"rows": len(seeds), "seeds": seeds._fingerprint, "models": models}
    return deciding(recipe) | of_rows | {"tasks": tasks, "version": __version__}


def _submit(
    recipe: Recipe, execution: Execution, folder: WorkFolder, stages: list[Stage], n_seeds: int, jobs: list[str]
) -> None:
    """Submit the stages to Slurm, each after the one before, and the last step after them. Adds the jobs' ids to ``jobs``."""
    end = Stage("finish", "Finish", 1, [Finish(recipe, folder.path, n_seeds, execution.n_tasks)])
    before = None
    for stage in (*stages, end):
        options = dict(execution.options) | ({"gpus_per_task": 0} if stage is end else {})
        logs = folder.at(LOGS, stage.name)
        before = executors.executor_for("slurm", stage, execution.n_workers, logs, options, before)
        try:
            with executors.quiet():
                before.launch_job()
        finally:  # should sbatch refuse the second of two arrays, the first one runs
            jobs += before.jobs
