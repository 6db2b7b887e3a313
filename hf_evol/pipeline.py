"""The main job: seeds → evolve → eliminate → respond → score → select → card → Hub, by one recipe."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol.errors import ConfigError, MissingExtraError, SourceError
from hf_evol.evolve.auto_evol import AutoEvolInstruct
from hf_evol.evolve.eliminate import Eliminate
from hf_evol.evolve.evol_instruct import EvolInstruct
from hf_evol.evolve.respond import Respond
from hf_evol.formats import to_instructions
from hf_evol.generation import models
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.generation.models import ModelSpec
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.generation.vllm_engine import VllmEngine
from hf_evol.hub import figures, provenance
from hf_evol.hub.card import build_card
from hf_evol.hub.licences import notes, plain_licence
from hf_evol.hub.publish import check_repo_id, publish
from hf_evol.output import check_output, is_remote, write_dataset, write_provenance, writing
from hf_evol.progress import without_datasets_bars
from hf_evol.prompts.auto_evol import AUTO
from hf_evol.recipe import ENGINES, FILE_FORMATS, Recipe, public_name
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.scoring.pairs import SCORES
from hf_evol.scoring.summary import summarize
from hf_evol.selection import select
from hf_evol.sources import load_seeds
from hf_evol.transform import map

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

logger = logging.getLogger(__name__)

MAP_ROWS = 1000  # rows handed to a transform at once, sorted by length within
_SET_COLUMNS = (
    col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT, col.SEED_INSTRUCTION, col.PARENT_INSTRUCTION, col.ROUND, col.METHOD,
    col.EVOLVER, col.RESPONDER, *SCORES, col.IC_IFD_CONVENTION,
)  # fmt: skip
_SCORES = tuple(name for name, kind in SCORES.items() if kind != "string")
REASON = "dropped_because"


@dataclass(frozen=True)
class Stages:
    """The transforms of a recipe, with its models. Building them checks all settings and loads nothing."""

    evolve: EvolInstruct
    eliminate: Eliminate
    respond: Respond
    score: IcIfd | None
    models: dict[str, ModelSpec | EndpointEngine]

    @classmethod
    def of(cls, recipe: Recipe) -> Stages:
        settings = {"evolver": recipe.model, "responder": recipe.responder or recipe.model}
        if recipe.judge:
            settings["judge"] = recipe.judge
        engines = {role: _engine(recipe, setting) for role, setting in settings.items()}
        scorer = None  # an endpoint gives no losses
        if recipe.scorer or _engine_name(recipe, recipe.model) != "endpoint":
            scorer = _spec(recipe, recipe.scorer or recipe.model)
        described = {
            role: engine if isinstance(engine, EndpointEngine) else engine.model for role, engine in engines.items()
        } | ({"scorer": scorer} if scorer else {})
        described = {role: described[role] for role in ("evolver", "responder", "scorer", "judge") if role in described}
        auto = recipe.methods == AUTO.name
        evolve = (AutoEvolInstruct if auto else EvolInstruct)(
            engines["evolver"],
            methods=(AUTO,) if auto else recipe.methods,
            seed=recipe.seed,
            temperature=recipe.temperature,
            top_p=recipe.top_p,
            max_new_tokens=recipe.max_new_tokens,
            journal=recipe.journal,
        )
        return cls(
            evolve,
            Eliminate(keep=True, judge=engines.get("judge"), journal=recipe.journal),
            Respond(engines["responder"], max_new_tokens=recipe.max_new_tokens, journal=recipe.journal),
            scorer
            and IcIfd(
                scorer,
                convention=recipe.convention,
                max_length=recipe.max_length,
                truncate=recipe.truncate,
                journal=recipe.journal,
            ),
            described,
        )

    def check(self) -> None:
        """Raise if a model can't be found or used; loads configurations and tokenizers only."""
        if self.score is None:
            raise ConfigError(
                "An endpoint gives no losses to score by. Name a model to load here with scorer (--scorer)."
            )
        for transform in (self.evolve, self.eliminate, self.respond, self.score):
            transform.check()


