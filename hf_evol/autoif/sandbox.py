"""The only place where Python written by a model is run.

A verification function is hostile until shown otherwise. Every call runs in a process of its own that has no
rights left (see ``_sandbox_child.py``), behind these layers:

1. screening: imports outside an allow-list, dunder access and dangerous names are refused before anything runs;
2. the leaf process: an allow-list of system calls (no file, socket, process, thread, signal or executable
   memory), limits on memory and time, an empty environment, closed descriptors;
3. with bubblewrap installed: new namespaces (users, processes, network, …) in a read-only file system that holds
   the interpreter and its libraries.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hf_evol.autoif._sandbox_screen import screen
from hf_evol.autoif._sandbox_server import READY, Server, ServerLost, why_not
from hf_evol.errors import ConfigError, SandboxError

__all__ = ["Limits", "Result", "Sandbox", "available_isolations", "screen"]

_ISOLATIONS = ("bubblewrap", "seccomp")  # best first
_BATCH_CALLS, _BATCH_BYTES = 256, 8 << 20  # one request; every process of a call holds it in memory
_GRACE_S = 2.0  # for the isolated process to keep its own clock before it is killed
_FAILURES = {
    b"R": "refused: {}",
    b"S": "syntax_error",
    b"N": "no_evaluate",
    b"X": "exception: {}",
    b"B": "not_bool",
    b"D": "timeout",
    b"M": "memory",
    b"O": "output",
    b"C": "crashed",
}


@dataclass(frozen=True)
class Limits:
    """What one call may use.

    Args:
        seconds: wall clock, for executing the source and calling ``evaluate`` (AutoIF: 5 s).
        memory_mb: address space; the interpreter itself takes about 50 MB.
        source_bytes: longest source, in UTF-8.
        input_bytes: longest input, in UTF-8.

    Raises:
        ConfigError: a limit is out of range.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    source_bytes: int = 200_000
    input_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        for name, least, most in (
            ("seconds", 0.01, 3600),
            ("memory_mb", 128, 1 << 20),
            ("source_bytes", 1, 64 << 20),
            ("input_bytes", 1, 64 << 20),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"Limits({name}={value!r}): must be from {least} to {most}")


@dataclass(frozen=True)
class Result:
    """What ``evaluate`` returned for one input: ``value``, or None and a ``failure``.

    A failure is ``"refused: REASON"``, ``"syntax_error"``, ``"no_evaluate"``, ``"exception: TYPE"``,
    ``"not_bool"``, ``"timeout"``, ``"memory"``, ``"output"`` (it tampered with its result) or ``"crashed"``.
    """

    value: bool | None
    failure: str | None = None


def available_isolations() -> list[str]:
    """The isolations that work on this machine, best first."""
    return [isolation for isolation in _ISOLATIONS if why_not(isolation) is None]


