"""Programs that try to do harm, or to be counted as good. Each defines, or fails to define, ``evaluate``.

``EVIL`` programs return True exactly where their attempt succeeded, so a True from any of them is a hole.
``ODD`` programs have one right failure. ``CANARY_…`` marks are replaced by the test.
"""

from __future__ import annotations

_HEAD = "import os, sys, json, re, builtins, gc, random\n"


def _attempt(body: str, head: str = "") -> str:
    """A program whose evaluate runs ``body``, which sets ``done`` where it gets through; refusals are caught."""
    lines = "\n".join("        " + line for line in body.strip("\n").splitlines())
    return (
        f"{_HEAD}{head}\ndef evaluate(response):\n    done = False\n    try:\n{lines}\n"
        "    except Exception:\n        pass\n    return done\n"
    )


def _read(path: str) -> str:
    return _attempt(f"done = bool(os.read(os.open({path!r}, os.O_RDONLY), 1))")


EVIL: dict[str, str] = {
    # files
    "read /etc/passwd": _attempt("done = bool(open('/etc/passwd').read())"),
    "read through io": _attempt("import io\ndone = bool(io.open('/etc/passwd').read())"),
    "read through os": _read("/etc/hostname"),
    "read the canary": _attempt("done = bool(open('CANARY_FILE').read())"),
    "list home": _attempt("done = bool(os.listdir(os.path.expanduser('~')))"),
    "list root": _attempt("done = bool(os.listdir('/'))"),
    "list cwd": _attempt("os.listdir('.'); done = True"),
    "stat a file": _attempt("os.stat('/etc/passwd'); done = True"),
    "overwrite the canary": _attempt("open('CANARY_FILE', 'w').write('x'); done = True"),
    "write in cwd": _attempt("open('x', 'w').write('x'); done = True"),
    "write in /tmp": _attempt("open('/tmp/hf_evol_attack', 'w').write('x'); done = True"),
    "write to shared memory": _attempt("open('/dev/shm/hf_evol_attack', 'w').write('x'); done = True"),
    "delete the canary": _attempt("os.unlink('CANARY_FILE'); done = True"),
    "rename the canary": _attempt("os.rename('CANARY_FILE', 'CANARY_FILE.gone'); done = True"),
    "symbolic link": _attempt("os.symlink('/etc', '/tmp/hf_evol_attack_link'); done = True"),
    "make a folder": _attempt("os.mkdir('/tmp/hf_evol_attack_folder'); done = True"),
    "change rights": _attempt("os.chmod('CANARY_FILE', 0o777); done = True"),
    "memory file": _attempt("os.memfd_create('x'); done = True"),
    "read own interpreter": _attempt("done = bool(open(sys.executable, 'rb').read(4))"),
    "write bytecode": _attempt("open(os.__file__, 'a').write('x'); done = True"),
    # secrets
    "environment": _attempt("done = 'CANARY_SECRET' in str(dict(os.environ)) + str(os.getenv('HF_EVOL_CANARY'))"),
    "environment of self": _read("/proc/self/environ"),
    "environment of parent": _attempt("done = bool(open(f'/proc/{os.getppid()}/environ', 'rb').read())"),
    "environment of init": _read("/proc/1/environ"),
    "memory of parent": _attempt("done = bool(open(f'/proc/{os.getppid()}/mem', 'rb'))"),
    "secret in objects": _attempt("done = any(type(o) is str and 'CANARY_' + 'SECRET' in o for o in gc.get_objects())"),
    "other descriptors": _attempt(
        "for fd in range(4, 64):\n    try:\n        os.fstat(fd)\n        done = True\n    except OSError:\n        pass"
    ),
    "clock of another process": _attempt("os.sched_getaffinity(1); done = True"),
    # network
    "inet socket": _attempt("import socket; socket.socket(); done = True"),
    "unix socket": _attempt("import socket; socket.socket(socket.AF_UNIX); done = True"),
    "netlink socket": _attempt("import socket; socket.socket(16, 3); done = True"),
    "raw _socket": _attempt("import _socket; _socket.socket(2, 2); done = True"),
    "name look-up": _attempt("import socket; socket.getaddrinfo('huggingface.co', 443); done = True"),
    "download": _attempt("import urllib.request; urllib.request.urlopen('http://127.0.0.1:1'); done = True"),
    # processes
    "subprocess": _attempt("import subprocess; subprocess.run(['true']); done = True"),
    "os.system": _attempt("done = os.system('true') == 0"),
    "fork": _attempt("if os.fork() == 0: os._exit(0)\ndone = True"),
    "fork bomb": _attempt("while True:\n    os.fork()\n    done = True"),
    "spawn": _attempt("os.posix_spawn('/bin/true', ['true'], {}); done = True"),
    "exec": _attempt("os.execv('/bin/sh', ['sh', '-c', 'exit 0'])"),
    "thread": _attempt("import _thread; _thread.start_new_thread(print, ()); done = True"),
    "thread that outlives": _attempt(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start(); done = True"
    ),
    "signal to parent": _attempt("os.kill(os.getppid(), 15); done = True"),
    "signal to all": _attempt("os.kill(-1, 9); done = True"),
    "signal to group": _attempt("os.killpg(0, 9); done = True"),
    "signal to self": _attempt("os.kill(os.getpid(), 0); done = True"),
    "new session": _attempt("os.setsid(); done = True"),
    "other priority": _attempt("os.setpriority(0, 0, 5); done = True"),
    "raise the limits": _attempt(
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1)); done = True",
    ),
    "become root": _attempt("os.setuid(0); done = True"),
    "set an alarm": _attempt("import signal; signal.setitimer(signal.ITIMER_REAL, 100); done = True"),
    # native code
    "ctypes system": _attempt("import ctypes; done = ctypes.CDLL(None).system(b'true') == 0"),
    "ctypes open": _attempt("import ctypes; done = ctypes.CDLL(None).open(b'/etc/passwd', 0) >= 0"),
    "ctypes ptrace": _attempt("import ctypes; done = ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0"),
    "ctypes prctl": _attempt("import ctypes; done = ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0"),
    "ctypes inet socket": _attempt("import ctypes; done = ctypes.CDLL(None).socket(2, 1, 0) >= 0"),
    "ctypes unix socket": _attempt("import ctypes; done = ctypes.CDLL(None).socket(1, 1, 0) >= 0"),
    "ctypes name look-up": _attempt("import ctypes; done = bool(ctypes.CDLL(None).gethostbyname(b'localhost'))"),
    "ctypes execve": _attempt("import ctypes; done = ctypes.CDLL(None).execve(b'/bin/true', None, None) == 0"),
    "ctypes fork": _attempt("import ctypes; done = ctypes.CDLL(None).fork() > 0"),
    "ctypes thread": _attempt(
        "import ctypes\nt = ctypes.c_ulong()\nc = ctypes.CDLL(None)\n"
        "done = c.pthread_create(ctypes.byref(t), None, ctypes.cast(c.pause, ctypes.c_void_p), None) == 0"
    ),
    "ctypes executable memory": _attempt(
        "import ctypes\nc = ctypes.CDLL(None)\nc.mmap.restype = ctypes.c_long\n"
        "done = c.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0)) != -1"
    ),
    "ctypes make memory executable": _attempt(
        "import ctypes\nc = ctypes.CDLL(None)\nc.mmap.restype = ctypes.c_long\n"
        "a = c.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))\n"
        "done = a != -1 and c.mprotect(ctypes.c_void_p(a), ctypes.c_size_t(4096), 7) == 0"
    ),
    "ctypes kill": _attempt("import ctypes; done = ctypes.CDLL(None).kill(os.getppid(), 0) == 0"),
    "ctypes chroot": _attempt("import ctypes; done = ctypes.CDLL(None).chroot(b'/') == 0"),
    "ctypes unshare": _attempt("import ctypes; done = ctypes.CDLL(None).unshare(0x10000000) == 0"),
    "ctypes io_uring": _attempt("import ctypes; done = ctypes.CDLL(None).syscall(425, 8, bytes(120)) >= 0"),
    "ctypes clone3": _attempt("import ctypes; done = ctypes.CDLL(None).syscall(435, bytes(88), 88) >= 0"),
    "ctypes x32 call": _attempt("import ctypes; done = ctypes.CDLL(None).syscall(0x40000002, b'/etc/passwd', 0) >= 0"),
    "ctypes bpf": _attempt("import ctypes; done = ctypes.CDLL(None).syscall(321, 0, bytes(120), 120) >= 0"),
    "read memory of parent": _attempt(
        "import ctypes\nb = ctypes.create_string_buffer(16)\n"
        "done = ctypes.CDLL(None).process_vm_readv(os.getppid(), b, 1, b, 1, 0) >= 0"
    ),
    "executable memory": _attempt("import mmap; mmap.mmap(-1, 4096, prot=7); done = True"),
    "make memory executable": _attempt(
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096)\n"
        "done = ctypes.CDLL(None).mprotect(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), 4096, 7) == 0"
    ),
    "invent code": _attempt(
        "import types; c = compile('os.listdir(chr(47))', '', 'eval'); done = bool(types.FunctionType(c, globals())())"
    ),
    # ways around screening
    "subclasses": _attempt(
        "for c in ().__class__.__base__.__subclasses__():\n    if c.__name__ == 'Popen': c(['true']); done = True\n"
        "    if c.__name__ == '_wrap_close': c.__init__.__globals__['open']('/etc/passwd', 0); done = True"
    ),
    "frames": _attempt(
        "f = sys._getframe()\nwhile f.f_back: f = f.f_back\nf.f_globals['os'].listdir('/'); done = True"
    ),
    "traceback frames": _attempt(
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n"
        "    done = bool(e.__traceback__.tb_frame.f_back.f_globals['os'].open('/', 0))"
    ),
    "import by name": _attempt("done = bool(__import__('o' + 's').listdir('/'))"),
    "import by importlib": _attempt("import importlib; done = bool(importlib.import_module('os').listdir('/'))"),
    "eval": _attempt("done = bool(eval(\"__import__('os').listdir('/')\"))"),
    "exec source": _attempt("exec('import os; os.listdir(chr(47))'); done = True"),
    "module of a module": _attempt("done = bool(random._os.listdir('/'))"),
    "builtins": _attempt("done = bool(builtins.open('/etc/passwd'))"),
    "getattr": _attempt("done = bool(getattr(os, 'list' + 'dir')('/'))"),
    "pickle": _attempt("import pickle; done = pickle.loads(b\"cposix\\nsystem\\n(S'true'\\ntR.\") == 0"),
    "codecs": _attempt("import codecs; done = bool(codecs.open('/etc/passwd').read())"),
    "format string": _attempt("done = 'CANARY_SECRET' in '{0.__globals__}'.format(os.getenv)"),
    "standard input": _attempt("done = bool(input() or os.read(0, 1))"),
    "import the package": _attempt("import hf_evol; done = True"),
    "import an installed package": _attempt("import pytest; done = True"),
}

