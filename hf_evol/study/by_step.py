"""Which step of a finished run paid: its seeds, made-up instructions, rounds, constraints and selection, measured alike."""

from __future__ import annotations

import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from statistics import fmean
from typing import Any

import pandas as pd
from datasets import Dataset, concatenate_datasets

from hf_evol import columns as col
from hf_evol import models
from hf_evol.data.sources import load_seeds
from hf_evol.errors import ConfigError
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.hub.figures import check_plots
from hf_evol.hub.provenance import library_versions, shareable
from hf_evol.hub.record import read_provenance, write_provenance
from hf_evol.hub.target import check_output, writing
from hf_evol.hub.writer import RunResult
from hf_evol.models.record import describe
from hf_evol.progress import without_datasets_bars
from hf_evol.run import steps
from hf_evol.run.pipeline import read_seeds, times_of
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import NO_SCORER, Stages, engine_of
from hf_evol.scoring.difficulty import Difficulty
from hf_evol.scoring.diversity import diversity, of_words
from hf_evol.scoring.summary import summarize
from hf_evol.study.figures import draw_steps
from hf_evol.study.measures import EVOLVER, N_WORDS, Measure, values
from hf_evol.study.report import write_steps
from hf_evol.study.results import RESAMPLES, SEEDS, conclusions
from hf_evol.study.rows import as_evolved, count_words
from hf_evol.study.statistics import CONFIDENCE, compare, compare_sets
from hf_evol.study.work import MPNET, embedder
from hf_evol.transform import failed_requests, values_of

logger = logging.getLogger(__name__)

SELF_INSTRUCT, BACK_TRANSLATE, SELECTED = "self_instruct", "back_translate", "selected"
_MEASURES = (col.IC_IFD, col.IFD, col.DIFFICULTY_LEVEL, col.DIFFICULTY_SCORE, N_WORDS)
_VARIETY = ("mean_mnd", "self_similarity", "distinct_1", "distinct_2")
_FEWEST = 10  # rows of which variety says something
_BEGUN = (col.ID, col.ROUND, col.SEED_INSTRUCTION, col.INPUT)
_TEXTS = (col.ID, col.INSTRUCTION, col.INPUT, col.CONTEXT, col.OUTPUT)
_FIRST = "Evolve the first"  # rows, which round 1 then takes from the journal
_STEP_OF = {"Self-Instruct": SELF_INSTRUCT, _FIRST: "round_1", "Back-translate": BACK_TRANSLATE, "Score": SELECTED}


@dataclass
class Step:
    """What a step left."""

    name: str
    rows_in: int  # or requests of Self-Instruct
    rows: Dataset
    before: list[Step] = field(default_factory=list)  # which it is compared with

    def by_id(self, measure: Measure) -> dict[str, float]:
        """The value of each row's id, which is the mean of those of several rounds."""
        found: dict[str, list[float]] = {}
        for row_id, value in zip(self.rows[col.ID][:], values(measure, self.rows.to_list(), 1.0), strict=True):
            if value is not None:
                found.setdefault(row_id, []).append(value)
        return {row_id: fmean(of_rounds) for row_id, of_rounds in found.items()}


def recipe_of(run: str, recipe: Recipe, given: Collection[str]) -> Recipe:
    """The recipe that a run has published (`Recipe.from_card`), with those settings of another one that are ``given``; or that one,
    if it holds more, as one from a file does.

    Raises:
        ConfigError: the run's responder was no model loaded there, and where it is now is not given.
    """
    own = {name: getattr(recipe, name) for name in given}
    if recipe != Recipe().with_settings(own):
        return recipe
    published = _record_of(run)["recipe"]
    recipe = Recipe.from_card(published).with_settings(own)
    answers, engine = engine_of(recipe, recipe.responder or recipe.model), _answering(published)[0]
    elsewhere = isinstance(answers, EndpointEngine) and not (answers.base_url or answers.provider)
    if engine != Recipe.engine and (elsewhere or not {"engine", "responder"} & {*given}):
        raise ConfigError(
            f"The responses of the run in {run!r} came from the engine {engine!r}. Say what gives those to its seeds: --engine vllm, "
            "--engine endpoint with --base-url, or --responder '{name: NAME, engine: endpoint, provider: NAME}'."
        )
    return recipe


