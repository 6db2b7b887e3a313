"""Which of two responses is better, as a judge model sees it (paper, "Win / tie / lose")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.generation.base import Chat, Completion
from hf_evol.prompts.judge import comparison_prompt, task
from hf_evol.prompts.template import in_context
from hf_evol.reading.replies import read_verdict, strip_thinking
from hf_evol.scoring.pairs import asked, is_text
from hf_evol.transform import Batch, GreedyTransform

_TURNED: dict[str | None, str | None] = {"win": "lose", "tie": "tie", "lose": "win", None: None}


@dataclass(frozen=True, kw_only=True)
class JudgedTransform(GreedyTransform):
    """Asks a judge two questions about each row, greedily (paper, "Sampling")."""

    passes = 2
    nothing: ClassVar[tuple[Any, ...]]  # what the columns before the status hold where a row can't be asked about

    def chats(self, batch: Batch) -> list[tuple[Chat, Chat] | None]:
        """Of each row the two prompts, or None where it holds nothing to ask about."""
        raise NotImplementedError

    def read(self, first: Completion, second: Completion) -> tuple[Any, ...]:
        """The columns that both replies to a row's prompts make."""
        raise NotImplementedError

    def apply(self, batch: Batch) -> Batch:
        rows = self.chats(batch)
        contexts = batch.get(col.CONTEXT, [None] * len(rows))
        chats = [in_context(chat, context) for row, context in zip(rows, contexts, strict=True) for chat in row or ()]
        replies = iter(self.complete(chats))
        progress.advance(2 * len(rows) - len(chats))
        results = [self.read(next(replies), next(replies)) if row else (*self.nothing, "invalid_input") for row in rows]
        return {name: [result[place] for result in results] for place, name in enumerate(self.output_columns)}


def answer(completion: Completion) -> str:
    """What a judge says after its thinking; nothing if it failed, or was cut off and so may have gone on to differ."""
    return strip_thinking(completion.text) if completion.finish_reason != "length" else ""


@dataclass(frozen=True, kw_only=True)
class Judge(JudgedTransform):
    """Ask a judge which of two responses to one instruction is better.

    Judges favour a place, so each pair is shown in both orders (as in MT-Bench, arXiv:2306.05685); where the verdicts
    differ, it is a tie.

    Input columns:
        ``instruction``, ``output_a``, ``output_b``; and, if there, ``input`` and ``context``.

    Output columns:
        ``verdict``: ``win`` (a is better), ``tie`` or ``lose``; null where there is none. ``verdict_orders``: the
        verdicts with a shown first and with b shown first, both from a's point of view, null where unreadable or cut off.
        ``judge_status``: ``ok``, ``disagreement`` (between the orders), ``unreadable`` (either verdict),
        ``invalid_input`` (no instruction, or a response without text), ``too_long: …`` or ``engine_error: …`` (of
        either request).

    Args:
        model: the judge: a Hub id, a folder, a `ModelSpec` or an engine.
    """

    input_columns = (col.INSTRUCTION, col.OUTPUT_A, col.OUTPUT_B)
    output_columns = {col.VERDICT: "string", col.VERDICT_ORDERS: ["string"], col.JUDGE_STATUS: "string"}
    label = "Judge"

    nothing = (None, [None, None])

    def chats(self, batch: Batch) -> list[tuple[Chat, Chat] | None]:
        found: list[tuple[Chat, Chat] | None] = []
        for row, a, b in zip(asked(batch), batch[col.OUTPUT_A], batch[col.OUTPUT_B], strict=True):
            if row and is_text(a) and is_text(b):
                text = task(*row[:2])
                found.append((comparison_prompt(text, a, b), comparison_prompt(text, b, a)))
            else:
                found.append(None)
        return found

    def read(self, a_first: Completion, b_first: Completion) -> tuple[str | None, list[str | None], str]:
        orders = [read_verdict(answer(a_first)), _TURNED[read_verdict(answer(b_first))]]
        if error := a_first.error or b_first.error:
            return None, orders, error
        if None in orders:
            return None, orders, "unreadable"
        if orders[0] != orders[1]:
            return "tie", orders, "disagreement"
        return orders[0], orders, col.OK
