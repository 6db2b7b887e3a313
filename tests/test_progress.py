import math
import os
import subprocess
import sys
from random import Random

import pytest
from datasets import Dataset

import hf_evol
from hf_evol import progress
from hf_evol.evolve.evol_instruct import EvolInstruct
from hf_evol.evolve.respond import Respond
from hf_evol.generation.base import Completion
from hf_evol.progress import _PARTS, Work


@pytest.fixture
def bars(monkeypatch):
    """Every bar that is made, with its label, total, and the counts and notes that were seen."""
    made = []

    class Recorder:
        def __init__(self, total, desc, **options):
            self.total, self.desc, self.n, self.note, self.shown = total, desc, 0, "", []
            made.append(self)

        def set_postfix_str(self, note, refresh):
            self.note = note

        def refresh(self):
            self.shown.append((self.n, self.note))

        def close(self):
            self.closed = True

    monkeypatch.setattr(progress, "_tqdm", Recorder)
    monkeypatch.setattr(progress, "_SHOWN_EVERY_S", 0.0)
    return made


def test_each_row_counts_once_a_round_also_without_text_or_from_the_journal(tiny_model, seeds, bars, tmp_path):
    data = Dataset.from_list(
        [{**row, "instruction": None if row["id"] == "t-1" else row["instruction"]} for row in seeds]
    )
    short = [hf_evol.Method("short", "Rewrite: {instruction}")]  # which the model's context holds
    for _ in range(2):
        transform = EvolInstruct(tiny_model, methods=short, rounds=2, max_new_tokens=4, journal=str(tmp_path / "j"))
        hf_evol.map(data, transform, desc="Evolve it", load_from_cache_file=False)
    assert [(bar.desc, bar.n, bar.total, bar.closed) for bar in bars] == [("Evolve it", 14, 14, True)] * 2
    assert bars[0].note.endswith("tokens/s") and all("try 2 of " in str(bar.shown) for bar in bars)
    assert "tokens/s" not in str(bars[1].shown)
    hf_evol.map(data, Respond(tiny_model, max_new_tokens=2, journal=False))
    assert (bars[2].desc, bars[2].n, bars[2].total) == ("Respond", 7, 7)


def test_the_bar_tells_of_a_batch_before_its_first_row_ends(tiny_model, seeds, bars):
    with progress.times() as times, progress.counted_tokens() as tokens:
        hf_evol.map(seeds, Respond(tiny_model, max_new_tokens=6, journal=False))
    assert [(time.label, time.tokens) for time in times] == [("Respond", tokens[0])] and tokens[0] > 7
    before = [note for rows, note in bars[0].shown if rows == 0]
    assert any(note.endswith(" s left") and "tokens/s" not in note for note in before)  # by the layers that have read
    assert any("tokens/s" in note for note in before)


