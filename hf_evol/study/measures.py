"""What a study compares, what it measures of each row, and how it speaks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_evol import columns as col
from hf_evol.scoring.compatibility import linearized
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


_IFD = (
    Measure(col.IFD, "IFD", "", "higher",
            "L(A | Q) / L(A): how little the instruction helps the scorer with the response (arXiv:2308.12032)."),
    Measure(col.IC_IFD, "IC-IFD", "", "higher",
            "IFD divided by L(Q), so that instructions that are hard to read don't count as hard (paper, IC-IFD)."),
)  # fmt: skip
_OF_EVOLVERS = (
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
    *_IFD,
    Measure(N_WORDS, "length", "words", "longer", "Words of the instruction."),
)  # fmt: skip


_OF_RESPONDERS = (
    Measure(USABLE, "usable responses", "share", "more often usable",
            "Whether the response is whole and kept by the rules of elimination (1) or not (0); rows that could not be "
            "asked don't count. The other measures are those of usable responses."),
    Measure(col.CAR, "compatibility-adjusted reward", "", "better for the base",
            "CAR, the mean reward over 1 + β · the mean loss under the base: a figure of the set (arXiv:2411.07133), whose "
            "means, intervals and tests here are those of its linearization by rows."),
    Measure(PREFERRED, "judge's preference", "share", "more often preferred",
            "Which response to the same instruction the judge finds better, asked in both orders: 1 if it is this "
            "responder's, 0 otherwise; where the orders disagree, it is a tie."),
    Measure(col.REWARD, "reward", "", "rated higher", "The reward model's score of the response."),
    Measure(col.BASE_LOSS, "loss under the base", "nats per token", "less likely under the base",
            "The mean cross-entropy of the response, given the instruction, under the base model before it is tuned: lower means "
            "more compatible with it."),
    *_IFD,
    Measure(N_WORDS, "length", "words", "longer", "Words of the response."),
)  # fmt: skip

# IFD is left out, since instructions that are hard to read inflate it (paper, "IC-IFD"), and so are the length and the
# output space, which the paper gives as an explanation. Selection keeps the highest IC-IFD, as worth training on, which says
# something of an instruction; of a response to a given one, it says rather that it is unlikely.
EVOLVER = Role(
    "evolver", _OF_EVOLVERS, (col.DIFFICULTY_SCORE, PREFERRED, REWARD_OF_EVOLUTION, col.REWARD, col.IC_IFD, col.MND)
)
RESPONDER = Role("responder", _OF_RESPONDERS, (col.CAR, PREFERRED, col.REWARD))
ROLES = {role.name: role for role in (EVOLVER, RESPONDER)}


def values(measure: Measure, rows: Sequence[dict[str, Any]], beta: float) -> list[float | None]:
    """The values of rows of one set as numbers; None where a row has none."""
    if measure.name == col.CAR:
        return linearized(*([row.get(name) for row in rows] for name in (col.REWARD, col.BASE_LOSS)), beta)
    found = [row.get(measure.name) for row in rows]
    return [None if value is None else float(LEVELS.index(value) if value in LEVELS else value) for value in found]
