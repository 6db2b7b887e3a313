"""The rows that a study's report shows: each seed beside what was made of it, added words apart."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from datasets import Dataset

from hf_evol import columns as col
from hf_evol.prompts.template import transcript

PAIRS = 2_000
_TEXT, _RESPONSE = 3_000, 800  # characters; the rest of a longer text is only counted

_IDEOGRAPH = "぀-ヿ㐀-䶿一-鿿가-힯"  # written without spaces: each is a word
_WORD = re.compile(rf"[{_IDEOGRAPH}]|(?:(?![{_IDEOGRAPH}])[\w'’-])+")


def excerpt(results: Mapping[str, Any], rows: Dataset, cap: int = PAIRS) -> dict[str, Any]:
    """What the report embeds of the rows, as plain JSON data.

    A pair is a seed in one round, by all labels. Of more than ``cap``, seeds are drawn with the study's seed, each with all
    of its rounds.

    Returns:
        ``labels``; ``rounds``, 0 where nothing was evolved; ``measures``: the columns with numbers; ``seeds``: by id; ``pairs``, each with
        ``id``, ``round``, ``method`` and ``by``: for each label a cell or None; ``total``: how many pairs there are.
    """
    labels = [model["label"] for model in results[f"{results['role']}s"]]
    order = {id_: place for place, id_ in enumerate(dict.fromkeys(rows[col.ID]))}
    total = len(set(zip(rows[col.ID], rows[col.ROUND], strict=True)))
    if total > cap:
        drawn = random.Random(results["seed"]).sample(sorted(order), len(order))
        kept = set(drawn[: cap // max(1, results["rounds"])])
        rows = rows.select([place for place, id_ in enumerate(rows[col.ID]) if id_ in kept])
    found = rows.to_list()
    measures = [{"measure": m["measure"], "label": m["label"]} for m in results["measures"]]
    measures = [m for m in measures if any(_number(row.get(m["measure"])) is not None for row in found)]
    by_pair: dict[tuple[str, int], dict[str, Any]] = {}
    for row in found:
        by_pair.setdefault((row[col.ID], row[col.ROUND]), {})[row["label"]] = row
    seeds, pairs = {}, []
    for (id_, round_), cells in sorted(by_pair.items(), key=lambda item: (order[item[0][0]], item[0][1])):
        first = next(iter(cells.values()))
        seeds[id_] = _clipped(first[col.SEED_INSTRUCTION if results["rounds"] else col.INSTRUCTION], _TEXT) | {
            "input": _clipped(first.get(col.INPUT), _TEXT),
            "context": _clipped(transcript(first.get(col.CONTEXT) or ()), _TEXT),
        }
        by = [
            _cell(cells[label], measures, evolved=results["rounds"] > 0) if label in cells else None for label in labels
        ]
        pairs.append({"id": id_, "round": round_, "method": first.get(col.METHOD), "by": by})
    about = {"labels": labels, "rounds": results["rounds"], "measures": measures}
    return about | {"seeds": seeds, "pairs": pairs, "total": total}


def added(seed: str, text: str) -> list[str]:
    """A text in parts: as in the seed, added, as in the seed, added, …; joined, they are the text.

    Words are compared without case and punctuation, and keep their order (Ratcliff and Obershelp, as in `difflib`).

    Example:
        >>> added("List three rivers.", "List three long rivers in Asia.")
        ['List three ', 'long', ' rivers ', 'in Asia', '.']
    """
    words = list(_WORD.finditer(text))
    old, new = [[match[0].casefold() for match in found] for found in (_WORD.finditer(seed), words)]
    parts, end = [], 0
    for kind, _, _, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind in ("insert", "replace"):
            start, stop = words[first].start(), words[last - 1].end()
            parts += [text[end:start], text[start:stop]]
            end = stop
    return [*parts, text[end:]]


def _cell(row: Mapping[str, Any], measures: Sequence[Mapping[str, str]], evolved: bool) -> dict[str, Any]:
    """What one made: an instruction, with its response, or the response alone."""
    text = _clipped(row[col.INSTRUCTION if evolved else col.OUTPUT], _TEXT)
    return {
        "status": row["status"] or "unknown",
        "parts": added(_clipped(row[col.SEED_INSTRUCTION], _TEXT)["text"], text["text"]) if evolved else [text["text"]],
        "more": text["more"],
        "level": row.get(col.DIFFICULTY_LEVEL),
        "values": [_number(row.get(measure["measure"])) for measure in measures],
        "output": _clipped(row.get(col.OUTPUT) if evolved else None, _RESPONSE),
    }


def _clipped(text: str | None, limit: int) -> dict[str, Any]:
    text = text or ""
    return {"text": text[:limit], "more": max(0, len(text) - limit)}


def _number(value: Any) -> float | None:
    return float(f"{value:.6g}") if isinstance(value, int | float) and math.isfinite(value) else None
