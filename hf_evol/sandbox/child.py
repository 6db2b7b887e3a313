"""The isolated process of the sandbox, run as a script by `hf_evol.sandbox`; never import it.

Three generations, of which only the last runs generated code:

    server   loads the allowed modules, then waits for requests; sees no generated text at all
    worker   forked per source: reads the request, parses, screens and compiles, never executes; can open nothing
    leaf     forked per input: gives up every right, executes the source, calls evaluate, is killed

So whatever a call does to its interpreter ends with it.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import marshal
import math
import os
import random
import re
import resource
import select
import signal
import struct
import sys
import types

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib would stay loaded in every leaf
sys.path.insert(0, _HERE)
import screen as screening  # noqa: E402
import syscalls  # noqa: E402

sys.path.remove(_HERE)

FRAME = struct.Struct("<IcH")  # input's index, kind, length of the text that follows
READY = 0xFFFFFFFF

# What the allowed modules import only when first used: a leaf can open no file.
_LATE_MODULES = (
    "_strptime encodings.ascii encodings.idna encodings.latin_1 encodings.cp1252 encodings.punycode encodings.utf_8_sig "
    "encodings.utf_16 encodings.utf_32 encodings.raw_unicode_escape encodings.unicode_escape encodings.rot_13 "
    "encodings.hex_codec encodings.base64_codec linecache traceback locale io"
).split()

_LEAF_RESULT = re.compile(rb"[TFBNM]|X[A-Za-z_][A-Za-z0-9_]{0,79}")  # a kind, and the name of an exception
_LEAF_BYTES = 81
_RESULT_FD = 3
_EOF = 3  # a worker's exit status: the request pipe has closed


def main(seconds: float, memory_mb: int) -> None:
    requests, replies = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for name in sorted(screening.ALLOWED) + _LATE_MODULES:
        importlib.import_module(name)
    os.environ.clear()
    leaf = Leaf(seconds)
    _lower_rights()
    leaf.self_test()
    os.dup2(null, 2)  # until here for what goes wrong at the start
    os.close(null)
    gc.collect()
    gc.freeze()  # else the collector would touch, and so copy, every page in every leaf
    os.write(replies, FRAME.pack(READY, b"K", 0))
    while select.select([requests], [], [])[0]:
        pid = os.fork()
        if pid == 0:
            _worker(requests, replies, memory_mb, leaf)
        status = os.waitpid(pid, 0)[1]
        if status == _EOF << 8:
            return
        os.write(replies, FRAME.pack(0, b"E", 0))


def _lower_rights() -> None:
    if 0 in os.getresuid():  # a container's root: be nobody instead
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        except OSError as error:
            raise SystemExit(f"root's rights can't be given up here ({error}); run as another user") from error
    for which, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 32)):
        _limit(which, most)
    syscalls.harden()
    syscalls.die_with_parent()


def _limit(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _worker(requests: int, replies: int, memory_mb: int, leaf: Leaf) -> None:
    """Answer one request and exit."""
    code = 1
    try:
        _limit(resource.RLIMIT_AS, memory_mb << 20)
        size = _read(requests, 4)
        if size is None:
            os._exit(_EOF)
        leaf.enter_worker()
        screened, source, inputs = marshal.loads(_read(requests, int.from_bytes(size, "little")))
        kind, text, program = _compile(source, screened)
        os.write(replies, FRAME.pack(READY, kind, len(text)) + text)
        for index, data in enumerate(inputs if program else ()):
            kind, text = leaf.run(program, data)
            os.write(replies, FRAME.pack(index, kind, len(text)) + text)
        code = 0
    finally:
        os._exit(code)


def _read(descriptor: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = os.read(descriptor, min(size - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


def _compile(source: bytes, screened: bool) -> tuple[bytes, bytes, types.CodeType | None]:
    try:
        tree = ast.parse(source.decode("utf-8", "surrogatepass"), "<generated>")
        if screened and (reason := screening.screen_tree(tree)):
            return b"R", reason.encode("ascii"), None
        return b"K", b"", compile(tree, "<generated>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # ValueError: null bytes, lone surrogates
        return b"S", b"", None
    except MemoryError:
        return b"M", b"", None
    except RecursionError:
        return b"X", b"RecursionError", None


class Leaf:
    """Runs compiled source on one input, in a process of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cpu = math.ceil(seconds) + 1  # should the worker that watches the clock be gone
        self._filter, self._worker_filter = syscalls.build(), syscalls.build(worker=True)

    def run(self, program: types.CodeType, data: bytes) -> tuple[bytes, bytes]:
        """The kind and text of the result's frame."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._give_up_rights(writer)
                _evaluate(program, data)
            finally:
                os._exit(1)
        os.close(writer)
        ready = select.select([reader], [], [], self._seconds)[0]
        message = os.read(reader, _LEAF_BYTES + 1) if ready else b""
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if not ready or not message:
            return (b"C" if ready else b"D"), b""
        return (message[:1], message[1:]) if _LEAF_RESULT.fullmatch(message) else (b"O", b"")

    def _give_up_rights(self, writer: int) -> None:
        if writer != _RESULT_FD:
            os.dup2(writer, _RESULT_FD)
        os.closerange(_RESULT_FD + 1, 32)
        _limit(resource.RLIMIT_CPU, self._cpu)
        _limit(resource.RLIMIT_NPROC, 0)
        syscalls.die_with_parent()
        syscalls.install(self._filter)

    def enter_worker(self) -> None:
        """Give up what a worker does not need: a compiler that hostile text takes over still opens no file."""
        syscalls.die_with_parent()
        syscalls.install(self._worker_filter)

    def self_test(self) -> None:
        """Raise OSError unless both filters hold here."""
        program = compile(_SELF_TEST, "<self test>", "exec")
        pid = os.fork()
        if pid == 0:
            try:
                self.enter_worker()
                os._exit(0 if self.run(program, b"") == (b"T", b"") else 1)
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1] != 0:
            raise OSError("the system-call filter can't be installed, or does not hold")


_SELF_TEST = """
import os
def refused(call, *arguments):
    try:
        call(*arguments)
    except PermissionError:
        return True
    return False
def evaluate(response):
    return refused(os.open, "/", 0) and refused(os.fork) and refused(os.kill, os.getpid(), 0)
"""


def _evaluate(program: types.CodeType, data: bytes) -> None:
    write, leave, name_of = os.write, os._exit, type.__dict__["__name__"].__get__  # before anything can replace them
    reply = b"M"  # made beforehand: there may be no memory left to make it
    try:
        response = data.decode("utf-8", "surrogatepass")
        module = sys.modules["generated"] = types.ModuleType("generated")
        random.seed(0)  # the same answer at every run, for functions that sample; a fork sows anew
        exec(program, module.__dict__)
        function = module.__dict__.get("evaluate")
        if not callable(function):
            reply = b"N"
        else:
            value = function(response)
            reply = b"T" if value is True else b"F" if value is False else b"B"
    except MemoryError:
        pass
    except BaseException as error:  # SystemExit and KeyboardInterrupt are results, too
        reply = b"X" + name_of(type(error)).encode("ascii", "replace").replace(b"?", b"_")[:80]
    write(_RESULT_FD, reply)
    leave(0)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
