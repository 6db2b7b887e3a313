"""From measured rows to what a study says: paired comparisons, summaries, yields, costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from hf_evol import columns as col
from hf_evol.scoring.compatibility import BETA
from hf_evol.scoring.difficulty import LEVELS
from hf_evol.scoring.summary import summarize
from hf_evol.study.measures import EVOLVER, PREFERRED, Measure, Role, values
from hf_evol.study.statistics import CONFIDENCE, Comparison, compare, holm, verdict

LABEL = "label"
STATUS = "status"
SEEDS = "seeds"

Rows = list[dict[str, Any]]
Sets = dict[tuple[str, int], dict[str, dict[str, Any]]]  # by label and round, rows by id
Judged = dict[tuple[str, str, int], Rows]  # by the two labels and round
RESAMPLES = 10_000


def analyse(
    rows: Rows, judged: Rows | None, labels: Sequence[str], rounds: int, *, seed: int, role: Role = EVOLVER,
    beta: float = BETA,
) -> dict[str, Any]:  # fmt: skip
    """Everything of ``results.json`` that follows from the rows.

    Args:
        rows: a row of each label, round and seed, and the seeds as round 0 of ``seeds``; with ``label``, ``id``, ``round``,
            ``status`` and the columns of the measures.
        rounds: how many rounds the seeds were evolved for; of 0, the rows answer the seeds themselves.
        judged: rows with ``a``, ``b``, ``round``, ``id``, ``verdict`` and ``judge_status``; None where nobody judged.
    """
    sets: Sets = {}
    for row in rows:
        sets.setdefault((row[LABEL], row[col.ROUND]), {})[row[col.ID]] = row
    pairs: Judged = {(a, b, number): [] for a, b in combinations(labels, 2) for number in numbers(rounds)}
    for row in judged or []:
        pairs[row["a"], row["b"], row[col.ROUND]].append(row)
    present = {name for row in rows for name in row} | ({PREFERRED} if judged is not None else set())
    made = [measure for measure in role.measures if measure.name in present]
    return {
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "measures": [{"measure": m.name, "label": m.label, "unit": m.unit, "about": m.about} for m in made],
        "comparisons": _comparisons(made, sets, pairs, seed, beta),
        "summaries": _summaries(made, sets, role.name, beta),
        "levels": _levels(sets, role.name) if col.DIFFICULTY_LEVEL in present else [],
        "yields": [_yield(sets[label, n], {role.name: label, "round": n}) for label in labels for n in numbers(rounds)],
        "judgements": [_judgement(verdicts, *key) for key, verdicts in pairs.items() if verdicts],
    }


def numbers(rounds: int) -> range:
    """Those of the rounds that are compared: of none, the seeds themselves are round 0."""
    return range(min(1, rounds), rounds + 1)


def _comparisons(made: Sequence[Measure], sets: Sets, judged: Judged, seed: int, beta: float) -> list[dict[str, Any]]:
    entries, compared = [], []
    for measure in made:
        for a, b, number in sorted(judged, key=lambda key: key[2]):
            if measure.name == PREFERRED:
                verdicts = [row[col.VERDICT] for row in judged[a, b, number] if row[col.VERDICT] is not None]
                left, right = ([float(said == of_side) for said in verdicts] for of_side in ("win", "lose"))
            else:
                left, right = _paired(measure, [(row, sets[b, number][i]) for i, row in sets[a, number].items()], beta)
            found = compare(left, right, seed=seed, resamples=RESAMPLES, family=len(made) * len(judged))
            of = {"measure": measure.name, "round": number, "a": a, "b": b}
            entries.append(of | asdict(found) | {"n_unpaired": len(sets[a, number]) - len(left)})
            compared.append((a, b, measure, found))
    return [entry | more for entry, more in zip(entries, conclusions(compared), strict=True)]


def conclusions(compared: Sequence[tuple[str, str, Measure, Comparison]]) -> list[dict[str, Any]]:
    """Of all comparisons of two names the adjusted p-values and verdicts."""
    adjusted = holm([found.p_value for *_, found in compared])
    return [
        {"adjusted_p": p, "verdict": verdict(a, b, measure.label, found, p, measure.higher_is)}
        for (a, b, measure, found), p in zip(compared, adjusted, strict=True)
    ]


def _paired(measure: Measure, pairs: Sequence[tuple[Any, Any]], beta: float) -> list[list[Any]]:
    """The values of both sides, where both have one."""
    for _ in range(2):  # CAR is one of a set: here, of the pairs
        sides = [values(measure, [pair[side] for pair in pairs], beta) for side in (0, 1)]
        pairs = [pair for pair, *found in zip(pairs, *sides, strict=True) if None not in found]
    return sides if pairs else [[], []]


def _summaries(made: Sequence[Measure], sets: Sets, role: str, beta: float) -> list[dict[str, Any]]:
    entries = []
    for measure in (measure for measure in made if measure.name != PREFERRED):
        for (label, number), rows in sets.items():
            if label != SEEDS or any(measure.name in row for row in rows.values()):
                summary = summarize(measure.name, values(measure, list(rows.values()), beta))
                if measure.name == col.CAR:  # a figure of the set: its rows' values spread as it does, and no more
                    summary |= dict.fromkeys(("q1", "median", "q3"))
                entries.append({"measure": summary.pop("name"), role: label, "round": number} | summary)
    return entries


def _levels(sets: Sets, role: str) -> list[dict[str, Any]]:
    """How many rows have which level; those that could not be rated are counted beside them."""
    entries = []
    for (label, number), rows in sets.items():
        usable = (row for row in rows.values() if row[STATUS] == col.OK)
        rated = [row for row in usable if col.DIFFICULTY_LEVEL in row]  # not of all seeds
        counts = Counter(row[col.DIFFICULTY_LEVEL] for row in rated)
        levels = {level: counts[level] for level in LEVELS}
        without = _without([row for row in rated if row[col.DIFFICULTY_LEVEL] is None], col.DIFFICULTY_STATUS)
        entries.append({role: label, "round": number, "counts": levels} | without)
    return entries


def _yield(rows: dict[str, dict[str, Any]], of: dict[str, Any]) -> dict[str, Any]:
    dropped = Counter(row[STATUS] for row in rows.values())
    ok = dropped.pop(col.OK, 0)
    unanswered = Counter(row.get(col.RESPONSE_STATUS) for row in rows.values() if row[STATUS] == col.OK)
    lost = {reason: count for reason, count in unanswered.most_common() if reason not in (None, col.OK)}
    return of | {"rows_in": len(rows), "ok": ok} | {"dropped": dict(dropped.most_common()), "unanswered": lost}


def _judgement(rows: Rows, a: str, b: str, number: int) -> dict[str, Any]:
    verdicts = Counter(row[col.VERDICT] for row in rows)
    counts = {name: verdicts[name] for name in ("win", "tie", "lose")}
    disagreement = sum(row[col.JUDGE_STATUS] == "disagreement" for row in rows)
    without = _without([row for row in rows if row[col.VERDICT] is None], col.JUDGE_STATUS)
    return {"a": a, "b": b, "round": number} | counts | {"disagreement": disagreement} | without


def _without(rows: Rows, status: str) -> dict[str, int]:
    """Of rows without a judge's word, how many replies could not be read, and how many requests failed."""
    failed = col.failed(row.get(status) for row in rows).total()
    return {"unreadable": len(rows) - failed, "failed": failed}
