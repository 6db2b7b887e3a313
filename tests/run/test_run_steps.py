"""What the steps leave, counted over Arrow columns as a row-by-row reading would, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from hf_evol import columns as col
from hf_evol.run.steps import REASON, Round, evolution_reasons, part, response_reasons, without_repeats
from hf_evol.run.tables import rejected_texts, round_table

ROOT = Path(__file__).parent.parent.parent
STATUSES = ["ok", "too_long: the prompt has 9 tokens\nand: more", "ok", "refusal", "ok", "engine_error: x", "ok", "ok"]
REJECTED = [
    {"try": 1, "instruction": "a", "status": "leak"}, {"try": 2, "instruction": "b", "status": "leak"},
    {"try": 3, "instruction": "c", "status": "chatter"},
]  # fmt: skip
WHY = ["kept", "kept", "near_copy", "kept", "sorry", "no_content", "kept", "near_copy"]


@pytest.fixture
def rows():
    return Dataset.from_dict({
        col.ID: [f"t-{n}" for n in range(8)],
        col.INSTRUCTION: [f"Name {n} rivers." for n in range(8)],
        col.EVOL_STATUS: STATUSES,
        col.TRY: [1, 1, 3, 3, 2, 1, 1, 2],
        col.REJECTED: [[], [], REJECTED[:2], REJECTED, REJECTED[:1], [], [], REJECTED[:1]],
        col.RESPONSE_STATUS: STATUSES[::-1],
        col.ELIMINATION: WHY,
        col.IC_IFD: [0.1, None, 0.3, None, None, 0.2, 0.4, None],
        col.IFD: [0.5, None, 0.25, None, None, 0.75, 1.0, None],
        col.IC_IFD_STATUS: ["ok", "too_long", "ok", "zero_loss", "too_long", "ok", "ok", "too_long"],
    })  # fmt: skip


def test_the_table_counts_what_a_list_would(rows):
    kept, failed = part(rows, evolution_reasons(rows))
    kept, unanswered = part(kept, response_reasons(kept))
    table = round_table(Round(rows, failed, unanswered), 3)
    assert (table["rows_in"], table["kept"], table["in_set"]) == (8 + 5 + 2, 8 + 2, 8)
    assert table["ok"] == table["rows_in"] - sum(status != "ok" for status in failed[col.EVOL_STATUS])
    assert table["scored"] == 4 and table["unscored"] == {"too_long": 3, "zero_loss": 1}
    assert list(table["unscored"]) == ["too_long", "zero_loss"]
    assert table["dropped"] == dict((Counter(failed[REASON]) + Counter(unanswered[REASON])).most_common())
    assert next(iter(table["dropped"])) == "near_copy"
    assert [entry["mean"] for entry in table["scores"]] == pytest.approx([0.625, 0.25])


def test_one_rejected_text_of_each_status_is_shown_and_no_good_one(rows):
    good = {"try": 2, "instruction": "also good", "status": "ok"}
    known = rows.map(
        lambda row: {
            "round": 1,
            "method": "deepen",
            "parent_instruction": row["id"],
            "rejected": [*row["rejected"], good],
        }
    )
    shown = [
        (text["status"], text["count"], text["text"], text["parent_instruction"]) for text in rejected_texts(known)
    ]
    assert shown == [("leak", 6, "a", "t-2"), ("chatter", 1, "c", "t-3")]


def test_the_tries_count_every_text_once(rows):
    kept, failed = part(rows, evolution_reasons(rows))
    kept, unanswered = part(kept, response_reasons(kept))
    # four first texts were rejected, two of them a second time, one of those a third time
    assert round_table(Round(kept, failed, unanswered), 1)["tries"] == [
        {"leak": 4, "ok": 2},
        {"leak": 2, "ok": 2},
        {"chatter": 1, "ok": 1},
    ]


def as_round(*texts, number=1, inputs=None):
    """A round of answered rows with these texts."""
    rows = Dataset.from_dict({
        col.ID: [f"t-{n}" for n in range(len(texts))], col.INSTRUCTION: texts, col.INPUT: inputs or [""] * len(texts),
        col.ROUND: [number] * len(texts), col.EVOL_STATUS: ["ok"] * len(texts), col.IC_IFD: [0.5] * len(texts),
    })  # fmt: skip
    kept, none = part(rows, ["kept"] * len(texts))
    return Round(kept, none, none.remove_columns(col.IC_IFD))


def test_rows_that_say_what_an_earlier_row_says_are_left_out():
    first = as_round("Name two rivers of Asia.", "Name the two rivers of Asia!", "Name two rivers of Africa.")
    second = as_round("Which lakes does Asia have?", "Name two Asia rivers.", number=2)
    one, two = without_repeats([first, second])
    assert (one.rows[col.ID][:], two.rows[col.ID][:]) == (["t-0", "t-2"], ["t-0"])
    assert [entry.dropped[REASON][:] for entry in (one, two)] == [["duplicate"], ["duplicate"]]
    assert [entry.dropped[col.INSTRUCTION][0] for entry in (one, two)] == [
        "Name the two rivers of Asia!", "Name two Asia rivers.",
    ]  # fmt: skip
    (third,) = without_repeats(
        [as_round("Name two rivers of Africa.", "Name two lakes of Africa.")], [one.rows, two.rows]
    )
    assert third.rows[col.ID][:] == ["t-1"]


def test_equal_instructions_about_other_inputs_are_no_repeats():
    (kept,) = without_repeats([as_round("Sum up the text.", "Sum up the text.", inputs=["It rains.", "It snows."])])
    assert len(kept.rows) == 2 and len(kept.dropped) == 0


def test_the_histogram_shows_what_matplotlib_would_count(tmp_path, monkeypatch):
    import numpy as np
    from matplotlib.figure import Figure

    from hf_evol.hub import figures

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: kept.append(self))
    noise = np.random.default_rng(0)
    scores = {1: noise.random(300), 2: noise.random(200) * 2, 3: [0.25, 0.25]}
    figures.ic_ifd_histogram(scores, tmp_path / "x.png")
    heights = [bar.get_height() for bar in kept[0].axes[0].patches]
    edges = np.histogram_bin_edges(np.concatenate(list(scores.values())), bins=22)
    assert heights == [count for values in scores.values() for count in np.histogram(values, edges)[0]]


@pytest.mark.slow
def test_many_rows_finish_in_bounded_memory():
    """Resident bytes that are of no mapped file: the libraries take about a quarter of a GiB of them before a row is read."""
    command = [sys.executable, "benchmarks/scale_finish.py", "--rows", "200000"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    (line,) = [line for line in out.splitlines() if line.startswith("all of it")]
    _, _seconds, resident, anonymous = line.rsplit(None, 3)
    print(line)
    assert float(anonymous) < 0.55 and float(resident) < 1.0
    assert "written: 248," in out
