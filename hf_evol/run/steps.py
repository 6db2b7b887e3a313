"""The steps of the main job in their order, once: evolve → eliminate → respond → eliminate → (back-translate) → score.

Whoever runs them brings what applies a transform to rows: `hf_evol.map` here, a study's or a measurement's own elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets

from hf_evol import columns as col
from hf_evol import models
from hf_evol.evolve.eliminate import OF_RESPONSES, Eliminate, repeated
from hf_evol.evolve.respond import Respond
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.progress import without_datasets_bars
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages
from hf_evol.scoring.pairs import SCORES
from hf_evol.transform import Transform, map_dataset, values_of

Mapper = Callable[[Dataset, Transform, str], Dataset]  # rows, what to apply, and the progress bar's label

MAP_ROWS = 1000  # rows handed to a transform at once, sorted by length within
FIRST_ROWS = 32  # evolved before the others where there are many, so that a hopeless run is seen early
_MANY = 4 * FIRST_ROWS
_FEW_OK = 0.3
REASON = "dropped_because"
SCORE_COLUMNS = tuple(name for name, kind in SCORES.items() if kind != "string")
_COLUMNS = (
    col.ID, col.CONTEXT, col.INSTRUCTION, col.INPUT, col.OUTPUT, col.SEED_INSTRUCTION, col.PARENT_INSTRUCTION, col.ROUND, col.METHOD,
    col.TRY, col.REJECTED, col.EVOLVER,
)  # fmt: skip
_SET_COLUMNS = (
    *_COLUMNS, col.RESPONDER, col.CONSTRAINTS, col.CHECKS, col.FUNCTIONS, col.BACK_TRANSLATE_STATUS, *SCORES, col.IC_IFD_CONVENTION,
)  # fmt: skip
_DROPPED_COLUMNS = (*_COLUMNS, col.EVOL_STATUS, REASON)


@dataclass(frozen=True)
class Round:
    """The rows of one round: those of the set, and those left out before and after they were answered, with reasons."""

    rows: Dataset
    failed: Dataset
    unanswered: Dataset

    @property
    def dropped(self) -> Dataset:
        """All rows left out, with what is known of them."""
        return concatenate_datasets([columns(rows, _DROPPED_COLUMNS) for rows in (self.failed, self.unanswered)])


def mapper(recipe: Recipe) -> Mapper:
    """`hf_evol.map` by a recipe's settings."""
    return lambda rows, transform, label: map_dataset(
        rows, transform, batch_size=MAP_ROWS, num_proc=recipe.num_proc, desc=label
    )


def run(
    seeds: Dataset, stages: Stages, rounds: int, apply: Mapper, say: Callable[[str], Any] | None = None
) -> list[Round]:
    """All steps, and their rounds. They go by model, not by round, so that only one model is in memory at a time.

    ``say`` is told, where there are many seeds and a journal keeps their replies, what comes of the first ones; otherwise, where
    little came of the first round, that and advice.
    """
    looks_ahead = len(seeds) > _MANY and stages.evolve.journal is not False
    if say is not None and looks_ahead:
        first = apply(seeds.select(range(FIRST_ROWS)), stages.evolve, f"Evolve the first {FIRST_ROWS} rows")
        say(_yield_of(first, f"the first {FIRST_ROWS} rows") + _advice(first, stages))
    labels = [f"round {number} of {rounds}" for number in range(1, rounds + 1)]
    evolved = []
    for rows in evolve(seeds, stages, rounds, apply):
        if say is not None and not looks_ahead and not evolved and (advice := _advice(rows, stages)):
            say(_yield_of(rows, f"the {len(rows):,} rows of round 1") + advice)
        evolved.append(rows)
    _make_room(stages.evolve.model, stages.respond.model)
    answered = [respond(rows, stages.respond, apply, of) for rows, of in zip(evolved, labels, strict=True)]
    sets, last = [entry.rows for entry in answered], stages.respond.model
    if (constrain := stages.back_translate) is not None:
        if constrain.model is not None:
            _make_room(last, constrain.model)
            last = constrain.judge or constrain.model
        sets = [apply(rows, constrain, f"Back-translate, {of}") for rows, of in zip(sets, labels, strict=True)]
    _make_room(last, stages.score.model)
    scored = [apply(rows, stages.score, f"Score, {of}") for rows, of in zip(sets, labels, strict=True)]
    return [replace(entry, rows=rows) for entry, rows in zip(answered, scored, strict=True)]


def evolve(rows: Dataset, stages: Stages, rounds: int, apply: Mapper, by: str = "") -> Iterator[Dataset]:
    """All rows after each round, with evolving status and elimination."""
    for number in range(1, rounds + 1):
        of = f"{by}round {number} of {rounds}"
        rows = apply(rows, stages.evolve, f"Evolve, {of}")
        rows = apply(rows, stages.eliminate, f"Eliminate, {of}")
        yield rows


