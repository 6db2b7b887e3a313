"""What is counted of rounds and rows, and the texts that are shown: for the table of a run, its provenance and its card."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_evol import columns as col
from hf_evol.data.selection import column
from hf_evol.prompts.languages import language_of
from hf_evol.run.steps import REASON, Round
from hf_evol.scoring.summary import summarize
from hf_evol.transform import values_of

NOT_JUDGED = "not_judged"
_LOOKED_AT, _LEAST_SHARE = 2000, 0.01


def round_table(entry: Round, number: int) -> dict[str, Any]:
    """How many rows came in, were evolved, kept, in the set and scored; reasons, and score statistics."""
    rows_in = len(entry.rows) + len(entry.failed) + len(entry.unanswered)
    scores, failed = column(entry.rows, col.IC_IFD), column(entry.failed, col.EVOL_STATUS)
    unscored = column(entry.rows, col.IC_IFD_STATUS).filter(pc.is_null(scores))
    dropped = value_counts(column(entry.failed, REASON)) + value_counts(column(entry.unanswered, REASON))
    return {
        "round": number,
        "rows_in": rows_in,
        "ok": rows_in - len(entry.failed) + value_counts(failed)[col.OK],
        "kept": rows_in - len(entry.failed),
        "in_set": len(entry.rows),
        "scored": len(scores) - scores.null_count,
        "tries": tries_table(
            [column(rows, name) for name in (col.EVOL_STATUS, col.TRY, col.REJECTED)]
            for rows in (entry.rows, entry.failed, entry.unanswered)
        ),
        "dropped": dict(dropped.most_common()),
        NOT_JUDGED: sum(map(not_judged, (entry.rows, entry.failed, entry.unanswered))),
        "unscored": dict(value_counts(unscored).most_common()),
        "scores": score_summaries(entry.rows),
    }


def not_judged(rows: Dataset) -> int:
    """How many rows the judge of `hf_evol.Eliminate` was asked about, and gave no answer on."""
    counts = value_counts(column(rows, col.JUDGE_STATUS)) if col.JUDGE_STATUS in rows.column_names else Counter()
    return sum(count for status, count in counts.items() if status not in (None, col.OK))


def languages_of(*sets: Dataset) -> list[str]:
    """The languages of the instructions that one in a hundred of the first 2,000 rows of each set is in, most frequent first, as ISO
    639-1 has them."""
    texts = [
        text for rows in sets for (text,) in values_of(rows.select(range(min(_LOOKED_AT, len(rows)))), col.INSTRUCTION)
    ]
    counts = Counter(filter(None, map(language_of, texts)))
    return [name for name, count in counts.most_common() if _LEAST_SHARE * len(texts) <= count]


def constraint_counts(*sets: Dataset) -> dict[str, int]:
    """How many constraints of which kind the rows carry, most first."""
    counts: Counter[str] = Counter()
    for rows in sets:
        if col.CHECKS in rows.column_names and len(checks := pc.list_flatten(column(rows, col.CHECKS))):
            counts += value_counts(pc.struct_field(checks, "kind"))
    return dict(counts.most_common())


def score_summaries(rows: Dataset) -> list[dict[str, Any]]:
    """What `summarize` gives of IFD and of IC-IFD."""
    return [summarize(label, column(rows, name)) for name, label in ((col.IFD, "IFD"), (col.IC_IFD, "IC-IFD"))]


def tries_table(parts: Iterable[Sequence[pa.ChunkedArray]]) -> list[dict[str, int]]:
    """Of each try, how many of its texts have which status; a part has, of each row, status, try and rejected texts."""
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for status, tried, texts in parts:
        rejected, good = pc.list_flatten(texts), tried.filter(pc.equal(status, col.OK))
        for number, times in value_counts(good).items():
            counts[number][col.OK] += times
        for number in pc.unique(pc.struct_field(rejected, "try")).to_pylist():
            statuses = pc.struct_field(rejected, "status").filter(pc.equal(pc.struct_field(rejected, "try"), number))
            counts[number].update(status_counts(statuses))
    return [dict(counts[number].most_common()) for number in range(1, max(counts, default=1) + 1)]


def status_counts(statuses: pa.ChunkedArray) -> dict[str, int]:
    """How many rows have which status, by its countable part, the most frequent first."""
    counts: Counter[str] = Counter()
    for status, times in value_counts(statuses).items():
        counts[col.reason(status)] += times
    return dict(counts.most_common())


def value_counts(values: pa.ChunkedArray) -> Counter[Any]:
    """How often each value occurs, in the order of the first of each."""
    return Counter({entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()})


def rejected_texts(rows: Dataset) -> list[dict[str, Any]]:
    """One rejected text of each status, the most frequent first, with its parent."""
    if col.REJECTED not in rows.column_names or not len(rows):
        return []
    rejected = column(rows, col.REJECTED)
    places, texts = pc.list_parent_indices(rejected), pc.list_flatten(rejected)
    statuses = pc.struct_field(texts, "status")
    found = []
    for status, count in value_counts(statuses).most_common():
        if status == col.OK:  # another text of the row was preferred
            continue
        place = pc.index(statuses, status).as_py()
        row = rows[places[place].as_py()]
        shown = {name: row[name] for name in (col.ROUND, col.METHOD, col.PARENT_INSTRUCTION)}
        found.append({"status": status, "count": count, "text": texts[place].as_py()["instruction"]} | shown)
    return found
