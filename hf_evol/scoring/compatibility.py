"""How well responses suit the model that is to be tuned on them (arXiv:2411.07133)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ConfigError, check_counts
from hf_evol.generation.base import Record
from hf_evol.scoring.conventions import Layout, Pair
from hf_evol.scoring.local import ScoringTransform, check_causal
from hf_evol.scoring.losses import OUT_OF_MEMORY, Loss, TokenSpans
from hf_evol.scoring.pairs import PairScorer, answered
from hf_evol.scoring.summary import summarize
from hf_evol.transform import Batch

BETA = 1.0  # ours: the paper calls it tunable
NEGATIVE = "negative_reward"


@dataclass(frozen=True, kw_only=True)
class Compatibility(ScoringTransform):
    """The loss of each row's response under the base model, before it is tuned, and the reward that this loss adjusts.

    With r(D) the mean reward of a set of responses D, and L(D, θ) their mean loss under the base model θ, the
    compatibility-adjusted reward ("Stronger Models are Not (Always) Stronger Teachers for Instruction Tuning",
    arXiv:2411.07133) is::

        CAR(D, θ) = r(D) / (1 + β · L(D, θ))

    It is a figure of a set, which `compatibility_adjusted_reward` gives; ``car`` is the same of one row, and the set's is
    not its mean. The loss is the mean cross-entropy of the response's tokens after the instruction in the base's chat
    template; where it has none, after the instruction and a newline. The token that ends the turn doesn't count.

    Input columns:
        Those of `IcIfd` and, if there, ``reward`` (of `Reward`).

    Output columns:
        ``base_loss`` (nats per token), ``car`` (null without a reward), and ``compatibility_status``: ``ok``,
        ``negative_reward`` (the loss is there, but no ``car``: a negative reward would rise with the loss), or why both
        are null: as in `IcIfd` ``invalid_input``, ``not_evolved``, ``eliminated``, ``not_answered``, ``too_long``,
        ``short_answer``, ``out_of_memory``, ``template_error`` or ``not_finite``.

    Args:
        model: the base model: a Hub id, a folder or a `ModelSpec`.
        beta: how much the loss counts, over 0; the default is ours.
        batch_tokens: as in `IcIfd`.

    Raises:
        ModelError: the model isn't causal.

    Example:
        >>> row = {"instruction": ["Name a river."], "output": ["The Nile, in Africa."], "reward": [2.0]}
        >>> scores = Compatibility("demo")(row)
        >>> scores["car"][0] == 2.0 / (1 + scores["base_loss"][0])
        True
    """

    beta: float = BETA
    batch_tokens: int | None = None

    input_columns = (col.INSTRUCTION, col.OUTPUT)
    output_columns = {col.BASE_LOSS: "float64", col.CAR: "float64", col.COMPATIBILITY_STATUS: "string"}
    label = "Compatibility"

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        check_counts(self, "batch_tokens")
        super().__post_init__()

    @property
    def reads_chats(self) -> bool:
        return bool(models.load_tokenizer(self.model).chat_template)

    @property
    def scorer(self) -> PairScorer:
        return PairScorer("exact_chat" if self.reads_chats else "exact", batch_tokens=self.batch_tokens)

    def check(self) -> None:
        check_causal(self.model)
        super().check()

    def apply(self, batch: Batch) -> Batch:
        requests = [_record(pair) if isinstance(pair, str) else pair for pair in answered(batch)]
        records = self.remembered(requests, "compatibility", {"score": self.scorer.convention})
        rewards = batch.get(col.REWARD, [None] * len(requests))
        records = [self._adjusted(reward, record) for reward, record in zip(rewards, records, strict=True)]
        return {name: [record[name] for record in records] for name in self.output_columns}

    def _adjusted(self, reward: float | None, record: Record) -> Record:
        loss = record[col.BASE_LOSS]
        if reward is None or math.isnan(reward) or loss is None:
            return record | {col.CAR: None}
        return record | {col.CAR: reward / (1 + self.beta * loss)} if reward >= 0 else _record(NEGATIVE, loss)

    def stream(self, requests: list[Pair]) -> Iterator[dict[int, Record]]:
        for finished in self.scorer.losses(*self.load(), requests, _answer_given_question):
            yield {
                place: _record(layout) if isinstance(layout, str) else _scored(*losses)
                for place, (layout, losses) in finished.items()
            }


def compatibility_adjusted_reward(
    rewards: Sequence[float | None], losses: Sequence[float | None], *, beta: float = BETA
) -> dict[str, Any]:
    """The compatibility-adjusted reward of a set of responses, as `Compatibility` defines it.

    Compare it between sets by one reward model and one base alone: each reward model has a scale of its own. The scale
    must begin at zero, as a negative mean reward would rise with the loss; there is no figure then.

    Args:
        rewards: of each row, as of `Reward`; those without a finite reward or loss don't count.
        losses: of each row, in nats per token, as of `Compatibility`.
        beta: how much the loss counts, over 0.

    Returns:
        ``car``; ``ci95``, its 95 % bootstrap interval over the rows (as the other summaries', of the values of `linearized`);
        ``n``, the rows that count, and ``nulls``, the others; ``mean_reward`` and ``mean_loss``; and ``status``: ``ok``, or
        why there is no figure: ``no_rows`` or ``negative_reward``.

    Raises:
        ConfigError: beta is not over 0.

    Example:
        >>> compatibility_adjusted_reward([1.0, 3.0], [0.5, 1.5])["car"]  # 2 / (1 + 1)
        1.0
    """
    _check_beta(beta)
    numbers, counts = _numbers(rewards, losses)
    n = int(counts.sum())
    reward, loss = (math.fsum(values[counts]) / n for values in numbers) if n else (None, None)
    summary = summarize(col.CAR, linearized(rewards, losses, beta))
    status = "no_rows" if not n else col.OK if summary["n"] else NEGATIVE
    return {
        col.CAR: summary["mean"],
        "ci95": summary["ci95"],
        "n": n,
        "nulls": len(rewards) - n,
        "mean_reward": reward,
        "mean_loss": loss,
        "status": status,
    }


def linearized(
    rewards: Sequence[float | None], losses: Sequence[float | None], beta: float = BETA
) -> list[float | None]:
    """Of each row a value whose mean over the set is its compatibility-adjusted reward, and whose differences from it have the
    spread that this ratio of means has to first order (Särndal, Swensson and Wretman, 1992, section 5.5): so what holds of
    means, as intervals and paired tests, holds of the ratio. None for rows that don't count, and for all of a set whose mean
    reward is negative."""
    numbers, counts = _numbers(rewards, losses)
    found = np.full(len(counts), None)
    if counts.any():
        rewarded, weights = numbers[0, counts], 1 + beta * numbers[1, counts]
        reward, weight = (math.fsum(values) / len(rewarded) for values in (rewarded, weights))
        car = reward / weight
        found[counts] = car + (rewarded - car * weights) / weight if reward >= 0 else None
    return found.tolist()


def _numbers(rewards: Sequence[float | None], losses: Sequence[float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and losses as two rows of numbers, None as NaN; and which rows of the set count, as both are finite."""
    numbers = np.array([list(rewards), list(losses)], dtype=float)
    return numbers, np.isfinite(numbers).all(0)


def _check_beta(beta: float) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise ConfigError(f"beta must be over 0; got {beta!r}.")


def _answer_given_question(layout: Layout) -> list[TokenSpans]:
    ids = layout.joint.ids
    return [TokenSpans.of(ids, [(len(ids) - layout.n_tokens_a, len(ids))])]


def _scored(loss: Loss) -> Record:
    if loss is None or loss == OUT_OF_MEMORY:
        return _record("short_answer" if loss is None else OUT_OF_MEMORY)
    return _record(col.OK, loss) if math.isfinite(loss) else _record("not_finite")


def _record(status: str, loss: float | None = None) -> Record:
    return {col.BASE_LOSS: loss, col.CAR: None, col.COMPATIBILITY_STATUS: status}
