"""The system-call filter of the sandbox: a seccomp-BPF program, built and installed without any library.

It is an allow-list. What is not needed to compute on memory that is already there (files, sockets, processes,
threads, signals, memory that can be executed) fails with EPERM. This file is also loaded outside the package,
by the isolated process, so it imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 22, 38, 4
_SECCOMP_MODE_FILTER = 2
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # linux/seccomp.h: SECCOMP_RET_*
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_NR, _ARCH, _ARG2_LOW = 0, 4, 32  # offsets in struct seccomp_data
_PROT_EXEC = 4
_X32_BIT = 0x40000000

# Per machine: the place of its numbers in the tables below, and AUDIT_ARCH_*.
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# The two calls whose protection argument is looked at, the calls allowed outright, and those that a worker needs besides, to
# compile source and look after the processes that run it. Numbers from asm/unistd_64.h and asm-generic/unistd.h.
_GUARDED = {"mmap": (9, 222), "mprotect": (10, 226)}
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "munmap": (11, 215), "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "nanosleep": (35, 101), "getpid": (39, 172), "exit": (60, 93),
    "gettimeofday": (96, 169), "getuid": (102, 174), "sigaltstack": (131, 132), "gettid": (186, 178), "time": (201, None),
    "futex": (202, 98), "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "getrandom": (318, 278),
}  # fmt: skip
_ALLOWED_TO_WORKERS = _ALLOWED | {
    "select": (23, None), "dup2": (33, None), "clone": (56, 220), "fork": (57, None), "wait4": (61, 260), "kill": (62, 129),
    "prctl": (157, 167), "setrlimit": (160, None), "pselect6": (270, 72), "set_robust_list": (273, 99), "dup3": (292, 24),
    "pipe2": (293, 59), "prlimit64": (302, 261), "close_range": (436, 436),
}  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def build(worker: bool = False) -> _Program:
    """The filter for this machine, ready for `install`; for a worker, one that lets it fork."""
    place, arch = _MACHINES[platform.machine()]
    allowed = [numbers[place] for numbers in (_ALLOWED_TO_WORKERS if worker else _ALLOWED).values()]
    step = struct.Struct("HBBI").pack  # struct sock_filter: code, jump if true, jump if false, operand
    code = [step(_LOAD, 0, 0, _ARCH), step(_JUMP_EQ, 1, 0, arch), step(_RETURN, 0, 0, _KILL)]
    code += [step(_LOAD, 0, 0, _NR), step(_JUMP_GE, 0, 1, _X32_BIT), step(_RETURN, 0, 0, _KILL)]
    for number in sorted(number for number in allowed if number is not None):
        code += [step(_JUMP_EQ, 0, 1, number), step(_RETURN, 0, 0, _ALLOW)]
    for numbers in _GUARDED.values():  # memory, as long as it can't be executed
        number = numbers[place]
        code += [step(_JUMP_EQ, 0, 4, number), step(_LOAD, 0, 0, _ARG2_LOW), step(_JUMP_SET, 1, 0, _PROT_EXEC)]
        code += [step(_RETURN, 0, 0, _ALLOW), step(_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    code.append(step(_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return _Program(len(code), b"".join(code))


def _prctl(*arguments: object) -> None:
    # Longs, all five: the kernel refuses some options where an unused argument is not zero.
    words = [value if isinstance(value, ctypes._Pointer) else ctypes.c_long(value) for value in arguments]
    words += [ctypes.c_long(0)] * (5 - len(words))
    if _LIBC.prctl(*words) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({arguments[0]}) failed: {errno.errorcode.get(code, code)}")


_LIBC = ctypes.CDLL(None, use_errno=True)


def harden() -> None:
    """Let no program started from here on gain rights, which the kernel wants before a filter by an ordinary user; and let
    no other process of the same user read this one's memory or environment through /proc."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Be killed when the process that started this one ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def install(program: _Program) -> None:
    """Put the filter on this process, for good. `harden` goes first."""
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.pointer(program))
