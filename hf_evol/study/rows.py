"""The rows of a study between its stages: what is held of them, and columns that are put beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from datasets import Dataset, Value, concatenate_datasets

from hf_evol import columns as col
from hf_evol.evolve.eliminate import repeated
from hf_evol.evolve.respond import Respond
from hf_evol.generation.base import Completion
from hf_evol.progress import without_datasets_bars
from hf_evol.run import steps
from hf_evol.run.steps import REASON
from hf_evol.scoring.pairs import is_text
from hf_evol.study.measures import N_WORDS, USABLE
from hf_evol.study.results import LABEL, STATUS
from hf_evol.transform import Batch, values_of

TOKENS = ("n_prompt_tokens", "n_tokens")  # of an evolution's history, and of what `CountedRespond` answers
_OF_RESPONSE = "response_"  # begins the reasons that are the responder's


@dataclass(frozen=True, kw_only=True)
class CountedRespond(Respond):
    output_columns = Respond.output_columns | dict.fromkeys(TOKENS, "int64")

    def columns(self, replies: list[tuple[str | None, str, Completion | None]]) -> Batch:
        counts = {name: [getattr(completion, name, 0) for *_, completion in replies] for name in TOKENS}
        return Respond.columns(self, replies) | counts


def decided(answered: steps.Round, evolved: bool = True) -> Dataset:
    """All answered rows with what is held of their texts: of two usable ones of an evolver that say the same, the later one
    is a duplicate, as in the set of a run."""
    left_out = (answered.failed, answered.unanswered)
    reasons = [col.KEPT] * len(answered.rows)
    if evolved:  # rows are in the order of their evolvers
        again = chain(*(repeated(of_label(answered.rows, label)) for label in dict.fromkeys(answered.rows[LABEL])))
        reasons = ["duplicate" if found else col.KEPT for found in again]
    reasons += chain(*(part[REASON] for part in left_out))
    rows = concatenate_datasets([answered.rows, *(part.remove_columns(REASON) for part in left_out)])
    of_responses = [why.removeprefix(_OF_RESPONSE) if why.startswith(_OF_RESPONSE) else None for why in reasons]
    outputs = rows[col.OUTPUT][:] if col.OUTPUT in rows.column_names else [None] * len(rows)
    # the request failed, as the server was down or memory ran out; or there was nothing to answer
    unknown = col.PASSING_FAILURES
    if evolved:  # why the response is left out is the responder's
        statuses = [col.OK if of or why == col.KEPT else why for of, why in zip(of_responses, reasons, strict=True)]
        of_kept = zip(of_responses, statuses, strict=True)
        responses = {col.RESPONSE_STATUS: ([of or col.OK if ok == col.OK else None for of, ok in of_kept], "string")}
        made = rows[col.INSTRUCTION]
    else:
        statuses = [of or (col.OK if why == col.KEPT else why) for of, why in zip(of_responses, reasons, strict=True)]
        responses, made, unknown = {}, outputs, (*unknown, "invalid_input")
    texts = [text if status == col.OK else None for text, status in zip(made, statuses, strict=True)]
    known = {col.OUTPUT, col.RESPONSE_STATUS, col.EVOL_STATUS, col.ELIMINATION, *TOKENS}
    known.add(col.RESPONDER if evolved else col.PARENT_INSTRUCTION)
    return with_columns(
        rows.remove_columns(list(known.intersection(rows.column_names))),
        {
            col.OUTPUT: (outputs, "string"),
            STATUS: (statuses, "string"),
            **responses,
            N_WORDS: (count_words(texts), "float64"),
            USABLE: ([None if why in unknown else float(why == col.OK) for why in statuses], "float64"),
        },
    )


def as_evolved(instructions: Dataset) -> Dataset:
    """Instructions as rows of a round that await a response."""
    texts = instructions[col.INSTRUCTION][:]
    return with_columns(
        instructions,
        {
            col.ROUND: ([0] * len(texts), "int32"),
            col.PARENT_INSTRUCTION: (texts, "string"),
            col.EVOL_STATUS: ([col.OK if is_text(text) else "invalid_input" for text in texts], "string"),
            col.ELIMINATION: ([col.KEPT] * len(texts), "string"),
        },
    )


def count_words(texts: Iterable[str | None]) -> list[float | None]:
    return [float(len(text.split())) if text else None for text in texts]


def with_columns(rows: Dataset, columns: dict[str, tuple[list[Any], str]]) -> Dataset:
    """The rows with these columns: values and type."""
    with without_datasets_bars():
        for name, (values, kind) in columns.items():
            rows = rows.add_column(name, values, feature=Value(kind))
    return rows


def of_label(rows: Dataset, label: str, number: int | None = None) -> Dataset:
    sets = enumerate(values_of(rows, LABEL, col.ROUND))
    return rows.select([place for place, (of, at) in sets if of == label and number in (None, at)])