class Sandbox:
    """Calls verification functions written by a model.

    No state passes from one call to another, not even between inputs of one source. What the source prints is
    thrown away. Hashes and `random` are seeded alike in every call. Safe under threads (calls take turns), forks
    and pickling.

    Args:
        limits: of one call.
        isolation: ``"bubblewrap"``, ``"seccomp"``, ``"auto"`` for the better one that works here, or ``"none"``.
        screen: refuse suspicious source before it runs; see `screen`.
        i_accept_that_generated_code_can_do_anything: must be True for ``isolation="none"``, under which generated
            code has the rights of this process, save limits on time, memory and the size of files.

    Raises:
        ConfigError: an unknown isolation, or ``"none"`` without accepting it.
        SandboxError: the isolation does not work on this machine.

    Example:
        >>> with Sandbox() as sandbox:
        ...     sandbox.call("def evaluate(response): return response.isupper()", ["YES", "no"])
        [Result(value=True, failure=None), Result(value=False, failure=None)]
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        isolation: str = "auto",
        screen: bool = True,
        *,
        i_accept_that_generated_code_can_do_anything: bool = False,
    ) -> None:
        accepted = i_accept_that_generated_code_can_do_anything
        arguments = {"limits": limits, "isolation": isolation, "screen": screen}
        self._again = functools.partial(Sandbox, **arguments, i_accept_that_generated_code_can_do_anything=accepted)
        self.limits, self.screen = limits, screen
        self.isolation = _resolve(isolation, accepted)
        self._server: Server | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return self._again, ()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the isolated process; the next call starts a new one."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close() if self._pid == os.getpid() else server.forget()

    def call(self, source: str, inputs: Sequence[str]) -> list[Result]:
        """``evaluate(input)`` of ``source`` for every input, in order. Never raises for what the source does.

        Args:
            source: Python source text that defines ``evaluate(response: str) -> bool``.
            inputs: the responses.

        Raises:
            SandboxError: the isolated process can't be started again after it was lost.
        """
        code = source.encode("utf-8", "surrogatepass")
        if len(code) > self.limits.source_bytes:
            reason = f"refused: source of {len(code)} bytes, the limit is {self.limits.source_bytes}"
            return [Result(None, reason)] * len(inputs)
        data = [text.encode("utf-8", "surrogatepass") for text in inputs]
        results: list[Result | None] = [None] * len(data)
        for place, item in enumerate(data):
            if len(item) > self.limits.input_bytes:
                reason = f"refused: input of {len(item)} bytes, the limit is {self.limits.input_bytes}"
                results[place] = Result(None, reason)
        with self._lock:
            for places in _batches(data, [place for place, result in enumerate(results) if result is None]):
                for place, result in zip(places, self._all([data[place] for place in places], code), strict=True):
                    results[place] = result
        return results

    def _all(self, inputs: list[bytes], source: bytes) -> list[Result]:
        """Results of one batch, whatever happens to the isolated process on the way."""
        results: list[Result] = []
        second_try = False
        while len(results) < len(inputs):
            before = len(results)
            try:
                self._batch(inputs[before:], source, results)
            except BaseException as error:  # an interrupt, too, leaves half a conversation behind
                self.close()
                if not isinstance(error, ServerLost):
                    raise
                # It ends with the thread that started it (die-with-parent), which is nobody's fault: try once more.
                late = str(error) == "timeout"
                if late and len(results) == before:  # at the source itself, or at an input the worker did not stop
                    results += [Result(None, "timeout")] * (len(inputs) - before)
                elif second_try and len(results) == before:
                    results.append(Result(None, "crashed"))
                second_try = not late
        return results

    def _batch(self, inputs: list[bytes], source: bytes, results: list[Result]) -> None:
        """One request; results are added as they come."""
        if self._server is not None and (self._pid != os.getpid() or not self._server.alive()):
            self.close()
        if self._server is None:
            self._server, self._pid = Server(self.isolation, self.limits.seconds, self.limits.memory_mb), os.getpid()
        server, wait_s, done = self._server, self.limits.seconds + _GRACE_S, 0
        server.send(source, inputs, self.screen, timeout_s=_GRACE_S + 10)
        failure = Result(None, "crashed")  # of inputs still without a result when the worker has ended
        while True:
            index, kind, text = server.receive(wait_s)
            if kind == b"E":
                results += [failure] * (len(inputs) - done)
                return
            if index == READY and done == 0:
                failure = failure if kind == b"K" else _result(kind, text)
            elif index == done < len(inputs):
                results.append(_result(kind, text))
                done += 1
            else:
                raise ServerLost("a result for another call")


def _result(kind: bytes, text: str) -> Result:
    if kind in (b"T", b"F"):
        return Result(kind == b"T")
    if kind not in _FAILURES:
        raise ServerLost("not a result")
    return Result(None, _FAILURES[kind].format(text))


def _batches(data: list[bytes], places: list[int]) -> Iterator[list[int]]:
    batch, size = [], 0
    for place in places:
        if batch and (len(batch) == _BATCH_CALLS or size + len(data[place]) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += len(data[place])
    if batch:
        yield batch


def _resolve(isolation: str, accepted: bool) -> str:
    if isolation not in ("auto", "none", *_ISOLATIONS):
        raise ConfigError(f"isolation={isolation!r}: must be one of auto, bubblewrap, seccomp, none")
    if isolation == "none" and not accepted:
        raise ConfigError(
            "isolation='none' lets generated code read and change whatever you can. If this machine holds nothing of "
            "value, pass i_accept_that_generated_code_can_do_anything=True"
        )
    if isolation == "auto" and (available := available_isolations()):
        return available[0]
    reasons = {name: why_not(name) for name in (_ISOLATIONS if isolation == "auto" else [isolation])}
    if all(reasons.values()):
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise SandboxError(f"Generated code can't be isolated here. {said}")
    return isolation