def _engine_name(recipe: Recipe, setting: str | dict) -> str:
    return setting.get("engine", recipe.engine) if isinstance(setting, dict) else recipe.engine


def _engine(recipe: Recipe, setting: str | dict) -> Any:
    """The engine of a role: of the recipe's kind, or of the one that the role's own mapping names."""
    kind = _engine_name(recipe, setting)
    own = dict(setting) if isinstance(setting, dict) else {"name": setting}
    own.pop("engine", None)
    if kind == "endpoint":
        own["model"] = own.pop("name", None)
        shared = {"base_url": recipe.base_url, "api_key_env": recipe.api_key_env}
        return _built(EndpointEngine, ({} if "provider" in own else shared) | own)
    if kind == "vllm":
        return VllmEngine(_spec(recipe, setting))
    if kind == "transformers":
        return TransformersEngine(_spec(recipe, setting), recipe.batch_size)
    raise ConfigError(f"engine must be {', '.join(ENGINES)}; got {kind!r}.")


def _spec(recipe: Recipe, setting: str | dict) -> ModelSpec:
    shared = {"dtype": recipe.dtype, "device": recipe.device, "trust_remote_code": recipe.trust_remote_code}
    if setting == recipe.model:
        shared["chat_template"] = recipe.chat_template
    own = dict(setting) if isinstance(setting, dict) else {"name": setting}
    own.pop("engine", None)
    return _built(ModelSpec, shared | own)


def _built(kind: Any, settings: dict[str, Any]) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        known = ", ".join(kind.__dataclass_fields__)
        raise ConfigError(f"A model in the recipe has unknown settings: {settings!r}. Known: {known}.") from error


def _describe(role: str, model: ModelSpec | EndpointEngine) -> provenance.ModelRecord:
    if isinstance(model, EndpointEngine):
        return provenance.describe_model(role, model.name, model.model, dtype="unknown", stated=model.n_parameters)
    return provenance.describe_model(
        role, model.label, model.path, revision=model.revision, dtype=models.precision(model), stated=model.n_parameters
    )


@dataclass(frozen=True)
class RunResult:
    """What a run made: where it lies, and its whole provenance (as in ``provenance.json``)."""

    output: str
    provenance: dict[str, Any]
    url: str | None = None


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
    """Evolve, answer, score, select, document and, if asked, publish a set.

    The output holds one folder of rows per config (``selected``, ``round_1`` and so on, ``dropped``), the
    card as ``README.md``, its figures, and ``provenance.json``. Every seed row is, for every round, in the
    round's config or in ``dropped`` with its reason. Stages go by model, not by round, so that only one model
    is in memory at a time.

    Raises:
        HfEvolError: with what to do; wrong settings, seeds, models and outputs before any model is loaded.
    """
    stages = Stages.of(recipe)
    if recipe.select_by not in _SCORES:
        raise ConfigError(f"select_by must be one of {', '.join(_SCORES)}; got {recipe.select_by!r}.")
    check_output(recipe.output, recipe.overwrite)
    if recipe.push_to:
        check_repo_id(recipe.push_to)
        if is_remote(recipe.output):
            raise ConfigError("push_to uploads a local folder: give a local --output, or write to an hf:// URL alone.")
    seeds = read_seeds(recipe)
    stages.check()
    evolved = _evolve(seeds, stages, recipe)
    sets, dropped = _answer(evolved, stages, recipe)
    sets = _score(sets, stages, recipe)
    return _finish(recipe, stages, seeds, sets, dropped)


def _evolve(seeds: Dataset, stages: Stages, recipe: Recipe) -> list[Dataset]:
    """All rows after each round, with evolving status and elimination."""
    rounds, rows = [], seeds
    for number in range(1, recipe.rounds + 1):
        of = f"round {number} of {recipe.rounds}"
        rows = _map(rows, stages.evolve, recipe, f"Evolve, {of}")
        rows = _map(rows, stages.eliminate, recipe, f"Eliminate, {of}")
        rounds.append(rows)
    return rounds


