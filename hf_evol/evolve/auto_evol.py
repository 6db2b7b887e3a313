"""Auto Evol-Instruct as a transform (arXiv:2406.00770; the paper's Scenario 3, arXiv:2412.11231)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol.errors import ConfigError
from hf_evol.evolve.evol_instruct import Asked, EvolInstruct
from hf_evol.generation.base import Completion
from hf_evol.prompts.auto_evol import AUTO, final_instruction, keywords_prompt, trajectory
from hf_evol.prompts.evol_instruct import Method, resolve_methods
from hf_evol.reading.replies import strip_thinking
from hf_evol.transform import Batch, GreedyTransform

NO_FINAL = "no_final_instruction"


@dataclass(frozen=True, kw_only=True)
class AutoEvolInstruct(EvolInstruct):
    """Let the model list ways to make each instruction harder, plan, rewrite and review it, in one answer.

    The final instruction is what follows the fourth step's heading. Everything else is as with `EvolInstruct`. The stage
    of the method that optimises the evolving prompt is not part of the paper's scenario.

    Input columns:
        as of `EvolInstruct`.

    Output columns:
        as of `EvolInstruct`, with the method ``auto`` and one more ``evol_status``: ``no_final_instruction``, where the
        answer lacks the fourth step's heading. Also ``trajectory``: the ways that the last round's answer lists.

    Args:
        methods: ``auto``, or one `Method` of that kind, or a YAML file of one, for a prompt of one's own.
    """

    methods: Any = AUTO.name

    output_columns: ClassVar[dict[str, Any]] = EvolInstruct.output_columns | {col.TRAJECTORY: ["string"]}

    def _resolved_methods(self) -> tuple[Method, ...]:
        methods = (AUTO,) if self.methods == AUTO.name else resolve_methods(self.methods)
        if any(method.kind != "auto" for method in methods):
            raise ConfigError("AutoEvolInstruct takes methods of kind 'auto'; the others are for hf_evol.EvolInstruct.")
        return methods

    def read(self, one: Asked, completion: Completion) -> tuple[str | None, str]:
        answer, reason = strip_thinking(completion.text), completion.finish_reason
        one.row[col.TRAJECTORY] = trajectory(answer)
        final = final_instruction(answer)
        if final is None:
            return None, "cut_off" if reason == "length" else NO_FINAL
        prompt = [
            turn | {"content": final_instruction(turn["content"]) or turn["content"]}
            if turn["role"] == "assistant"
            else turn
            for turn in one.prompt
        ]
        return self._read(final, reason, prompt, one)


@dataclass(frozen=True, kw_only=True)
class TrajectoryKeywords(GreedyTransform):
    """Name each way in a row's ``trajectory`` by a short key phrase (paper, Scenario 3), greedily. Evolvers compare by how many
    phrases their sets of equal size have (the paper's 8B model's are 6.9 % more numerous).

    Input columns:
        ``trajectory``.

    Output columns:
        ``trajectory_keywords``: phrases, normalised (`normalize_phrase`) and each once, in the model's order; empty where
        there is no trajectory. ``trajectory_status``: ``ok``, ``invalid_input`` or the engine's error.

    Args:
        model: the summariser: a Hub id, a folder, a `ModelSpec` or an engine.
        max_new_tokens: for the phrases of one row.
        journal: True for the journal in the cache folder, False for none, or a file.
    """

    max_new_tokens: int = 256

    input_columns: ClassVar[tuple[str, ...]] = (col.TRAJECTORY,)
    output_columns: ClassVar[dict[str, Any]] = {col.TRAJECTORY_KEYWORDS: ["string"], col.TRAJECTORY_STATUS: "string"}
    label: ClassVar[str] = "Name the ways"

    def apply(self, batch: Batch) -> Batch:
        replies = self.replies_to([keywords_prompt(ways) if ways else None for ways in batch[col.TRAJECTORY]])
        phrases = (re.split(r"[,;\n]", strip_thinking(reply.text)) if reply else () for reply in replies)
        return {
            col.TRAJECTORY_KEYWORDS: [list(dict.fromkeys(filter(None, map(normalize_phrase, of)))) for of in phrases],
            col.TRAJECTORY_STATUS: [(reply.error or col.OK) if reply else "invalid_input" for reply in replies],
        }


def normalize_phrase(phrase: str) -> str:
    """A key phrase in lower case, without list marks, quotes, closing dots and doubled spaces."""
    text = unicodedata.normalize("NFKC", phrase).casefold()
    text = re.sub(r"^\s*(?:[-*•+]|\(?\d{1,2}[.):])\s+", "", text)
    return " ".join(re.sub(r"[*_`\"“”#]", "", text).strip(" .:'").split())
