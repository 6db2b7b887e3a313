"""How well responses suit the model that is to be tuned on them (arXiv:2411.07133)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation.base import Record
from hf_evol.scoring.conventions import Layout, Pair
from hf_evol.scoring.local import ScoringTransform, check_counts
from hf_evol.scoring.losses import OUT_OF_MEMORY, Loss, TokenSpans
from hf_evol.scoring.pairs import PairScorer, answered
from hf_evol.scoring.summary import summarize
from hf_evol.transform import Batch, failures

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
    template; where it has none, after the instruction and a newline. All tokens of the response count, but not the one
    that ends the turn.

    Input columns:
        ``instruction``, ``output`` and, if there, ``input``, ``context``, ``reward`` (of `Reward`) and the status columns of
        earlier stages: rows that failed one are not scored.

    Output columns:
        ``base_loss`` (nats per token), ``car`` (null without a reward), and ``compatibility_status``: ``ok``,
        ``negative_reward`` (the loss is there, but no ``car``: a negative reward would rise with the loss), or why both
        are null: ``invalid_input`` (no instruction or no response), ``not_evolved``, ``eliminated`` or ``not_answered`` (an
        earlier stage failed), ``too_long`` (for the model's context), ``short_answer`` (nothing in it is predicted),
        ``out_of_memory`` (even alone), ``template_error`` (the chat template refuses these roles) or ``not_finite``.

    Args:
        model: the base model: a Hub id, a folder or a `ModelSpec`.
        beta: how much the loss counts, over 0; the default is ours.
        batch_tokens: as in `IcIfd`.
        journal: True to remember finished rows in the cache folder, False, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column.
        ModelError: the model can't be found, or isn't causal.

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
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        config = models.load_config(self.model)
        causal, made = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()), set(config.architectures or ())
        if made and not made & causal and "AutoModelForCausalLM" not in (getattr(config, "auto_map", None) or {}):
            raise ModelError(
                f"The model {self.model.name!r} is not causal: it is a {', '.join(sorted(made))}. Name the base that is to be "
                "tuned, a causal language model such as HuggingFaceTB/SmolLM2-135M."
            )
        super().check()

    def apply(self, batch: Batch) -> Batch:
        rows = zip(answered(batch), failures(batch), strict=True)
        requests = [pair if pair and not why else _record(why or "invalid_input") for pair, why in rows]
        records = self.remembered(requests, "compatibility", {"score": self.scorer.convention})
        rewards = batch.get(col.REWARD, [None] * len(requests))
        records = [record | self._car(reward, record) for reward, record in zip(rewards, records, strict=True)]
        return {name: [record[name] for record in records] for name in self.output_columns}

    def _car(self, reward: float | None, record: Record) -> Record:
        loss = record[col.BASE_LOSS]
        if reward is None or loss is None:
            return {col.CAR: None}
        return {col.CAR: reward / (1 + self.beta * loss)} if reward >= 0 else _record(NEGATIVE, loss)

    def stream(self, requests: list[Pair]) -> Iterator[dict[int, Record]]:
        for finished in self.scorer.losses(*self.load(), requests, _answer_given_question):
            yield {place: _scored(layout, losses) for place, (layout, losses) in finished.items()}


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
    found = [pair for pair in zip(rewards, losses, strict=True) if _counts(pair)]
    summary = summarize(col.CAR, linearized(rewards, losses, beta))
    reward, loss = (math.fsum(values) / len(found) for values in zip(*found, strict=True)) if found else (None, None)
    status = "no_rows" if not found else col.OK if summary["n"] else NEGATIVE
    counts = {"n": len(found), "nulls": len(rewards) - len(found), "mean_reward": reward, "mean_loss": loss}
    return {col.CAR: summary["mean"], "ci95": summary["ci95"]} | counts | {"status": status}


def linearized(
    rewards: Sequence[float | None], losses: Sequence[float | None], beta: float = BETA
) -> list[float | None]:
    """Of each row a value whose mean over the set is its compatibility-adjusted reward, and whose differences from it have the
    spread that this ratio of means has to first order (Särndal, Swensson and Wretman, 1992, section 5.5): so what holds of
    means, as intervals and paired tests, holds of the ratio. None for rows that don't count, and for all of a set whose mean
    reward is negative."""
    counts = [_counts(pair) for pair in zip(rewards, losses, strict=True)]
    n = sum(counts)
    reward, weight = (
        math.fsum(value for value, has in zip(values, counts, strict=True) if has) / max(1, n)
        for values in (rewards, [None if loss is None else 1 + beta * loss for loss in losses])
    )
    if not n or reward < 0:
        return [None] * len(counts)
    car, rows = reward / weight, zip(rewards, losses, counts, strict=True)
    return [car + (r - car * (1 + beta * loss)) / weight if has else None for r, loss, has in rows]


def _counts(pair: tuple[float | None, float | None]) -> bool:
    return all(value is not None and math.isfinite(value) for value in pair)


def _check_beta(beta: float) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise ConfigError(f"beta must be over 0; got {beta!r}.")


def _answer_given_question(layout: Layout) -> list[TokenSpans]:
    ids = layout.joint.ids
    return [TokenSpans.of(ids, [(len(ids) - layout.n_tokens_a, len(ids))])]


def _scored(layout: Layout | str, losses: Sequence[Loss]) -> Record:
    if isinstance(layout, str):
        return _record(layout)
    (loss,) = losses
    if loss is None or loss == OUT_OF_MEMORY:
        return _record("short_answer" if loss is None else OUT_OF_MEMORY)
    return _record(col.OK, loss) if math.isfinite(loss) else _record("not_finite")


def _record(status: str, loss: float | None = None) -> Record:
    return {col.BASE_LOSS: loss, col.CAR: None, col.COMPATIBILITY_STATUS: status}
