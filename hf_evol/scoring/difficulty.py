"""How difficult instructions are, as a judge model sees it (paper, "Analyses")."""

from __future__ import annotations

from dataclasses import dataclass

from hf_evol import columns as col
from hf_evol.generation.base import Chat, Completion
from hf_evol.prompts.judge import LEVELS, level_prompt, score_prompt, task
from hf_evol.reading.replies import read_level, read_score
from hf_evol.scoring.judge import JudgedTransform, answer
from hf_evol.scoring.pairs import asked
from hf_evol.transform import Batch

__all__ = ["LEVELS", "Difficulty"]


@dataclass(frozen=True, kw_only=True)
class Difficulty(JudgedTransform):
    """Ask a judge for each instruction's difficulty: one of five levels and, apart from it, a score.

    `LEVELS` holds the levels, easiest first. A reply that gives no level or no score, several, or one that is out of
    range is unreadable; so is one cut off by the token limit.

    Input columns:
        ``instruction``; and, if there, ``input`` and ``context``.

    Output columns:
        ``difficulty_level`` (``very easy``, ``easy``, ``medium``, ``hard`` or ``very hard``) and ``difficulty_score``
        (0 to 100), each null where there is none; ``difficulty_status``: ``ok``, ``unreadable_level``,
        ``unreadable_score``, ``unreadable`` (both), ``invalid_input`` (no text), ``too_long: …`` or ``engine_error: …``
        (of either request).

    Args:
        model: the judge: a Hub id, a folder, a `ModelSpec` or an engine.
    """

    input_columns = (col.INSTRUCTION,)
    output_columns = {col.DIFFICULTY_LEVEL: "string", col.DIFFICULTY_SCORE: "float64", col.DIFFICULTY_STATUS: "string"}
    label = "Rate difficulty"

    nothing = (None, None)

    def chats(self, batch: Batch) -> list[tuple[Chat, Chat] | None]:
        tasks = [row and task(*row[:2]) for row in asked(batch)]
        return [(level_prompt(text), score_prompt(text)) if text else None for text in tasks]

    def read(self, level_reply: Completion, score_reply: Completion) -> tuple[str | None, float | None, str]:
        level, score = read_level(answer(level_reply)), read_score(answer(score_reply))
        if error := level_reply.error or score_reply.error:
            return level, score, error
        if level is None and score is None:
            return None, None, "unreadable"
        status = "unreadable_level" if level is None else "unreadable_score" if score is None else col.OK
        return level, score, status