def test_what_is_left():
    """Before anything is written, a written token takes as long as four read ones; then steps and tokens share the time."""
    assert Work(limit=100).left_s(12) is None
    reading = Work(
        in_hand=4, waiting=4, to_read=400, reading=100.0, reading_s=1.0, limit=30
    )  # a read token takes 0.01 s
    written = 4 * 40 * (1 - math.exp(-30 / 40))  # of 30 at most, by replies of 40
    assert reading.left_s(4) == pytest.approx(300 * 0.01 + written * 0.04, rel=0.05)
    assert (reading + reading).of_each(2) == reading
    # Of 5,000 replies of 50 tokens, 10 at a time, 1,000 are left.
    done = {"asked": at(0, 4000), "through": at(0, 4000), "last": at(50 * _PARTS // 1000, 4000)}
    done |= {"read": 400_000, "written": 200_000}
    done |= {"steps": 20_000, "per_step": 50, "at_once": 10, "reading_s": 400.0, "writing_s": 1200.0, "limit": 1000}
    work = Work(**done, waiting=1000, together=5000)
    assert work.left_s(1000) == pytest.approx(400, rel=0.05)
    failed = work + Work(
        asked=at(0, 100), through=at(0, 100), last=at(_PARTS - 1, 20), written=20 * 1000, steps=2000, writing_s=120
    )
    assert failed.left_s(1000) == pytest.approx(work.left_s(1000), rel=0.2)  # 80 without a reply, 20 at the limit
    one = Work(
        asked=at(0, 8), through=at(0, 8), read=90, reading_s=1.0, in_hand=1, ages=at(0, 1), waiting=1, limit=2048
    )
    assert one.left_s(1) > 0


def at(place, number):
    """A list of what `Work` counts by parts or tries, with one that is not 0."""
    return [number * (n == place) for n in range(_PARTS)]


@pytest.mark.parametrize("limit", [8, 100, 2048])
def test_the_shares_that_go_on_are_those_of_kaplan_and_meier(limit):
    """Against the lengths of many replies of which all are known, when half of them are not finished yet."""
    random = Random(0)
    lengths = [min(_PARTS, int(random.expovariate(1 / 30)) + 5 * (n % 2)) for n in range(20_000)]
    seen = [random.randrange(_PARTS) if n % 2 else _PARTS for n in range(len(lengths))]  # so far
    ended, ages = ([0] * _PARTS for _ in range(2))
    for length, so_far in zip(lengths, seen, strict=True):
        counts = ended if length < so_far else ages
        counts[min(length, so_far, _PARTS - 1)] += 1
    found = Work(limit=limit, ages=ages)._survival(ended)
    expected = [sum(length >= part for length in lengths) / len(lengths) for part in range(_PARTS)]
    assert found == pytest.approx(expected, abs=0.02)


def test_after_a_tenth_the_time_left_is_right_within_a_third(monkeypatch, bars):
    """200 rows, 40 together, up to 6 tries: four rows in ten are hopeless, the others pass every second time. A step takes as long as
    50 tokens beside its own. What does not pass is twice as long, and every fifth of it goes on to the limit."""
    now, random, estimates = [0.0], Random(0), []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def ask(rows, number):
        passed = [not hopeless and random.random() < 0.5 for hopeless in rows]
        lengths = [5 + int(random.expovariate(1 / 20)) * (1 if passes else 2) for passes in passed]
        lengths = [
            100 if not passes and random.random() < 0.2 else min(100, n)
            for n, passes in zip(lengths, passed, strict=True)
        ]
        progress.underway(limit=100, waiting=len(rows))
        for share in (0.0, 0.5, 1.0):
            now[0] += 4.0 if share or estimates else 300.0  # at first, models are loaded
            progress.underway(in_hand=len(rows), to_read=300 * len(rows), reading=300 * len(rows) * share)
        for step in range(1, max(lengths) + 1):
            ending = [passes or number == 6 for passes, length in zip(passed, lengths, strict=True) if length == step]
            running = sum(length > step for length in lengths)
            now[0] += 0.004 * (50 + len(ending) + running)
            progress.stepped(50)
            progress.underway([step] * running, in_hand=running, to_read=300 * running, reading=300 * running)
            progress.generated(ending, [Completion("", "stop" if step < 100 else "length", 300, step)] * len(ending))
            estimates.append((now[0], progress._current.left_s(progress._current.all)))
        return [hopeless for hopeless, passes in zip(rows, passed, strict=True) if not passes]

    with progress.bar("Evolve", 200):
        for _ in range(5):
            rows = [n % 5 < 2 for n in range(40)]
            for number in range(1, 7):
                with progress.attempt(number, 6, len(rows)):
                    rows = ask(rows, number)
    end, begun = now[0], 300.0
    late = [(left, end - at) for at, left in estimates if 0.1 < (at - begun) / (end - begun) < 0.95]
    assert len(late) > 1000 and all(2 / 3 < left / true < 4 / 3 for left, true in late)


def test_a_map_from_the_cache_says_so(tiny_model, seeds, bars, tmp_path):
    seeds.save_to_disk(tmp_path / "seeds")
    for _ in range(2):
        hf_evol.map(Dataset.load_from_disk(tmp_path / "seeds"), Respond(tiny_model, max_new_tokens=2, journal=False))
    assert [bar.n for bar in bars] == [7, 7] and bars[1].note == "from the cache"


@pytest.mark.parametrize("rows", [True, False])
def test_the_bar_hears_of_other_processes(bars, rows):
    code = "from hf_evol import progress; progress.advance(1, 10); progress.advance(2, 20)"
    with progress.times() as times, progress.bar("Work", 9), progress.of_workers(rows):
        workers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    assert (times[0].tokens, bars[0].shown[-2][0]) == (60, 6 if rows else 0)


def test_rows_that_the_journal_knows_are_not_asked_again(bars):
    with progress.bar("Work", 9), progress.attempt(1, 2, 9):
        progress.advance(4)
        assert progress._current.work.in_try == 5


def test_advance_without_a_bar_does_nothing():
    progress.advance(3, 4)
    assert progress._current is None


def test_in_a_log_a_line_a_minute(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setattr("huggingface_hub.utils.are_progress_bars_disabled", lambda: False, raising=False)
    with progress.bar("Evolve", 300):
        for _ in range(30):
            now[0] += 10
            progress.advance(10, 500, failures=1)
    assert capsys.readouterr().err.splitlines() == [
        "Evolve: 60 of 300 rows, 50 tokens/s, 6 failed, 4 min 00 s left",
        "Evolve: 120 of 300 rows, 50 tokens/s, 12 failed, 3 min 00 s left",
        "Evolve: 180 of 300 rows, 50 tokens/s, 18 failed, 2 min 00 s left",
        "Evolve: 240 of 300 rows, 50 tokens/s, 24 failed, 1 min 00 s left",
        "Evolve: 300 of 300 rows, 50 tokens/s, 30 failed",
    ]
    with progress.bar("Quick", 3):
        progress.advance(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("off", "shown"), [(False, True), (True, False)])
def test_the_command_line_silences_the_libraries_but_not_itself(off, shown):
    """In a process of its own, as it changes settings of the whole process."""
    code = "from hf_evol.cli.options import quiet; quiet(); from hf_evol import progress; progress.LINE_EVERY_S = 0\n"
    code += "with progress.bar('Evolve', 2): progress.advance(1)\n"
    code += "import transformers; assert not transformers.utils.logging.is_progress_bar_enabled()"
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} if off else {}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and ("Evolve: 1 of 2 rows" in done.stderr) == shown, done.stderr