def compare_steps(
    run: str, recipe: Recipe, *, judge: str | dict | None = None, embedding: str | dict | None = MPNET
) -> RunResult:
    """Measure what each step of a finished run left, and compare it with what was there before.

    The steps are the ``seeds``, ``self_instruct``, ``round_1`` and those after it, ``back_translate`` and ``selected``, as far as
    the run has them. The run keeps no responses to seeds and made-up instructions, so its responder answers them here. The
    recipe's scorer scores all rows, the rounds' as they were before constraints. What the journal knows is not made again. A
    response that a run would not keep gives no score.

    A round is compared with what it started from, and constraints with the rows without them, row by row (`compare`); made-up
    instructions with the seeds, as sets (`compare_sets`). Selected rows are not tested: they are those with the highest scores.
    Variety is that of as many rows of each step, drawn by the seed, as the smallest of ten or more has.

    Of what a step took, the journal of the run knows the tokens that models wrote, those of rejected texts among them, and the
    seconds, unless an earlier run had some of the texts. A round's are those of evolving, judging and answering.

    The output holds ``steps.json``, ``steps.csv`` with a line for each step, ``figures`` and ``report.html``.

    Args:
        run: a folder, or URL, that `hf_evol.run` has written.
        recipe: as `recipe_of` gives it, with the place for the output.
        judge: the model that rates difficulty; None leaves it out.
        embedding: the model of `hf_evol.Embed`; None leaves it out, and so does the default where it can't be had.

    Raises:
        ConfigError: the folder holds no run, or one without rows, or one that was answered by another responder or settings.
        HfEvolError: seeds, models or the output can't be used; before any model is loaded.
    """
    check_plots()
    record, stages = _record_of(run), Stages.of(recipe)
    if stages.score is None:
        raise ConfigError(NO_SCORER)
    settings, published = shareable(recipe.for_card()), record["recipe"]
    (_, would_answer), (_, answered) = _answering(settings), _answering(published)
    if would_answer != answered:
        raise ConfigError(
            f"The rows of the run in {run!r} keep its responses, by {answered}, and seeds would be answered by "
            f"{would_answer}. Give the run's own responder and settings."
        )
    target = check_output(recipe.output, recipe.overwrite, "report", reads=run)
    difficulty = Difficulty(engine_of(recipe, judge), journal=recipe.journal) if judge else None
    for transform in filter(None, (stages.respond, stages.score, difficulty)):
        transform.check()
    embed, error = embedder(recipe, embedding)
    if error:
        logger.warning("Variety is that of words alone. %s", error)
    apply, failed = steps.mapper(recipe), Counter[str]()
    sets = _sets(run, record, recipe)
    for step in sets:
        if col.OUTPUT not in step.rows.column_names:
            answered = steps.respond(step.rows, stages.respond, apply, step.name)
            step.rows, failed = _all(answered), failed + steps.failed_requests([answered])
    models.release()
    for transform in filter(None, (stages.score, difficulty)):
        for step in sets:
            step.rows = apply(step.rows, transform, f"{transform.label}, {step.name}")
            failed += failed_requests(step.rows.data, transform)
        models.release()
    asked = {"responder": stages.respond, "scorer": stages.score, "judge": difficulty, "embedding": embed}
    results = {
        "title": f"{record['title']}: step by step",
        "seed": recipe.seed,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "models": [asdict(describe(role, of.model)) for role, of in asked.items() if of],
    }
    times = times_of(recipe, published)
    results |= _results(sets, times, recipe.seed, lambda rows: apply(rows, embed, "Embed") if embed else rows)
    provenance = {"kind": "report", "title": results["title"], "results": results, "libraries": library_versions()}
    with writing(target) as folder:
        write_steps(results, draw_steps(results, folder / "figures"), folder / "report.html")
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "steps.json").write_text(text + "\n", encoding="utf-8")
        pd.json_normalize(results["steps"]).to_csv(folder / "steps.csv", index=False)
        write_provenance(provenance, folder)
    return RunResult(recipe.output, provenance, failed=failed)


