"""The main job: seeds → evolve → eliminate → respond → score → select → card → Hub, by one recipe."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol import models
from hf_evol.data.formats import to_instructions
from hf_evol.data.sources import load_seeds
from hf_evol.errors import ConfigError, SourceError
from hf_evol.hub.publish import check_repo_id, publish
from hf_evol.hub.target import check_output, is_remote
from hf_evol.progress import without_datasets_bars
from hf_evol.run.recipe import Recipe
from hf_evol.run.result import SCORE_COLUMNS, Round, RunResult, evolution_reasons, finish, part, response_reasons
from hf_evol.run.stages import Stages
from hf_evol.transform import map

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_evol.generation.endpoint import EndpointEngine
    from hf_evol.models import ModelSpec

MAP_ROWS = 1000  # rows handed to a transform at once, sorted by length within
FIRST_ROWS = 32  # evolved before the others where there are many, so that a hopeless run is seen early
_MANY = 4 * FIRST_ROWS
_FEW_OK = 0.3


@dataclass(frozen=True)
class Plan:
    """What a run would do: seed rows and their format's columns, and prompt tokens of the first round."""

    n_seeds: int
    rounds: int
    prompt_tokens: int
    methods: tuple[str, ...]
    models: dict[str, ModelSpec | EndpointEngine]


def read_seeds(recipe: Recipe) -> Dataset:
    """The recipe's seed set in our columns.

    Raises:
        SourceError: it can't be read or has no rows.
        FormatError, ColumnError: it is not of the format.
    """
    dataset = load_seeds(recipe.dataset, config=recipe.config, split=recipe.split, revision=recipe.revision)
    if not len(dataset):
        raise SourceError(f"The seed set {recipe.dataset!r} has no rows.")
    if recipe.limit is not None:
        dataset = dataset.select(range(min(recipe.limit, len(dataset))))
    with without_datasets_bars():
        return to_instructions(dataset, recipe.format)


def plan(recipe: Recipe) -> Plan:
    """What `run` would do with this recipe, from the rows and tokenizers alone."""
    stages = Stages.of(recipe)
    seeds = read_seeds(recipe)
    stages.check()
    rows = zip(seeds[col.ID], seeds[col.INSTRUCTION], strict=True)
    chats = [stages.evolve.prompt(row_id, text, 0) for row_id, text in rows if text and text.strip()]
    tokens = stages.evolve.model.count_prompt_tokens(chats)
    names = tuple(method.name for method in stages.evolve.methods)
    return Plan(len(seeds), recipe.rounds, tokens, names, stages.models)


def run(recipe: Recipe) -> RunResult:
    """As `hf_evol.run`."""
    stages, seeds = prepare(recipe)
    rounds = _answer(_evolve(seeds, stages, recipe), stages, recipe)
    rounds = _score(rounds, stages, recipe)
    return conclude(recipe, stages, len(seeds), rounds)


def prepare(recipe: Recipe) -> tuple[Stages, Dataset]:
    """The recipe's transforms and seed rows, with everything checked that can be before a model is loaded."""
    stages = Stages.of(recipe)
    if recipe.select_by not in SCORE_COLUMNS:
        raise ConfigError(f"select_by must be one of {', '.join(SCORE_COLUMNS)}; got {recipe.select_by!r}.")
    check_output(recipe.output, recipe.overwrite)
    if recipe.push_to:
        check_repo_id(recipe.push_to)
        if is_remote(recipe.output):
            raise ConfigError("push_to uploads a local folder: give a local --output, or write to an hf:// URL alone.")
    seeds = read_seeds(recipe)
    stages.check()
    return stages, seeds


def conclude(recipe: Recipe, stages: Stages, n_seeds: int, rounds: list[Round]) -> RunResult:
    """Select from the scored rounds, write the set and, if asked, publish it."""
    result = finish(recipe, stages, stages.evolve.methods, n_seeds, rounds)
    if not recipe.push_to:
        return result
    return replace(result, url=publish(recipe.output, recipe.push_to, private=recipe.private))


def _evolve(seeds: Dataset, stages: Stages, recipe: Recipe) -> list[Dataset]:
    """All rows after each round, with evolving status and elimination."""
    if len(seeds) > _MANY and recipe.journal:
        print(_of_first_rows(seeds, stages, recipe), file=sys.stderr, flush=True)
    rounds, rows = [], seeds
    for number in range(1, recipe.rounds + 1):
        of = f"round {number} of {recipe.rounds}"
        rows = _map(rows, stages.evolve, recipe, f"Evolve, {of}")
        rows = _map(rows, stages.eliminate, recipe, f"Eliminate, {of}")
        rounds.append(rows)
    return rounds


def _of_first_rows(seeds: Dataset, stages: Stages, recipe: Recipe) -> str:
    """What comes of the first rows in a first round, in words; the journal keeps their replies for the whole run."""
    rows = _map(seeds.select(range(FIRST_ROWS)), stages.evolve, recipe, f"Evolve the first {FIRST_ROWS} rows")
    statuses = Counter(rows[col.EVOL_STATUS])
    share = statuses.pop(col.OK, 0) / FIRST_ROWS
    why = ", ".join(f"{status.partition(':')[0]} {count}" for status, count in statuses.most_common(3))
    said = f"Of the first {FIRST_ROWS} rows, {share:.0%} are ok" + (f"; of the others: {why}." if why else ".")
    if share >= _FEW_OK:
        return said
    return (
        f"{said} That is little: {stages.evolve.model.name} may be too small for these rows or methods. Ctrl-C ends the run; a "
        "larger --model, other --methods, or methods with worked examples of your own may give more."
    )


def _answer(evolved: list[Dataset], stages: Stages, recipe: Recipe) -> list[Round]:
    """Each round's kept rows with their responses, and the others."""
    _make_room(stages.models["evolver"], stages.models["responder"])
    rounds = []
    after = replace(stages.eliminate, judge=None)  # the rules about responses; the judge has spoken
    for number, rows in enumerate(evolved, 1):
        rows = rows.remove_columns(col.HISTORY)
        kept, failed = part(rows, evolution_reasons(rows))
        kept = _map(kept, stages.respond, recipe, f"Respond, round {number} of {recipe.rounds}")
        kept = _map(kept, after, recipe, f"Eliminate, responses of round {number}")
        kept, unanswered = part(kept, response_reasons(kept))
        rounds.append(Round(kept, failed, unanswered))
    return rounds


def _score(rounds: list[Round], stages: Stages, recipe: Recipe) -> list[Round]:
    _make_room(stages.models["responder"], stages.models["scorer"])
    return [
        replace(entry, rows=_map(entry.rows, stages.score, recipe, f"Score, round {number} of {recipe.rounds}"))
        for number, entry in enumerate(rounds, 1)
    ]


def _map(rows: Dataset, transform: Any, recipe: Recipe, label: str) -> Dataset:
    return map(rows, transform, batch_size=MAP_ROWS, num_proc=recipe.num_proc, desc=label)


def _make_room(last: ModelSpec | EndpointEngine, following: ModelSpec | EndpointEngine) -> None:
    if last != following:
        models.release()
