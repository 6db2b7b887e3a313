"""Ray actors that stay for the whole run and take one task after the other, so that each loads its model once."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError

from hf_evol import __version__
from hf_evol.cluster.executors import settle
from hf_evol.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from datatrove.executor import RayPipelineExecutor

TRIES = 3  # of a task whose worker dies: as often as datatrove submits one again
SAY_SO_AFTER_S = 30.0
_RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}  # an actor's option, and Ray's name for it


class Worker:
    """The actor. Its number tells it from others where it sees several GPUs; Ray shows it those that it reserved."""

    def __init__(self, number: int) -> None:
        settle(number)

    def version(self) -> str:
        return __version__

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class RayPool:
    """As many workers as there are calls, up to a limit; `submit` is that of a process pool.

    A call goes to any worker that is free, so one that Ray can't place keeps nobody waiting. A worker that dies is
    replaced, and its call made again; one that can't start, or has another version of this package, fails all calls.

    Args:
        executor: for the options of datatrove's executor: what each worker reserves, and how long a task may take.
        limit: how many workers at most.
    """

    def __init__(self, executor: RayPipelineExecutor, limit: int) -> None:
        memory = int(executor.mem_per_cpu_gb * executor.cpus_per_task * 2**30)
        reserved = {"num_cpus": executor.cpus_per_task, "num_gpus": executor.gpus_per_task, "memory": memory}
        options = reserved | (executor.ray_remote_kwargs or {})
        self.needs = {name: options[option] or 0 for option, name in _RESOURCES.items()}
        self._make = ray.remote(Worker).options(**options)
        self._limit, self._time = limit, executor.time
        self._actors: dict[int, Any] = {}
        self._begun: set[int] = set()
        self._free: SimpleQueue[int | Exception] = SimpleQueue()
        self._threads = ThreadPoolExecutor(limit)
        self._said, self._closed = False, False

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        if (number := len(self._actors)) < self._limit:
            self._start(number)
        return self._threads.submit(self._call, function, *args)

    def close(self) -> None:
        """End all workers, whatever they do."""
        self._closed = True
        self._free.put(TaskError("The run was ended."))
        for actor in self._actors.values():
            ray.kill(actor)
        self._threads.shutdown(cancel_futures=True)

    def _start(self, number: int) -> None:
        self._actors[number] = self._make.remote(number)
        self._actors[number].version.remote().future().add_done_callback(partial(self._started, number))

    def _started(self, number: int, version: Future) -> None:
        if error := version.exception():
            why = str(error).strip().rpartition("\n")[2]
            self._free.put(TaskError(f"A worker could not start: {why}"))
        elif version.result() != __version__:
            self._free.put(TaskError(f"A worker has hf_evol {version.result()}; the launcher has {__version__}."))
        else:
            self._begun.add(number)
            self._free.put(number)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        for _ in range(TRIES):
            number = self._take()
            try:
                result = ray.get(self._actors[number].call.remote(function, *args), timeout=self._time)
            except RayTaskError as error:  # the function raised
                self._free.put(number)
                raise error.cause from None
            except RayError as error:  # killed, its node lost, or over its time
                last = str(error).partition("\n")[0]
                self._begun.discard(number)
                ray.kill(self._actors[number])
                if not self._closed:
                    self._start(number)
            else:
                self._free.put(number)
                return result
        limit = f" or took more than {self._time} s" if self._time else ""
        raise TaskError(f"Its worker died{limit}, {TRIES} times. Ray says: {last}")

    def _take(self) -> int:
        try:
            free = self._free.get(timeout=SAY_SO_AFTER_S)
        except Empty:
            self._say_what_is_awaited()
            free = self._free.get()
        if isinstance(free, Exception):
            self._free.put(free)  # for the other calls
            raise free
        return free

    def _say_what_is_awaited(self) -> None:
        if not self._said:
            self._said = True
            print(
                f"\nWaiting for Ray: {len(self._begun)} of {len(self._actors)} workers run; each needs "
                f"{_amounts(self.needs)}; the cluster has {_amounts(ray.cluster_resources())}, used or not.",
                file=sys.stderr,
            )


@contextmanager
def ray_pool(executor: RayPipelineExecutor, limit: int) -> Iterator[RayPool]:
    """Workers on the Ray cluster at hand (``RAY_ADDRESS``, or one on this machine), else on a local one for this run.

    Raises:
        ConfigError: this machine has less than a worker needs.
        TaskError: Ray can't be reached, or not be started.
    """
    ours = not ray.is_initialized()
    try:
        if ours:
            _connect()
        pool = RayPool(executor, limit)
        try:
            if ours and getattr(ray._private.worker._global_node, "head", False):  # no cluster but this machine
                _check_machine(pool.needs)
            yield pool
        finally:
            pool.close()
    finally:
        if ours:
            ray.shutdown()


def _connect() -> None:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise TaskError(f"Ray can't be reached or started: {error}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own there, which tells nobody what was kept


def _check_machine(needs: Mapping[str, float]) -> None:
    has = ray.cluster_resources()
    if any(amount > has.get(name, 0) for name, amount in needs.items()):
        raise ConfigError(
            f"A Ray worker needs {_amounts(needs)}; this machine has {_amounts(has)}. If there is a cluster, name it with "
            "RAY_ADDRESS."
        )


def _amounts(resources: Mapping[str, float]) -> str:
    cpus, gpus, memory = (resources.get(name, 0) for name in _RESOURCES.values())
    return f"{cpus:g} CPU, {gpus:g} GPU and {memory / 1e9:.1f} GB"
