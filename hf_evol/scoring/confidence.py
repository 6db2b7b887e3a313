"""The output space of an evolver: how sure it is of its most probable token (paper, "Output space")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hf_evol import columns as col
from hf_evol.errors import check_counts
from hf_evol.generation.base import GREEDY, Completion, Record, SamplingParams
from hf_evol.prompts.evol_instruct import Method, resolve_methods
from hf_evol.scoring.pairs import evolving_prompts
from hf_evol.transform import Batch, GreedyTransform

_SURE = 0.9  # a position counts for share_over_90 if its most probable token is likelier than this


@dataclass(frozen=True, kw_only=True)
class Confidence(GreedyTransform):
    """The probability of the most probable token at each position of a model's greedy answer to each row's evolving prompt.

    Input columns:
        ``parent_instruction``, ``method`` and, if there, ``try`` and ``context``, of which the prompt of the row's last
        round is made again.

    Output columns:
        ``top1_probs`` (a list, one number a position), ``top1_mean`` (its mean), ``share_over_90`` (the share of
        positions whose probability is over 0.9), and ``confidence_status``: ``ok``, or why the others are null:
        ``invalid_input`` (no text), ``unknown_method`` (none of ``methods``), ``no_probabilities`` (the engine gave
        none), ``too_long: …`` or ``engine_error: …``.

    Args:
        model: the evolver: a Hub id, a folder, a `ModelSpec` or an engine.
        positions: how many first positions to look at; 5 in the paper's script, by default all.
        methods: those that the rows were evolved with, as for `EvolInstruct`; for rows of `AutoEvolInstruct`,
            ``[hf_evol.prompts.auto_evol.AUTO]``.
        max_new_tokens: the longest answer without ``positions``, in tokens; 2,048 in the paper.

    Example:
        >>> row = {"parent_instruction": ["Name a river."], "method": ["deepen"]}
        >>> [len(probs) for probs in Confidence("demo", positions=5, journal=False)(row)["top1_probs"]]
        [5]
    """

    positions: int | None = None
    methods: str | Path | Sequence[str | Method] = "alpaca"

    input_columns = (col.PARENT_INSTRUCTION, col.METHOD)
    output_columns = {
        col.TOP1_PROBS: ["float64"],
        col.TOP1_MEAN: "float64",
        col.SHARE_OVER_90: "float64",
        col.CONFIDENCE_STATUS: "string",
    }
    label = "Measure confidence"

    def __post_init__(self) -> None:
        check_counts(self, "positions")
        object.__setattr__(self, "methods", resolve_methods(self.methods))
        super().__post_init__()

    @property
    def sampling(self) -> SamplingParams:
        count = self.positions or self.max_new_tokens
        return replace(GREEDY, max_new_tokens=count, top1_probs=count)

    def apply(self, batch: Batch) -> Batch:
        prompts = evolving_prompts(batch, self.methods)
        replies = self.replies_to([None if isinstance(prompt, str) else prompt for prompt in prompts])
        records = [_measured(reply) if reply else _failed(why) for why, reply in zip(prompts, replies, strict=True)]
        return {name: [record[name] for record in records] for name in self.output_columns}


def _measured(reply: Completion) -> Record:
    probs = reply.top1_probs
    if reply.error is not None or not probs:
        return _failed(reply.error or "no_probabilities")
    return {
        col.TOP1_PROBS: probs,
        col.TOP1_MEAN: sum(probs) / len(probs),
        col.SHARE_OVER_90: sum(prob > _SURE for prob in probs) / len(probs),
        col.CONFIDENCE_STATUS: col.OK,
    }


def _failed(status: str) -> Record:
    return dict.fromkeys(Confidence.output_columns) | {col.CONFIDENCE_STATUS: status}
