"""Tasks in processes of this machine. datatrove's own pool would wait for ever for a worker that was killed."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.connection import Connection

import dill
from datatrove.executor.base import PipelineExecutor

from hf_evol import progress
from hf_evol.models import set_rank
from hf_evol.secrets import without_secrets


def run_tasks(executor: PipelineExecutor, rows: Sequence[int], label: str) -> BaseException | None:
    """Do the missing tasks, of so many rows each, and give the first error. A task that fails leaves the others running."""
    missing = executor.get_incomplete_ranks()
    packed, first = dill.dumps(executor), None
    n_workers = min(executor.workers, len(missing) or 1)
    # A row goes through many steps, so that only whole tasks move the bar.
    with progress.bar(label, sum(rows)), progress.of_workers(rows=False), worker_pool(n_workers) as pool:
        progress.advance(sum(rows) - sum(rows[rank] for rank in missing))
        with _interrupts_held():
            futures = {pool.submit(_run_task, packed, rank): rows[rank] for rank in missing}
        for future in as_completed(futures):
            error = future.exception()
            first = first or error
            progress.advance(futures[future], failures=futures[future] * bool(error))
    return first


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the block's end, and never reaches processes that it starts, which could not yet ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_task(packed: bytes, rank: int) -> None:
    # Private, as `LocalPipelineExecutor.run` starts a manager's process for each task, which outlives a killed worker.
    dill.loads(packed)._run_for_rank(rank, local_rank=1)  # not 0: only errors to stderr


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that keep their models from task to task, share out GPUs and cores, and end when the block raises or the
    launcher dies: then the other end of their pipe is closed."""
    context = multiprocessing.get_context("spawn")  # neither CUDA nor OpenMP survives a fork
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(theirs, threads))
    try:
        yield pool
    except BaseException:
        ours.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(launcher: Connection, threads: str) -> None:
    threading.Thread(target=lambda: (launcher.poll(None), os._exit(1)), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher, too, which ends its workers
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    set_rank(int(re.findall(r"\d+", multiprocessing.current_process().name)[-1]))  # the launcher numbers its processes
    sys.stderr = _WithoutLog(sys.stderr.buffer, line_buffering=True)
    import transformers
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own would be told of as leaked when the worker is ended
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


class _WithoutLog(io.TextIOWrapper):
    """A worker's stderr, which is the launcher's terminal: no secrets, and not what loguru has put in the task's log file."""

    def write(self, text: str) -> int:
        return len(text) if hasattr(text, "record") else super().write(without_secrets(text))
