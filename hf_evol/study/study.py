"""Compare evolvers on one seed set: evolve, answer, measure, and say which differences hold up."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol.data.sources import public_name
from hf_evol.errors import ConfigError
from hf_evol.hub.figures import check_plots
from hf_evol.hub.provenance import ModelRecord, describe_source, library_versions, origin
from hf_evol.hub.writer import Config, RunResult, check_target, finished, set_folder
from hf_evol.run.pipeline import read_seeds
from hf_evol.run.recipe import Recipe
from hf_evol.run.steps import set_columns
from hf_evol.study.figures import draw
from hf_evol.study.findings import cost_sentences, findings, listed
from hf_evol.study.report import write_report
from hf_evol.study.results import LABEL, SEEDS, STATUS, analyse
from hf_evol.study.work import MPNET, Work

if TYPE_CHECKING:
    from datasets import Dataset, Features

    from hf_evol.hub.target import Target

SCHEMA = 1  # of results.json
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")
# What the provenance says of the recipe and of the results.
_SETTINGS = (
    "dataset", "methods", "rounds", "tries", "best_of", "by_example", "seed", "temperature", "top_p", "max_new_tokens",
    "response_max_new_tokens", "limit", "convention", "engine",
)  # fmt: skip
_RESULTS = ("verdict", "n_seeds", "rounds", "measures", "comparisons", "yields", "costs", "stand_ins", "failures")


@dataclass(frozen=True)
class Study:
    """What a study compares and measures, beside a `Recipe` with the seed set, the fixed models and the sampling.

    Args:
        evolvers: label to model, two or more; a model as in a recipe. A label is 1 to 30 of ``A-Z a-z 0-9 . _ -``.
        judge: the model that rates difficulty and compares rewritings; None leaves those measures out.
        reward: a reward model; None leaves rewards out.
        embedding: an embedding model; None leaves diversity out. The default is left out with a note where it can't be
            had.
        positions: of how many first positions to take the top-1 probability; 5 in the paper's script.

    Raises:
        ConfigError: fewer than two evolvers, or labels that can't be used.
    """

    evolvers: Mapping[str, str | dict]
    judge: str | dict | None = None
    reward: str | dict | None = None
    embedding: str | dict | None = MPNET
    positions: int = 5

    def __post_init__(self) -> None:
        if len(self.evolvers) < 2:
            raise ConfigError(
                f"A study compares two or more evolvers; got {len(self.evolvers)}. Name each: --evolver small=MODEL "
                "--evolver large=MODEL."
            )
        labels = list(self.evolvers)  # folders are called by them
        if not all(map(_LABEL.fullmatch, labels)) or len({SEEDS, *map(str.lower, labels)}) <= len(labels):
            raise ConfigError(
                "An evolver's label must be 1 to 30 of A-Z a-z 0-9 . _ -, begin with a letter or digit, differ from others in "
                f"more than case, and not be {SEEDS!r}; got {', '.join(map(repr, labels))}."
            )
        if self.positions < 1:
            raise ConfigError(f"positions must be 1 or more; got {self.positions!r}.")


def run(study: Study, recipe: Recipe) -> RunResult:
    """As `hf_evol.study`."""
    if recipe.responder is None:
        raise ConfigError("A study needs one responder for all evolvers: --responder MODEL.")
    check_plots()
    target = check_target(recipe)
    work, seeds = Work(study, recipe), read_seeds(recipe)
    evolved, costs = work.evolve(seeds)
    answered = work.answer(evolved)
    ok = [status == col.OK for status in answered[STATUS]]
    usable = work.measure(answered.select([place for place, kept in enumerate(ok) if kept]))
    judged = work.compare_rewritings(usable)
    records = usable.to_list() + answered.select([place for place, kept in enumerate(ok) if not kept]).to_list()
    labels = list(study.evolvers)
    places = {row_id: place for place, row_id in enumerate(seeds[col.ID])}
    records.sort(key=lambda row: (labels.index(row[LABEL]), row[col.ROUND], places[row[col.ID]]))
    of_seeds = work.measure_seeds(seeds).to_list()

    models = work.records()
    results = _about(models, recipe, len(seeds))
    results |= analyse([*of_seeds, *records], judged, labels, recipe.rounds, seed=recipe.seed)
    results |= {"costs": costs, "diversity": work.diversities, "failures": work.failures}
    results["verdict"] = [finding["text"] for finding in findings(results)] + cost_sentences(costs, labels)
    provenance = _provenance(recipe, results, [record for _, record in models])
    return _written(recipe, results, records, usable.features, provenance, target)


def _about(models: Sequence[tuple[str, ModelRecord]], recipe: Recipe, n_seeds: int) -> dict[str, Any]:
    """What was compared with what, on what; and where models have a part that they should not have, a sentence."""
    evolvers = [(label, record) for label, record in models if record.role == "evolver"]
    others = [record for _, record in models if record.role != "evolver"]
    stand_ins = []
    for record in others:
        if labels := [label for label, evolver in evolvers if evolver.name == record.name]:
            said = f"The {record.role} is the model of the evolver {listed(labels)}, and may favour its own texts."
            stand_ins.append(said)
    sizes = " against ".join(f"{label} ({record.size})" for label, record in evolvers)
    return {
        "schema": SCHEMA,
        "title": f"{public_name(recipe.dataset).rsplit('/', 1)[-1]}: {sizes}",
        "seed": recipe.seed,
        "n_seeds": n_seeds,
        "rounds": recipe.rounds,
        "evolvers": [{"label": label} | asdict(record) for label, record in evolvers],
        "models": [asdict(record) for record in others],
        "stand_ins": stand_ins,
    }


def _written(
    recipe: Recipe, results: dict[str, Any], records: Sequence[dict], features: Features, provenance: dict[str, Any],
    target: Target,
) -> RunResult:  # fmt: skip
    from datasets import Dataset

    rows = Dataset.from_dict({name: [row.get(name) for row in records] for name in features}, features=features)
    configs = [
        Config("rows", rows, "every row of every evolver and round, with its status and measures; the default config"),
        *(_set(rows, evolver["label"]) for evolver in results["evolvers"]),
        Config("comparisons", Dataset.from_list(results["comparisons"]), "each measure, round and pair of evolvers"),
        Config("summaries", Dataset.from_list(results["summaries"]), "each measure of each evolver and round"),
        Config("costs", Dataset.from_list(results["costs"]), "tokens, seconds and operations of evolving"),
    ]
    with set_folder(target, provenance, configs, file_format=recipe.file_format) as folder:
        figures = draw(results, rows, folder / "figures")
        write_report(results, rows, figures, folder / "report.html")
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        provenance["figures"] = [{"path": f"figures/{of['path_png'].name}", "alt": of["alt"]} for of in figures]
    return finished(recipe, provenance)


def _set(rows: Dataset, label: str) -> Config:
    """An evolver's usable rows as a config of its own."""
    found = enumerate(zip(rows[LABEL], rows[STATUS], rows[col.RESPONSE_STATUS], strict=True))
    usable = rows.select([place for place, row in found if row == (label, col.OK, col.OK)])
    return Config(f"set_{label}", set_columns(usable), f"the usable and answered rows of {label}, to train on")


def _provenance(recipe: Recipe, results: dict[str, Any], records: Sequence[ModelRecord]) -> dict[str, Any]:
    source = describe_source(recipe.dataset, config=recipe.config, split=recipe.split, revision=recipe.revision)
    settings = {name: value for name, value in recipe.for_card().items() if name in _SETTINGS}
    settings["evolvers"] = {model["label"]: model["name"] for model in results["evolvers"]}
    settings |= {model["role"]: model["name"] for model in results["models"]}
    return {
        "kind": "study",
        "title": results["title"],
        "recipe": settings,
        **origin(source, records, recipe.license),
        "models": [*results["evolvers"], *results["models"]],
        "results": {name: results[name] for name in _RESULTS},
        "libraries": library_versions(),
    }
