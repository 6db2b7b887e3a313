"""What transforms that ask a judge model share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.generation.base import Completion
from hf_evol.prompts.judge import Turns, task
from hf_evol.prompts.replies import strip_thinking
from hf_evol.scoring.pairs import questions
from hf_evol.transform import Batch, GreedyTransform

Prompts = tuple[Turns, Turns]


@dataclass(frozen=True, kw_only=True)
class JudgedTransform(GreedyTransform):
    """Asks a judge two questions about each row, greedily (paper, "Sampling")."""

    @property
    def passes(self) -> int:
        return 2

    def ask(self, rows: Sequence[Prompts | None]) -> list[tuple[Completion, Completion] | None]:
        """Both answers to each row's prompts; None for a row without any."""
        usable = [prompts for prompts in rows if prompts is not None]
        chats = [prompt for prompts in usable for prompt in prompts]
        replies = iter(self.complete(chats))
        progress.advance(2 * (len(rows) - len(usable)))
        return [None if prompts is None else (next(replies), next(replies)) for prompts in rows]


def tasks(batch: Batch) -> list[str | None]:
    """What a prompt says of each row; None where instruction and input are no text."""
    inputs = batch.get(col.INPUT, [None] * len(batch[col.INSTRUCTION]))
    rows = zip(questions(batch), batch[col.INSTRUCTION], inputs, strict=True)
    return [task(instruction, input) if question else None for question, instruction, input in rows]


def answer(completion: Completion) -> str:
    """What a judge says after its thinking; nothing if it failed, or was cut off and so may have gone on to differ."""
    return strip_thinking(completion.text) if completion.finish_reason != "length" else ""