def respond(rows: Dataset, responder: Respond, apply: Mapper, of: str) -> Round:
    """A round's rows after they were answered, without scores. Responses are eliminated by the rules alone: a judge has
    compared the instructions before."""
    if col.HISTORY in rows.column_names:
        rows = rows.remove_columns(col.HISTORY)
    kept, failed = part(rows, evolution_reasons(rows))
    kept = apply(kept, responder, f"Respond, {of}")
    kept = apply(kept, Eliminate(keep=True), f"Eliminate, responses of {of}")
    kept, unanswered = part(kept, response_reasons(kept))
    return Round(kept, failed, unanswered)


def _yield_of(rows: Dataset, of: str) -> str:
    """In words, how many of the rows were evolved well, and why others were not."""
    statuses = Counter(rows[col.EVOL_STATUS])
    share = statuses.pop(col.OK, 0) / len(rows)
    why = ", ".join(f"{col.reason(status)} {count}" for status, count in statuses.most_common(3))
    return f"Of {of}, {share:.0%} are ok" + (f"; of the others: {why}." if why else ".")


def _advice(rows: Dataset, stages: Stages) -> str:
    """What to do where few rows were evolved well; nothing where enough were, or most requests failed."""
    statuses = list(rows[col.EVOL_STATUS])
    if statuses.count(col.OK) >= _FEW_OK * len(statuses) or not col.are_answers(statuses):
        return ""
    return (
        f" That is little: {stages.evolve.model.name} may be too small for these rows or methods. Ctrl-C ends the run; a "
        "larger --model, other --methods, or methods with worked examples of your own may give more."
    )


def _make_room(last: Any, following: Any) -> None:
    """Forget the last step's model, unless the following one has the same weights in memory."""
    here = [model.model if isinstance(model, TransformersEngine) else model for model in (last, following)]
    if here[0] != here[1]:
        models.release()


def evolution_reasons(rows: Dataset) -> list[str]:
    """Of each row, ``kept``, or why its evolution failed."""
    return [
        col.reason(status) if status != col.OK else col.KEPT if why in OF_RESPONSES else why
        for status, why in values_of(rows, col.EVOL_STATUS, col.ELIMINATION)
    ]


def response_reasons(rows: Dataset) -> list[str]:
    """Of each evolved row, ``kept``, or why it has no usable response."""
    return [
        f"response_{col.reason(status)}" if status != col.OK else why
        for status, why in values_of(rows, col.RESPONSE_STATUS, col.ELIMINATION)
    ]


def failed_requests(rounds: Sequence[Round]) -> Counter[str]:
    """How many rows' requests failed, over all rounds, by what servers or the machine said of them."""
    said: Counter[str] = Counter()
    for entry in rounds:
        for rows in (entry.rows, entry.failed, entry.unanswered):
            for name in (col.EVOL_STATUS, col.JUDGE_STATUS, col.RESPONSE_STATUS, col.BACK_TRANSLATE_STATUS):
                if name in rows.column_names:
                    said += col.failed(status for (status,) in values_of(rows, name))
    return said


def part(rows: Dataset, reasons: list[str]) -> tuple[Dataset, Dataset]:
    """The kept rows, and the others with their reason."""
    kept = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
    lost = [place for place, reason in enumerate(reasons) if reason != col.KEPT]
    if not lost:
        features = Features(dict(rows.features) | {REASON: Value("string")})
        return rows, Dataset.from_dict({name: [] for name in features}, features=features)
    with without_datasets_bars():
        dropped = rows.select(lost).add_column(REASON, [reasons[place] for place in lost], feature=Value("string"))
    return rows.select(kept), dropped


def without_repeats(rounds: Sequence[Round], published: Sequence[Dataset] = ()) -> list[Round]:
    """The rounds, with rows that say what another row, there or in what is published, says among those left out."""
    done: list[Round] = []
    for entry in rounds:
        again = repeated(entry.rows, *published, *(earlier.rows for earlier in done))
        rows, dropped = part(entry.rows, ["duplicate" if found else col.KEPT for found in again])
        shared = [name for name in dropped.column_names if name in entry.unanswered.column_names]
        if len(dropped):
            entry = replace(entry, unanswered=concatenate_datasets([entry.unanswered, dropped.select_columns(shared)]))
        done.append(replace(entry, rows=rows))
    return done


def columns(rows: Dataset, names: Sequence[str]) -> Dataset:
    """Those of the columns that the rows have."""
    return rows.select_columns([name for name in names if name in rows.column_names])


set_columns = partial(columns, names=_SET_COLUMNS)  # the columns that a set's rows have