def _record_of(run: str) -> dict[str, Any]:
    record = read_provenance(run)
    if record["kind"] != "evolved":
        raise ConfigError(
            f"{run!r} holds what another command has made ({record['kind']}). Give what hf-evol run has written."
        )
    if not any(entry["name"].startswith("round_") for entry in record["configs"]):
        raise ConfigError(f"The run in {run!r} has kept no row in any round, so there is nothing to compare.")
    return record


def _answering(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """By published settings, the responder's engine; and which model answered, and how: the last part of its name, as of a local
    folder no more is published."""
    responder = settings.get("responder") or settings.get("model", Recipe.model)
    own = responder if isinstance(responder, Mapping) else {"name": responder}
    how = {name: value for name, value in settings.items() if name.startswith("response_")}
    engine = own.get("engine", settings.get("engine", Recipe.engine))
    return engine, {"responder": str(own.get("name")).rpartition("/")[2]} | how


def _sets(run: str, record: Mapping[str, Any], recipe: Recipe) -> list[Step]:
    """The steps with their rows, without scores."""
    names = [entry["name"] for entry in record["configs"] if entry["name"] != "rejected"]
    with without_datasets_bars():
        rows = {name: load_seeds(run, config=name, typed=True) for name in names}
    seeds = read_seeds(recipe)
    sets = [Step(SEEDS, len(seeds), as_evolved(steps.columns(seeds, _TEXTS[:-1])))]
    if made := record.get(SELF_INSTRUCT):
        begun = [steps.columns(rows[name], _BEGUN) for name in ("round_1", "dropped") if name in rows]
        begun = concatenate_datasets(begun)
        of_first = [place for place, (number,) in enumerate(values_of(begun, col.ROUND)) if number == 1]
        first = begun.select(of_first).remove_columns(col.ROUND)
        new = as_evolved(steps.columns(first.rename_column(col.SEED_INSTRUCTION, col.INSTRUCTION), _TEXTS))
        sets.append(Step(SELF_INSTRUCT, sum(made["counts"].values()), new, [*sets]))
    tables = {f"round_{table['round']}": table for table in record["rounds"] if f"round_{table['round']}" in rows}
    for name, table in tables.items():
        sets.append(Step(name, table["rows_in"], _without_constraints(rows[name]), sets[-1:]))
    whole = concatenate_datasets([steps.columns(rows[name], _TEXTS) for name in tables])
    if any(col.BACK_TRANSLATE_STATUS in rows[name].column_names for name in tables):
        sets.append(Step(BACK_TRANSLATE, len(whole), whole, sets[-len(tables) :]))
    if SELECTED in rows:
        sets.append(Step(SELECTED, len(whole), steps.columns(rows[SELECTED], _TEXTS)))
    return sets


def _all(answered: steps.Round) -> Dataset:
    """All rows, without the responses that a run would not keep."""
    lost = steps.columns(answered.unanswered, _TEXTS[:-1])
    lost = lost.add_column(col.OUTPUT, [None] * len(lost), feature=answered.rows.features[col.OUTPUT])
    return concatenate_datasets([steps.columns(answered.rows, _TEXTS), lost])


def _without_constraints(rows: Dataset) -> Dataset:
    """A round's rows as they were before constraints."""
    if col.BACK_TRANSLATE_STATUS not in rows.column_names:
        return steps.columns(rows, _TEXTS)
    columns = values_of(rows, col.BACK_TRANSLATE_STATUS, col.PARENT_INSTRUCTION, col.INSTRUCTION)
    plain = [before if status == col.OK else text for status, before, text in columns]
    return steps.columns(rows, _TEXTS).remove_columns(col.INSTRUCTION).add_column(col.INSTRUCTION, plain)


def _results(
    sets: Sequence[Step], times: Sequence[Mapping[str, Any]], seed: int, embedded: Callable[[Dataset], Dataset]
) -> dict[str, Any]:
    """What is measured, and of each step what it left, took and changed."""
    for step in sets:
        step.rows = step.rows.add_column(N_WORDS, count_words(step.rows[col.INSTRUCTION]))
    made = {of.name: of for of in EVOLVER.measures if of.name in sets[0].rows.column_names}
    measures = [made[name] for name in _MEASURES if name in made]
    n = min((len(step.rows) for step in sets if len(step.rows) >= _FEWEST), default=0)
    costs, changes = _costs(times), _changes(sets, measures, seed)
    free = {"tokens": 0 if times else None, "seconds": None}
    entries = []
    for step in sets:
        entry = {"step": step.name, "rows_in": step.rows_in, "kept": len(step.rows)} | costs.get(step.name, free)
        entry["tokens_per_row"] = entry["tokens"] and entry["tokens"] / max(1, len(step.rows))
        rows = step.rows.to_list()
        for of in measures:
            change = changes.get((step.name, of.name))
            entry[of.name] = summarize(of.name, values(of, rows, 1.0)) | {"change": change}
        entries.append(entry | {"variety": _variety(step.rows, n, seed, embedded)})
    return {"measures": [asdict(of) for of in measures], "rows_of_variety": n, "steps": entries}


def _changes(sets: Sequence[Step], measures: Sequence[Measure], seed: int) -> dict[tuple[str, str], dict[str, Any]]:
    """By step and measure, how rows differ from what was made of the same seed before; new ones are compared as a set."""
    compared = []
    for step in sets:
        for measure in measures if step.before else ():
            now, then = step.by_id(measure), [before.by_id(measure) for before in step.before]
            earlier = {row_id: fmean(of[row_id] for of in then if row_id in of) for row_id in chain(*then)}
            if step.name == SELF_INSTRUCT:
                found = compare_sets([*now.values()], [*earlier.values()], seed=seed, resamples=RESAMPLES)
            else:
                both = [row_id for row_id in now if row_id in earlier]
                sides = ([of[row_id] for row_id in both] for of in (now, earlier))
                found = compare(*sides, seed=seed, resamples=RESAMPLES, family=len(sets) * len(measures))
            compared.append((step.name, " and ".join(before.name for before in step.before), measure, found))
    return {
        (name, measure.name): asdict(found) | {"before": before} | more
        for (name, before, measure, found), more in zip(compared, conclusions(compared), strict=True)
    }


def _variety(rows: Dataset, n: int, seed: int, embedded: Callable[[Dataset], Dataset]) -> dict[str, float | None]:
    if not 0 < n <= len(rows):
        return dict.fromkeys(_VARIETY)
    drawn = embedded(rows.select(sorted(random.Random(seed).sample(range(len(rows)), n))))
    found = diversity(drawn)[1] if col.EMBEDDING in drawn.column_names else of_words(drawn)
    return {name: found.get(name) for name in _VARIETY}


def _costs(times: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Of each step its tokens, and its seconds unless some tokens are an earlier run's."""
    spent: dict[str, Counter[str]] = {}
    for bar in times:
        number = re.search(r"round (\d+) of", bar["label"])
        step = next((step for label, step in _STEP_OF.items() if bar["label"].startswith(label)), None)
        of = spent.setdefault(step or f"round_{number and number[1]}", Counter())
        of["seconds"] += bar["seconds"]
        of["new"] += bar["tokens"]
        of["tokens"] += 0 if bar["label"].startswith(_FIRST) else bar["tokens"] + bar["reused"]
    return {
        step: {"tokens": of["tokens"], "seconds": of["seconds"] if of["new"] == of["tokens"] else None}
        for step, of in spent.items()
    }
