"""The sandbox holds against programs that mean harm, and each call's result is its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from attacks import EVIL, MINES, ODD

from hf_evol.errors import ConfigError, SandboxError
from hf_evol.sandbox import sandbox as module
from hf_evol.sandbox import server as server_module
from hf_evol.sandbox.sandbox import Result, Sandbox
from hf_evol.sandbox.server import Server, ServerLost, bubblewrap_command, why_not

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="isolation needs Linux")

SECONDS = 0.4
SLACK_S = 2.5
PYTHON = server_module._python
GOOD = """
import re, json
def evaluate(response):
    return bool(re.search("a", response)) and len(response) == 3 and json.loads("[1]") == [1]
"""
GOOD_INPUTS, GOOD_RESULTS = ["cat", "dog", "a"], [Result(True), Result(False), Result(False)]


@pytest.fixture(scope="module", params=["bubblewrap", "seccomp"])
def isolation(request):
    if why_not(request.param):
        pytest.skip("bubblewrap is not installed, or does not work here")
    return request.param


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    file = tmp_path_factory.mktemp("canary") / "file"
    file.write_text("CANARY_SECRET")
    os.environ["HF_EVOL_CANARY"] = "CANARY_SECRET"
    yield file
    del os.environ["HF_EVOL_CANARY"]


@pytest.fixture(scope="module")
def box(isolation, canary):
    """Without screening, so that what it refuses meets the layers behind it."""
    with Sandbox(SECONDS, 192, isolation, screen=False) as bare:
        yield bare


@pytest.fixture(scope="module")
def screened(canary):
    with Sandbox(SECONDS, 192) as box:
        yield box


def attack(box: Sandbox, canary: Path, source: str) -> Result:
    """The attack's result; what must hold after any attack is checked here."""
    before = time.monotonic()
    result = box.call(source.replace("CANARY_FILE", str(canary)), ["response"])[0]
    assert time.monotonic() - before < SECONDS + SLACK_S
    assert box.call(GOOD, GOOD_INPUTS) == GOOD_RESULTS
    assert canary.read_text() == "CANARY_SECRET"
    assert not list(Path("/tmp").glob("hf_evol_attack*")) + list(Path("/dev/shm").glob("hf_evol_attack*"))
    assert not leaves(box), "a process outlived its call"
    return result


def leaves(box: Sandbox) -> list[str]:
    """Grandchildren of the test's process in this sandbox beside its server."""
    servers = descendants(box._servers[0]._process.pid)
    names = [name for name in servers if name != "bwrap"]
    return names[1:] if box.isolation == "bubblewrap" else names


def filters(pid: int) -> list[int]:
    """How many system-call filters each descendant has."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        status = dict(line.split(":", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
        found += [int(status["Seccomp_filters"]), *filters(int(child))]
    return found


def descendants(pid: int) -> list[str]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            state = Path(f"/proc/{child}/stat").read_text()
        except OSError:
            continue
        found += [state[state.index("(") + 1 : state.rindex(")")], *descendants(int(child))]
    return found


def test_no_attempt_succeeds(box, canary):
    results = {name: attack(box, canary, source) for name, source in EVIL.items()}
    assert [name for name, result in results.items() if result.value is True] == []


def test_odd_programs_fail_by_name(box, canary):
    results = {name: attack(box, canary, source) for name, (source, _) in ODD.items()}
    assert {name: result for name, result in results.items() if result.failure not in ODD[name][1]} == {}


def test_nothing_is_left_for_the_next_call(box, canary):
    results = {name: attack(box, canary, source) for name, source in MINES.items()}
    assert results == dict.fromkeys(MINES, Result(True))


def test_screening_refuses_every_attempt_and_changes_no_other_result(screened, canary):
    for name, source in EVIL.items():
        assert attack(screened, canary, source).failure.startswith("refused: "), name
    others = ODD | {name: (source, {None}) for name, source in MINES.items()}
    for name, (source, failures) in others.items():
        if failures != {"timeout"}:  # which take as long, and are the same, without screening
            failure = attack(screened, canary, source).failure
            assert failure in failures or failure.startswith("refused: "), name


def test_the_process_that_compiles_is_filtered_and_the_one_that_runs_twice(box):
    source = "import time\ndef evaluate(response):\n    time.sleep(0.3)\n    return True"
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.extend(box.call(source, ["a"])))
    base = filters(box._servers[0]._process.pid)
    thread.start()
    time.sleep(0.15)
    during = filters(box._servers[0]._process.pid)
    thread.join()
    own = max(base, default=0)  # a container has filters of its own, which every process inherits
    assert [count - own for count in during[len(base) :]] == [1, 2] and results == [Result(True)]


# Each returns True only where no call went before in its process; ``x`` counts up to 1.
STATE = {
    "a global": "x = []\ndef evaluate(r):\n    x.append(r)\n    return len(x) == 1",
    "a default": "def evaluate(r, x=[]):\n    x.append(r)\n    return len(x) == 1",
    "an attribute": "def evaluate(r):\n    evaluate.x = getattr(evaluate, 'x', 0) + 1\n    return evaluate.x == 1",
    "a class": "class C:\n    x = 0\ndef evaluate(r):\n    C.x += 1\n    return C.x == 1",
    "a cache": "import functools\n@functools.lru_cache\ndef f(r): return r\n"
    "def evaluate(r):\n    f(r)\n    return f.cache_info().hits == 0",
    "a module": "import json\ndef evaluate(r):\n    json.x = getattr(json, 'x', 0) + 1\n    return json.x == 1",
    "random numbers": "import random\nx = random.Random(0).random()\ndef evaluate(r): return random.random() == x",
}


@pytest.mark.parametrize("kind", STATE)
def test_inputs_of_one_source_share_nothing(box, kind):
    assert box.call(STATE[kind], ["a"] * 20) == [Result(True)] * 20


def test_a_failing_input_leaves_the_others_alone(box):
    source = """
