"""Drop failed evolutions (WizardLM's four rules, arXiv:2304.12244, section 3; and ours)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.constraints.asked import breaks_condition, repeats_itself
from hf_evol.errors import ConfigError
from hf_evol.generation.base import GREEDY, Engine, generate
from hf_evol.generation.transformers_engine import as_engine
from hf_evol.models import ModelSpec
from hf_evol.models.journal import open_journal
from hf_evol.prompts.evol_instruct import METHODS
from hf_evol.prompts.judge import equality_prompt, says_equal
from hf_evol.prompts.template import chat, in_context, transcript
from hf_evol.prompts.words import STOP_WORDS, content, words
from hf_evol.reading.evolved import read_evolved
from hf_evol.reading.replies import strip_thinking
from hf_evol.transform import Batch, Transform, map_dataset, processes_of, rows_in, values_of

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_DECISIVE = (
    col.INSTRUCTION, col.PARENT_INSTRUCTION, col.METHOD, col.EVOL_STATUS, col.OUTPUT, col.INPUT, col.BACK_TRANSLATE_STATUS
)  # fmt: skip
OF_RESPONSES = ("sorry", "no_content", "breaks_condition", "repeats_itself")  # reasons that speak of the response


@dataclass(frozen=True)
class Eliminate(Transform):
    """Find failed evolutions; drop them, or only say why.

    The rules, in the order in which they are tried; the first that applies is the reason:

    - ``not_evolved``: the row's ``evol_status`` is not ok. Where a set has no such column, the reason that
      `hf_evol.read_evolved` gives: ``leak`` (WizardLM's rule 4), ``near_copy``, ``unchanged`` and so on, but of rows with
      constraints of `BackTranslate`.
    - ``blow_up`` (ours): more than ``max_growth`` times the parent's words (or 20, if it has fewer).
    - ``sorry`` (rule 2): the row's response says "sorry" in fewer than ``sorry_max_words`` words (80 in WizardLM).
    - ``no_content`` (rule 3): the row's response is only punctuation and stop words.
    - ``breaks_condition`` (ours): the response is by far longer or shorter (words, sentences, paragraphs, lines) than the instruction
      demands of the whole of it, has another number of list items, or lacks the table or closing question; only the plainest
      English words of such demands are known.
    - ``repeats_itself`` (ours): of a list's items three are there once more, or a sentence stands four times; not in code, songs,
      plans, and answers to several questions.

    Input columns:
        ``instruction``, ``parent_instruction``; and, if there, ``method``, ``evol_status``, ``output``, ``back_translate_status``,
        ``context`` (which the judge is shown).

    Output columns:
        ``elimination``: ``kept``, or the reason. Unless ``keep``, rows with a reason are left out, and how many for which
        reason is logged. With a ``judge``, ``judge_status``: ``ok``; why the request failed, which keeps the row, as
        ``engine_error: …``; or null, where the judge was not asked.

    Args:
        keep: flag rows instead of leaving them out.
        judge: a model for the information-gain rule; None leaves that rule out.
        max_growth, sorry_max_words, stop_words_only, conditions, repetition: None, 0 and False turn the rule off.
        journal: for the judge: True for the journal in the cache folder, False for none, or a file.
    """

    keep: bool = False
    judge: str | ModelSpec | Engine | None = None
    max_growth: float | None = 5.0
    sorry_max_words: int = 80
    stop_words_only: bool = True
    conditions: bool = True
    repetition: bool = True
    journal: bool | str | Path = True

    input_columns: ClassVar[tuple[str, ...]] = (col.INSTRUCTION, col.PARENT_INSTRUCTION)
    label: ClassVar[str] = "Eliminate"

    @property
    def output_columns(self) -> dict[str, Any]:
        return dict.fromkeys((col.ELIMINATION, *([col.JUDGE_STATUS] if self.judge is not None else ())), "string")

    def __post_init__(self) -> None:
        if self.max_growth is not None and self.max_growth <= 1:
            raise ConfigError(f"max_growth must be over 1, or None; got {self.max_growth!r}.")
        if self.judge is not None:
            object.__setattr__(self, "judge", as_engine(self.judge))
            open_journal(self.journal)  # whether what it names is one

    @property
    def uses_model(self) -> bool:
        return self.judge is not None

    @property
    def processes(self) -> int:
        return processes_of(self.judge)

    def identity(self) -> Any:
        return self.judge.identity() if self.judge is not None else None

    def check(self) -> None:
        if self.judge is not None:
            self.judge.check()

    def drop(self, dataset: Dataset, **kwargs: Any) -> tuple[Dataset, Counter[str]]:
        """The kept rows of a dataset, and how many rows each reason took. ``kwargs`` go to `hf_evol.map`."""
        flagged, reasons = self.flag(dataset, **kwargs)
        return self.kept(flagged), reasons

    def flag(self, dataset: Dataset, **kwargs: Any) -> tuple[Dataset, Counter[str]]:
        """All rows with their ``elimination``, ``duplicate`` (`repeated`) among the reasons; and how many have which reason."""
        flagged = map_dataset(dataset, replace(self, keep=True), **kwargs)
        reasons = flagged[col.ELIMINATION][:]
        places = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
        for place, again in zip(places, repeated(flagged.select(places)), strict=True):
            reasons[place] = "duplicate" if again else col.KEPT
        with progress.without_datasets_bars():
            flagged = flagged.remove_columns(col.ELIMINATION).add_column(col.ELIMINATION, reasons)
        return flagged, Counter(reason for reason in reasons if reason != col.KEPT)

    @staticmethod
    def kept(flagged: Dataset) -> Dataset:
        """The rows of `flag` without a reason."""
        found = values_of(flagged, col.ELIMINATION)
        return flagged.select([place for place, (why,) in enumerate(found) if why == col.KEPT])

    def apply(self, batch: Batch) -> Batch:
        n = len(batch[col.INSTRUCTION])
        pairs = list(zip(batch[col.INSTRUCTION], batch[col.PARENT_INSTRUCTION], strict=True))
        reasons = [self._reason(*values) for values in rows_in(batch, *_DECISIVE)]
        made: Batch = {col.ELIMINATION: reasons}
        if self.judge is not None:
            made[col.JUDGE_STATUS] = self._judge(pairs, batch.get(col.CONTEXT, [None] * n), reasons)
        if self.keep:
            return made
        lost = Counter(reason for reason in reasons if reason != col.KEPT)
        if lost:
            counts = ", ".join(f"{reason} {count}" for reason, count in lost.most_common())
            logger.info("Eliminate left out %d of %d rows: %s", sum(lost.values()), n, counts)
        kept = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
        return {name: [values[place] for place in kept] for name, values in (batch | made).items()}

    def _reason(
        self, evolved: Any, parent: Any, method: Any, status: str | None, output: Any, given: Any, constrained: Any
    ) -> str:
        if not isinstance(evolved, str) or not isinstance(parent, str):
            return "not_evolved"
        if status is None and constrained == col.OK:  # the parent is what got constraints
            why = col.OK
        elif status is None:  # evolved elsewhere
            known = METHODS.get(method) if isinstance(method, str) else None
            prompt = known.prompt(parent) if known else chat(parent)
            _, why = read_evolved(evolved, parent=parent, prompt=prompt, method=method)
        else:
            why = col.OK if status == col.OK else "not_evolved"
        if why != col.OK:
            return why
        said, before = words(evolved), words(parent)
        if self.max_growth is not None and len(said) > self.max_growth * max(len(before), 20):
            return "blow_up"
        if isinstance(output, str):
            response = words(output)
            if "sorry" in response and len(response) < self.sorry_max_words:
                return "sorry"
            if self.stop_words_only and STOP_WORDS.issuperset(response):
                return "no_content"
            asked = parent if constrained == col.OK else evolved  # constraints hold
            if self.conditions and breaks_condition(asked, output):
                return "breaks_condition"
            if self.repetition and not given and repeats_itself(asked, output):
                return "repeats_itself"
        return col.KEPT

    def _judge(self, pairs: list[tuple[Any, Any]], contexts: list[Any], reasons: list[str]) -> list[str | None]:
        """Add what the judge finds to the reasons; gives the status of each row."""
        statuses: list[str | None] = [None] * len(pairs)
        asked = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
        progress.advance(len(pairs) - len(asked))
        chats = [in_context(equality_prompt(pairs[place][1], pairs[place][0]), contexts[place]) for place in asked]
        verdicts = generate(self.judge, chats, GREEDY, ["greedy"] * len(chats), open_journal(self.journal))
        for place, verdict in zip(asked, verdicts, strict=True):
            statuses[place] = verdict.error or col.OK
            if says_equal(strip_thinking(verdict.text)):
                reasons[place] = "no_gain"
        return statuses


def repeated(rows: Dataset, *others: Dataset) -> list[bool]:
    """Of each row, whether its instruction says what an earlier row's, or one of the ``others``', says: the same words, up to
    stop words, endings and order, under the same input and context; constraints of `BackTranslate` don't count."""
    import numpy as np

    own, seen = (np.fromiter(_signatures(*part), dtype=np.uint64) for part in ((rows,), others))
    first = np.zeros(len(own), dtype=bool)
    first[np.unique(own, return_index=True)[1]] = True
    return (~first | np.isin(own, seen)).tolist()


def _signatures(*sets: Dataset) -> Iterator[int]:
    """Eight bytes for each row, equal where the texts say the same."""
    for rows in sets:
        read = (col.INSTRUCTION, col.INPUT, col.CONTEXT, col.PARENT_INSTRUCTION, col.BACK_TRANSLATE_STATUS)
        known = [name for name in read if name in rows.column_names]
        for row in (dict(zip(known, of_row, strict=True)) for of_row in values_of(rows, *known)):
            alone = row.get(col.PARENT_INSTRUCTION) if row.get(col.BACK_TRANSLATE_STATUS) == col.OK else None
            text, extra = alone or row[col.INSTRUCTION] or "", row.get(col.INPUT) or ""
            said = content(text) or words(text) or [text]
            before = transcript(row.get(col.CONTEXT) or ())
            digest = blake2b(f"{sorted(said)}|{extra}|{before}".encode("utf-8", "surrogatepass"), digest_size=8)
            yield int.from_bytes(digest.digest(), "little")
