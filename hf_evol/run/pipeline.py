"""The main job: what a recipe asks for, checked, run and written."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.data.formats import to_instructions, unread
from hf_evol.data.selection import column, select
from hf_evol.data.sources import load_seeds
from hf_evol.errors import ConfigError, FormatError, MissingExtraError
from hf_evol.evolve.self_instruct import SelfInstructed, check_seeds, self_instruct
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.hub import figures
from hf_evol.hub.provenance import SourceRecord, describe_source, library_versions, origin, shareable, title
from hf_evol.hub.target import Target
from hf_evol.hub.writer import Config, RunResult, check_target, finished, set_folder
from hf_evol.models import ModelSpec
from hf_evol.models.journal import Journal, open_journal
from hf_evol.models.record import describe
from hf_evol.progress import without_datasets_bars
from hf_evol.prompts.evol_instruct import version_of
from hf_evol.run import steps
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages
from hf_evol.run.steps import SCORE_COLUMNS, Round, set_columns, without_repeats
from hf_evol.run.tables import constraint_counts, languages_of, rejected_texts, round_table, value_counts
from hf_evol.secrets import public_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run would do: seed rows, and prompt tokens of the first round."""

    n_seeds: int
    rounds: int
    prompt_tokens: int
    methods: tuple[str, ...]
    models: dict[str, ModelSpec | EndpointEngine]


def load_rows(recipe: Recipe, typed: bool = False) -> Dataset:
    """The rows that a recipe names as its seed set, as they are (`load_seeds`)."""
    rows = load_seeds(recipe.dataset, config=recipe.config, split=recipe.split, revision=recipe.revision, typed=typed)
    return rows if recipe.limit is None else rows.select(range(min(recipe.limit, len(rows))))


def read_seeds(recipe: Recipe) -> Dataset:
    """The recipe's seed set in our columns; some of its rows must have an instruction."""
    rows = load_rows(recipe)
    with without_datasets_bars():
        seeds = to_instructions(rows, recipe.format, columns=recipe.columns)
    if unread_rows(seeds).total() == len(seeds):
        raise FormatError(f"No row of {public_name(recipe.dataset)!r} can be read. {reading_of(seeds)}")
    if reading := reading_of(seeds):
        logger.warning(reading)
    return seeds


def _checked_seeds(recipe: Recipe) -> Dataset:
    seeds = read_seeds(recipe)
    if recipe.self_instruct:
        check_seeds(seeds, with_input=True)
    return seeds


def unread_rows(seeds: Dataset) -> Counter[str]:
    """How many rows have no instruction, by reason."""
    reasons = unread(seeds)
    del reasons["odd_answer"]
    return reasons


def reading_of(seeds: Dataset) -> str:
    """In words, what could not be read of the seeds; nothing if all could."""
    reasons, said = unread_rows(seeds), []
    if reasons:
        first = next(why for why in seeds[col.READ_STATUS] if col.reason(why) in reasons)
        listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        said.append(f"{len(seeds) - reasons.total():,} of {len(seeds):,} rows can be read; of the others: {listed}.")
        said += [f"The first: {first}."] if ":" in first else []
    if odd := unread(seeds)["odd_answer"]:
        said.append(f"{odd:,} answers are left out, as they are no text.")
    return " ".join(said)


