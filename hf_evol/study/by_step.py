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
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol import models
from hf_evol.data.sources import load_seeds
from hf_evol.errors import ConfigError, HfEvolError
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.hub.figures import check_plots
from hf_evol.hub.provenance import describe, library_versions, shareable
from hf_evol.hub.record import read_provenance, write_provenance
from hf_evol.hub.target import check_output, writing
from hf_evol.hub.writer import RunResult
from hf_evol.progress import without_datasets_bars
from hf_evol.run import steps
from hf_evol.run.pipeline import read_seeds, times_of
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import NO_SCORER, Stages, engine_of, spec_of
from hf_evol.scoring.difficulty import Difficulty
from hf_evol.scoring.diversity import diversity, of_words
from hf_evol.scoring.embed import Embed
from hf_evol.scoring.pairs import SCORES, is_text
from hf_evol.scoring.summary import summarize
from hf_evol.study.figures import draw_steps
from hf_evol.study.measures import EVOLVER, N_WORDS, Measure, values
from hf_evol.study.report import write_steps
from hf_evol.study.results import RESAMPLES, SEEDS
from hf_evol.study.statistics import CONFIDENCE, Comparison, compare, compare_sets, holm, verdict
from hf_evol.study.work import MPNET
from hf_evol.transform import failed_requests, values_of

if TYPE_CHECKING:
    from datasets import Dataset

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
    """What a step left: how many rows, or requests of Self-Instruct, came in, those it kept, and the steps that these are
    compared with."""

    name: str
    rows_in: int
    rows: Dataset
    before: list[Step] = field(default_factory=list)

    def by_id(self, measure: Measure) -> dict[str, float]:
        """The value of each row's id, which is the mean of those of several rounds."""
        found: dict[str, list[float]] = {}
        for row_id, value in zip(self.rows[col.ID][:], values(measure, self.rows.to_list(), 1.0), strict=True):
            if value is not None:
                found.setdefault(row_id, []).append(value)
        return {row_id: fmean(of_rounds) for row_id, of_rounds in found.items()}


def recipe_of(run: str, recipe: Recipe, given: Collection[str]) -> Recipe:
    """The recipe that a run has published, as `Recipe.from_card` has it, with those settings of another one that are ``given``; or
    all of that one, if it holds more, as one from a file does.

    Raises:
        ConfigError: the run's responder was no model loaded there, and where it is now is not given.
    """
    own = {name: getattr(recipe, name) for name in given}
    if recipe != Recipe().with_settings(own):
        return recipe
    published = _record_of(run)["recipe"]
    recipe = Recipe.from_card(published).with_settings(own)
    answers, engine = engine_of(recipe, recipe.responder or recipe.model), _engine_in(published)
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
    the run has them. The run keeps no responses to seeds and made-up instructions: its responder answers them here, by the journal
    where that knows them, and its scorer scores them, and the rounds as they were before constraints. Another scorer, or other
    settings of scoring, score all rows anew. A response that a run would not keep gives no score.

    A round is compared with what it started from, and constraints with the rows without them, row by row (`compare`); made-up
    instructions with the seeds, as sets (`compare_sets`); all p-values are adjusted together (`holm`). Selected rows are not
    tested: they are those with the highest scores. Variety depends on the number of rows, so it is that of as many of each step,
    drawn by the seed, as the smallest of ten or more has.

    Of what a step took, the journal of the run knows the tokens that models wrote, those of rejected texts among them, and the
    seconds, unless an earlier run had some of the texts. A round's are those of evolving, judging and answering.

    The output holds ``steps.json``, ``steps.csv`` with a line for each step, ``figures`` and ``report.html``.

    Args:
        run: a folder, or URL, that `hf_evol.run` has written.
        recipe: as `recipe_of` gives it, with the place for the output.
        judge: the model that rates difficulty; None leaves it out.
        embedding: the model of `hf_evol.Embed`; left out, as with None, where it can't be had.

    Raises:
        ConfigError: the folder holds no run, or one without rows, or one that another responder, or one with other settings,
            answered.
        HfEvolError: seeds, models or the output can't be used; before any model is loaded.
    """
    import pandas as pd

    check_plots()
    record, stages = _record_of(run), Stages.of(recipe)
    if stages.score is None:
        raise ConfigError(NO_SCORER)
    settings, published = shareable(recipe.for_card()), record["recipe"]
    if _answering(settings) != _answering(published):
        raise ConfigError(
            f"The rows of the run in {run!r} keep its responses, by {_answering(published)}, and seeds would be answered by "
            f"{_answering(settings)}. Give the run's own responder and settings."
        )
    target = check_output(recipe.output, recipe.overwrite, "report", reads=run)
    difficulty = Difficulty(engine_of(recipe, judge), journal=recipe.journal) if judge else None
    for transform in filter(None, (stages.respond, stages.score, difficulty)):
        transform.check()
    embed, apply, failed = _embedder(recipe, embedding), steps.mapper(recipe), Counter[str]()
    sets = _sets(run, record, recipe, () if _scoring(settings) != _scoring(published) else tuple(SCORES))
    for step in sets:
        if col.OUTPUT not in step.rows.column_names:
            answered = steps.respond(step.rows, stages.respond, apply, step.name)
            step.rows, failed = _all(answered), failed + steps.failed_requests([answered])
    models.release()
    for transform, made in ((stages.score, col.IC_IFD), (difficulty, col.DIFFICULTY_LEVEL)):
        for step in sets:
            if transform and made not in step.rows.column_names:
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
    } | _results(
        sets,
        times_of(recipe, published),
        recipe.seed,
        lambda rows: apply(rows, embed, "Embed") if embed else rows,
    )
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


def _responder_in(settings: Mapping[str, Any]) -> str | Mapping[str, Any]:
    return settings.get("responder") or settings.get("model", Recipe.model)


def _engine_in(settings: Mapping[str, Any]) -> str:
    """What ran the responder, by published settings."""
    responder, shared = _responder_in(settings), settings.get("engine", Recipe.engine)
    return responder.get("engine", shared) if isinstance(responder, Mapping) else shared


def _answering(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Which model answered, and how, by published settings: of a name the last part, as of a local folder no more is published."""
    responder = _responder_in(settings)
    name = responder.get("name") if isinstance(responder, Mapping) else responder
    found = {"responder": str(name).rpartition("/")[2]}
    return found | {name: value for name, value in settings.items() if name.startswith("response_")}


