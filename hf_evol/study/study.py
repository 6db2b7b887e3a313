"""Compare evolvers or responders on one seed set: evolve, answer, measure, and say which differences hold up."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset, Features

from hf_evol import columns as col
from hf_evol.errors import ConfigError, check_counts
from hf_evol.hub.figures import check_plots
from hf_evol.hub.provenance import library_versions, origin
from hf_evol.hub.target import Target
from hf_evol.hub.writer import Config, RunResult, check_target, finished, set_folder
from hf_evol.models.record import ModelRecord
from hf_evol.run.pipeline import check_seeds_are_given, read_seeds, source_of
from hf_evol.run.recipe import Recipe
from hf_evol.run.steps import set_columns
from hf_evol.scoring.compatibility import BETA
from hf_evol.secrets import public_name
from hf_evol.study.figures import draw
from hf_evol.study.findings import cost_sentences, findings, shared_models
from hf_evol.study.measures import EVOLVER, RESPONDER, Role
from hf_evol.study.report import write_report
from hf_evol.study.results import LABEL, SEEDS, STATUS, analyse
from hf_evol.study.work import MPNET, Work

SCHEMA = 1  # of results.json
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")
# What the provenance says of the recipe and of the results.
_SETTINGS = (
    "dataset", "seed", "response_system", "response_temperature", "response_top_p", "response_max_new_tokens", "limit",
    "convention", "engine",
)  # fmt: skip
_OF_EVOLVING = ("methods", "rounds", "tries", "best_of", "by_example", "temperature", "top_p", "max_new_tokens")
_RESULTS = ("verdict", "n_seeds", "rounds", "measures", "comparisons", "yields", "costs", "failures")


@dataclass(frozen=True)
class Study:
    """What a study compares and measures, beside a `Recipe` with the seed set, the fixed models and the sampling.

    It compares either ``evolvers``, whose rewritings one responder answers, or ``responders``, which answer the seeds as
    they are, for one ``base`` that is to be tuned on the responses.

    Args:
        evolvers: label to model, two or more; a model as in a recipe. A label is 1 to 30 of ``A-Z a-z 0-9 . _ -``.
        judge: the model that rates difficulty and compares what the models wrote; None leaves those measures out.
        reward: a reward model; None leaves rewards out, and with them the compatibility-adjusted reward.
        embedding: of evolvers: an embedding model; None leaves diversity out. The default is left out with a note where
            it can't be had.
        positions: of evolvers: of how many first positions to take the top-1 probability; 5 in the paper's script.
        responders: label to model, likewise.
        base: of responders: the model that is to be tuned, loaded here; `hf_evol.Compatibility` scores by it.
        beta: of responders: as of `hf_evol.Compatibility`.

    Raises:
        ConfigError: fewer than two of either, or both; labels that can't be used; responders without a base; a setting
            of the other kind.
    """

    evolvers: Mapping[str, str | dict] | None = None
    judge: str | dict | None = None
    reward: str | dict | None = None
    embedding: str | dict | None = MPNET
    positions: int = 5
    responders: Mapping[str, str | dict] | None = None
    base: str | dict | None = None
    beta: float = BETA

    def __post_init__(self) -> None:
        name, labels = self.role.name, list(self.candidates)  # folders are called by them
        if self.evolvers and self.responders:
            raise ConfigError(
                "A study compares evolvers or responders; got both. With --evolver, one --responder MODEL answers for all."
            )
        if len(labels) < 2:
            raise ConfigError(
                f"A study compares two or more {name}s; got {len(labels)}. Name each: --{name} small=MODEL "
                f"--{name} large=MODEL."
            )
        if not all(map(_LABEL.fullmatch, labels)) or len({SEEDS, *map(str.lower, labels)}) <= len(labels):
            raise ConfigError(
                "A label must be 1 to 30 of A-Z a-z 0-9 . _ -, begin with a letter or digit, differ from others in more than "
                f"case, and not be {SEEDS!r}; got {', '.join(map(repr, labels))}."
            )
        check_counts(self, "positions")
        if self.responders and self.base is None:
            raise ConfigError(
                "Responders are compared for the model that is to be tuned on them: name it with --base MODEL."
            )
        for setting in ("embedding", "positions") if self.responders else ("base", "beta"):
            if getattr(self, setting) not in (None, type(self).__dataclass_fields__[setting].default):
                other = "responders" if self.evolvers else "evolvers"
                raise ConfigError(f"{setting} is of studies of {other}: leave it out.")

    @property
    def role(self) -> Role:
        return RESPONDER if self.responders and not self.evolvers else EVOLVER

    @property
    def candidates(self) -> Mapping[str, str | dict]:
        """What is compared, by label."""
        return self.evolvers or self.responders or {}


def run(study: Study, recipe: Recipe) -> RunResult:
    """As `hf_evol.study`."""
    role = study.role
    if role is EVOLVER and recipe.responder is None:
        raise ConfigError("A study needs one responder for all evolvers: --responder MODEL.")
    if role is RESPONDER and recipe.responder is not None:
        raise ConfigError("The responders are what is compared: leave the recipe's own responder out.")
    check_seeds_are_given(recipe, "a study")
    check_plots()
    target = check_target(recipe)
    work, seeds = Work(study, recipe), read_seeds(recipe)
    answered, costs = work.make(seeds)
    ok = [status == col.OK for status in answered[STATUS]]
    usable = work.measure(answered.select([place for place, kept in enumerate(ok) if kept]))
    judged = work.compare(usable)
    records = usable.to_list() + answered.select([place for place, kept in enumerate(ok) if not kept]).to_list()
    labels = list(study.candidates)
    places = {row_id: place for place, row_id in enumerate(seeds[col.ID])}
    records.sort(key=lambda row: (labels.index(row[LABEL]), row[col.ROUND], places[row[col.ID]]))
    of_seeds = work.measure_seeds(seeds).to_list() if role is EVOLVER else []

    compared, others = work.records()
    sizes = " against ".join(f"{label} ({record.size})" for label, record in compared.items())
    results = {
        "schema": SCHEMA,
        "role": role.name,
        "title": f"{public_name(recipe.dataset).rsplit('/', 1)[-1]}: {sizes}",
        "seed": recipe.seed,
        "n_seeds": len(seeds),
        "rounds": work.rounds,
        f"{role.name}s": [{"label": label} | asdict(record) for label, record in compared.items()],
        "models": [asdict(record) for record in others],
    }
    results |= {"beta": study.beta} if role is RESPONDER else {}
    results |= analyse([*of_seeds, *records], judged, labels, work.rounds, seed=recipe.seed, role=role, beta=study.beta)
    results |= {"costs": costs, "diversity": work.diversities, "failures": work.failures}
    results["verdict"] = [finding["text"] for finding in findings(results)]
    results["verdict"] += cost_sentences(results) + shared_models(results)
    provenance = _provenance(recipe, results, [*compared.values(), *others])
    return _written(recipe, results, records, usable.features, provenance, target, work.failed)


def _written(
    recipe: Recipe, results: dict[str, Any], records: Sequence[dict], features: Features, provenance: dict[str, Any],
    target: Target, failed: Counter[str],
) -> RunResult:  # fmt: skip
    rows = Dataset.from_dict({name: [row.get(name) for row in records] for name in features}, features=features)
    role, each, and_pair, work = results["role"], "responder", " and pair of responders", "answering"
    if results["rounds"]:
        each, and_pair, work = "evolver and round", ", round and pair of evolvers", "evolving"
    configs = [
        Config("rows", rows, f"every row of every {each}, with its status and measures; the default config"),
        *(_set(rows, model["label"]) for model in results[f"{role}s"]),
        Config("comparisons", Dataset.from_list(results["comparisons"]), f"each measure{and_pair}"),
        Config("summaries", Dataset.from_list(results["summaries"]), f"each measure of each {each}"),
        Config("costs", Dataset.from_list(results["costs"]), f"tokens, seconds and operations of {work}"),
    ]
    with set_folder(target, provenance, configs, file_format=recipe.file_format) as folder:
        figures = draw(results, rows, folder / "figures")
        write_report(results, rows, figures, folder / "report.html")
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        provenance["figures"] = [{"path": f"figures/{of['path_png'].name}", "alt": of["alt"]} for of in figures]
    return finished(recipe, provenance, failed)


def _set(rows: Dataset, label: str) -> Config:
    """The usable rows of one of what is compared as a config of its own."""
    names = [name for name in (STATUS, col.RESPONSE_STATUS) if name in rows.column_names]
    found = enumerate(zip(rows[LABEL], *(rows[name] for name in names), strict=True))
    usable = rows.select([place for place, (of, *statuses) in found if of == label and set(statuses) == {col.OK}])
    of = f"the usable {'and answered ' if len(names) > 1 else ''}rows of {label}, to train on"
    return Config(f"set_{label}", set_columns(usable), of)


def _provenance(recipe: Recipe, results: dict[str, Any], records: Sequence[ModelRecord]) -> dict[str, Any]:
    compared = f"{results['role']}s"
    shown = _SETTINGS + (_OF_EVOLVING if results["rounds"] else ())
    settings = {name: value for name, value in recipe.for_card().items() if name in shown}
    settings |= {"beta": results["beta"]} if "beta" in results else {}
    settings[compared] = {model["label"]: model["name"] for model in results[compared]}
    settings |= {model["role"]: model["name"] for model in results["models"]}
    return {
        "kind": "study",
        "title": results["title"],
        "recipe": settings,
        **origin(source_of(recipe), records, recipe.license),
        "models": [*results[compared], *results["models"]],
        "results": {name: results[name] for name in _RESULTS},
        "libraries": library_versions(),
    }