def _answer(evolved: list[Dataset], stages: Stages, recipe: Recipe) -> tuple[list[Dataset], list[Dataset]]:
    """Each round's kept rows with their responses, and each round's dropped rows with their reasons."""
    _make_room(stages.models["evolver"], stages.models["responder"])
    sets, dropped = [], []
    after = replace(stages.eliminate, judge=None)  # the rules about responses; the judge has spoken
    for number, rows in enumerate(evolved, 1):
        rows = rows.remove_columns(col.HISTORY)
        reasons = [
            col.reason(status) if status != col.OK else why
            for status, why in zip(rows[col.EVOL_STATUS], rows[col.ELIMINATION], strict=True)
        ]
        kept, lost = _part(rows, reasons)
        kept = _map(kept, stages.respond, recipe, f"Respond, round {number} of {recipe.rounds}")
        kept = _map(kept, after, recipe, f"Eliminate, responses of round {number}")
        reasons = [
            f"response_{col.reason(status)}" if status != col.OK else why
            for status, why in zip(kept[col.RESPONSE_STATUS], kept[col.ELIMINATION], strict=True)
        ]
        kept, unanswered = _part(kept, reasons)
        sets.append(kept)
        dropped += [lost, unanswered]
    return sets, dropped


def _part(rows: Dataset, reasons: list[str]) -> tuple[Dataset, Dataset]:
    """The kept rows, and the others with their reason."""
    from datasets import Dataset, Features, Value

    kept = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
    lost = [place for place, reason in enumerate(reasons) if reason != col.KEPT]
    if not lost:
        features = Features(dict(rows.features) | {REASON: Value("string")})
        return rows, Dataset.from_dict({name: [] for name in features}, features=features)
    dropped = rows.select(lost).add_column(REASON, [reasons[place] for place in lost], feature=Value("string"))
    return rows.select(kept), dropped


def _score(sets: list[Dataset], stages: Stages, recipe: Recipe) -> list[Dataset]:
    _make_room(stages.models["responder"], stages.models["scorer"])
    return [
        _map(rows, stages.score, recipe, f"Score, round {number} of {recipe.rounds}")
        for number, rows in enumerate(sets, 1)
    ]


def _map(rows: Dataset, transform: Any, recipe: Recipe, label: str) -> Dataset:
    return map(rows, transform, batch_size=MAP_ROWS, num_proc=recipe.num_proc, desc=label)


def _make_room(last: ModelSpec | EndpointEngine, following: ModelSpec | EndpointEngine) -> None:
    if last != following:
        models.release()


def _finish(recipe: Recipe, stages: Stages, seeds: Dataset, sets: list[Dataset], dropped: list[Dataset]) -> RunResult:
    from datasets import concatenate_datasets

    columns = [name for name in _SET_COLUMNS if name in sets[0].column_names]
    sets = [rows.select_columns(columns) for rows in sets]
    together = concatenate_datasets(sets)
    selected = select(together, recipe.select_by, top=recipe.select, per=col.ROUND)
    lost = concatenate_datasets([_plain_drop(rows) for rows in dropped])
    configs = [("selected", selected, "the rows of all rounds with the highest scores; the default config")]
    configs += [
        (f"round_{number}", rows, f"all answered rows of round {number}") for number, rows in enumerate(sets, 1)
    ]
    configs += [("dropped", lost, "rows left out, each with its round and the reason")] if len(lost) else []
    configs = [entry for entry in configs if len(entry[1])]
    record = _provenance(recipe, stages, seeds, _round_tables(sets, dropped, selected), configs, selected)
    with writing(recipe.output) as folder:
        for name, rows, _ in configs:
            write_dataset(rows, folder / name, recipe.file_format)
        record["figures"] = _figures(sets, folder)
        write_provenance(record, folder)
        card = build_card(record, repo_id=recipe.push_to, folder=public_name(recipe.output))
        (folder / "README.md").write_text(f"{card}".rstrip("\n") + "\n", encoding="utf-8")
    url = publish(recipe.output, recipe.push_to, private=recipe.private) if recipe.push_to else None
    return RunResult(recipe.output, record, url)


