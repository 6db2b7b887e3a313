"""IFD and instruction-complex IFD (paper, "IC-IFD"; IFD after Cherry LLM, arXiv:2308.12032)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.errors import ConfigError
from hf_evol.generation import models
from hf_evol.generation.models import ModelSpec
from hf_evol.scoring.losses import TokenSpans, mean_losses
from hf_evol.transform import Batch, Transform

Pair = tuple[str | None, str | None]


@dataclass(frozen=True)
class IcIfd(Transform):
    r"""Score each row's response under a causal language model.

    With L the mean cross-entropy per token, Q the instruction (and, on a new line, the input) and A the
    response (paper, "IC-IFD")::

        IFD(Q, A)    = L(A | Q) / L(A)
        IC-IFD(Q, A) = L(A | Q) / (L(Q) · L(A))

    The text Q + "\n" + A is tokenized once, with the special tokens that the tokenizer adds; with n tokens of Q
    tokenized alone, positions before n count for L(Q) and the others, the newline among them, for L(A | Q);
    A is tokenized alone for L(A). The first token of a text is never predicted. No chat template.
    Batching changes a loss by rounding alone, by less than 1e-6 in float32.

    Input columns:
        ``instruction``, ``output``; and, if there, ``input``.

    Output columns:
        ``ic_ifd``, ``ifd`` (ratios), ``loss_q``, ``loss_a``, ``loss_a_given_q`` (nats per token),
        ``n_tokens_q``, ``n_tokens_a`` (of Q and A tokenized alone), ``ic_ifd_status``: ``ok``, or why the
        ratios are null: ``invalid_input`` (no instruction or no response), ``short_question`` or
        ``short_answer`` (nothing in it is predicted, as with one token), ``too_long`` for the model's
        context, ``zero_loss`` or ``not_finite``.

    Args:
        model: the scorer: a Hub id, a folder or a `ModelSpec`.
        batch_tokens: tokens, padding included, in one forward pass.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column.
    """

    model: str | ModelSpec
    batch_tokens: int = 8192

    input_columns: ClassVar[tuple[str, ...]] = (col.INSTRUCTION, col.OUTPUT)
    output_columns: ClassVar[dict[str, Any]] = {
        col.IC_IFD: "float64",
        col.IFD: "float64",
        col.LOSS_Q: "float64",
        col.LOSS_A: "float64",
        col.LOSS_A_GIVEN_Q: "float64",
        col.N_TOKENS_Q: "int32",
        col.N_TOKENS_A: "int32",
        col.IC_IFD_STATUS: "string",
    }
    label: ClassVar[str] = "Score"

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens must be 1 or more; got {self.batch_tokens!r}.")
        object.__setattr__(self, "model", models.as_spec(self.model))

    def check(self) -> None:
        models.load_config(self.model)
        models.load_tokenizer(self.model)
        models.check_device(self.model)

    def identity(self) -> Any:
        return models.weights_identity(self.model)

    def apply(self, batch: Batch) -> Batch:
        instructions, outputs = batch[col.INSTRUCTION], batch[col.OUTPUT]
        inputs = batch.get(col.INPUT, [None] * len(instructions))
        questions = [join_input(*pair) for pair in zip(instructions, inputs, strict=True)]
        records = score(
            models.load_model(self.model),
            models.load_tokenizer(self.model),
            list(zip(questions, outputs, strict=True)),
            self.batch_tokens,
        )
        return {name: [record[name] for record in records] for name in self.output_columns}


def join_input(instruction: Any, input: Any) -> str | None:
    """Q: the instruction and, on a new line, the input where there is one; None without an instruction."""
    if not isinstance(instruction, str) or not (input is None or isinstance(input, str)):
        return None
    return f"{instruction}\n{input}" if input else instruction


def score(model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_tokens: int = 8192) -> list[dict[str, Any]]:
    """One record of the columns of `IcIfd` for each (question, answer), under a loaded model."""
    context = models.context_length(model.config)
    records = [dict.fromkeys(IcIfd.output_columns) | {col.IC_IFD_STATUS: "invalid_input"} for _ in pairs]
    usable = [place for place, pair in enumerate(pairs) if all(isinstance(text, str) and text.strip() for text in pair)]
    questions = models.encode_text(tokenizer, [pairs[place][0] for place in usable])
    answers = models.encode_text(tokenizer, [pairs[place][1] for place in usable])
    joint = models.encode_text(tokenizer, [f"{pairs[place][0]}\n{pairs[place][1]}" for place in usable])
    sequences, places = [], []
    for place, q, a, both in zip(usable, questions, answers, joint, strict=True):
        records[place] |= {col.N_TOKENS_Q: len(q), col.N_TOKENS_A: len(a), col.IC_IFD_STATUS: "too_long"}
        if max(len(both), len(a)) <= context:
            places.append(place)
            sequences += [TokenSpans(both, ((0, len(q)), (len(q), len(both)))), TokenSpans(a, ((0, len(a)),))]
    progress.advance(len(pairs) - len(places))
    losses: list[list[float | None]] = [[] for _ in sequences]
    for finished in mean_losses(model, sequences, batch_tokens):
        for index, means in finished:
            losses[index] = means
        progress.advance(sum(index % 2 == 0 for index, _ in finished))
    for row, place in enumerate(places):
        records[place] |= _ratios(*losses[2 * row], *losses[2 * row + 1])
    return records


def _ratios(loss_q: float | None, loss_a_given_q: float | None, loss_a: float | None) -> dict[str, Any]:
    losses = {col.LOSS_Q: loss_q, col.LOSS_A_GIVEN_Q: loss_a_given_q, col.LOSS_A: loss_a}
    kept = {name: loss if loss is not None and math.isfinite(loss) else None for name, loss in losses.items()}
    if loss_q is None:
        status = "short_question"
    elif loss_a is None or loss_a_given_q is None:
        status = "short_answer"
    elif None in kept.values():
        status = "not_finite"
    elif loss_q == 0 or loss_a == 0:
        status = "zero_loss"
    else:
        ifd = loss_a_given_q / loss_a
        return kept | {col.IFD: ifd, col.IC_IFD: ifd / loss_q, col.IC_IFD_STATUS: col.OK}
    return kept | {col.IC_IFD_STATUS: status}
