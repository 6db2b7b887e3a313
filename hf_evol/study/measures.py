"""What a study compares, what it measures of each row, and how it speaks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_evol import columns as col
from hf_evol.scoring.compatibility import linearized
from hf_evol.scoring.difficulty import LEVELS

REWARD_OF_EVOLUTION = "reward_evolution"
N_WORDS = "n_words"
USABLE = "usable"
PREFERRED = "preferred"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure of a row, as ``measures.yaml`` has it."""

    name: str  # its column, and its name in ``results.json``
    label: str  # what a figure's axis says
    unit: str = ""
    higher_is: str  # what the one with the higher mean is, as a comparative
    about: str  # a sentence for readers, with its source


@dataclass(frozen=True)
class Role:
    """What the models do that a study compares, and by which measures.

    Those of ``quality`` say which is the better one; all others describe. More of each is better.
    """

    name: str
    measures: tuple[Measure, ...]
    quality: tuple[str, ...]


ROLES = {
    role: Role(role, tuple(Measure(name=name, **of) for name, of in found["measures"].items()), tuple(found["quality"]))
    for role, found in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items()
}
EVOLVER, RESPONDER = ROLES["evolver"], ROLES["responder"]


def values(measure: Measure, rows: Sequence[dict[str, Any]], beta: float) -> list[float | None]:
    """The values of rows of one set as numbers; None where a row has none."""
    if measure.name == col.CAR:
        return linearized(*([row.get(name) for row in rows] for name in (col.REWARD, col.BASE_LOSS)), beta)
    found = [row.get(measure.name) for row in rows]
    return [None if value is None else float(LEVELS.index(value) if value in LEVELS else value) for value in found]
