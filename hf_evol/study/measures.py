"""What a study measures of each evolved row, and how it speaks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_evol import columns as col
from hf_evol.scoring.difficulty import LEVELS

REWARD_OF_EVOLUTION = "reward_evolution"
N_WORDS = "n_words"
USABLE = "usable"
PREFERRED = "preferred"


@dataclass(frozen=True)
class Measure:
    """One measure of a row."""

    name: str  # its column, and its name in ``results.json``
    label: str  # what a figure's axis says
    unit: str
    higher_is: str  # what an evolver with the higher mean is, as a comparative
    about: str  # a sentence for readers, with its source


MEASURES = (
    Measure(USABLE, "usable rows", "share", "more often usable",
            "Whether a row was evolved and kept by the rules of elimination (1) or not (0); rows whose request failed don't "
            "count. A response that is cut off or missing is the responder's: the instruction's own measures count."),
    Measure(col.DIFFICULTY_LEVEL, "difficulty level", "level", "harder",
            "The judge's level of the instruction, from 0, very easy, to 4, very hard (paper, Analyses)."),
    Measure(col.DIFFICULTY_SCORE, "difficulty score", "points", "harder",
            "The judge's score of the instruction, from 0 to 100 (paper, Analyses)."),
    Measure(PREFERRED, "judge's preference", "share", "more often preferred",
            "Which rewriting of the same seed the judge finds better, asked in both orders: 1 if it is this evolver's, 0 "
            "otherwise; where the orders disagree, it is a tie."),
    Measure(col.MND, "distance to the nearest row", "", "more diverse",
            "The distance of the instruction to its nearest other row of the same set, in an embedding space (paper, "
            "Analyses)."),
    Measure(col.TOP1_MEAN, "top-1 probability", "", "surer of its tokens",
            "The mean probability of the most probable token while evolving greedily; lower means a wider output space "
            "(paper, Analyses)."),
    Measure(col.SHARE_OVER_90, "share of sure tokens", "share", "surer of its tokens",
            "The share of positions whose most probable token has a probability over 0.9."),
    Measure(REWARD_OF_EVOLUTION, "reward of the rewriting", "", "rated higher",
            "The reward model's score of the evolved instruction as the answer to its evolving prompt (paper, Analyses)."),
    Measure(col.REWARD, "reward of the response", "", "rated higher",
            "The reward model's score of the response to the evolved instruction."),
    Measure(col.IFD, "IFD", "", "higher",
            "L(A | Q) / L(A): how little the instruction helps the scorer with the response (arXiv:2308.12032)."),
    Measure(col.IC_IFD, "IC-IFD", "", "higher",
            "IFD divided by L(Q), so that instructions that are hard to read don't count as hard (paper, IC-IFD)."),
    Measure(N_WORDS, "length", "words", "longer", "Words of the instruction."),
)  # fmt: skip


def value(measure: Measure, row: dict[str, Any]) -> float | None:
    """A row's value as a number; None where it has none."""
    found = row.get(measure.name)
    return None if found is None else float(LEVELS.index(found) if found in LEVELS else found)
