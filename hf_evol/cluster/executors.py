"""datatrove's executors for the stages of a run."""

from __future__ import annotations

import inspect
import math
import multiprocessing
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import dill
from datatrove.executor import (
    JobsPipelineExecutor,
    LocalPipelineExecutor,
    RayPipelineExecutor,
)
from datatrove.executor.base import PipelineExecutor
from loguru import logger

from hf_evol import __version__, progress
from hf_evol.cluster.slurm import SlurmExecutor, check_commands
from hf_evol.errors import ConfigError, TaskError, require_extra

if TYPE_CHECKING:
    from hf_evol.cluster.ray_pool import RayPool
    from hf_evol.cluster.stages import Stage

KINDS = {
    "local": LocalPipelineExecutor,
    "slurm": SlurmExecutor,
    "ray": RayPipelineExecutor,
    "jobs": JobsPipelineExecutor,
}
# What we set ourselves.
_RESERVED = {"self", "pipeline", "tasks", "workers", "logging_dir", "depends", "skip_completed", "start_method"}
_RESERVED |= {"local_tasks", "local_rank_offset"}
# Of datatrove's Ray executor, for processes that it starts for each task on each of several nodes; ours are one per worker.
_NOT_OF_OUR_RAY = {"nodes_per_task", "tasks_per_job", "log_first"}


def check_options(kind: str, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless the executor knows all options and has those, and the commands, that it needs."""
    if kind not in KINDS:
        raise ConfigError(f"executor must be {', '.join(KINDS)}; got {kind!r}.")
    if kind == "ray":
        require_extra("ray", "ray", "The Ray executor")
    known = {
        name: parameter
        for name, parameter in inspect.signature(KINDS[kind].__init__).parameters.items()
        if name not in _RESERVED | (_NOT_OF_OUR_RAY if kind == "ray" else set())
    }
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        raise ConfigError(f"Unknown option of the {kind} executor: {', '.join(unknown)}. Options: {', '.join(known)}.")
    missing = [name for name, p in known.items() if p.default is inspect.Parameter.empty and name not in options]
    if missing:
        needed = " ".join(f"--executor-option {name}=…" for name in missing)
        raise ConfigError(f"The {kind} executor needs {', '.join(missing)}: {needed}")
    if kind == "slurm":
        check_commands()


def executor_for(
    kind: str, stage: Stage, workers: int, logging_dir: str, options: Mapping[str, Any], depends: Any = None
) -> PipelineExecutor:
    """datatrove's executor for one stage.

    A worker runs several tasks one after the other, so that it loads its model once: a local process, a Ray actor, a
    Slurm task array's job and an HF Job.
    """
    workers = min(workers, stage.tasks)
    settings: dict[str, Any] = {"tasks": stage.tasks, "workers": workers, "logging_dir": logging_dir}
    if kind in ("slurm", "jobs"):
        settings |= {"job_name": f"hf-evol-{stage.name}"}
    if kind == "slurm":
        settings["depends"] = depends
        if not {"venv_path", "condaenv", "env_command"} & options.keys():  # the environment of the launcher
            settings["env_command"] = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    if kind == "jobs":
        settings["dependencies"] = [f"hf_evol[cluster]=={__version__}"]
    with quiet():
        executor = KINDS[kind](stage.pipeline, **(settings | dict(options)))
        if kind in ("slurm", "jobs") and "tasks_per_job" not in options:  # what is missing, shared out evenly
            executor.tasks_per_job = max(1, math.ceil(len(executor.get_incomplete_ranks()) / workers))
    return executor


@contextmanager
def quiet() -> Iterator[None]:
    """Keep datatrove's own account off the launcher's terminal while the block runs."""
    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


def check_completed(executor: PipelineExecutor, stage: Stage, errors: Sequence[BaseException] = ()) -> None:
    """Raise `TaskError` unless all tasks of a stage are completed."""
    executor.logging_dir.fs.invalidate_cache()
    missing = executor.get_incomplete_ranks(skip_completed=True)
    if missing:
        first = f" The first: {type(errors[0]).__name__}: {str(errors[0]).rstrip('.?! ')}." if errors else ""
        raise TaskError(
            f"{len(missing)} of {stage.tasks} tasks of the stage {stage.name!r} are not completed.{first} "
            f"Logs: {executor.logging_dir.resolve_paths('logs')}. The same command does what is missing."
        ) from (errors[0] if errors else None)


def run_tasks(
    executor: PipelineExecutor, stage: Stage, pool: ProcessPoolExecutor | RayPool, rows: Sequence[int]
) -> None:
    """Run a stage's missing tasks in a pool of workers. A task that fails leaves the others running.

    datatrove's own pools wait for ever for a worker that was killed. Its local one hands a task's number, not its
    process, to the task, and its Ray one starts a process, and so loads the model, for each task.

    Args:
        rows: how many rows each task has, for the progress bar.

    Raises:
        TaskError: a task failed, or a worker died.
    """
    missing = executor.get_incomplete_ranks()
    packed, errors = dill.dumps(executor), []
    with progress.bar(stage.label, sum(rows)):
        progress.advance(sum(rows) - sum(rows[rank] for rank in missing))
        futures = {pool.submit(_run_task, packed, rank): rank for rank in missing}
        for future in as_completed(futures):
            if isinstance(error := future.exception(), BrokenProcessPool):
                raise TaskError(
                    f"A worker of the stage {stage.name!r} died: it was killed, had no memory left, or could not start (a "
                    "script must call hf_evol under if __name__ == '__main__':). The same command does what is missing."
                ) from error
            if error:
                errors.append(error)
            progress.advance(rows[futures[future]], failures=rows[futures[future]] * bool(error))
    check_completed(executor, stage, errors)


def _run_task(packed: bytes, rank: int) -> None:
    # Not the Ray executor's own method, which keeps a task's log on its machine until the task ends, lost with a worker.
    PipelineExecutor._run_for_rank(dill.loads(packed), rank, local_rank=1)  # not 0: only errors to stderr


def pool_for(executor: PipelineExecutor, workers: int) -> AbstractContextManager[ProcessPoolExecutor | RayPool]:
    """Workers that stay for the whole run: local processes, or Ray actors."""
    if not isinstance(executor, RayPipelineExecutor):
        return worker_pool(workers)
    from hf_evol.cluster.ray_pool import ray_pool

    return ray_pool(executor, workers)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that stay for the whole run; worker *r* takes GPU *r* modulo their number."""
    context = multiprocessing.get_context("spawn")  # neither CUDA nor OpenMP survives a fork
    others = set(multiprocessing.active_children())
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers))
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(context.Value("i", 0), workers, threads)
    )
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        processes = set(multiprocessing.active_children()) - others
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        raise


def _begin(counter: Any, workers: int, threads: str) -> None:
    """A worker's start: its number, its share of the cores, and its end when the launcher dies."""
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher, too, which ends its workers
    sys.stderr = _WithoutLog(sys.stderr)
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    settle(number % workers)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def settle(number: int) -> None:
    """Make this process the worker of that number, with the libraries' bars and notes off."""
    import transformers

    from hf_evol.models import set_rank

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    set_rank(number)


class _WithoutLog:
    """A worker's stderr, which is the launcher's terminal: what loguru writes to it is in the task's log file already."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if hasattr(text, "record") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
