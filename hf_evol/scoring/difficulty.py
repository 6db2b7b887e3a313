"""How difficult instructions are, as a judge model sees it (paper, "Analyses")."""

from __future__ import annotations

from dataclasses import dataclass

from hf_evol import columns as col
from hf_evol.generation.base import Completion
from hf_evol.prompts.judge import LEVELS, level_prompt, score_prompt, task
from hf_evol.prompts.template import in_context
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
        max_new_tokens: for each of the two replies; 2,048 in the paper.
        journal: True for the journal in the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column.
    """

    input_columns = (col.INSTRUCTION,)
    output_columns = {col.DIFFICULTY_LEVEL: "string", col.DIFFICULTY_SCORE: "float64", col.DIFFICULTY_STATUS: "string"}
    label = "Rate difficulty"

    def apply(self, batch: Batch) -> Batch:
        prompts = []
        for row in asked(batch):
            chats = (level_prompt(task(*row[:2])), score_prompt(task(*row[:2]))) if row else ()
            prompts.append(tuple(in_context(chat, row[2]) for chat in chats) or None)
        replies = self.ask(prompts)
        results = [(None, None, "invalid_input") if reply is None else _difficulty(*reply) for reply in replies]
        return {name: [result[place] for result in results] for place, name in enumerate(self.output_columns)}


def _difficulty(level_reply: Completion, score_reply: Completion) -> tuple[str | None, float | None, str]:
    level, score = read_level(answer(level_reply)), read_score(answer(score_reply))
    if error := level_reply.error or score_reply.error:
        return level, score, error
    unread = [name for name, value in (("level", level), ("score", score)) if value is None]
    status = {0: col.OK, 1: f"unreadable_{''.join(unread)}", 2: "unreadable"}[len(unread)]
    return level, score, status
