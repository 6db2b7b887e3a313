"""Answer each instruction with a fixed model (paper, "Response generation")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol.generation.base import Chat, Completion
from hf_evol.generation.sampling import row_key
from hf_evol.prompts.respond import SYSTEM, respond_prompt
from hf_evol.prompts.words import words
from hf_evol.reading.replies import strip_thinking
from hf_evol.transform import Batch, SampledTransform, check_columns, failures, rows_in

_DECIDED_BEFORE = (col.INSTRUCTION, col.EVOL_STATUS, col.ELIMINATION)


@dataclass(frozen=True, kw_only=True)
class Respond(SampledTransform):
    """Answer each instruction, greedily unless told otherwise.

    In the paper the responder is one large model for all sets, so that only the evolver differs between them.

    Input columns:
        ``instruction``; and, if there, ``input``, ``context`` (the turns before, whose system turn takes the place of
        ``system``), ``evol_status`` and ``elimination``: rows whose evolution failed are not answered. With a temperature over 0 also ``id`` and, if there, ``round``, to which the sampling noise belongs.

    Output columns:
        ``output`` (the response; null where there is none), ``responder`` (the model's name), ``response_status``: ``ok``,
        ``cut_off`` (by the token limit; the text is kept), ``repeats_instruction`` (and says nothing else; the text is kept),
        ``empty``, ``not_evolved``, ``eliminated``, ``invalid_input``, ``too_long: …``, ``template_error: …`` (the chat
        template refuses these turns) or ``engine_error: …``.

    Args:
        model: the responder: a Hub id, a folder, a `ModelSpec` or an engine.
        system: the system turn; None for none.
        temperature: 0 in the paper, which is greedy.
        top_p: nucleus sampling, where the temperature is over 0.
        max_new_tokens: 2,048 in the paper.
        seed: of the sampling noise.
        journal: True for the journal in the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column.
    """

    system: str | None = SYSTEM
    temperature: float = 0.0
    top_p: float = 1.0

    input_columns: ClassVar[tuple[str, ...]] = (col.INSTRUCTION,)
    output_columns: ClassVar[dict[str, Any]] = dict.fromkeys((col.OUTPUT, col.RESPONDER, col.RESPONSE_STATUS), "string")
    label: ClassVar[str] = "Respond"

    @property
    def keyed_by(self) -> tuple[str, ...]:
        return (col.ID, col.ROUND, col.EVOLVER, "label") if self.temperature else ()

    def prompt(self, instruction: str, input: str | None, context: Chat | None = None) -> Chat:
        """What the model is asked for one row."""
        return respond_prompt(instruction, input, self.system, context)

    def apply(self, batch: Batch) -> Batch:
        return self.columns(self.replies(batch))

    def replies(self, batch: Batch) -> list[tuple[str | None, str, Completion | None]]:
        """Of each row the response, its status, and what the model gave if it was asked."""
        if self.temperature:
            check_columns((col.ID,), list(batch))
        rows = list(rows_in(batch, col.INSTRUCTION, col.INPUT, col.CONTEXT, col.ID, col.ROUND))
        failed = failures({name: batch[name] for name in batch if name in _DECIDED_BEFORE})
        chats = [
            self.prompt(text, given, context)
            if why is None and isinstance(text, str) and text.strip() and isinstance(given, str | None)
            else None
            for why, (text, given, context, *_) in zip(failed, rows, strict=True)
        ]
        keys = [row_key(self.seed, str(row_id), done or 0, "respond") for *_, row_id, done in rows]
        return [
            (*_response(reply, text), reply) if reply else (None, why or "invalid_input", None)
            for reply, why, (text, *_) in zip(
                self.replies_to(chats, keys if self.temperature else None), failed, rows, strict=True
            )
        ]

    def columns(self, replies: list[tuple[str | None, str, Completion | None]]) -> Batch:
        """The output columns."""
        return {
            col.OUTPUT: [text for text, _, _ in replies],
            col.RESPONDER: [self.model.name] * len(replies),
            col.RESPONSE_STATUS: [status for _, status, _ in replies],
        }


def _response(completion: Completion, instruction: str) -> tuple[str | None, str]:
    if completion.error is not None:
        return None, completion.error
    text = strip_thinking(completion.text)
    if completion.finish_reason == "length":
        return text or None, "cut_off"
    if words(text) == words(instruction) and words(text):
        return text, "repeats_instruction"
    return (text, col.OK) if text else (None, "empty")
