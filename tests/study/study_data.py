"""Results and rows of a study as `hf-evol study` would have them, from random numbers."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from datasets import Dataset

from hf_evol.scoring.difficulty import LEVELS
from hf_evol.scoring.summary import summarize
from hf_evol.study.statistics import compare, holm, verdict

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 & <b>\"'{{ 7*7 }} $x_{1}$ \u202e\x00\uffff\ud83d"
UTF8 = HOSTILE.encode("utf-8", "ignore").decode()  # without the lone surrogate, which no Arrow string can hold

# measure: mean of the seeds, what a round adds for the first evolver and for the others
MEASURES = {
    "difficulty_score": (30.0, 15.0, 5.0), "reward": (-1.0, 0.6, 0.5), "ifd": (0.8, 0.01, 0.01), "ic_ifd": (0.35, 0.0, 0.0),
    "mnd": (0.6, 0.02, 0.0), "top1_mean": (0.8, -0.02, 0.0), "share_over_90": (0.5, 0.0, 0.0),
    "n_words": (12.0, 13.0, 12.0),
}  # fmt: skip


def make(labels=("small", "large"), n=12, rounds=2, measures=tuple(MEASURES), text="Name a river"):
    """(results, rows): all that the contract has, for the measures asked for; about one row in ten is left out."""
    random = np.random.default_rng(0)
    rows = []
    for label in labels:
        for i in range(n):
            for round_ in range(1, rounds + 1):
                ok = n < 3 or random.random() > 0.1
                row = {"label": label, "id": f"t-{i}", "round": round_, "method": ("constraint", "deepen")[i % 2]}
                row |= {"status": "ok" if ok else "near_copy", "seed_instruction": text, "input": "", "output": text}
                row["instruction"] = text + f" in Asia, number {round_}" if ok else text
                for measure in measures:
                    start, first, other = MEASURES[measure]
                    value = start + round_ * (first if label == labels[0] else other) + random.normal() * start / 10
                    row[measure] = value if ok else None
                if "difficulty_score" in measures:
                    row["difficulty_level"] = LEVELS[int(np.clip(row["difficulty_score"] // 20, 0, 4))] if ok else None
                if "top1_mean" in measures:
                    row["top1_probs"] = random.beta(4, 1, 5).tolist() if ok else None
                rows.append(row)
    return _results(labels, n, rounds, measures, rows), Dataset.from_list(rows)


def _results(labels, n, rounds, measures, rows):
    def of(label, round_):
        return [row for row in rows if (row["label"], row["round"]) == (label, round_)]

    sides = [(label, round_) for label in labels for round_ in range(1, rounds + 1)]
    statuses = {side: Counter(row["status"] for row in of(*side)) for side in sides}
    levels = {side: Counter(row.get("difficulty_level") for row in of(*side)) for side in sides}
    return {
        "role": "evolver", "title": "Rivers", "seed": 0, "n_seeds": n, "rounds": rounds, "confidence": 0.95, "resamples": 500,
        "evolvers": [{"label": label, "name": f"user/{label}", "n_parameters": None, "revision": "abc", "license": "mit",
                      "dtype": "float32"} for label in labels],
        "models": [{"role": "judge", "name": "user/judge", "n_parameters": 5_065_472, "revision": "def", "license": None}],
        "failures": [{"stage": "reward", "error": "ModelError: no head"}],
        "measures": [{"measure": name, "label": name.replace("_", " "), "unit": None, "about": "What it says."}
                     for name in measures],
        "comparisons": _comparisons(labels, rounds, measures, of),
        "summaries": [_summary(name, label, round_, [row[name] for row in of(label, round_)])
                      for name in measures for label, round_ in sides]
                     + [_summary(name, "seeds", 0, [MEASURES[name][0]] * n) for name in measures],
        "levels": [{"evolver": label, "round": r, "counts": {name: levels[label, r][name] for name in LEVELS},
                    "unreadable": 1, "failed": 0} for label, r in sides],
        "yields": [{"evolver": label, "round": r, "rows_in": n, "ok": statuses[label, r]["ok"],
                    "dropped": {"near_copy": statuses[label, r]["near_copy"]}, "unanswered": {"cut_off": 1}} for label, r in sides],
        "costs": [{"evolver": label, "round": r, "prompt_tokens": 2000, "tokens": 1000, "seconds": None,
                   "flops": 1e12 * (1 + 9 * labels.index(label))} for label, r in sides],
        "judgements": [{"a": a, "b": b, "round": 1, "win": 6, "tie": 3, "lose": 1, "disagreement": 2, "unreadable": 1, "failed": 0}
                       for a, b in combinations(labels, 2)],
        "diversity": [{"evolver": label, "round": r, "n": n, "repeats": 0, "distinct_1": 0.3, "distinct_2": 0.6,
                       "distinct_3": 0.9, "self_similarity": None} for label, r in sides],
    }  # fmt: skip


def _comparisons(labels, rounds, measures, of):
    made = []
    for name in measures:
        for a, b in combinations(labels, 2):
            for round_ in range(1, rounds + 1):
                pairs = [(x[name], y[name]) for x, y in zip(of(a, round_), of(b, round_), strict=True)]
                both = [pair for pair in pairs if None not in pair]
                result = compare(*zip(*both, strict=True), resamples=500)
                made.append((name, round_, a, b, result, len(pairs) - len(both)))
    adjusted = holm([result.p_value for *_, result, _ in made])
    return [
        {"measure": name, "round": round_, "a": a, "b": b, "mean_a": c.mean_a, "mean_b": c.mean_b, "difference": c.difference,
         "low": c.low, "high": c.high, "p_value": c.p_value, "adjusted_p": p, "n": c.n, "n_unpaired": unpaired,
         "verdict": verdict(a, b, name, c, p)}
        for (name, round_, a, b, c, unpaired), p in zip(made, adjusted, strict=True)
    ]  # fmt: skip


def _summary(measure, evolver, round_, values):
    summary = summarize(measure, values)
    del summary["name"]
    return {"measure": measure, "evolver": evolver, "round": round_} | summary


def unmeasured(results):
    """The same study with null for whatever may be null."""
    nothing = dict.fromkeys(("mean_a", "mean_b", "difference", "low", "high", "p_value", "adjusted_p", "verdict"))
    no_mean = dict.fromkeys(("mean", "ci95", "q1", "median", "q3"))
    return results | {
        "comparisons": [entry | nothing | {"n": 0} for entry in results["comparisons"]],
        "summaries": [entry | no_mean | {"n": 0} for entry in results["summaries"]],
        "costs": [entry | {"seconds": None, "flops": None} for entry in results["costs"]],
    }
