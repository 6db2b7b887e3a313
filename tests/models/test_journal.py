import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from hf_evol import Eliminate, EvolInstruct, IcIfd
from hf_evol.cli.main import main
from hf_evol.errors import ConfigError
from hf_evol.generation.base import Completion, SamplingParams, generate
from hf_evol.models.journal import Journal, cache_folder, open_journal


class Counting:
    """An engine that remembers what it was asked; ``die_after`` ends its stream early."""

    name = "counting"

    def __init__(self, die_after=None):
        self.asked, self.die_after = [], die_after

    def identity(self):
        return {"model": "m"}

    def stream(self, chats, params, keys):
        for place, turn in enumerate(chats):
            if self.die_after is not None and place >= self.die_after:
                raise KeyboardInterrupt
            self.asked.append(turn[0]["content"])
            error = "engine_error: no" if turn[0]["content"] == "bad" else None
            yield [(place, Completion(turn[0]["content"].upper(), "stop", 1, 2, error))]


def ask(engine, texts, journal, params=None, keys=None):
    chats = [[{"role": "user", "content": t}] for t in texts]
    return generate(engine, chats, params or SamplingParams(), keys or texts, journal)


def test_finished_requests_survive_and_are_not_repeated(tmp_path):
    journal = Journal(tmp_path / "deep" / "j.sqlite")
    with pytest.raises(KeyboardInterrupt):
        ask(Counting(die_after=2), ["a", "b", "c"], journal)
    engine = Counting()
    done = ask(engine, ["a", "b", "c"], Journal(tmp_path / "deep" / "j.sqlite"))
    assert engine.asked == ["c"]
    assert [c.text for c in done] == ["A", "B", "C"]


def test_failed_requests_are_asked_again(tmp_path):
    journal = Journal(tmp_path / "j.sqlite")
    ask(Counting(), ["bad", "good"], journal)
    engine = Counting()
    ask(engine, ["bad", "good"], journal)
    assert engine.asked == ["bad"]


@pytest.mark.parametrize(
    "change",
    [{"params": SamplingParams(temperature=0.5)}, {"keys": ["other"]}, {"texts": ["b"]}],
)
def test_anything_else_is_another_request(tmp_path, change):
    journal = Journal(tmp_path / "j.sqlite")
    ask(Counting(), ["a"], journal)
    engine = Counting()
    ask(engine, change.pop("texts", ["a"]), journal, **({"keys": ["a"]} | change))
    assert len(engine.asked) == 1


def test_many_keys_at_once(tmp_path):
    journal, texts = Journal(tmp_path / "j.sqlite"), [f"t{i}" for i in range(1203)]
    ask(Counting(), texts, journal)
    engine = Counting()
    assert [c.text for c in ask(engine, texts, journal)] == [t.upper() for t in texts]
    assert engine.asked == []


@pytest.mark.parametrize("left", [100, 2000, 5000])
@pytest.mark.parametrize("rest", [b"", b"junk" * 2000], ids=["cut short", "overwritten"])
def test_a_damaged_file_is_a_warning_and_the_run_goes_on(tmp_path, left, rest):
    file = tmp_path / "j.sqlite"
    closed(filled(file, [1] * 50))
    file.write_bytes(file.read_bytes()[:left] + rest)
    with pytest.warns(UserWarning, match=r"can't be used and is off.*j.sqlite|j.sqlite.*can't be used and is off"):
        done = ask(Counting(), ["a"], Journal(file))
    assert done[0].text == "A"


