"""Losses of (question, answer) pairs under a loaded model, and the ratios made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from hf_evol import columns as col
from hf_evol import models, progress
from hf_evol.errors import ConfigError
from hf_evol.scoring.conventions import CONVENTIONS, Layout, Pair, Turn
from hf_evol.scoring.losses import OUT_OF_MEMORY, Loss, mean_losses

TRUNCATED = "truncated"  # the status of a pair that is scored, by a part of its answer
SCORES: dict[str, Any] = {
    col.IC_IFD: "float64",
    col.IFD: "float64",
    col.LOSS_Q: "float64",
    col.LOSS_A: "float64",
    col.LOSS_A_GIVEN_Q: "float64",
    col.N_TOKENS_Q: "int32",
    col.N_TOKENS_A: "int32",
    col.IC_IFD_STATUS: "string",
}
_WINDOW = 512  # pairs tokenized together, while the model works on those before

Record = dict[str, Any]


@dataclass(frozen=True)
class PairScorer:
    """The settings of `hf_evol.IcIfd`, which documents them, at work on pairs and a loaded model."""

    convention: str = "paper"
    max_length: int | None = None
    truncate: bool = False
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise ConfigError(f"convention must be one of {', '.join(CONVENTIONS)}; got {self.convention!r}.")
        for name in ("batch_tokens", "max_length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more; got {value!r}.")

    def score(self, model: Any, tokenizer: Any, pairs: Sequence[Pair | None]) -> list[Record]:
        """One record of `SCORES` for each pair, in order. None stands for a pair that is no text."""
        records: dict[int, Record] = {}
        training = model.training
        try:
            with closing(self.stream(model.eval(), tokenizer, pairs)) as stream:
                for finished in stream:
                    records.update(finished)
        finally:
            model.train(training)
        return [records[place] for place in range(len(pairs))]

    def stream(
        self, model: Any, tokenizer: Any, pairs: Sequence[Pair | None], rows: Sequence[int] | None = None
    ) -> Iterator[dict[int, Record]]:
        """Yield records by the pair's place, as windows of pairs finish.

        Pairs are sorted by length, and the next window is tokenized while the model works on one.

        Args:
            rows: by how many rows each pair moves the progress bar; by default by one.
        """
        context = models.context_length(model.config)
        limit = min(context, self.max_length or context)
        usable = [place for place, pair in enumerate(pairs) if pair is not None]
        invalid = [place for place, pair in enumerate(pairs) if pair is None]
        rows = rows or [1] * len(pairs)
        progress.advance(sum(rows[place] for place in invalid))
        yield {place: _record("invalid_input") for place in invalid}
        usable.sort(key=lambda place: -_characters(pairs[place]))
        windows = [usable[start : start + _WINDOW] for start in range(0, len(usable), _WINDOW)]
        encode, known = CONVENTIONS[self.convention].encode, {}
        with ThreadPoolExecutor(1) as pool:

            def encoding(window: list[int]) -> Future[list[Layout | str]]:
                return pool.submit(encode, tokenizer, [pairs[place] for place in window], limit, self.truncate)

            ahead = encoding(windows[0]) if windows else None
            for window, following in zip(windows, [*windows[1:], None], strict=False):
                layouts = ahead.result()
                ahead = encoding(following) if following else None
                yield dict(zip(window, self._records(model, layouts, known, [rows[i] for i in window]), strict=True))

    def _records(
        self, model: Any, encoded: Sequence[Layout | str], known: dict[bytes, Loss], rows: Sequence[int]
    ) -> list[Record]:
        records = [_record(layout) if isinstance(layout, str) else None for layout in encoded]
        laid_out = [place for place, record in enumerate(records) if record is None]
        progress.advance(sum(rows) - sum(rows[place] for place in laid_out))
        sequences = [sequence for place in laid_out for sequence in (encoded[place].joint, encoded[place].alone)]
        losses: dict[int, list[Loss]] = {}
        for finished in mean_losses(model, sequences, self.batch_tokens, known):
            losses.update(finished)
            for number in {index // 2 for index, _ in finished if index ^ 1 in losses}:
                place = laid_out[number]
                records[place] = self._ratios(encoded[place], *losses[2 * number], *losses[2 * number + 1])
                progress.advance(rows[place])
        return records

    def _ratios(self, layout: Layout, loss_q: Loss, loss_a_given_q: Loss, loss_a: Loss) -> Record:
        losses = {col.LOSS_Q: loss_q, col.LOSS_A: loss_a, col.LOSS_A_GIVEN_Q: loss_a_given_q}
        finite = {name: loss if _is_finite(loss) else None for name, loss in losses.items()}
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
            difference = loss_a_given_q - loss_a
            if self.convention != "superfiltering":
                ifd = loss_a_given_q / loss_a
            else:
                ifd = math.exp(difference) if difference < 700 else math.inf
            if math.isfinite(ifd / loss_q):
                return _record(status) | finite | counts | {col.IFD: ifd, col.IC_IFD: ifd / loss_q}
            status = "not_finite"
        return _record(status) | finite | counts


def make_pair(instruction: Any, output: Any, input: Any = None) -> Pair | None:
    """(Q, A), where Q is the instruction and, on a new line, the input where there is one; None if unusable."""
    if not (input is None or isinstance(input, str)) or not is_text(instruction):
        return None
    question = f"{instruction}\n{input}" if input else instruction
    return checked_pair([{"role": "user", "content": question}], output)


def checked_pair(turns: list[Turn], answer: Any) -> Pair | None:
    """The pair, or None if there is no text before the answer or none in it."""
    texts = [turn["content"] for turn in turns]
    fit = is_text(answer) and all(isinstance(text, str) for text in texts) and any(text.strip() for text in texts)
    return (turns, answer) if fit else None


def is_text(value: Any) -> bool:
    """Whether a value is a text that holds anything and can be encoded."""
    try:
        return isinstance(value, str) and bool(value.strip()) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def _is_finite(loss: Loss) -> bool:
    return isinstance(loss, float) and math.isfinite(loss)


def _characters(pair: Pair) -> int:
    return sum(len(turn["content"]) for turn in pair[0]) + len(pair[1])


def _record(status: str) -> Record:
    return dict.fromkeys(SCORES) | {col.IC_IFD_STATUS: status}
