"""IFD and instruction-complex IFD (paper, "IC-IFD"; IFD after Cherry LLM, arXiv:2308.12032)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hf_evol import columns as col
from hf_evol.errors import ConfigError
from hf_evol.generation.base import Record
from hf_evol.scoring.conventions import Pair
from hf_evol.scoring.local import ScoringTransform, check_causal
from hf_evol.scoring.pairs import SCORES, PairScorer, answered, checked_pair, unscored
from hf_evol.transform import Batch, failures


@dataclass(frozen=True, kw_only=True)
class IcIfd(ScoringTransform):
    r"""Score each row's response under a causal language model.

    With L the mean cross-entropy per token, Q the instruction (and, on a new line, the input) and A the response
    (paper, "IC-IFD")::

        IFD(Q, A)    = L(A | Q) / L(A)
        IC-IFD(Q, A) = L(A | Q) / (L(Q) · L(A)) = IFD(Q, A) / L(Q)

    Conventions say which tokens these are; the first of a text is never predicted:

    - ``paper``, as the authors' script: the text Q + "\n" + A is tokenized once, with the tokenizer's special tokens;
      with n tokens of Q tokenized alone, positions before n count for L(Q) and the others, the newline among them, for
      L(A | Q); A is tokenized alone for L(A).
    - ``superfiltering`` (arXiv:2402.00530, and its ``data_analysis.py``): the same text, but the newline counts to Q,
      and IFD is the ratio of perplexities, exp(L(A | Q)) / exp(L(A)).
    - ``exact``: Q and A are tokenized apart and joined, so that A's tokens are the same in both terms.
    - ``exact_chat``: likewise, with the model's chat template around Q.

    In float32 on a CPU, which is the default there, a loss is the same to the last bit whatever rows are scored with it (as
    seen with the matrix products of Intel's MKL; not in mixtures of experts). On a GPU it differs by rounding with the number
    of sequences in a pass: in float32 by a few parts in ten million. bfloat16 moved IC-IFD by up to 0.011 with a model of
    135M parameters, but kept the order of the rows (Spearman's rho 0.999) and all of the highest quarter: enough for a
    selection, not for scores that are compared or published (``benchmarks/results``).

    Input columns:
        ``instruction``, ``output`` and, if there, ``input`` and ``context``, whose turns stand before the instruction in
        Q. With ``turns``, ``messages`` instead: lists of turns (``role`` and ``content``), of which Q is all that stands
        before the response. If there, the status columns of earlier stages: rows that failed one are not scored.

    Output columns:
        ``ic_ifd``, ``ifd`` (ratios), ``loss_q``, ``loss_a``, ``loss_a_given_q`` (nats per token), ``n_tokens_q``,
        ``n_tokens_a`` (after truncation), ``ic_ifd_convention``, and ``ic_ifd_status``: ``ok``, ``truncated`` (scored,
        by the part of A that fits), or why the ratios are null: ``invalid_input`` (no instruction or no response),
        ``not_evolved``, ``eliminated`` or ``not_answered`` (an earlier stage failed), ``short_question`` or
        ``short_answer`` (nothing in it is predicted, as with one token), ``too_long``, ``out_of_memory`` (even alone),
        ``template_error`` (the chat template refuses these roles), ``zero_loss`` or ``not_finite``. With
        ``turns="each"`` also ``ic_ifd_turns``: for each assistant turn the same values, and ``turn``, its place among
        the messages.

    Args:
        model: the scorer: a Hub id, a folder or a `ModelSpec`.
        convention: ``paper``, ``superfiltering``, ``exact`` or ``exact_chat``.
        turns: None for instruction rows; ``"last"`` to score the last of ``messages``, which must be the assistant's,
            given those before; ``"each"`` to score every assistant turn as well.
        max_length: the most tokens of one sequence; by default, and at most, the model's context.
        truncate: cut responses that are too long at their end, equally in both terms, instead of leaving the row out.
        batch_tokens: about so many tokens, padding included, in each forward pass; by default 4096 on a GPU, 1024 on a
            CPU. Halved when memory runs out.

    Raises:
        ConfigError: no chat template for ``exact_chat``.
        ModelError: the model isn't causal.

    Example:
        >>> scores = IcIfd("demo")({"instruction": ["Name a river."], "output": ["The Nile, in Africa."]})
        >>> scores["ic_ifd_status"]
        ['ok']
    """

    convention: str = "paper"
    turns: str | None = None
    max_length: int | None = None
    truncate: bool = False
    batch_tokens: int | None = None

    label = "Score"

    def __post_init__(self) -> None:
        if self.turns not in (None, "last", "each"):
            raise ConfigError(f"turns must be None, 'last' or 'each'; got {self.turns!r}.")
        self.scorer  # noqa: B018 - checks the other settings
        super().__post_init__()

    def check(self) -> None:
        check_causal(self.model)
        super().check()

    @property
    def reads_chats(self) -> bool:
        return self.convention == "exact_chat"

    @property
    def scorer(self) -> PairScorer:
        return PairScorer(self.convention, self.max_length, self.truncate, self.batch_tokens)

    @property
    def input_columns(self) -> tuple[str, ...]:
        return (col.MESSAGES,) if self.turns else (col.INSTRUCTION, col.OUTPUT)

    @property
    def output_columns(self) -> dict[str, Any]:
        each = {col.IC_IFD_TURNS: [{"turn": "int32"} | SCORES]} if self.turns == "each" else {}
        return SCORES | {col.IC_IFD_CONVENTION: "string"} | each

    def apply(self, batch: Batch) -> Batch:
        # Of each row, the turns to score, with their places; the one that stands for the row comes last.
        if self.turns:
            turns = [_turns(messages, every=self.turns == "each") for messages in batch[col.MESSAGES]]
            rows = [[(None, why)] if why else row for row, why in zip(turns, failures(batch), strict=True)]
        else:
            rows = [[(None, pair)] for pair in answered(batch)]
        rows = [[(at, unscored(pair) if isinstance(pair, str) else pair) for at, pair in row] for row in rows]
        pairs = [pair for row in rows for _, pair in row]
        settings = {"score": self.convention, "max_length": self.max_length, "truncate": self.truncate}
        records = iter(self.remembered(pairs, "", settings, [int(pair is row[-1]) for row in rows for pair in row]))
        scored = [[{"turn": turn} | next(records) for turn, _ in row] for row in rows]
        columns = {name: [row[-1][name] for row in scored] for name in SCORES}
        columns[col.IC_IFD_CONVENTION] = [self.convention] * len(rows)
        if self.turns == "each":
            columns[col.IC_IFD_TURNS] = [[turn for turn in row if turn["turn"] is not None] for row in scored]
        return columns

    def stream(self, requests: list[Pair]) -> Iterator[dict[int, Record]]:
        return self.scorer.stream(*self.load(), requests)


def _turns(messages: Any, every: bool) -> list[tuple[int | None, Pair | str]]:
    try:
        chat = [{"role": turn["role"], "content": turn["content"]} for turn in messages or ()]
    except (TypeError, KeyError):
        chat = []
    if not all(isinstance(turn["role"], str) for turn in chat):
        chat = []
    assistant = [place for place, turn in enumerate(chat) if turn["role"] == "assistant"]
    turns = [(at, checked_pair(chat[:at], chat[at]["content"]) or "invalid_input") for at in assistant]
    if assistant[-1:] != [len(chat) - 1]:
        turns.append((None, "invalid_input"))
    return turns if every else turns[-1:]