# name: (source, the failures allowed; with screening on, "refused: …" as well)
ODD: dict[str, tuple[str, set[str]]] = {
    "endless loop": ("def evaluate(r):\n    while True: pass", {"timeout"}),
    "endless loop at import": ("while True: pass", {"timeout"}),
    "endless loop in C": ("import itertools\ndef evaluate(r): return all(itertools.repeat(1))", {"timeout"}),
    "loop that eats interrupts": (
        "def evaluate(r):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
        {"timeout"},
    ),
    "sleep": ("import time\ndef evaluate(r):\n    time.sleep(60)\n    return True", {"timeout"}),
    "catastrophic regex": (
        "import re\ndef evaluate(r): return bool(re.match(r'(a+)+$', 'a' * 50 + 'b'))",
        {"timeout"},
    ),
    "huge power": ("def evaluate(r): return (9 ** 9 ** 9) > 0", {"timeout", "memory"}),
    "memory bomb": ("def evaluate(r):\n    x = []\n    while True: x.append('a' * 10_000_000)", {"memory", "timeout"}),
    "memory bomb at once": ("def evaluate(r): return bool(bytearray(1 << 40))", {"memory"}),
    "memory bomb kept": (
        "x = []\ndef evaluate(r):\n    while True: x.append([0] * 1000)",
        {"memory", "timeout", "crashed"},
    ),
    "recursion": ("def evaluate(r): return evaluate(r)", {"exception: RecursionError"}),
    "recursion in C": (
        _HEAD + "def evaluate(r):\n    sys.setrecursionlimit(10**9)\n    return evaluate(r)",
        {"crashed", "memory", "timeout"},
    ),
    "hard crash": (_HEAD + "def evaluate(r):\n    import ctypes\n    return bool(ctypes.string_at(0))", {"crashed"}),
    "abort": (_HEAD + "def evaluate(r):\n    os.abort()", {"crashed", "timeout"}),
    "stdout flood": ("def evaluate(r):\n    while True: print('x' * 100_000)", {"timeout"}),
    "stderr flood": (_HEAD + "def evaluate(r):\n    while True: os.write(2, b'x' * 100_000)", {"timeout"}),
    "result flood": (_HEAD + "def evaluate(r):\n    while True: os.write(3, b'x' * 100_000)", {"output"}),
    "forged frames": (
        _HEAD + "def evaluate(r):\n    for fd in range(64):\n        for i in range(9):\n            try:\n"
        "                os.write(fd, i.to_bytes(4, 'little') + b'T\\0\\0')\n            except OSError: pass",
        {"output"},
    ),
    "forged kind": (_HEAD + "def evaluate(r):\n    os.write(3, b'Rnice')", {"output"}),
    "forged name": (_HEAD + "def evaluate(r):\n    os.write(3, b'X\\n\\x1b[2J')", {"output"}),
    "closed result": (_HEAD + "def evaluate(r):\n    os.closerange(0, 99)\n    return True", {"crashed"}),
    "sys.exit": (_HEAD + "def evaluate(r): sys.exit(0)", {"exception: SystemExit"}),
    "exit at import": ("raise SystemExit", {"exception: SystemExit"}),
    "os._exit": (_HEAD + "def evaluate(r): os._exit(0)", {"crashed"}),
    "KeyboardInterrupt": ("def evaluate(r): raise KeyboardInterrupt", {"exception: KeyboardInterrupt"}),
    "BaseException": ("def evaluate(r): raise BaseException", {"exception: BaseException"}),
    "MemoryError": ("def evaluate(r): raise MemoryError", {"memory"}),
    "hostile exception": (
        "class E(Exception):\n    def __str__(self): raise E\ndef evaluate(r):\n    raise type('a b\\n', (E,), {})",
        {"output"},
    ),
    "hostile value": (
        "class V:\n    def __bool__(self): return True\n    def __eq__(self, o): return True\n"
        "    def __hash__(self): return 1\n    def __repr__(self): return 'True'\ndef evaluate(r): return V()",
        {"not_bool"},
    ),
    "pretended class": (
        "class V:\n    __class__ = bool\n    def __bool__(self): return True\ndef evaluate(r): return V()",
        {"not_bool"},
    ),
    "one": ("def evaluate(r): return 1", {"not_bool"}),
    "text": ("def evaluate(r): return 'true'", {"not_bool"}),
    "nothing": ("def evaluate(r): pass", {"not_bool"}),
    "deep value": (
        "def evaluate(r):\n    x = []\n    for _ in range(2 * 10**5): x = [x]\n    return x",
        {"not_bool", "crashed"},
    ),
    "huge integer": ("def evaluate(r): return 1 << 80_000_000", {"not_bool"}),
    "generator": ("def evaluate(r):\n    yield True", {"not_bool"}),
    "async": ("async def evaluate(r): return True", {"not_bool"}),
    "class": ("class evaluate:\n    def __init__(self, r): pass", {"not_bool"}),
    "no parameter": ("def evaluate(): return True", {"exception: TypeError"}),
    "two parameters": ("def evaluate(a, b): return True", {"exception: TypeError"}),
    "not callable": ("evaluate = True", {"no_evaluate"}),
    "no evaluate": ("def check(r): return True", {"no_evaluate"}),
    "empty": ("", {"no_evaluate"}),
    "null byte": ("def evaluate(r): return True\0", {"syntax_error"}),
    "lone surrogate": ("def evaluate(r): return '\ud800'", {"syntax_error"}),
    "not Python": ("I can't help with that.", {"syntax_error"}),
    "10 MB": ("x = 1\n" * 1_700_000, {"refused: source of 10200000 bytes, the limit is 200000"}),
    "deep brackets": ("x = " + "(" * 50_000 + ")" * 50_000, {"syntax_error", "memory", "crashed"}),
    "deep signs": ("x = " + "-" * 150_000 + "1", {"syntax_error", "memory", "crashed", "exception: RecursionError"}),
    "deep sums": ("x = " + "1+" * 90_000 + "1", {"crashed", "memory", "exception: RecursionError"}),
    "deep attributes": ("x = a" + ".b" * 90_000, {"crashed", "memory", "exception: RecursionError"}),
    "huge constant": ("x = (0,) * 10**9\ndef evaluate(r): return True", {"memory"}),
    "reads the stack": (
        _HEAD + "def evaluate(r):\n    f = sys._getframe(1)\n    f.f_locals['reply'] = b'T'\n    return None",
        {"not_bool"},
    ),
}

