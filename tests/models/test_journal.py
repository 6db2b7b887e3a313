import os
import sqlite3
import subprocess
import sys
import time

import pytest

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


def test_a_damaged_file_is_a_warning_and_the_run_goes_on(tmp_path):
    file = tmp_path / "j.sqlite"
    file.write_bytes(b"not a database" * 100)
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
        "for i in range(100): j.put({f'{sys.argv[2]}-{i}': {'text': str(i)}})"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "j.sqlite", str(n)]) for n in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    with sqlite3.connect(tmp_path / "j.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchone() == (300,)


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
    with sqlite3.connect(path) as connection:
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


def test_the_cache_command(tmp_path, capsys):
    from hf_evol.cli.main import main

    assert main(["cache", "list", "--folder", str(tmp_path)]) == 0
    assert "No journals" in capsys.readouterr().out
    filled(tmp_path / "journal.sqlite", [9, 1])
    assert main(["cache", "list", "--folder", str(tmp_path)]) == 0
    assert "2 finished requests" in capsys.readouterr().out
    assert main(["cache", "prune", "--folder", str(tmp_path)]) == 2
    assert main(["cache", "prune", "--older-than", "5", "--folder", str(tmp_path)]) == 0
    assert "removed 1 of 2 requests" in capsys.readouterr().out
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 1000)
    (tmp_path / "journal.sqlite-wal").unlink(missing_ok=True)
    assert main(["cache", "list", "--folder", str(tmp_path)]) == 1
    assert "Delete the file if it is damaged" in capsys.readouterr().err