import os
def evaluate(response):
    if response == "loop":
        while True: pass
    if response == "die":
        os._exit(0)
    return response == "yes"
"""
    results = box.call(source, ["yes", "loop", "no", "die", "yes"])
    assert results == [Result(True), Result(None, "timeout"), Result(False), Result(None, "crashed"), Result(True)]


def test_hashes_and_random_numbers_are_the_same_in_every_sandbox(isolation):
    source = "import random\ndef evaluate(response): return (hash(response) ^ random.getrandbits(64)) & 1 == 1"
    inputs = [str(number) for number in range(40)]
    answers = []
    for _ in range(2):
        with Sandbox(isolation=isolation, screen=False) as box:
            answers.append(box.call(source, inputs))
    assert answers[0] == answers[1] and {result.value for result in answers[0]} == {True, False}


def test_strange_inputs_arrive_whole(screened):
    source = "def evaluate(response): return len(response) == {} and response[-1] == {!r}"
    for text in ["\ud800", "a\0b", "x" * 2_000_000, "日本\U0001f600", "\r\n"]:
        assert screened.call(source.format(len(text), text[-1]), [text])[0] in (
            [Result(True)] if text != "\ud800" else [Result(True), Result(None, "syntax_error")]
        )
    assert screened.call(GOOD, [""] * 600 + ["cat"]) == [Result(False)] * 600 + [Result(True)]
    assert screened.call(GOOD, []) == []
    too_long = screened.call(GOOD, ["x" * (9 << 20), "cat"])
    assert too_long[0].failure.startswith("refused: input of") and too_long[1] == Result(True)


def test_ordinary_functions_pass_screening_and_run(screened):
    source = """
from __future__ import annotations
import csv, datetime, json, string, unicodedata, xml.etree.ElementTree as ET
from collections import Counter
from io import StringIO

class Seen:
    def __init__(self, words: int = 0):
        self.words = words + 1

def evaluate(response: str) -> bool:
    print("debugging")
    day = datetime.datetime.strptime("2024-02-03", "%Y-%m-%d").strftime("%A")
    rows = list(csv.reader(StringIO("a,b")))
    ok = type(response) is str and ET.fromstring("<a/>").tag == "a" and "ü".encode("idna") != b""
    return ok and day == "Saturday" and rows == [["a", "b"]] and Counter("aa")["a"] == 2 and Seen().words == 1

if __name__ == "__main__":
    print(evaluate(""))