def _plain_drop(rows: Dataset) -> Dataset:
    columns = (
        col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT, col.SEED_INSTRUCTION, col.PARENT_INSTRUCTION, col.ROUND,
        col.METHOD, col.EVOLVER, col.EVOL_STATUS, REASON,
    )  # fmt: skip
    return rows.select_columns([name for name in columns if name in rows.column_names])


def _round_tables(sets: list[Dataset], dropped: list[Dataset], selected: Dataset) -> list[dict[str, Any]]:
    """One record a round: rows in, evolved, kept, in the set, scored, selected, reasons, and score statistics."""
    by_round, tables = Counter(selected[col.ROUND]), []
    for number, rows in enumerate(sets, 1):
        lost, unanswered = dropped[2 * number - 2], dropped[2 * number - 1]
        failed = sum(status != col.OK for status in lost[col.EVOL_STATUS])
        rows_in = len(rows) + len(lost) + len(unanswered)
        scores = list(zip(rows[col.IC_IFD_STATUS], rows[col.IC_IFD], strict=True))
        tables.append(
            {
                "round": number,
                "rows_in": rows_in,
                "ok": rows_in - failed,
                "kept": rows_in - len(lost),
                "in_set": len(rows),
                "scored": sum(score is not None for _, score in scores),
                "selected": by_round[number],
                "dropped": dict((Counter(lost[REASON]) + Counter(unanswered[REASON])).most_common()),
                "unscored": dict(Counter(status for status, score in scores if score is None).most_common()),
                "scores": [summarize(label, rows[name]) for name, label in ((col.IFD, "IFD"), (col.IC_IFD, "IC-IFD"))],
            }
        )
    return tables


def _provenance(
    recipe: Recipe, stages: Stages, seeds: Dataset, rounds: list[dict[str, Any]], configs: list[Any], selected: Dataset
) -> dict[str, Any]:
    source = provenance.describe_source(
        recipe.dataset, config=recipe.config, split=recipe.split, revision=recipe.revision
    )
    records = [_describe(role, model) for role, model in stages.models.items()]
    licences = [(record.role, record.name, record.license) for record in records]
    shown = (col.ROUND, col.METHOD, col.IC_IFD, col.SEED_INSTRUCTION, col.INSTRUCTION, col.INPUT, col.OUTPUT)
    examples = select(selected, recipe.select_by, top=3).select_columns(list(shown)).to_list()
    extension = FILE_FORMATS[recipe.file_format]
    return {
        "title": f"{source.name.rsplit('/', 1)[-1]}, evolved by {records[0].name.rsplit('/', 1)[-1]} ({records[0].size})",
        "recipe": recipe.for_card(),
        "source": asdict(source),
        "license": recipe.license or plain_licence(source.license, licences),
        "licence_notes": notes(source.license, licences),
        "n_seeds": len(seeds),
        "models": [asdict(record) for record in records],
        "methods": [method.name for method in stages.evolve.methods],
        "rounds": rounds,
        "configs": [
            {"name": name, "rows": len(rows), "description": description, "extension": extension}
            for name, rows, description in configs
        ],
        "examples": examples,
        "libraries": provenance.library_versions(),
    }


def _figures(sets: list[Dataset], folder: Path) -> list[dict[str, str]]:
    scores = {number: [value for value in rows[col.IC_IFD] if value is not None] for number, rows in enumerate(sets, 1)}
    scores = {number: values for number, values in scores.items() if values}
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
