"""The main job on datatrove: the same recipe and the same set as `hf_evol.run`, by many tasks."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.executor import (
    JobsPipelineExecutor,
    LocalPipelineExecutor,
    RayPipelineExecutor,
    SlurmPipelineExecutor,
)
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from fsspec.implementations.memory import MemoryFileSystem
from loguru import logger

from hf_evol import __version__
from hf_evol.cluster.folder import JOURNALS, LOGS, WorkFolder, parts_of
from hf_evol.cluster.local import run_tasks
from hf_evol.cluster.steps import Finish, Shard, finish
from hf_evol.errors import ConfigError, TaskError, require_extra
from hf_evol.models.journal import cache_folder
from hf_evol.run.pipeline import prepare
from hf_evol.run.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from hf_evol.hub.writer import RunResult
    from hf_evol.run.stages import Stages

KINDS: dict[str, type[PipelineExecutor]] = {
    "local": LocalPipelineExecutor,
    "slurm": SlurmPipelineExecutor,
    "ray": RayPipelineExecutor,
    "jobs": JobsPipelineExecutor,
}
# What we set ourselves.
_RESERVED = {"self", "pipeline", "tasks", "workers", "logging_dir", "depends", "skip_completed", "start_method"}
_RESERVED |= {"local_tasks", "local_rank_offset", "job_name"}
# Settings that change no row of a shard.
_OF_THE_END = {"output", "overwrite", "file_format", "push_to", "private", "license", "select", "select_by"}
_OF_A_MACHINE = {"num_proc", "batch_size", "device", "journal"}
_OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}  # of a job's environment, what is not the job's


@dataclass(frozen=True)
class Execution:
    """How to run the tasks of a recipe.

    Args:
        executor: ``local`` (processes on this machine), ``slurm``, ``ray`` or ``jobs`` (Hugging Face Jobs).
        tasks: into how many shards the seeds are cut; by default one for each worker. A killed task is done anew, but
            for the requests in its journal.
        workers: how many tasks run at once; by default one for each GPU of this machine, or, elsewhere, all.
        options: further arguments of datatrove's executor, such as ``partition``, ``time`` and ``gpus_per_task`` of Slurm.
        work_folder: for shards, completion marks and logs; by default the output with ``.work`` at its end. All
            workers must reach it. It is removed at the end; on Slurm, all but the logs.

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
        if self.executor not in KINDS:
            raise ConfigError(f"executor must be {', '.join(KINDS)}; got {self.executor!r}.")
        if self.executor == "ray":
            require_extra("ray", "ray", "The Ray executor")
        parameters = inspect.signature(KINDS[self.executor].__init__).parameters
        known = {name: parameter for name, parameter in parameters.items() if name not in _RESERVED}
        if unknown := sorted(self.options.keys() - known.keys()):
            raise ConfigError(
                f"Unknown option of the {self.executor} executor: {', '.join(unknown)}. Options: {', '.join(known)}."
            )
        missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in self.options]
        if missing:
            needed = " ".join(f"--executor-option {name}=…" for name in missing)
            raise ConfigError(f"The {self.executor} executor needs {', '.join(missing)}: {needed}")
        if self.executor == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError("There is no sbatch here. Submit to Slurm from a machine of the cluster.")

    @property
    def n_workers(self) -> int:
        import torch

        gpus = max(1, torch.cuda.device_count())
        return self.workers or (gpus if self.executor == "local" else self.tasks or gpus)

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
        why = None
        if isinstance(folder.fs, MemoryFileSystem):
            why = f"Other processes can't see the work folder {folder.path!r}"
        elif self.executor == "jobs" and folder.is_local:
            why = f"HF Jobs can't reach the local work folder {folder.path!r}"
        elif self.executor == "slurm" and folder.path != shlex.quote(folder.path):
            why = f"The scripts for Slurm can't name the work folder {folder.path!r}"
        if why:
            raise ConfigError(f"{why}. Give another with --work-folder, such as hf://buckets/user/bucket/work.")
        return folder

    def journal(self, folder: WorkFolder) -> str | None:
        """A journal for each task where several machines may share a file system, which SQLite files would not survive."""
        if self.executor == "local":
            return None
        if folder.is_local:
            return folder.at(JOURNALS, "{rank}.sqlite")
        digest = hashlib.sha256(folder.path.encode()).hexdigest()[:16]
        return str(cache_folder() / "cluster" / digest) + "-{rank}.sqlite"

    def executor_for(
        self, name: str, step: PipelineStep, tasks: int, folder: WorkFolder, depends: PipelineExecutor | None = None
    ) -> PipelineExecutor:
        """datatrove's executor of one step. A worker does several tasks one after the other where it can, and so keeps its
        models: a local process, a Slurm job and an HF Job do."""
        workers, options = min(self.n_workers, tasks), dict(self.options)
        settings: dict[str, Any] = {"tasks": tasks, "workers": workers, "logging_dir": folder.at(LOGS, name)}
        if self.executor in ("slurm", "jobs"):
            settings["job_name"] = f"hf-evol-{name}"
        if self.executor == "slurm":
            settings["depends"] = depends
            options["sbatch_args"] = {"kill-on-invalid-dep": "yes"} | (options.get("sbatch_args") or {})
            if not {"venv_path", "condaenv", "env_command"} & options.keys():  # the environment of the launcher
                settings["env_command"] = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
            if isinstance(step, Finish):
                options["gpus_per_task"] = 0
        if self.executor == "jobs":
            settings["dependencies"] = [f"hf_evol[cluster]=={__version__}"]
        executor = KINDS[self.executor]([step], **(settings | options))
        if self.executor in ("slurm", "jobs") and "tasks_per_job" not in options:  # what is missing, shared out evenly
            executor.tasks_per_job = max(1, math.ceil(len(executor.get_incomplete_ranks()) / workers))
        return executor


