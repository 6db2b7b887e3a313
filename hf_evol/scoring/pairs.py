"""Losses of (question, answer) pairs under a loaded model, and the ratios made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ConfigError, check_counts
from hf_evol.generation.base import Chat, Record
from hf_evol.prompts.evol_instruct import Method, prompt_at
from hf_evol.scoring.conventions import CONVENTIONS, Layout, Pair, Turn
from hf_evol.scoring.losses import OUT_OF_MEMORY, Loss, TokenSpans, mean_losses
from hf_evol.transform import Batch, failures, rows_in

TRUNCATED = "truncated"  # the status of a pair that is scored, by a part of its answer
SCORES: dict[str, Any] = {
    **dict.fromkeys((col.IC_IFD, col.IFD, col.LOSS_Q, col.LOSS_A, col.LOSS_A_GIVEN_Q), "float64"),
    **{col.N_TOKENS_Q: "int32", col.N_TOKENS_A: "int32", col.IC_IFD_STATUS: "string"},
}
_WINDOW = 512  # pairs tokenized together, while the model works on those before


@dataclass(frozen=True)
class PairScorer:
    """The settings of `hf_evol.IcIfd` at work on pairs and a loaded model."""

    convention: str = "paper"
    max_length: int | None = None
    truncate: bool = False
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise ConfigError(f"convention must be one of {', '.join(CONVENTIONS)}; got {self.convention!r}.")
        check_counts(self, "batch_tokens", "max_length")

    def score(self, model: Any, tokenizer: Any, pairs: Sequence[Pair | None]) -> list[Record]:
        """One record of `SCORES` for each pair, in order. None stands for a pair that is no text."""
        records = [unscored("invalid_input") for _ in pairs]
        usable = [place for place, pair in enumerate(pairs) if pair is not None]
        training = model.training
        try:
            for finished in self.stream(model.eval(), tokenizer, [pairs[place] for place in usable]):
                for number, record in finished.items():
                    records[usable[number]] = record
        finally:
            model.train(training)
        return records

    def stream(self, model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> Iterator[dict[int, Record]]:
        """Yield records by the pair's place."""
        for finished in self.losses(model, tokenizer, pairs, lambda layout: (layout.joint, layout.alone)):
            yield {
                place: unscored(layout) if isinstance(layout, str) else self._ratios(layout, *losses)
                for place, (layout, losses) in finished.items()
            }

    def losses(
        self, model: Any, tokenizer: Any, pairs: Sequence[Pair], measured: Callable[[Layout], Sequence[TokenSpans]]
    ) -> Iterator[dict[int, tuple[Layout | str, list[Loss]]]]:
        """Yield, by the pair's place, its layout, or why there is none, and the losses of the parts of the ``measured``
        sequences; the longest first, tokenized while the model works on those before."""
        context = models.context_length(model.config)
        limit = min(context, self.max_length or context)
        lengths = [sum(len(turn["content"]) for turn in turns) + len(answer) for turns, answer in pairs]
        places = sorted(range(len(pairs)), key=lambda place: -lengths[place])
        windows = [places[start : start + _WINDOW] for start in range(0, len(places), _WINDOW)]

        def encode(window: list[int]) -> list[Layout | str]:
            texts = [pairs[place] for place in window]
            return CONVENTIONS[self.convention].encode(tokenizer, texts, limit, self.truncate)

        with ThreadPoolExecutor(1) as pool:
            for window, encoded in zip(windows, pool.map(encode, windows), strict=True):
                layouts = dict(zip(window, encoded, strict=True))
                yield {place: (layout, []) for place, layout in layouts.items() if isinstance(layout, str)}
                places = [place for place, layout in layouts.items() if not isinstance(layout, str)]
                groups = [measured(layouts[place]) for place in places]
                for finished in mean_losses(model, groups, self.batch_tokens):
                    yield {places[n]: (layouts[places[n]], losses) for n, losses in finished}

    def _ratios(self, layout: Layout, loss_q: Loss, loss_a_given_q: Loss, loss_a: Loss) -> Record:
        losses = {col.LOSS_Q: loss_q, col.LOSS_A: loss_a, col.LOSS_A_GIVEN_Q: loss_a_given_q}
        finite = {n: x if isinstance(x, float) and math.isfinite(x) else None for n, x in losses.items()}
        counts = {col.N_TOKENS_Q: layout.n_tokens_q, col.N_TOKENS_A: layout.n_tokens_a}
        if OUT_OF_MEMORY in losses.values():
            status = OUT_OF_MEMORY
        elif loss_q is None:
            status = "short_question"
        elif loss_a is None or loss_a_given_q is None:
            status = "short_answer"
        elif None in finite.values():
            status = "not_finite"
        elif 0 in finite.values():
            status = "zero_loss"
        else:
            status = TRUNCATED if layout.truncated else col.OK
            ifd, difference = loss_a_given_q / loss_a, loss_a_given_q - loss_a
            if self.convention == "superfiltering":
                ifd = math.exp(difference) if difference < 700 else math.inf
            if math.isfinite(ifd / loss_q):
                return unscored(status) | finite | counts | {col.IFD: ifd, col.IC_IFD: ifd / loss_q}
            status = "not_finite"
        return unscored(status) | finite | counts


