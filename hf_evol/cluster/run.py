"""The main job on datatrove: the same recipe and the same set as `hf_evol.run`, by many tasks."""

from __future__ import annotations

import inspect
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.fingerprint import Hasher
from datatrove import executor as datatrove
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from hf_evol import __version__
from hf_evol.cluster.folder import LOGS, WorkFolder
from hf_evol.cluster.local import run_tasks
from hf_evol.cluster.steps import Finish, Shard
from hf_evol.errors import ConfigError, TaskError, check_counts, require_extra
from hf_evol.hub.writer import RunResult
from hf_evol.run.pipeline import check_seeds_are_given, prepare
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages
from hf_evol.secrets import without_secrets

KINDS: dict[str, type[PipelineExecutor]] = {
    "local": datatrove.LocalPipelineExecutor,
    "slurm": datatrove.SlurmPipelineExecutor,
    "ray": datatrove.RayPipelineExecutor,
    "jobs": datatrove.JobsPipelineExecutor,
}
_OF_THE_END = {"file_format", "license", "select", "select_by"}  # settings that change no row of a shard
_OURS = ("pipeline", "tasks", "workers", "logging_dir", "depends", "skip_completed")  # what options must not set
_KEPT_BY_DATATROVE = {"token", "secrets"}  # options of HF Jobs that it writes nowhere
_OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}  # of a job's environment, what is not the job's


@dataclass(frozen=True)
class Execution:
    """How to run the tasks of a recipe.

    Args:
        executor: ``local`` (processes on this machine), ``slurm``, ``ray`` or ``jobs`` (Hugging Face Jobs).
        tasks: into how many shards the seeds are cut; by default one for each worker.
        workers: how many tasks run at once; by default one for each GPU of this machine, or, elsewhere, all.
        options: further arguments of datatrove's executor, such as ``partition``, ``time`` and ``gpus_per_task`` of Slurm.
        work_folder: for shards, completion marks and logs, reached by all workers; by default the output with ``.work`` at its
            end. It is removed at the end; on Slurm, all but the logs.

    Raises:
        ConfigError, MissingExtraError: a setting or option is wrong or missing; Ray is not installed.
    """

    executor: str = "local"
    tasks: int | None = None
    workers: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    work_folder: str | None = None

    def __post_init__(self) -> None:
        check_counts(self, "tasks", "workers")
        if self.executor not in KINDS:
            raise ConfigError(f"executor must be {', '.join(KINDS)}; got {self.executor!r}.")
        if self.executor == "ray":
            require_extra("ray", "ray", "The Ray executor")
        try:
            inspect.signature(KINDS[self.executor]).bind(**dict.fromkeys(_OURS), **self.options)
        except TypeError as error:
            raise ConfigError(f"Options of the {self.executor} executor: {error}.") from error
        _check_no_secrets({name: value for name, value in self.options.items() if name not in _KEPT_BY_DATATROVE})
        if self.executor == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError("There is no sbatch here. Submit to Slurm from a machine of the cluster.")

    @property
    def n_workers(self) -> int:
        import torch

        return self.workers or (self.executor != "local" and self.tasks) or max(1, torch.cuda.device_count())

    def folder(self, output: str) -> WorkFolder:
        """The work folder of a run with this output."""
        path = self.work_folder or f"{output.rstrip('/')}.work"
        try:
            folder = WorkFolder(path)
            if path.startswith("hf://") and not path.startswith("hf://buckets/"):
                raise ValueError("each file would be a commit")
            if self.executor == "jobs" and folder.is_local():
                raise ValueError("HF Jobs can't reach this machine")
            if self.executor == "slurm" and folder.url != shlex.quote(folder.url):
                raise ValueError("the scripts for Slurm can't name it")
            return WorkFolder(folder.url)  # absolute, for processes that work elsewhere
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"The work folder can't be {path!r}: {error}. Give another with --work-folder, such as "
                "hf://buckets/user/bucket/work."
            ) from error

    def executor_for(
        self, step: PipelineStep, tasks: int, folder: WorkFolder, depends: PipelineExecutor | None = None
    ) -> PipelineExecutor:
        """datatrove's executor of one step. Its workers do several tasks one after the other, and so keep their models."""
        workers, logs = min(self.n_workers, tasks), folder.resolve_paths(f"{LOGS}/{step.name}")
        options = {**self.options, "tasks": tasks, "workers": workers, "logging_dir": logs, "depends": depends}
        if self.executor in ("slurm", "jobs"):
            options["job_name"] = f"hf-evol-{step.name}"
        if self.executor == "slurm":
            options["sbatch_args"] = {"kill-on-invalid-dep": "yes"} | (options.get("sbatch_args") or {})
            if not {"venv_path", "condaenv", "env_command"} & options.keys():  # the environment of the launcher
                options["env_command"] = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
            if isinstance(step, Finish):
                options["gpus_per_task"] = 0
        if self.executor == "jobs":
            options.setdefault("dependencies", [f"hf_evol[cluster]=={__version__}"])
        executor = KINDS[self.executor]([step], **options)
        if self.executor in ("slurm", "jobs") and "tasks_per_job" not in options:  # what is missing, shared out evenly
            executor.tasks_per_job = max(1, math.ceil(len(executor.get_incomplete_ranks()) / workers))
        return executor


