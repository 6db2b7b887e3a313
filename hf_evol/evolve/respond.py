"""Answer each instruction with a fixed model (paper, "Response generation")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.generation.base import GREEDY, Completion, Engine, SamplingParams, generate
from hf_evol.generation.journal import open_journal
from hf_evol.generation.models import ModelSpec
from hf_evol.generation.transformers_engine import as_engine
from hf_evol.prompts.replies import strip_thinking
from hf_evol.prompts.respond import respond_prompt
from hf_evol.prompts.template import chat
from hf_evol.transform import Batch, Transform


@dataclass(frozen=True)
class Respond(Transform):
    """Answer each instruction greedily.

    In the paper the responder is one large model for all sets, so that only the evolver differs between them.

    Input columns:
        ``instruction``; and, if there, ``input``.

    Output columns:
        ``output`` (the response; null where there is none), ``responder`` (the model's name),
        ``response_status``: ``ok``, ``cut_off`` (by the token limit; the text up to there is kept),
        ``empty``, ``invalid_input``, ``too_long: …`` or ``engine_error: …``.

    Args:
        model: the responder: a Hub id, a folder, a `ModelSpec` or an engine.
        max_new_tokens: 2,048 in the paper.
        journal: True for the journal in the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column.
    """

    model: str | ModelSpec | Engine
    max_new_tokens: int = 2048
    journal: bool | str | Path = True

    input_columns: ClassVar[tuple[str, ...]] = (col.INSTRUCTION,)
    output_columns: ClassVar[dict[str, Any]] = {
        col.OUTPUT: "string",
        col.RESPONDER: "string",
        col.RESPONSE_STATUS: "string",
    }
    label: ClassVar[str] = "Respond"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_engine(self.model))
        self.sampling  # noqa: B018 - checks max_new_tokens now

    @property
    def sampling(self) -> SamplingParams:
        return replace(GREEDY, max_new_tokens=self.max_new_tokens)

    def check(self) -> None:
        self.model.check()

    def identity(self) -> Any:
        return self.model.identity()

    def prompt(self, instruction: str, input: str | None) -> str:
        """What the model is asked for one row."""
        return respond_prompt(instruction, input)

    def apply(self, batch: Batch) -> Batch:
        instructions = batch[col.INSTRUCTION]
        inputs = batch.get(col.INPUT, [None] * len(instructions))
        usable = [
            place
            for place, (text, extra) in enumerate(zip(instructions, inputs, strict=True))
            if isinstance(text, str) and text.strip() and (extra is None or isinstance(extra, str))
        ]
        chats = [chat(self.prompt(instructions[place], inputs[place])) for place in usable]
        keys = ["greedy"] * len(chats)  # equal prompts have equal greedy answers
        completions = generate(self.model, chats, self.sampling, keys, open_journal(self.journal))
        progress.advance(len(instructions) - len(usable))
        results: list[tuple[str | None, str]] = [(None, "invalid_input")] * len(instructions)
        for place, completion in zip(usable, completions, strict=True):
            results[place] = _response(completion)
        return {
            col.OUTPUT: [text for text, _ in results],
            col.RESPONDER: [self.model.name] * len(results),
            col.RESPONSE_STATUS: [status for _, status in results],
        }


def _response(completion: Completion) -> tuple[str | None, str]:
    if completion.error is not None:
        return None, completion.error
    text = strip_thinking(completion.text)
    if completion.finish_reason == "length":
        return text or None, "cut_off"
    return (text, col.OK) if text else (None, "empty")