def run(recipe: Recipe, execution: Execution | None = None) -> RunResult | list[str]:
    """`hf_evol.run` by many tasks: the same rows, in the same order.

    Each task takes its part of the seeds through all steps. A call after an interruption, of any kind, does what is missing:
    completed tasks are skipped by their marks, and finished requests of others come from the journal. Local, Ray and HF Jobs
    runs end with the set written; on Slurm the tasks and, after them, the last step are submitted.

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
    with folder.locked() as jobs, _quiet():
        stages, seeds = prepare(recipe)
        folder.claim(_plan(recipe, stages, seeds, tasks))
        folder.put_seeds(seeds, tasks)
        shard = Shard(recipe, folder.path, execution.journal(folder))
        executor = execution.executor_for("shards", shard, tasks, folder)
        if execution.executor == "slurm":
            end = Finish(recipe, folder.path, len(seeds), tasks)
            _submit(executor, execution.executor_for("finish", end, 1, folder, executor), jobs)
            return jobs
        errors: Sequence[BaseException] = ()
        if execution.executor == "local":
            errors = run_tasks(
                executor, [len(part) for part in parts_of(len(seeds), tasks)], "Evolve, answer and score"
            )
        else:
            executor.run()
        _check_completed(executor, errors)
        return finish(recipe, folder, len(seeds), tasks)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep datatrove's own account off the launcher's terminal while the block runs."""
    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


def _plan(recipe: Recipe, stages: Stages, seeds: Dataset, tasks: int) -> dict[str, Any]:
    """What decides the shards, as plain values."""
    from datasets.fingerprint import Hasher

    used = (stages.evolve, stages.eliminate, stages.respond, stages.score)
    models = Hasher.hash([transform.identity() for transform in used])
    of_rows = {"rows": len(seeds), "seeds": seeds._fingerprint, "models": models}
    deciding = {name: value for name, value in asdict(recipe).items() if name not in _OF_THE_END | _OF_A_MACHINE}
    return deciding | of_rows | {"tasks": tasks, "version": __version__}


def _check_completed(executor: PipelineExecutor, errors: Sequence[BaseException]) -> None:
    executor.logging_dir.fs.invalidate_cache()
    if missing := executor.get_incomplete_ranks(skip_completed=True):
        first = f" The first: {type(errors[0]).__name__}: {str(errors[0]).rstrip('.?! ')}." if errors else ""
        raise TaskError(
            f"{len(missing)} of {executor.world_size} tasks are not completed.{first} "
            f"Logs: {executor.logging_dir.resolve_paths('logs')}. The same command does what is missing."
        ) from (errors[0] if errors else None)


def _submit(shards: Any, end: Any, jobs: list[str]) -> None:
    """Submit the shards that are missing and, after them, the last step. Adds the jobs' ids to ``jobs``."""
    try:
        with _outside_of_jobs():
            end.run()
    except subprocess.CalledProcessError as error:
        raise TaskError(
            f"sbatch refused a job (exit status {error.returncode}); what it said is above. The scripts are in the folders of "
            f"{end.logging_dir.path.rpartition('/')[0]}. The same command submits what is missing."
        ) from error
    finally:
        jobs += [str(executor.job_id) for executor in (shards, end) if executor.job_id not in (None, -1)]


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