def test_a_full_disk_is_a_warning_and_the_run_goes_on(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j.sqlite")
    journal.get(["x"])
    journal._connection.execute("PRAGMA max_page_count = 4")  # SQLite then says that the disk is full
    with pytest.warns(UserWarning, match="full"):
        done = ask(Counting(), ["a" * 50_000, "b"], journal)
    assert [c.text for c in done] == ["A" * 50_000, "B"]


def test_several_processes_write_one_file(tmp_path):
    code = (
        "import sys; from hf_evol.models.journal import Journal; j = Journal(sys.argv[1])\n"
        "for i in range(100):\n"
        "    j.put({f'{sys.argv[2]}-{i}': {'text': str(i)}})\n"
        "    if i % 10 == 0: j.flush()"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "j.sqlite", str(n)]) for n in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    with sqlite3.connect(tmp_path / "j.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchone() == (300,)


def test_a_killed_process_leaves_what_it_had_put_before_the_last_seconds(tmp_path):
    code = (
        "import sys, time; from hf_evol.models.journal import Journal; j = Journal(sys.argv[1])\n"
        "j.put({'a': {'text': 'b'}}); print(j.get('a'), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "j.sqlite"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"{'a': {'text': 'b'}}\n"
        put, other = time.monotonic(), Journal(tmp_path / "j.sqlite")
        while not other.get("a") and time.monotonic() - put < 30:
            time.sleep(0.05)
        process.kill()
    assert time.monotonic() - put < 10
    assert Journal(tmp_path / "j.sqlite").get("a") == {"a": {"text": "b"}}


def test_journals_of_one_file_find_what_each_has_written(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_evol.models.journal._TAIL", 50)  # of 1000 requests, most are in the index on disk
    both = [Journal(tmp_path / "j.sqlite") for _ in range(2)]
    names = [str(number) for number in range(1000)]
    for start in range(0, 1000, 20):
        for number, journal in enumerate(both):
            journal.put({name: {"text": name} for name in names[start + 10 * number : start + 10 * number + 10]})
            journal.flush()
        assert all(len(journal.get(names)) == start + 20 for journal in both)
    both[0].put({"0": {"text": "newer"}})
    both[0].flush()
    assert both[1].get(["0", "1"]) == {"0": {"text": "newer"}, "1": {"text": "1"}}
    assert both[1].prune(max_bytes=0) == 1001 and both[0].get(names) == {}
    both[1].put({"7": {"text": "again"}})
    both[1].flush()
    assert both[0].get(names) == Journal(tmp_path / "j.sqlite").get(names) == {"7": {"text": "again"}}


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts the bytes that a process writes")
@pytest.mark.parametrize("together", [1, 64, 500])
def test_what_is_written_is_a_small_multiple_of_a_row(tmp_path, monkeypatch, together):
    monkeypatch.setattr("hf_evol.models.journal._TAIL", 2000)
    journal, noise = Journal(tmp_path / "j.sqlite"), random.Random(0)
    rows = {noise.randbytes(16): {"text": noise.randbytes(180).hex(), "finish_reason": "stop"} for _ in range(20_000)}

    def written():
        return int(re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())[1])

    before, places = written(), list(rows)
    for start in range(0, len(places), together):
        journal.put({place: rows[place] for place in places[start : start + together]})
    journal.flush()
    assert written() - before < 2000 * len(rows)
    assert journal.get(places) == rows


def test_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_EVOL_CACHE", str(tmp_path / "mine"))
    assert open_journal(False) is None
    assert open_journal(True).path == tmp_path / "mine" / "journal.sqlite"
    assert open_journal(tmp_path / "x.sqlite") is open_journal(str(tmp_path / "x.sqlite"))
    monkeypatch.delenv("HF_EVOL_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / "hf_evol"
    assert os.sep in str(cache_folder())


def filled(path, ages_days):
    journal = Journal(path)
    journal.put({str(number): {"text": "x" * 100, "finish_reason": "stop"} for number in range(len(ages_days))})
    journal.flush()
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, age in enumerate(ages_days):
            connection.execute(
                "UPDATE requests SET created = ? WHERE hash = ?", (time.time() - age * 86_400, str(number))
            )
    return journal


def test_pruning_by_age_and_size(tmp_path):
    journal = filled(tmp_path / "journal.sqlite", [9, 1, 3, 2])
    assert journal.stats().requests == 4 and journal.stats().first < journal.stats().last
    assert journal.prune(older_than_days=5) == 1
    one = len('{"text": "' + "x" * 100 + '", "finish_reason": "stop"}') + 1 + 16
    assert journal.prune(max_bytes=2 * one) == 1
    assert set(journal.get("0123")) == {"1", "3"}  # the newest
    assert journal.prune(max_bytes=0) == 2 and journal.stats().requests == 0


def closed(journal):
    """The journal with all of it in its file."""
    journal._connection.close()
    return journal


@pytest.fixture(params=["database", "log", "rows", "noise", "folder", "device"])
def foreign(request, tmp_path):
    """Something under a journal's name that none of ours has made."""
    path = tmp_path / "theirs.sqlite"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "device":
        os.mkfifo(path)
    elif request.param in ("rows", "noise"):
        path.write_bytes(b'{"instruction": "a"}\n' if request.param == "rows" else b"\0" * 5000)
    else:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE requests (hash TEXT PRIMARY KEY, completion TEXT, created REAL)")
            connection.execute("INSERT INTO requests VALUES ('a', '{}', 0)")
        if request.param == "log":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
    return path


def state(folder):
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in folder.iterdir()
    }


def test_what_is_no_journal_is_refused_and_left_alone(foreign, tmp_path):
    before = state(tmp_path)
    for make in (
        lambda: EvolInstruct("no/model", journal=foreign),
        lambda: IcIfd("no/model", journal=str(foreign)),
        lambda: Eliminate(judge="no/model", journal=foreign),
        lambda: open_journal(foreign),
        lambda: Journal(foreign).get(["a"]),
        lambda: Journal(foreign).put({"a": {}}),
        lambda: Journal(foreign).prune(max_bytes=0),
    ):
        with pytest.raises(ConfigError, match=r"theirs.sqlite' is no journal .* Move it away, or name another"):
            make()
    assert state(tmp_path) == before


def test_commands_name_what_is_no_journal_and_leave_it_alone(foreign, tmp_path, capsys):
    (tmp_path / "empty.sqlite").touch()
    before = state(tmp_path)
    for command in (["list"], ["prune", "--max-size", "0"]):
        assert main(["cache", *command, "--folder", str(tmp_path)]) == 0
        assert "Left alone, as no journals: 'empty.sqlite', 'theirs.sqlite'\n" in capsys.readouterr().out
    assert state(tmp_path) == before
    filled(tmp_path / "ours.sqlite", [1, 2])
    assert main(["cache", "prune", "--max-size", "0", "--folder", str(tmp_path)]) == 0
    assert "ours.sqlite: removed 2 of 2" in capsys.readouterr().out
    assert {name: entry for name, entry in state(tmp_path).items() if "ours" not in name} == before


def test_an_empty_file_becomes_a_journal_that_tells_so_without_its_log(tmp_path):
    file = tmp_path / "j.sqlite"
    file.touch()
    journal = open_journal(file)
    journal.put({"a": {"text": "b"}})
    journal.flush()
    assert file.read_bytes()[68:72] == b"hfEv"
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_looking_at_a_journal_leaves_the_locks_of_its_process(tmp_path):
    """Without its lock on the file, another process that closes it would take the log away."""
    journal = filled(tmp_path / "j.sqlite", [1])
    open_journal(journal.path)
    code = "import sys; from hf_evol.models.journal import Journal; j = Journal(sys.argv[1]); j.stats(); j._connection.close()"
    subprocess.run([sys.executable, "-c", code, journal.path], check=True)
    assert (tmp_path / "j.sqlite-wal").exists()
    journal.put({"b": {"text": "c"}})
    journal.flush()
    assert set(Journal(journal.path).get(["0", "b"])) == {"0", "b"}


def test_a_run_writes_while_its_journal_is_pruned(tmp_path):
    journal, stop = Journal(tmp_path / "j.sqlite"), threading.Event()

    def run():
        number = 0
        while not stop.is_set():
            journal.put({str(number): {"text": "x" * 1000}})
            journal.flush()
            number += 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thread = threading.Thread(target=run)
        thread.start()
        other = Journal(journal.path)
        removed, deadline = 0, time.monotonic() + 60
        while removed < 5 and time.monotonic() < deadline:
            removed += other.prune(max_bytes=0)
        stop.set()
        thread.join()
    assert removed >= 5
    journal.put({"last": {"text": "y"}})
    journal.flush()
    assert other.get(["last"]) == {"last": {"text": "y"}}


def test_a_link_is_its_journal_once(tmp_path, capsys):
    real = filled(tmp_path / "elsewhere" / "real.sqlite", [9, 1]).path
    folder = tmp_path / "cache"
    folder.mkdir()
    for name, target in {"a": real, "b": real, "gone": tmp_path / "gone"}.items():
        (folder / f"{name}.sqlite").symlink_to(target)
    assert main(["cache", "prune", "--older-than", "5", "--folder", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.count("real.sqlite: removed 1 of 2") == 1 and "no journals: 'gone.sqlite'" in said
    assert len(list(folder.iterdir())) == 3 and not (tmp_path / "gone").exists()


def test_the_cache_command(tmp_path, capsys):
    assert main(["cache", "list", "--folder", str(tmp_path)]) == 0
    assert "No journals" in capsys.readouterr().out
    filled(tmp_path / "journal.sqlite", [9, 1])
    assert main(["cache", "list", "--folder", str(tmp_path)]) == 0
    assert "2 finished requests" in capsys.readouterr().out
    assert main(["cache", "prune", "--folder", str(tmp_path)]) == 2
    assert main(["cache", "prune", "--older-than", "5", "--folder", str(tmp_path)]) == 0
    assert "removed 1 of 2 requests" in capsys.readouterr().out
    (tmp_path / "journal.sqlite").write_bytes((tmp_path / "journal.sqlite").read_bytes()[:100] + b"junk" * 1000)
    (tmp_path / "journal.sqlite-wal").unlink(missing_ok=True)
    assert main(["cache", "list", "--folder", str(tmp_path)]) == 1
    assert "Delete the file if it is damaged" in capsys.readouterr().err
