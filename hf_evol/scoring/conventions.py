"""How an instruction and a response become token sequences, and which tokens count for which loss."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import TemplateError

from hf_evol.errors import ModelError
from hf_evol.models import encoding
from hf_evol.scoring.losses import TokenSpans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = dict[str, str]
Pair = tuple[Sequence[Turn], str]  # the turns before a response, and the response

TOO_LONG = "too_long"
TEMPLATE_ERROR = "template_error"


class Layout(NamedTuple):
    """A pair as token sequences, Q and A in one and A alone; and their tokens after truncation, which cuts A to fit."""

    joint: TokenSpans  # its parts are the tokens of Q and those of A
    alone: TokenSpans  # its part is the tokens of A
    n_tokens_q: int
    n_tokens_a: int
    truncated: bool = False

    def fits(self, limit: int) -> bool:
        return max(len(self.joint.ids), len(self.alone.ids)) <= limit


@dataclass(frozen=True)
class JoinedText:
    r"""The text Q + "\n" + A, tokenized once, with the special tokens that the tokenizer adds.

    A alone is tokenized by itself, so its first token may differ from the one after the newline. Turns before A are
    joined by newlines. The newline before A counts to A in the scripts of IC-IFD (paper, "IC-IFD"), to Q in those of
    Superfiltering (arXiv:2402.00530, ``data_analysis.py``).
    """

    newline_of_question: bool

    def encode(self, tokenizer: Any, pairs: Sequence[Pair], limit: int, truncate: bool) -> list[Layout | str]:
        """The pairs' layouts, or why there is none."""
        questions = ["\n".join(turn["content"] for turn in turns) for turns, _ in pairs]
        answers = [answer for _, answer in pairs]
        end = "\n" if self.newline_of_question else ""
        alone = encoding.encode_text(tokenizer, answers)
        joint = encoding.encode_text(tokenizer, [f"{q}\n{a}" for q, a in zip(questions, answers, strict=True)])
        lengths = [
            length and length + len(end) for length in _lengths_before_newline(tokenizer, questions, alone, joint)
        ]
        unknown = [place for place, length in enumerate(lengths) if not length]
        heads = encoding.encode_text(tokenizer, [questions[place] + end for place in unknown])
        for place, head in zip(unknown, heads, strict=True):
            lengths[place] = len(head)
        layouts: list[Layout | str] = []
        for pair, length, a, both in zip(pairs, lengths, alone, joint, strict=True):
            n = min(length, len(both))  # tokens may merge across the newline
            sequences = TokenSpans.of(both, [(0, n)], [(n, len(both))]), TokenSpans.of(a, [(0, len(a))])
            layout = Layout(*sequences, length, len(a))
            if not layout.fits(limit):
                layout = (self._cut(tokenizer, pair, limit) if truncate else None) or TOO_LONG
            layouts.append(layout)
        return layouts

    def _cut(self, tokenizer: Any, pair: Pair, limit: int) -> Layout | None:
        """The layout with as much of A, up to the end of one of its tokens, as fits; None if nothing does."""
        turns, answer = pair
        ends = _token_ends(tokenizer, answer)[::-1]

        def layout(end: int) -> Any:
            return self.encode(tokenizer, [(turns, answer[:end])], sys.maxsize, truncate=False)[0]

        longest = bisect_left(ends, True, key=lambda end: layout(end).fits(limit))
        return layout(ends[longest])._replace(truncated=True) if longest < len(ends) else None


