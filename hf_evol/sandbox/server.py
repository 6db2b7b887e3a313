"""Starting the sandbox's isolated process, and talking to it over two pipes with a deadline on every step."""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hf_evol.errors import SandboxError

_HERE = Path(__file__).parent
_CHILD = [_HERE / name for name in ("child.py", "syscalls.py", "screen.py", "allowed.txt")]
_FRAME = struct.Struct("<IcH")  # as in child.py: input's index, kind, length of the text
_READY = 0xFFFFFFFF  # the index of frames about no input
_TEXT = re.compile(r"[ -~]{0,200}")
_KINDS = frozenset(bytes([kind]) for kind in b"KERSMXTFBNODC")
_START_S = 30.0  # importing the allowed modules takes a tenth of a second, on a quiet machine
_GRACE_S = 2.0  # for the isolated process to keep its own clock before it is killed
_SEND_S = 12.0


class ServerLost(Exception):
    """The isolated process ended, hung, or sent something that is no frame."""


class ServerLate(ServerLost):
    """It said nothing in time."""


class Server:
    """One isolated process, under ``"bubblewrap"`` or ``"seccomp"``, with the limits of one call and a seed of hashes.

    Raises:
        SandboxError: it does not start.
    """

    def __init__(self, isolation: str, seconds: float, memory_mb: int, hash_seed: int = 0) -> None:
        self._wait_s = seconds + _GRACE_S
        arguments = [str(seconds), str(memory_mb)]
        # The same answer at every run, for functions that walk through a set.
        hashes = {"PYTHONHASHSEED": str(hash_seed)}
        in_namespaces = isolation == "bubblewrap"
        command = bubblewrap_command(arguments, hashes) if in_namespaces else _python(_CHILD[0]) + arguments
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
        # It works in a folder that is removed once it has started: empty for good, and nothing to clean up.
        with tempfile.TemporaryDirectory(prefix="hf_evol-sandbox-") as folder:
            try:
                self._process = subprocess.Popen(command, **pipes, env=hashes, cwd=folder, start_new_session=True)
            except OSError as error:
                raise SandboxError(f"The sandbox ({isolation}) does not start: {error}") from error
            self._requests, self._replies = self._process.stdin.fileno(), self._process.stdout.fileno()
            os.set_blocking(self._requests, False)
            try:
                if self.receive(_START_S)[:2] != (_READY, b"K"):
                    raise ServerLost("no greeting")
            except ServerLost as error:
                self._kill()
                said = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines() or [str(error)]
                self.close()
                raise SandboxError(f"The sandbox ({isolation}) does not start: {said[-1]}") from error

    def call(self, source: bytes, inputs: list[bytes], screen: bool) -> Iterator[tuple[bytes, str]]:
        """Kind and text of each input's result, as they come."""
        self._send(source, inputs, screen)
        failure, done = (b"C", ""), 0  # of inputs still without a result when the worker has ended
        while True:
            index, kind, text = self.receive(self._wait_s)
            if kind == b"E":
                yield from [failure] * (len(inputs) - done)
                return
            if index == _READY and done == 0:
                failure = failure if kind == b"K" else (kind, text)
            elif index == done < len(inputs) and kind != b"K":
                yield kind, text
                done += 1
            else:
                raise ServerLost("a result for another call")

    def _send(self, source: bytes, inputs: list[bytes], screen: bool) -> None:
        request = marshal.dumps((screen, source, inputs))
        message, deadline = memoryview(struct.pack("<I", len(request)) + request), time.monotonic() + _SEND_S
        while message:
            if not select.select([], [self._requests], [], max(0.0, deadline - time.monotonic()))[1]:
                raise ServerLost("request not taken")
            try:
                message = message[os.write(self._requests, message[:65536]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ServerLost(str(error)) from error

    def receive(self, timeout_s: float) -> tuple[int, bytes, str]:
        deadline = time.monotonic() + timeout_s
        index, kind, length = _FRAME.unpack(self._read(_FRAME.size, deadline))
        if kind not in _KINDS or length > 200:
            raise ServerLost("not a frame")
        text = self._read(length, deadline).decode("ascii", "replace")
        if not _TEXT.fullmatch(text):
            raise ServerLost("not a frame's text")
        return index, kind, text

    def _read(self, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            if not select.select([self._replies], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ServerLate("timeout")
            part = os.read(self._replies, size - len(data))
            if not part:
                raise ServerLost("ended")
            data += part
        return data

    def _kill(self) -> None:
        # The group holds all three generations; under bubblewrap they die with the namespace's first process.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Kill the process and everything it started."""
        self._kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()


def _python(script: Path | str) -> list[str]:
    # The base interpreter, without site-packages and without the folder of the script on its path.
    return [_interpreter(), "-s", "-S", "-P", "-B", "-W", "ignore", str(script)]


def _interpreter() -> str:
    return str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())


def bubblewrap_command(
    arguments: list[str], environment: dict[str, str], script: str = "/sandbox/child.py"
) -> list[str]:
    """The command line that runs the child in new namespaces, in a file system of interpreter and libraries."""
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL", "--hostname", "sandbox"]
    for name, value in environment.items():
        command += ["--setenv", name, value]
    for folder in map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64")):
        if folder.is_symlink():
            command += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.exists():
            command += ["--ro-bind", str(folder), str(folder)]
    stdlib = sysconfig.get_path("stdlib")
    for path in ("/etc/ld.so.cache", f"{sys.base_prefix}/lib", stdlib, _interpreter()):
        command += ["--ro-bind-try", path, path]
    if Path(stdlib, "site-packages").is_dir():
        command += ["--tmpfs", f"{stdlib}/site-packages"]
    for path in _CHILD:
        command += ["--ro-bind", str(path), f"/sandbox/{path.name}"]
    command += ["--dev-bind", "/dev/null", "/dev/null", "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    return [*command, "--", *_python(script), *arguments]


@functools.cache
def why_not(isolation: str) -> str | None:
    """Why ``isolation`` can't be used here, or None. Tried once per process."""
    if sys.platform != "linux":
        return "it needs Linux: a container, a virtual machine, or WSL 2 on Windows"
    if isolation == "bubblewrap" and shutil.which("bwrap") is None:
        return "the program bwrap is not installed: apt-get install bubblewrap, or dnf install bubblewrap"
    try:
        Server(isolation, 10.0, 512).close()
    except SandboxError as error:
        return str(error)
    return None
