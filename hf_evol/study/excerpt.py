"""The rows that a study's report shows: each seed beside what the evolvers made of it, added words apart."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col

if TYPE_CHECKING:
    from datasets import Dataset

PAIRS = 2_000
_TEXT, _RESPONSE = 3_000, 800  # characters; the rest of a longer text is only counted

_IDEOGRAPH = "぀-ヿ㐀-䶿一-鿿가-힯"  # written without spaces: each is a word
_WORD = re.compile(rf"[{_IDEOGRAPH}]|(?:(?![{_IDEOGRAPH}])[\w'’-])+")


def excerpt(results: Mapping[str, Any], rows: Dataset, cap: int = PAIRS) -> dict[str, Any]:
    """What the report embeds of the rows, as plain JSON data.

    Where there are more than ``cap`` pairs, seeds are drawn with the study's seed, each with all of its rounds.

    Args:
        results: what ``results.json`` holds.
        rows: one row per evolver, round and seed.
        cap: how many pairs at most; a pair is a seed in one round, by all evolvers.

    Returns:
        ``evolvers``: their labels; ``measures``: the columns with numbers; ``seeds``: by id; ``pairs``, each with
        ``id``, ``round``, ``method`` and ``by``: for each evolver a cell or None; ``total``: how many pairs there are.
    """
    labels = [evolver["label"] for evolver in results["evolvers"]]
    keys = rows.select_columns(["label", col.ID, col.ROUND])[:]
    places: dict[str, dict[int, dict[str, int]]] = {}
    for place, (label, id_, round_) in enumerate(zip(keys["label"], keys[col.ID], keys[col.ROUND], strict=True)):
        if label in labels:
            places.setdefault(id_, {}).setdefault(round_, {})[label] = place
    total = sum(map(len, places.values()))
    kept = _drawn(places, cap, results["seed"])
    wanted = [place for id_ in kept for of_round in places[id_].values() for place in of_round.values()]
    found = dict(zip(wanted, rows.select(wanted).to_list(), strict=True)) if wanted else {}
    measures = [
        m for m in results["measures"] if any(_number(row.get(m["measure"])) is not None for row in found.values())
    ]
    names = [measure["measure"] for measure in measures]
    seeds, pairs = {}, []
    for id_ in kept:
        for round_, of_round in sorted(places[id_].items()):
            cells = [found[of_round[label]] if label in of_round else None for label in labels]
            first = next(cell for cell in cells if cell is not None)
            seeds[id_] = _clipped(first[col.SEED_INSTRUCTION], _TEXT) | {"input": _clipped(first.get(col.INPUT), _TEXT)}
            by = [None if cell is None else _cell(cell, names) for cell in cells]
            pairs.append({"id": id_, "round": round_, "method": first.get(col.METHOD), "by": by})
    shown = [{"measure": measure["measure"], "label": measure["label"]} for measure in measures]
    return {"evolvers": labels, "measures": shown, "seeds": seeds, "pairs": pairs, "total": total}


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


def _drawn(places: Mapping[str, Mapping[int, Any]], cap: int, seed: int) -> list[str]:
    """Ids in their order, as many as fit."""
    if sum(map(len, places.values())) <= cap:
        return list(places)
    left, drawn = cap, set()
    for id_ in random.Random(seed).sample(sorted(places), len(places)):
        if len(places[id_]) > left:
            break
        drawn.add(id_)
        left -= len(places[id_])
    return [id_ for id_ in places if id_ in drawn]


def _cell(row: Mapping[str, Any], measures: Sequence[str]) -> dict[str, Any]:
    text = _clipped(row[col.INSTRUCTION], _TEXT)
    seed = (row[col.SEED_INSTRUCTION] or "")[:_TEXT]
    return {
        "status": row["status"] or "unknown",
        "parts": added(seed, text["text"]),
        "more": text["more"],
        "level": row.get(col.DIFFICULTY_LEVEL),
        "values": [_number(row.get(measure)) for measure in measures],
        "output": _clipped(row.get(col.OUTPUT), _RESPONSE),
    }


def _clipped(text: str | None, limit: int) -> dict[str, Any]:
    text = text or ""
    return {"text": text[:limit], "more": max(0, len(text) - limit)}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")