# They return True, rightly, and leave a mine for whoever comes next.
MINES: dict[str, str] = {
    "patch builtins": _HEAD
    + "builtins.bool = lambda x: True\nbuiltins.len = lambda x: 0\ndef evaluate(r): return True",
    "patch re": _HEAD + "re.search = re.match = lambda *a: True\ndef evaluate(r): return True",
    "patch json": _HEAD + "json.loads = lambda *a: {'ok': 1}\ndef evaluate(r): return True",
    "patch sys.modules": _HEAD + "sys.modules['re'] = sys.modules['json'] = None\ndef evaluate(r): return True",
    "patch os": _HEAD + "os.write = os.read = os.fork = os._exit = None\ndef evaluate(r): return True",
    "atexit": _HEAD + "import atexit\natexit.register(lambda: os.write(3, b'F'))\ndef evaluate(r): return True",
    "finalizer": "class C:\n    def __del__(self):\n        while True: pass\nc = C()\ndef evaluate(r): return True",
    "tracing": _HEAD + "sys.settrace(lambda *a: None)\ndef evaluate(r): return True",
    "patch main": _HEAD + "m = sys.modules['__main__']\nm.Leaf.run = m.FRAME = None\ndef evaluate(r): return True",
    "handlers": _HEAD + "import signal\nsignal.signal(15, signal.SIG_IGN)\ndef evaluate(r): return True",
    "default changed": _HEAD + "json.dumps.__defaults__ = ()\njson.tampered = 1\ndef evaluate(r): return True",
}