"""
    assert screened.call(source, ["x"]) == [Result(True)]


def test_rights_that_can_t_be_given_up_end_the_sandbox(monkeypatch):
    """In a namespace whose only user is root, nobody else can be become."""
    if why_not("bubblewrap"):
        pytest.skip("bubblewrap is not installed, or does not work here")
    namespace = ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--dev-bind", "/", "/"]
    monkeypatch.setattr(server_module, "_python", lambda script: [*namespace, *PYTHON(script)])
    with pytest.raises(SandboxError, match="root's rights can't be given up here"):
        Server("seccomp", SECONDS, 192)


def test_what_is_no_frame_is_not_believed():
    for frame in (b"\0" * 7, b"\xff\xff\xff\xffZ\0\0", b"\0\0\0\0X\xff\xff", b"\0\0\0\0X\x01\0\n"):
        server = object.__new__(Server)
        server._replies, writer = os.pipe()
        os.write(writer, frame)
        with pytest.raises(ServerLost):
            server.receive(0.1)
        os.close(writer)
        os.close(server._replies)


def test_a_lost_server_is_replaced(isolation):
    with Sandbox(SECONDS, isolation=isolation) as box:
        assert box.call(GOOD, GOOD_INPUTS) == GOOD_RESULTS
        box._servers[0]._process.kill()
        assert box.call(GOOD, GOOD_INPUTS) == GOOD_RESULTS
        thread = threading.Thread(target=box.close)  # the next server belongs to a thread that ends
        thread.start()
        thread.join()
        results = []
        thread = threading.Thread(target=lambda: results.extend(box.call(GOOD, GOOD_INPUTS)))
        thread.start()
        thread.join()
        assert results == box.call(GOOD, GOOD_INPUTS) == GOOD_RESULTS


def test_forks_and_copies_have_their_own_server(isolation):
    with Sandbox(SECONDS, isolation=isolation) as box:
        box.call(GOOD, GOOD_INPUTS)
        pid = os.fork()
        if pid == 0:
            with box:
                right = box.call(GOOD, GOOD_INPUTS) == GOOD_RESULTS
            os._exit(0 if right else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert box.call(GOOD, GOOD_INPUTS) == GOOD_RESULTS
        with pickle.loads(pickle.dumps(box)) as copy:
            assert copy.call(GOOD, GOOD_INPUTS) == GOOD_RESULTS
            assert copy.isolation == box.isolation


def test_closing_leaves_no_process_and_no_folder(isolation, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Sandbox(isolation=isolation) as box:
        box.call(GOOD, GOOD_INPUTS)
        processes = [box._servers[0]._process.pid, *pids(box._servers[0]._process.pid)]
        assert not list(tmp_path.iterdir())
    assert until(lambda: not any(running(pid) for pid in processes))


def test_everything_ends_with_a_killed_caller(isolation):
    loop = "def evaluate(response):\n    while True: pass"
    script = (
        "from hf_evol.sandbox.sandbox import *\n"
        f"box = Sandbox(600, isolation={isolation!r})\nbox.call({GOOD!r}, ['a'])\nprint('up', flush=True)\n"
        f"box.call({loop!r}, ['a'])"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.stdout.readline() == "up\n"
    count = 3 if isolation == "seccomp" else 5  # server, worker and leaf; bubblewrap is two more
    assert until(lambda: len(pids(caller.pid)) == count), descendants(caller.pid)
    processes = pids(caller.pid)
    caller.kill()
    caller.communicate()
    assert until(lambda: not any(running(pid) for pid in processes))


def until(condition) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def pids(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [found for child in children for found in pids(child)]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_bubblewrap_alone_shows_no_home_and_no_network(tmp_path):
    if why_not("bubblewrap"):
        pytest.skip("bubblewrap is not installed, or does not work here")
    script = "import os, socket; print(os.listdir('/'), dict(os.environ), os.getpid() < 10, socket.if_nameindex())"
    command = bubblewrap_command([], {}, "SCRIPT")
    command[command.index("SCRIPT") :] = ["-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env={"SECRET": "x"})
    assert done.returncode == 0, done.stderr
    for absent in ("home", "proc", "SECRET", str(tmp_path.parts[1]) + "x", "eth", "var"):
        assert absent not in done.stdout
    assert "True [(1, 'lo')]" in done.stdout


def test_where_nothing_works_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "why_not", lambda isolation: f"no {isolation}: apt-get install it")
    with pytest.raises(SandboxError, match="apt-get install"):
        Sandbox()
    with pytest.raises(SandboxError):
        Sandbox(isolation="seccomp")
    with pytest.raises(ConfigError, match="bubblewrap"):
        Sandbox(isolation="docker")
    with pytest.raises(ConfigError, match="seconds"):
        Sandbox(seconds=0)
