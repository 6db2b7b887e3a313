"""Tasks in processes of this machine. datatrove's own pool would wait for ever for a worker that was killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TextIO

import dill
from datatrove.executor.base import PipelineExecutor

from hf_evol import progress
from hf_evol.errors import TaskError


def run_tasks(executor: PipelineExecutor, rows: Sequence[int], label: str) -> list[BaseException]:
    """Do the missing tasks of a datatrove executor in its number of processes. A task that fails leaves the others running.

    Args:
        rows: how many rows each task has, for the progress bar.
        label: of the bar.

    Returns:
        What was raised by tasks.

    Raises:
        TaskError: a worker died.
    """
    missing = executor.get_incomplete_ranks()
    packed, errors = dill.dumps(executor), []
    with progress.bar(label, sum(rows)), worker_pool(min(executor.workers, len(missing) or 1)) as pool:
        progress.advance(sum(rows) - sum(rows[rank] for rank in missing))
        futures = {pool.submit(_run_task, packed, rank): rank for rank in missing}
        for future in as_completed(futures):
            if isinstance(error := future.exception(), BrokenProcessPool):
                raise TaskError(
                    "A worker died: it was killed, had no memory left, or could not start (a script must call hf_evol under if "
                    "__name__ == '__main__':). The same command does what is missing."
                ) from error
            if error:
                errors.append(error)
            progress.advance(rows[futures[future]], failures=rows[futures[future]] * bool(error))
    return errors


def _run_task(packed: bytes, rank: int) -> None:
    # Private, as `LocalPipelineExecutor.run` starts a manager's process for each task, which outlives a killed worker.
    dill.loads(packed)._run_for_rank(rank, local_rank=1)  # not 0: only errors to stderr


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that keep their models from task to task; worker *r* takes GPU *r* modulo their number."""
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
    """A worker's start: its number, its share of the cores, no bars, and its end when the launcher dies."""
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher, too, which ends its workers
    sys.stderr = _WithoutLog(sys.stderr)
    import transformers
    from tqdm import tqdm

    from hf_evol.models import set_rank

    tqdm.set_lock(threading.RLock())  # its own would be told of as leaked when the worker is ended

    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    set_rank(number % workers)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class _WithoutLog:
    """A worker's stderr, which is the launcher's terminal: what loguru writes to it is in the task's log file already."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if hasattr(text, "record") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