def _scoring(settings: Mapping[str, Any]) -> list[Any]:
    """What decides scores, of published settings."""
    names = ("dtype", "chat_template", "convention", "max_length", "truncate")
    return [settings.get("scorer") or settings.get("model"), *map(settings.get, names)]


def _embedder(recipe: Recipe, embedding: str | dict | None) -> Embed | None:
    try:
        embed = Embed(spec_of(recipe, embedding)) if embedding else None
        if embed:
            embed.check()
        return embed
    except HfEvolError as error:
        logger.warning("Variety is that of words alone. %s", error)
        return None


def _sets(run: str, record: Mapping[str, Any], recipe: Recipe, scores: tuple[str, ...]) -> list[Step]:
    """The steps with their rows, which keep these scores of the run."""
    from datasets import concatenate_datasets

    names = [entry["name"] for entry in record["configs"] if entry["name"] != "rejected"]
    with without_datasets_bars():
        rows = {name: load_seeds(run, config=name, typed=True) for name in names}
    seeds = read_seeds(recipe)
    sets = [Step(SEEDS, len(seeds), _unanswered(seeds))]
    if made := record.get(SELF_INSTRUCT):
        begun = (steps.columns(rows[name], _BEGUN) for name in ("round_1", "dropped") if name in rows)
        first = concatenate_datasets([_where(part, col.ROUND, lambda number: number == 1) for part in begun])
        new = _unanswered(first.rename_column(col.SEED_INSTRUCTION, col.INSTRUCTION))
        sets.append(Step(SELF_INSTRUCT, sum(made["counts"].values()), new, [*sets]))
    tables = {f"round_{table['round']}": table for table in record["rounds"] if f"round_{table['round']}" in rows}
    for name, table in tables.items():
        sets.append(Step(name, table["rows_in"], _without_constraints(rows[name], scores), sets[-1:]))
    whole = concatenate_datasets([steps.columns(rows[name], (*_TEXTS, *scores)) for name in tables])
    if any(col.BACK_TRANSLATE_STATUS in rows[name].column_names for name in tables):
        sets.append(Step(BACK_TRANSLATE, len(whole), whole, sets[-len(tables) :]))
    if SELECTED in rows:
        sets.append(Step(SELECTED, len(whole), steps.columns(rows[SELECTED], (*_TEXTS, *scores))))
    return sets


def _where(rows: Dataset, name: str, holds: Callable[[Any], bool]) -> Dataset:
    return rows.select([place for place, (value,) in enumerate(values_of(rows, name)) if holds(value)])


