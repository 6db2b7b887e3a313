import os
import subprocess
import sys

import pytest
from datasets import Dataset

import hf_evol
from hf_evol import progress
from hf_evol.evolve.evol_instruct import EvolInstruct
from hf_evol.evolve.respond import Respond


@pytest.fixture
def bars(monkeypatch):
    """Every bar that is made, with its label, total, what it counted and its last note."""
    made = []

    class Recorder:
        def __init__(self, total, desc, **options):
            self.total, self.desc, self.n, self.note, self.notes = total, desc, 0, "", []
            made.append(self)

        def update(self, rows):
            self.n += rows

        def set_postfix_str(self, note, refresh):
            self.note = note
            self.notes.append(note)

        def close(self):
            self.closed = True

    monkeypatch.setattr(progress, "_tqdm", Recorder)
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
    assert bars[0].note.endswith("tokens/s") and all("try 2 of " in " ".join(bar.notes) for bar in bars)
    assert not any("tokens/s" in note for note in bars[1].notes)
    hf_evol.map(data, Respond(tiny_model, max_new_tokens=2, journal=False))
    assert (bars[2].desc, bars[2].n, bars[2].total) == ("Respond", 7, 7)


def test_a_map_from_the_cache_says_so(tiny_model, seeds, bars, tmp_path):
    seeds.save_to_disk(tmp_path / "seeds")
    for _ in range(2):
        hf_evol.map(Dataset.load_from_disk(tmp_path / "seeds"), Respond(tiny_model, max_new_tokens=2, journal=False))
    assert [bar.n for bar in bars] == [7, 7] and bars[1].note == "from the cache"


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