def plan(recipe: Recipe) -> Plan:
    """What `run` would do with this recipe, from the rows and tokenizers alone."""
    stages = Stages.of(recipe)
    seeds = _checked_seeds(recipe)
    stages.check()
    chats = [
        stages.evolve.prompt(row[col.ID], text, 0, context=row.get(col.CONTEXT))
        for row in seeds
        if (text := row[col.INSTRUCTION]) and text.strip()
    ]
    tokens = stages.evolve.model.count_prompt_tokens(chats)
    names, n_seeds = tuple(method.name for method in stages.evolve.methods), recipe.self_instruct or len(seeds)
    return Plan(n_seeds, recipe.rounds, tokens * n_seeds // len(seeds), names, stages.models)


def run(recipe: Recipe) -> RunResult:
    """As `hf_evol.run`."""
    stages, seeds, target = prepare(recipe)
    made = None
    with progress.times() as times:
        if recipe.self_instruct:
            how = {"seed": recipe.seed, "journal": recipe.journal, "num_proc": recipe.num_proc}
            made = self_instruct(
                seeds, stages.evolve.model, recipe.self_instruct, responder=stages.respond.model, **how
            )
            seeds = steps.columns(made.rows, (col.ID, col.INSTRUCTION, col.INPUT))
        say = partial(print, file=sys.stderr, flush=True)
        rounds = steps.run(seeds, stages, recipe.rounds, steps.mapper(recipe), say)
    _remember(recipe, [asdict(time) for time in times])
    return conclude(recipe, stages, len(seeds), rounds, target, made)


def times_of(recipe: Recipe, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the bars of a run with these published settings took, as `hf_evol.progress.Time` has it, of the run here that has
    generated most; none where the journal knows of no run."""
    journal, key = open_journal(recipe.journal), _times_key(settings)
    return journal.get([key]).get(key, {}).get("times", []) if journal else []


def _times_key(settings: Mapping[str, Any]) -> bytes:
    return Journal.key({"times of": shareable(settings)}, None, "")


def _remember(recipe: Recipe, times: list[dict[str, Any]]) -> None:
    """Note in the journal what a run took, unless an earlier one has generated more."""
    settings, journal = recipe.for_card(), open_journal(recipe.journal)
    tokens, known = (sum(time["tokens"] for time in of) for of in (times, times_of(recipe, settings)))
    if journal and tokens >= known:
        journal.put({_times_key(settings): {"times": times}})


def check_seeds_are_given(recipe: Recipe, what: str) -> None:
    """Raise `ConfigError` if the recipe would have instructions made up, which all rows wait for."""
    if recipe.self_instruct:
        raise ConfigError(
            f"self_instruct is for hf-evol run on one machine. For {what}, run hf-evol self-instruct first, and name its rows as the "
            "seed set."
        )


def prepare(recipe: Recipe) -> tuple[Stages, Dataset, Target]:
    """The recipe's transforms, its seed rows and the place for its set, with everything checked that can be before a model is
    loaded."""
    stages = Stages.of(recipe)
    if recipe.select_by not in SCORE_COLUMNS:
        raise ConfigError(f"select_by must be one of {', '.join(SCORE_COLUMNS)}; got {recipe.select_by!r}.")
    target = check_target(recipe)
    seeds = _checked_seeds(recipe)
    stages.check()
    return stages, seeds, target


def conclude(
    recipe: Recipe, stages: Stages, n_seeds: int, rounds: Sequence[Round], target: Target, made: SelfInstructed | None = None
) -> RunResult:  # fmt: skip
    """Select from the scored rounds, write the set and, if asked, publish it."""
    with without_datasets_bars():
        rounds = without_repeats(rounds)
        record = _provenance(recipe, stages, n_seeds, [round_table(entry, n) for n, entry in enumerate(rounds, 1)])
        sets = [set_columns(entry.rows) for entry in rounds]
        selected = select(concatenate_datasets(sets), recipe.select_by, top=recipe.select, per=col.ROUND)
        lost = concatenate_datasets([entry.dropped for entry in rounds])
        others, failed = [], steps.failed_requests(rounds)
        if not record["source"]["language"] and any(method.same_language for method in stages.evolve.methods):
            record["source"]["language"] = languages_of(*sets)
        if made is not None:
            record["self_instruct"] = {
                "rounds": made.rounds, "ended": made.ended, "counts": dict(made.counts), "inputs": made.n_inputs,
            }  # fmt: skip
            failed += col.failed(made.rejected[col.INSTRUCTION_STATUS])
            others = [Config("rejected", made.rejected, "replies that are no new instruction, each with the reason")]
        write_rounds(target, record, selected, sets, lost, recipe.file_format, others)
    return finished(recipe, record, failed)


def write_rounds(
    target: Target, record: dict[str, Any], selected: Dataset, sets: Sequence[Dataset], lost: Dataset, file_format: str,
    others: Sequence[Config] = (),
) -> None:  # fmt: skip
    """Write the rows of all rounds with their card, and add to the record what follows from the rows."""
    configs = [
        Config("selected", selected, "the rows of all rounds with the highest scores; the default config"),
        *(Config(f"round_{n}", rows, f"all answered rows of round {n}") for n, rows in enumerate(sets, 1)),
        Config("dropped", lost, "rows left out, each with its round and the reason"),
        *others,
    ]
    if any(col.CHECKS in rows.column_names for rows in sets):
        record["constraints"] = constraint_counts(*sets)
    by_round = value_counts(column(selected, col.ROUND))
    for table in record["rounds"]:
        table["selected"] = by_round[table["round"]]
    shown = (
        col.ROUND, col.METHOD, col.IC_IFD, col.SEED_INSTRUCTION, col.CONTEXT, col.INSTRUCTION, col.INPUT, col.OUTPUT,
    )  # fmt: skip
    by = record["recipe"].get("select_by", col.IC_IFD)
    with set_folder(target, record, configs, file_format=file_format) as folder:
        record["examples"] = steps.columns(select(selected, by, top=3), shown).to_list()
        record["failures"] = rejected_texts(lost)
        record["figures"] = _figures(sets, folder)


def source_of(recipe: Recipe) -> SourceRecord:
    return describe_source(recipe.dataset, config=recipe.config, split=recipe.split, revision=recipe.revision)


def _provenance(recipe: Recipe, stages: Stages, n_seeds: int, tables: list[dict[str, Any]]) -> dict[str, Any]:
    source = source_of(recipe)
    records, methods = [describe(role, model) for role, model in stages.models.items()], stages.evolve.methods
    return {
        "kind": "evolved",
        "title": title(source, "evolved", records[:1]),
        "recipe": recipe.for_card(),
        **origin(source, records, recipe.license),
        "n_seeds": n_seeds,
        "methods": [method.name for method in methods],
        "prompts_version": version_of(methods),
        "rounds": tables,
        "libraries": library_versions(),
    }


def _figures(sets: Sequence[Dataset], folder: Path) -> list[dict[str, str]]:
    scores = {number: column(rows, col.IC_IFD).drop_null().to_numpy() for number, rows in enumerate(sets, 1)}
    scores = {number: values for number, values in scores.items() if len(values)}
    if not scores:
        return []
    try:
        figures.check_plots()
    except MissingExtraError as error:
        logger.warning("The card has no figures. %s", error)
        return []
    (folder / "figures").mkdir()
    figures.ic_ifd_histogram(scores, folder / "figures" / "ic_ifd.png")
    return [{"path": "figures/ic_ifd.png", "alt": "Histogram of IC-IFD by round"}]