def make_pair(instruction: Any, output: Any, input: Any = None, context: Sequence[Turn] | None = None) -> Pair | None:
    """(Q, A), where Q is the `question` after the turns of its context; None if unusable."""
    asked = question(instruction, input)
    return asked and checked_pair([*(context or ()), {"role": "user", "content": asked}], output)


def checked_pair(turns: list[Turn], answer: Any) -> Pair | None:
    """The pair, or None if there is no text before the answer or none in it."""
    texts = [turn["content"] for turn in turns]
    fit = is_text(answer) and all(isinstance(text, str) for text in texts) and is_text("".join(texts))
    return (turns, answer) if fit else None


def evolving_prompts(batch: Batch, methods: Sequence[Method]) -> list[Chat | str]:
    """Of each row the prompt of its last round, or why there is none. ``methods`` are those it was evolved with."""
    by_name = {method.name: method for method in methods}
    prompts: list[Chat | str] = []
    for parent, name, attempt, context in rows_in(batch, col.PARENT_INSTRUCTION, col.METHOD, col.TRY, col.CONTEXT):
        if not is_text(parent) or not isinstance(name, str):
            prompts.append("invalid_input")
        elif name not in by_name:
            prompts.append("unknown_method")
        else:
            prompts.append(prompt_at(methods, by_name[name], parent, attempt or 1, context))
    return prompts


def asked(batch: Batch) -> list[tuple[str, str | None, list[Turn] | None] | None]:
    """The instruction, the input and the context of each row; None where they are unusable."""
    rows = rows_in(batch, col.INSTRUCTION, col.INPUT, col.CONTEXT)
    return [row if question(*row[:2]) else None for row in rows]


def answered(batch: Batch) -> list[Pair | str]:
    """Of each row the question, after its context, and the output; or why they are not scored."""
    rows = zip(asked(batch), batch[col.OUTPUT], failures(batch), strict=True)
    return [why or (row and make_pair(row[0], output, *row[1:])) or "invalid_input" for row, output, why in rows]


def questions(batch: Batch) -> list[str | None]:
    """The `question` of each row."""
    return [row and question(*row[:2]) for row in asked(batch)]


def question(instruction: Any, input: Any = None) -> str | None:
    """The instruction and, on a new line, the input where there is one; None if unusable."""
    if not is_text(instruction) or not (input is None or isinstance(input, str)):
        return None
    text = f"{instruction}\n{input}" if input else instruction
    return text if is_text(text) else None


def is_text(value: Any) -> bool:
    """Whether a value is a text that holds anything and can be encoded."""
    try:
        return isinstance(value, str) and bool(value.strip()) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def unscored(status: str) -> Record:
    """The record of a pair without a score."""
    return dict.fromkeys(SCORES) | {col.IC_IFD_STATUS: status}