def _unanswered(rows: Dataset) -> Dataset:
    """Those with a text, as rows of a round that await a response."""
    rows = _where(steps.columns(rows, _TEXTS[:-1]), col.INSTRUCTION, is_text)
    added = {col.EVOL_STATUS: col.OK, col.ELIMINATION: col.KEPT, col.ROUND: 0}
    rows = rows.add_column(col.PARENT_INSTRUCTION, rows[col.INSTRUCTION][:])
    for name, value in added.items():
        rows = rows.add_column(name, [value] * len(rows))
    return rows


def _all(answered: steps.Round) -> Dataset:
    """All rows, without the responses that a run would not keep."""
    from datasets import concatenate_datasets

    lost = steps.columns(answered.unanswered, _TEXTS[:-1])
    lost = lost.add_column(col.OUTPUT, [None] * len(lost), feature=answered.rows.features[col.OUTPUT])
    return concatenate_datasets([steps.columns(answered.rows, _TEXTS), lost])


def _without_constraints(rows: Dataset, scores: tuple[str, ...]) -> Dataset:
    """A round's rows as they were before constraints; without scores, if there are some."""
    if col.BACK_TRANSLATE_STATUS not in rows.column_names:
        return steps.columns(rows, (*_TEXTS, *scores))
    columns = values_of(rows, col.BACK_TRANSLATE_STATUS, col.PARENT_INSTRUCTION, col.INSTRUCTION)
    plain = [before if status == col.OK else text for status, before, text in columns]
    return steps.columns(rows, _TEXTS).remove_columns(col.INSTRUCTION).add_column(col.INSTRUCTION, plain)


def _results(
    sets: Sequence[Step], times: Sequence[Mapping[str, Any]], seed: int, embedded: Callable[[Dataset], Dataset]
) -> dict[str, Any]:
    """What is measured, and of each step what it left, took and changed."""
    for step in sets:
        n_words = [float(len(text.split())) for (text,) in values_of(step.rows, col.INSTRUCTION)]
        step.rows = step.rows.add_column(N_WORDS, n_words)
    measures = [
        of for name in _MEASURES for of in EVOLVER.measures if of.name == name and name in sets[0].rows.column_names
    ]
    n = min((len(step.rows) for step in sets if len(step.rows) >= _FEWEST), default=0)
    costs, entries = _costs(times), []
    free = {"tokens": 0 if times else None, "seconds": None}
    for step in sets:
        entry = {"step": step.name, "rows_in": step.rows_in, "kept": len(step.rows)} | costs.get(step.name, free)
        entry["tokens_per_row"] = entry["tokens"] and entry["tokens"] / max(1, len(step.rows))
        rows = step.rows.to_list()
        entry |= {of.name: summarize(of.name, values(of, rows, 1.0)) | {"change": None} for of in measures}
        entry["variety"] = _variety(step.rows, n, seed, embedded)
        entries.append(entry)
    changes = {
        (step.name, of.name): _change(step, of, seed, len(sets) * len(measures))
        for step in sets
        if step.before
        for of in measures
    }
    adjusted = dict(zip(changes, holm([found.p_value for _, found in changes.values()]), strict=True))
    for entry in entries:
        for of in measures:
            if (key := (entry["step"], of.name)) in changes:
                before, found = changes[key]
                said = verdict(entry["step"], before, of.label, found, adjusted[key], of.higher_is)
                of_change = {"before": before, "adjusted_p": adjusted[key], "verdict": said}
                entry[of.name]["change"] = asdict(found) | of_change
    return {"measures": [asdict(of) for of in measures], "rows_of_variety": n, "steps": entries}


def _change(step: Step, measure: Measure, seed: int, family: int) -> tuple[str, Comparison]:
    """With what a step is compared, and how: rows with what was made of the same seed before, new ones as a set."""
    now, then = step.by_id(measure), [before.by_id(measure) for before in step.before]
    earlier = {row_id: fmean(of[row_id] for of in then if row_id in of) for row_id in chain(*then)}
    before = " and ".join(one.name for one in step.before)
    if step.name == SELF_INSTRUCT:
        return before, compare_sets([*now.values()], [*earlier.values()], seed=seed, resamples=RESAMPLES)
    pairs = [(value, earlier[row_id]) for row_id, value in now.items() if row_id in earlier]
    sides = zip(*pairs, strict=True) if pairs else ((), ())
    return before, compare(*map(list, sides), seed=seed, resamples=RESAMPLES, family=family)


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
