"""Drop failed evolutions (WizardLM's four rules, arXiv:2304.12244, section 3; and two of ours)."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.errors import ConfigError
from hf_evol.evolve.clean import LEAKED_PHRASES
from hf_evol.generation.base import GREEDY, Engine, generate
from hf_evol.generation.journal import open_journal
from hf_evol.generation.models import ModelSpec
from hf_evol.generation.transformers_engine import as_engine
from hf_evol.prompts.eliminate import INFORMATION_GAIN, says_equal
from hf_evol.prompts.replies import strip_thinking
from hf_evol.prompts.template import chat
from hf_evol.transform import Batch, Transform, map

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# A word; in scripts written without spaces, a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")

OF_RESPONSES = ("sorry", "no_content")  # reasons that speak of the response

STOP_WORDS = frozenset(
    (
        "a about above after again all also am an and any are as at be because been before being below between both but "
        "by can could did do does doing down during each few for from further had has have having he her here hers him "
        "his how i if in into is it its just me more most my no nor not now of off on once only or other our ours out "
        "over own same she should so some such than that the their theirs them then there these they this those through "
        "to too under until up very was we were what when where which while who whom why will with would you your yours"
    ).split()
)


@dataclass(frozen=True)
class Eliminate(Transform):
    """Find failed evolutions; drop them, or only say why.

    The rules, in the order in which they are tried; the first that applies is the reason:

    - ``not_evolved``: the row's ``evol_status`` is not ok.
    - ``leak`` (WizardLM's rule 4): the instruction holds words of the evolving prompt that its parent lacks.
    - ``near_copy`` (ours): fewer than ``min_new_words`` words that the parent lacks. The paper's prompts ask
      for 10 to 20 more, so under 3 is a copy.
    - ``blow_up`` (ours): more than ``max_growth`` times the parent's words (or 20, if it has fewer).
    - ``sorry`` (rule 2): the response says "sorry" in fewer than ``sorry_max_words`` words (80 in WizardLM).
    - ``no_content`` (rule 3): the response is only punctuation and stop words.
    - ``no_gain`` (rule 1): the ``judge`` finds evolved and parent equal. A reply that can't be read keeps the
      row.

    The rules about the response apply where a row has one.

    Input columns:
        ``instruction``, ``parent_instruction``; and, if there, ``evol_status``, ``output``.

    Output columns:
        ``elimination``: ``kept``, or the reason. Unless ``keep``, rows with a reason are left out, and how
        many for which reason is logged.

    Args:
        keep: flag rows instead of leaving them out.
        judge: a model for the information-gain rule; None leaves that rule out.
        leaked_phrases: what counts as a leak; empty turns the rule off.
        min_new_words: 0 turns the rule off.
        max_growth: None turns the rule off.
        sorry_max_words: 0 turns the rule off.
        stop_words_only: False turns the rule off.
        journal: for the judge: True for the journal in the cache folder, False for none, or a file.
    """

    keep: bool = False
    judge: str | ModelSpec | Engine | None = None
    leaked_phrases: tuple[str, ...] = LEAKED_PHRASES
    min_new_words: int = 3
    max_growth: float | None = 5.0
    sorry_max_words: int = 80
    stop_words_only: bool = True
    journal: bool | str | Path = True

    input_columns: ClassVar[tuple[str, ...]] = (col.INSTRUCTION, col.PARENT_INSTRUCTION)
    output_columns: ClassVar[dict[str, Any]] = {col.ELIMINATION: "string"}
    label: ClassVar[str] = "Eliminate"

    def __post_init__(self) -> None:
        if self.max_growth is not None and self.max_growth <= 1:
            raise ConfigError(f"max_growth must be over 1, or None; got {self.max_growth!r}.")
        object.__setattr__(self, "leaked_phrases", tuple(phrase.lower() for phrase in self.leaked_phrases))
        if self.judge is not None:
            object.__setattr__(self, "judge", as_engine(self.judge))

    @property
    def uses_model(self) -> bool:
        return self.judge is not None

    def identity(self) -> Any:
        return self.judge.identity() if self.judge is not None else None

    def check(self) -> None:
        if self.judge is not None:
            self.judge.check()

    def drop(self, dataset: Dataset, **kwargs: Any) -> tuple[Dataset, Counter[str]]:
        """The kept rows of a dataset, and how many rows each reason took. ``kwargs`` go to `hf_evol.map`."""
        flagged = map(dataset, replace(self, keep=True), **kwargs)
        reasons = flagged[col.ELIMINATION][:]
        kept = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
        return flagged.select(kept), Counter(reason for reason in reasons if reason != col.KEPT)

    def apply(self, batch: Batch) -> Batch:
        n = len(batch[col.INSTRUCTION])
        statuses, outputs = batch.get(col.EVOL_STATUS, [col.OK] * n), batch.get(col.OUTPUT, [None] * n)
        pairs = list(zip(batch[col.INSTRUCTION], batch[col.PARENT_INSTRUCTION], strict=True))
        reasons = [
            self._reason(evolved, parent, status, output)
            for (evolved, parent), status, output in zip(pairs, statuses, outputs, strict=True)
        ]
        if self.judge is not None:
            self._judge(pairs, reasons)
        batch = batch | {col.ELIMINATION: reasons}
        if self.keep:
            return {col.ELIMINATION: reasons}
        lost = Counter(reason for reason in reasons if reason != col.KEPT)
        if lost:
            counts = ", ".join(f"{reason} {count}" for reason, count in lost.most_common())
            logger.info("Eliminate left out %d of %d rows: %s", sum(lost.values()), n, counts)
        kept = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
        return {name: [values[place] for place in kept] for name, values in batch.items()}

    def _reason(self, evolved: Any, parent: Any, status: str, output: Any) -> str:
        if status != col.OK or not isinstance(evolved, str) or not isinstance(parent, str):
            return "not_evolved"
        lowered, parent_lowered = evolved.lower(), parent.lower()
        if any(phrase in lowered and phrase not in parent_lowered for phrase in self.leaked_phrases):
            return "leak"
        words, parent_words = Counter(_WORD.findall(lowered)), Counter(_WORD.findall(parent_lowered))
        if (words - parent_words).total() < self.min_new_words:
            return "near_copy"
        if self.max_growth is not None and words.total() > self.max_growth * max(parent_words.total(), 20):
            return "blow_up"
        if isinstance(output, str):
            response = _WORD.findall(output.lower())
            if "sorry" in response and len(response) < self.sorry_max_words:
                return "sorry"
            if self.stop_words_only and STOP_WORDS.issuperset(response):
                return "no_content"
        return col.KEPT

    def _judge(self, pairs: list[tuple[Any, Any]], reasons: list[str]) -> None:
        asked = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
        chats = [chat(INFORMATION_GAIN.fill(parent=pairs[i][1], evolved=pairs[i][0])) for i in asked]
        progress.advance(len(pairs) - len(asked))
        journal = open_journal(self.journal)
        verdicts = generate(self.judge, chats, GREEDY, ["greedy"] * len(chats), journal)
        for place, verdict in zip(asked, verdicts, strict=True):
            if says_equal(strip_thinking(verdict.text)):
                reasons[place] = "no_gain"