def run(recipe: Recipe, execution: Execution | None = None) -> RunResult | list[str]:
    """`hf_evol.run` by many tasks: the same rows, in the same order.

    Each task takes its part of the seeds through all steps. A call after an interruption, of any kind, does what is missing:
    completed tasks are skipped by their marks, and finished requests of others come from the journal. On Slurm the tasks and,
    after them, the last step are submitted; the others end with the set written.

    Returns:
        What the run made; on Slurm, the ids of the submitted jobs.

    Raises:
        HfEvolError: as `hf_evol.run` does; another launcher, or another plan, has the work folder.
        TaskError: tasks failed or died.
    """
    execution = execution or Execution()
    check_seeds_are_given(recipe, "tasks")
    _check_no_secrets(asdict(recipe) | {"dataset": "", "work_folder": execution.work_folder})
    is_local, folder = execution.executor == "local", execution.folder(recipe.output)
    with folder.locked() as jobs, ExitStack() as stack:
        logger.disable("datatrove")  # the terminal is ours
        stack.callback(logger.enable, "datatrove")
        stages, seeds, target = prepare(recipe)
        tasks = min(execution.tasks or execution.n_workers, len(seeds))
        parts = [seeds.shard(tasks, rank) for rank in range(tasks)]
        folder.claim(_plan(recipe, stages, seeds, tasks))
        for rank, part in enumerate(parts):
            if not folder.exists(f"seeds/{rank:05}.arrow"):  # one that is there is whole
                folder.put_shard(part, "seeds", rank)
        recipe = replace(recipe, dataset=without_secrets(recipe.dataset))  # which only this process reads
        end = Finish(recipe, stages, target, folder, len(seeds), tasks)
        shards = execution.executor_for(Shard(recipe, folder, own_journals=not is_local), tasks, folder)
        if execution.executor == "slurm":
            return _submit(shards, execution.executor_for(end, 1, folder, shards), jobs)
        first = None
        if is_local:
            first = run_tasks(shards, [len(part) for part in parts], "All stages")
        else:
            shards.run()
        shards.logging_dir.invalidate_cache()
        if missing := shards.get_incomplete_ranks():
            raise TaskError(
                f"{len(missing)} of {tasks} tasks are not completed. "
                + (f"The first: {type(first).__name__}: {str(first).rstrip('.?! ')}. " if first else "")
                + f"Logs: {shards.logging_dir.resolve_paths('logs')}. The same command does what is missing."
            ) from first
        return end.conclude()


def _check_no_secrets(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where settings, which the tasks read from files and scripts, hold secrets."""
    if found := [name for name, value in settings.items() if without_secrets({name: value}) != {name: value}]:
        raise ConfigError(
            f"{', '.join(found)} must not hold a password or token, which the files of the tasks would show; put it into the "
            "environment, which tasks on this machine and of Slurm get, or into the secrets of HF Jobs."
        )


def _plan(recipe: Recipe, stages: Stages, seeds: Dataset, tasks: int) -> dict[str, Any]:
    """What decides the shards, as plain values."""
    models = Hasher.hash([transform.identity() for transform in stages.transforms])
    deciding = {name: value for name, value in recipe.for_card().items() if name not in _OF_THE_END}
    of_rows = {"rows": len(seeds), "seeds": seeds._fingerprint, "models": models}
    return deciding | of_rows | {"tasks": tasks, "version": __version__}


def _submit(shards: Any, end: Any, jobs: list[str]) -> list[str]:
    """Submit the missing shards and, after them, the last step; adds the jobs' ids to ``jobs``. They inherit the environment, from
    which that of a job around this process, such as an interactive one, is hidden: srun refuses some of its variables."""
    inside = "SLURM_JOB_ID" in os.environ
    hidden = [name for name in os.environ if inside and name.startswith("SLURM_") and name not in _OF_THE_CLUSTER]
    hidden = {name: os.environ.pop(name) for name in hidden}
    try:
        end.run()
        return jobs
    except subprocess.CalledProcessError as error:
        raise TaskError(
            f"sbatch refused a job (exit status {error.returncode}); what it said is above. The scripts are in "
            f"{end.logging_dir.path} and beside it. The same command submits what is missing."
        ) from error
    finally:
        os.environ |= hidden
        jobs += [str(executor.job_id) for executor in (shards, end) if executor.job_id not in (None, -1)]