@dataclass(frozen=True)
class Parts:
    r"""Q and A tokenized apart and joined, so that A's tokens are the same with and without Q before them.

    Between them is a newline, tokenized apart, or what the model's chat template puts there; it counts for neither. A
    alone stands after the tokenizer's leading special tokens. Where there are none, A's first token can't be predicted
    without Q, and so counts for neither loss of A.
    """

    chat_template: bool

    def encode(self, tokenizer: Any, pairs: Sequence[Pair], limit: int, truncate: bool) -> list[Layout | str]:
        texts = encoding.encode_text(tokenizer, [turn["content"] for turns, _ in pairs for turn in turns], False)
        answers = encoding.encode_text(tokenizer, [answer for _, answer in pairs], False)
        before, ids = _ids_before(tokenizer), iter(texts)
        frame_of = cache(partial(self._frame, tokenizer, before))
        layouts: list[Layout | str] = []
        for (turns, _), answer in zip(pairs, answers, strict=True):
            questions = [next(ids) for _ in turns]
            frame = frame_of(tuple(turn["role"] for turn in turns))
            if frame is None:
                layouts.append(TEMPLATE_ERROR)
                continue
            joint, of_q = list(frame[0]), []
            for question, after in zip(questions, frame[1:], strict=True):
                of_q.append((len(joint), len(joint) + len(question)))
                joint += question + after
            room = limit - max(len(joint), len(before))
            if len(answer) > room and (not truncate or room < 1):
                layouts.append(TOO_LONG)
                continue
            kept, first = answer[:room], 0 if before else 1
            of_a, of_alone = ([(len(ids) + first, len(ids) + len(kept))] for ids in (joint, before))
            sequences = TokenSpans.of(joint + kept, of_q, of_a), TokenSpans.of(before + kept, of_alone)
            layouts.append(Layout(*sequences, sum(map(len, questions)), len(kept), len(kept) < len(answer)))
        return layouts

    def _frame(self, tokenizer: Any, before: list[int], roles: tuple[str, ...]) -> list[list[int]] | None:
        """What stands before, between and after the turns' texts; None if the template can't say."""
        if not self.chat_template:
            return [before, *(encoding.encode_text(tokenizer, ["\n"], False) * len(roles))]
        try:
            return encoding.chat_frame(tokenizer, roles)
        except (TemplateError, ModelError):
            return None


CONVENTIONS: dict[str, JoinedText | Parts] = {
    "paper": JoinedText(newline_of_question=False),
    "superfiltering": JoinedText(newline_of_question=True),
    "exact": Parts(chat_template=False),
    "exact_chat": Parts(chat_template=True),
}


def _lengths_before_newline(
    tokenizer: Any, questions: Sequence[str], alone: Sequence[list[int]], joint: Sequence[list[int]]
) -> list[int | None]:
    r"""Of each Q the tokens that it has by itself, as far as those of Q + "\n" + A and of A say: byte-level BPE that merges
    nothing across a place gives before it what it gives of that part by itself. None where it may have merged."""
    backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    newline, before = encoding.encode_text(tokenizer, ["\n"], False)[0], _ids_before(tokenizer)
    if (
        type(getattr(backend, "model", None)).__name__ != "BPE"
        or backend.model.dropout
        or "ByteLevel(add_prefix_space=False" not in str(backend.pre_tokenizer)
        or (backend.normalizer is not None and type(backend.normalizer).__name__ != "NFC")
        or len(newline) != 1
    ):
        return [None] * len(questions)
    lengths: list[int | None] = []
    for question, a, both in zip(questions, alone, joint, strict=True):
        tail = newline + a[len(before) :]
        length = len(both) - len(tail)
        apart = question and not question[-1].isspace() and both[length:] == tail
        lengths.append(length if apart else None)
    return lengths


def _token_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> Sequence[int]:
    """Where, in characters, the tokens of a text end; every character where the tokenizer doesn't say."""
    if not tokenizer.is_fast:
        return range(1, len(text) + 1)
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return sorted({end for _, end in encoded["offset_mapping"] if end})


def _ids_before(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts before a text, such as BOS."""
    plain, special = (encoding.encode_text(tokenizer, ["a"], special_tokens=added)[0] for added in (False, True))
    starts = (at for at in range(len(special)) if special[at : at + len(plain)] == plain)
    return special[: next(starts, 0)]
