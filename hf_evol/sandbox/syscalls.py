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

# Per machine: AUDIT_ARCH_*, the two calls whose protection argument is looked at, the calls allowed outright, and
# those that a worker needs besides, to compile source and look after the processes that run it.
# Numbers from asm/unistd_64.h and asm-generic/unistd.h.
_MACHINES = {
    "x86_64": (
        0xC000003E,
        {"mmap": 9, "mprotect": 10},
        {
            **{"read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "munmap": 11, "brk": 12},
            **{"rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25},
            **{"madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60, "gettimeofday": 96, "getuid": 102},
            **{"sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "restart_syscall": 219},
            **{"clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231},
            **{"getrandom": 318},
        },
        {
            **{"select": 23, "dup2": 33, "clone": 56, "fork": 57, "wait4": 61, "kill": 62, "prctl": 157},
            **{"setrlimit": 160, "pselect6": 270, "set_robust_list": 273, "dup3": 292, "pipe2": 293},
            **{"prlimit64": 302, "close_range": 436},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {"mmap": 222, "mprotect": 226},
        {
            **{"read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "munmap": 215, "brk": 214},
            **{"rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124, "mremap": 216},
            **{"madvise": 233, "nanosleep": 101, "getpid": 172, "exit": 93, "gettimeofday": 169, "getuid": 174},
            **{"sigaltstack": 132, "gettid": 178, "futex": 98, "restart_syscall": 128},
            **{"clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94},
            **{"getrandom": 278},
        },
        {
            **{"dup3": 24, "pipe2": 59, "pselect6": 72, "set_robust_list": 99, "kill": 129, "prctl": 167},
            **{"clone": 220, "wait4": 260, "prlimit64": 261, "close_range": 436},
        },
    ),
}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def build(worker: bool = False) -> _Program:
    """The filter for this machine, ready for `install`; for a worker, one that lets it fork."""
    arch, guarded, allowed, besides = _MACHINES[platform.machine()]
    allowed = allowed | besides if worker else allowed
    step = struct.Struct("HBBI").pack  # struct sock_filter: code, jump if true, jump if false, operand
    code = [step(_LOAD, 0, 0, _ARCH), step(_JUMP_EQ, 1, 0, arch), step(_RETURN, 0, 0, _KILL)]
    code += [step(_LOAD, 0, 0, _NR), step(_JUMP_GE, 0, 1, _X32_BIT), step(_RETURN, 0, 0, _KILL)]
    for number in sorted(allowed.values()):
        code += [step(_JUMP_EQ, 0, 1, number), step(_RETURN, 0, 0, _ALLOW)]
    for number in guarded.values():  # memory, as long as it can't be executed
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
