"""The only place where Python written by a model is run.

A verification function is hostile until shown otherwise. Every call runs in a process of its own that has no
rights left (see ``child.py``), behind these layers:

1. screening (``screen.py``): source that reaches for more than it needs is refused before anything runs;
2. the leaf process: an allow-list of system calls (no file, socket, process, thread, signal or executable
   memory), limits on memory and time, an empty environment, closed descriptors;
3. with bubblewrap installed: new namespaces (users, processes, network, …) in a read-only file system that holds
   the interpreter and its libraries.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hf_evol.errors import ConfigError, SandboxError
from hf_evol.sandbox.server import Server, ServerLate, ServerLost, why_not

ISOLATIONS = ("bubblewrap", "seccomp")  # best first
_SOURCE_BYTES, _INPUT_BYTES = 200_000, 8 << 20  # longest, in UTF-8
_BATCH_CALLS, _BATCH_BYTES = 256, 8 << 20  # one request; every process of a call holds it in memory
_RESULTS = {
    b"T": True, b"F": False, b"R": "refused: {}", b"S": "syntax_error", b"N": "no_evaluate", b"X": "exception: {}",
    b"B": "not_bool", b"D": "timeout", b"M": "memory", b"O": "output", b"C": "crashed",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What ``evaluate`` returned for one input: ``value``, or None and a ``failure``.

    A failure is ``"refused: REASON"``, ``"syntax_error"``, ``"no_evaluate"``, ``"exception: TYPE"``,
    ``"not_bool"``, ``"timeout"``, ``"memory"``, ``"output"`` (it tampered with its result) or ``"crashed"``.
    """

    value: bool | None
    failure: str | None = None


class Sandbox:
    """Calls verification functions written by a model.

    No state passes from one call to another, not even between inputs of one source: each input has a process of its own,
    which executes the source anew. What the source prints is thrown away. Hashes are seeded alike in every call, so that
    sets of strings are walked in the same order; where functions run elsewhere, ``PYTHONHASHSEED=0`` does that. Safe under
    threads (calls take turns), forks and pickling.

    Args:
        seconds: wall clock of one call, for executing the source and calling ``evaluate`` (AutoIF: 5 s).
        memory_mb: address space of one call; the interpreter itself takes about 50 MB.
        isolation: ``"bubblewrap"``, ``"seccomp"``, or ``"auto"`` for the better one that works here.
        screen: refuse suspicious source before it runs; see `hf_evol.sandbox.screen`.

    Raises:
        ConfigError: an unknown isolation, or a limit out of range.
        SandboxError: the isolation does not work on this machine.

    Example:
        >>> with Sandbox() as sandbox:
        ...     sandbox.call("def evaluate(response): return response.isupper()", ["YES", "no"])
        [Result(value=True, failure=None), Result(value=False, failure=None)]
    """

    def __init__(
        self, seconds: float = 5.0, memory_mb: int = 512, isolation: str = "auto", screen: bool = True
    ) -> None:
        if not 0.01 <= seconds <= 3600 or not 128 <= memory_mb <= 1 << 20:
            raise ConfigError(
                f"seconds must be from 0.01 to 3600, memory_mb from 128 to {1 << 20}; got {seconds!r} and {memory_mb!r}."
            )
        self._arguments = (seconds, memory_mb, isolation, screen)
        self.seconds, self.memory_mb, self.screen = seconds, memory_mb, screen
        self.isolation = _working(isolation)
        self._servers: dict[int, Server] = {}  # by their seed of hashes
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return Sandbox, self._arguments

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the isolated processes; the next call starts a new one."""
        servers, self._servers = self._servers, {}
        if self._pid == os.getpid():  # a forked copy leaves them to the one that started them
            for server in servers.values():
                server.close()

    def call(self, source: str, inputs: Sequence[str], hash_seed: int = 0) -> list[Result]:
        """``evaluate(input)`` of ``source`` for every input, in order. Never raises for what the source does.

        Args:
            source: Python source text of at most 200,000 bytes that defines ``evaluate(response: str) -> bool``.
            inputs: the responses, each of at most 8 MiB.
            hash_seed: ``PYTHONHASHSEED``, from 0 to 4294967295; results that differ with it depend on the order of a set.

        Raises:
            SandboxError: the isolated process can't be started again after it was lost.
        """
        code = source.encode("utf-8", "surrogatepass")
        if len(code) > _SOURCE_BYTES:
            return [_refused("source", code, _SOURCE_BYTES)] * len(inputs)
        data = [text.encode("utf-8", "surrogatepass") for text in inputs]
        with self._lock:
            batches = _batches([item for item in data if len(item) <= _INPUT_BYTES])
            results = iter([result for batch in batches for result in self._all(code, batch, hash_seed)])
        return [next(results) if len(item) <= _INPUT_BYTES else _refused("input", item, _INPUT_BYTES) for item in data]

    def _all(self, source: bytes, inputs: list[bytes], hash_seed: int) -> list[Result]:
        """Results of one request, whatever happens to the isolated process on the way."""
        results: list[Result] = []
        again = False
        while len(results) < len(inputs):
            before = len(results)
            try:
                for kind, text in self._started(hash_seed).call(source, inputs[before:], self.screen):
                    results.append(_result(kind, text))
            except BaseException as error:  # an interrupt, too, leaves half a conversation behind
                self.close()
                if not isinstance(error, ServerLost):
                    raise
                # It ends with the thread that started it (die-with-parent), which is nobody's fault: try once more.
                late = isinstance(error, ServerLate)
                if late and len(results) == before:  # at the source itself, or at an input the worker did not stop
                    results += [Result(None, "timeout")] * (len(inputs) - before)
                elif again and len(results) == before:
                    results.append(Result(None, "crashed"))
                again = not late
        return results

    def _started(self, hash_seed: int) -> Server:
        if self._pid != os.getpid():
            self._servers, self._pid = {}, os.getpid()
        if hash_seed not in self._servers:
            self._servers[hash_seed] = Server(self.isolation, self.seconds, self.memory_mb, hash_seed)
        return self._servers[hash_seed]


def _result(kind: bytes, text: str) -> Result:
    found = _RESULTS[kind]
    return Result(found) if isinstance(found, bool) else Result(None, found.format(text))


def _refused(what: str, data: bytes, most: int) -> Result:
    return Result(None, f"refused: {what} of {len(data)} bytes, the limit is {most}")


def _batches(data: list[bytes]) -> Iterator[list[bytes]]:
    batch, size = [], 0
    for item in data:
        if len(batch) == _BATCH_CALLS or size + len(item) > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item)
    yield batch


def _working(isolation: str) -> str:
    if isolation not in ("auto", *ISOLATIONS):
        raise ConfigError(f"isolation={isolation!r}: must be one of auto, {', '.join(ISOLATIONS)}")
    reasons = []
    for name in ISOLATIONS if isolation == "auto" else [isolation]:
        if (reason := why_not(name)) is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise SandboxError(f"Generated code can't be isolated here. {'; '.join(reasons)}")
