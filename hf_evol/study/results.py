"""From measured rows to what a study says: paired comparisons, summaries, yields, costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from hf_evol import columns as col
from hf_evol.scoring.difficulty import LEVELS
from hf_evol.scoring.summary import summarize
from hf_evol.study.measures import MEASURES, PREFERRED, Measure, value
from hf_evol.study.statistics import compare, holm, verdict

LABEL = "label"
STATUS = "status"
SEEDS = "seeds"

Rows = list[dict[str, Any]]
CONFIDENCE, RESAMPLES = 0.95, 10_000


def analyse(rows: Rows, judged: Rows | None, labels: Sequence[str], rounds: int, *, seed: int) -> dict[str, Any]:
    """Everything of ``results.json`` that follows from the rows.

    Args:
        rows: of all evolvers and rounds, and the seeds with the label ``seeds`` and round 0; with ``label``, ``id``,
            ``round``, ``status`` and the columns of the measures.
        judged: of each pair of evolvers and round, ``a``, ``b``, ``round``, ``id``, ``verdict`` and ``judge_status``; None
            where nobody judged.
        labels: the evolvers.
        rounds: how many.
        seed: of the resampling.
    """
    made = [measure for measure in MEASURES if measure.name == PREFERRED or any(measure.name in row for row in rows)]
    made = [measure for measure in made if measure.name != PREFERRED or judged is not None]
    judged = judged or []
    by_set: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_set.setdefault((row[LABEL], row[col.ROUND]), {})[row[col.ID]] = row
    return {
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "measures": [{"measure": m.name, "label": m.label, "unit": m.unit, "about": m.about} for m in made],
        "comparisons": _comparisons(made, by_set, judged, labels, rounds, seed),
        "summaries": _summaries(made, by_set),
        "levels": _levels(by_set) if any(m.name == col.DIFFICULTY_LEVEL for m in made) else [],
        "yields": _yields(by_set, labels, rounds),
        "judgements": _judgements(judged),
    }


def _comparisons(
    made: Sequence[Measure], by_set: dict[tuple[str, int], dict[str, Any]], judged: Rows, labels: Sequence[str],
    rounds: int, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    entries, comparisons = [], []
    for measure in made:
        for number in range(1, rounds + 1):
            for a, b in combinations(labels, 2):
                if measure.name == PREFERRED:
                    pairs = _preferences(judged, a, b, number)
                else:
                    pairs = _pairs(measure, by_set.get((a, number), {}), by_set.get((b, number), {}))
                total = len({*by_set.get((a, number), {}), *by_set.get((b, number), {})})
                found = compare([x for x, _ in pairs], [y for _, y in pairs], seed=seed)
                comparisons.append((measure, found))
                entry = {"measure": measure.name, "round": number, "a": a, "b": b} | asdict(found)
                entries.append(entry | {"n_unpaired": total - len(pairs)})
    adjusted = holm([found.p_value for _, found in comparisons])
    for entry, (measure, found), p_value in zip(entries, comparisons, adjusted, strict=True):
        del entry["confidence"]
        entry["adjusted_p"] = p_value
        entry["verdict"] = verdict(entry["a"], entry["b"], measure.label, found, p_value, measure.higher_is)
    return entries


def _pairs(measure: Measure, one: dict[str, Any], other: dict[str, Any]) -> list[tuple[float, float]]:
    """The values of rows that both have."""
    ids = dict.fromkeys([*one, *other])
    values = [(value(measure, one.get(i, {})), value(measure, other.get(i, {}))) for i in ids]
    return [(x, y) for x, y in values if x is not None and y is not None]


def _preferences(judged: Rows, a: str, b: str, number: int) -> list[tuple[float, float]]:
    mine = [row for row in judged if (row["a"], row["b"], row[col.ROUND]) == (a, b, number)]
    verdicts = [row[col.VERDICT] for row in mine if row[col.VERDICT] is not None]
    return [(float(entry == "win"), float(entry == "lose")) for entry in verdicts]


def _summaries(made: Sequence[Measure], by_set: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    entries = []
    for measure in (measure for measure in made if measure.name != PREFERRED):
        for (label, number), rows in by_set.items():
            if label == SEEDS and not measure.of_seeds:
                continue
            summary = summarize(measure.name, [value(measure, row) for row in rows.values()])
            del summary["name"]
            entries.append({"measure": measure.name, "evolver": label, "round": number} | summary)
    return entries


def _levels(by_set: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """How many rows have which level; those that could not be rated are counted beside them."""
    entries = []
    for (label, number), rows in by_set.items():
        # Seeds that could not be rated lack the column.
        usable = [row for row in rows.values() if row[STATUS] == col.OK and col.DIFFICULTY_LEVEL in row]
        counts = Counter(row[col.DIFFICULTY_LEVEL] for row in usable)
        levels = {level: counts[level] for level in LEVELS}
        entries.append({"evolver": label, "round": number, "counts": levels, "unreadable": counts[None]})
    return entries


def _yields(by_set: dict[tuple[str, int], dict[str, Any]], labels: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    entries = []
    for label in labels:
        for number in range(1, rounds + 1):
            rows = by_set.get((label, number), {}).values()
            statuses = Counter(row[STATUS] for row in rows)
            lost = {reason: count for reason, count in statuses.most_common() if reason != col.OK}
            unanswered = Counter(row.get(col.RESPONSE_STATUS) for row in rows if row[STATUS] == col.OK)
            entries.append(
                {
                    "evolver": label,
                    "round": number,
                    "rows_in": statuses.total(),
                    "ok": statuses[col.OK],
                    "dropped": lost,
                    "unanswered": {
                        reason: count for reason, count in unanswered.most_common() if reason not in (None, col.OK)
                    },
                }
            )
    return entries


def _judgements(judged: Rows) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, int], Rows] = {}
    for row in judged:
        groups.setdefault((row["a"], row["b"], row[col.ROUND]), []).append(row)
    entries = []
    for (a, b, number), rows in groups.items():
        verdicts = Counter(row[col.VERDICT] for row in rows)
        disagreement = sum(row[col.JUDGE_STATUS] == "disagreement" for row in rows)
        entries.append(
            {"a": a, "b": b, "round": number}
            | {name: verdicts[name] for name in ("win", "tie", "lose")}
            | {"disagreement": disagreement, "unreadable": verdicts[None]}
        )
    return entries
