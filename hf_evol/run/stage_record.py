"""The record of a chain of stage commands, which grows with each of them and which the card is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset

from hf_evol import columns as col
from hf_evol.data.selection import column
from hf_evol.errors import OutputError
from hf_evol.evolve.evol_instruct import new_history
from hf_evol.evolve.self_instruct import SelfInstructed
from hf_evol.hub.provenance import SourceRecord, library_versions, origin, title
from hf_evol.hub.record import read_provenance
from hf_evol.models.record import ModelRecord, describe
from hf_evol.prompts.evol_instruct import version_of
from hf_evol.run.pipeline import source_of
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages, constraining, model_of
from hf_evol.run.steps import columns
from hf_evol.run.tables import (
    constraint_counts,
    languages_of,
    rejected_texts,
    score_summaries,
    status_counts,
    tries_table,
)
from hf_evol.scoring.diversity import of_words
from hf_evol.scoring.summary import summarize
from hf_evol.transform import failures

RUN = "run"  # the first stage of a chain that goes on from the result of a run
_ROLES = {
    "self-instruct": ("generator",),
    "evolve": ("evolver",),
    "eliminate": ("judge",),
    "respond": ("responder",),
    "back-translate": ("constrainer", "judge"),
    "score": ("scorer",),
}
_OF_BEST_OF = ("responder", "scorer")
_DID = {
    "evolver": "evolved",
    "generator": "extended",
    "responder": "answered",
    "scorer": "scored",
    "constrainer": "constrained",
    "judge": "judged",
}
_OF_RUN = ("self_instruct", "constraints")  # what a run's record says of steps that not every run has
_WRITE = ("evolve", "respond", "back-translate", RUN)  # texts that scores are of
_NOT_EVOLVED: dict[str, Any] = {"methods": [], "prompts_version": "", "failures": []}
_TEXTS = (col.INSTRUCTION, col.INPUT, col.OUTPUT)
_EVOLVED = (col.SEED_INSTRUCTION, col.METHOD, col.ROUND)


def record_of(
    stage: str, recipe: Recipe, settings: dict[str, Any], rows: Dataset, counts: Mapping[str, int],
    made: SelfInstructed | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What ``provenance.json`` says of the rows that a stage of a name leaves, with all stages before it that we know of.

    Args:
        recipe: whose ``dataset`` the stage has read.
        settings: of the stage, fit for publishing.
        counts: of the rows that came in, or the replies, how many got which status.
        made: what Self-Instruct made.
    """
    earlier = _earlier(recipe)
    source = SourceRecord(**earlier["source"]) if earlier else source_of(recipe)
    models = [ModelRecord(**known) for known in earlier.get("models", ())]
    roles = _ROLES.get(stage, ()) + (_OF_BEST_OF if stage == "evolve" and recipe.best_of > 1 else ())
    if stage == "back-translate":
        asked = constraining(recipe)
        known = {role: model_of(of) for role, of in (("constrainer", asked.model), ("judge", asked.judge)) if of}
    else:
        known = Stages.of(recipe).models if roles else {}
    if stage == "self-instruct":
        known["generator"] = known["evolver"]  # the recipe's model
        roles += ("responder",) if recipe.responder else ()
    used = [describe(role, known[role]) for role in roles if role in known]
    models += [new for new in used if new not in models]
    own = {"stage": stage, "settings": settings, "rows_in": sum(counts.values()), "rows_out": len(rows)}
    own |= {"counts": dict(counts), "rounds": []}
    if stage == "back-translate":
        own["constraints"] = constraint_counts(rows)
    if made is not None:
        own |= {"rounds": made.rounds, "ended": made.ended, "variety": _variety(rows) | {"inputs": made.n_inputs}}
    evolving = {name: earlier.get(name, nothing) for name, nothing in _NOT_EVOLVED.items()}
    before = list(earlier.get("stages", ()))
    if stage == "evolve":
        before = [{name: value for name, value in entry.items() if name != "constraints"} for entry in before]
        methods = Stages.of(recipe).evolve.methods
        if not source.language and any(method.same_language for method in methods):
            source = replace(source, language=languages_of(rows))
        versions = [*filter(None, evolving["prompts_version"].split(", ")), version_of(methods)]
        evolving = {
            "methods": list(dict.fromkeys([*evolving["methods"], *(method.name for method in methods)])),
            "prompts_version": ", ".join(dict.fromkeys(versions)),
            "failures": rejected_texts(rows),
        }
        own["rounds"] = _rounds(rows, recipe.rounds)
    stages = [*before, own]
    scored = _is_scored(stages) and col.IC_IFD in rows.column_names  # a run's dropped rows have no scores
    chosen = earlier and earlier["license"] != source.license and earlier["license"]  # by a person
    return {
        "kind": "stages",
        "title": _title(source, models, stages),
        "recipe": settings,
        **origin(source, models, recipe.license or chosen or None),
        "stages": stages,
        **evolving,
        "configs": [],  # which the writer fills in here
        "scores": score_summaries(rows) if scored else [],
        "examples": _examples(rows, evolved=bool(evolving["methods"]), scored=scored),
        "libraries": library_versions(earlier.get("libraries")),
    }


def _earlier(recipe: Recipe) -> dict[str, Any]:
    """The record of the stages, or of the run, that left the rows which this stage has read; empty for other rows."""
    if recipe.dataset.startswith(("http://", "https://", "demo/")):  # no folder of ours
        return {}
    try:
        found = read_provenance(recipe.dataset)
    except OutputError:
        return {}
    kind = found.get("kind")
    if kind == "stages":
        return found
    if kind != "evolved":
        return {}
    read = [entry["rows"] for entry in found["configs"] if entry["name"] == (recipe.config or "selected")]
    run = {"stage": RUN, "settings": found["recipe"], "rows_in": found["n_seeds"], "rows_out": sum(read), "counts": {}}
    run["rounds"] = [
        {"round": table["round"], "counts": {"in_set": table["in_set"]} | table["dropped"], "tries": table["tries"]}
        for table in found["rounds"]
    ]
    return found | {"stages": [run | {name: found[name] for name in _OF_RUN if name in found}]}


def _rounds(rows: Dataset, n_rounds: int) -> list[dict[str, Any]]:
    """Of each round that this stage has added: how many rows got which status, and the texts of each try."""
    entries = new_history(column(rows, col.HISTORY), column(rows, col.ROUND), n_rounds)
    tables = []
    for number in sorted(pc.unique(pc.struct_field(entries, "round")).to_pylist()):
        of_round = entries.filter(pc.equal(pc.struct_field(entries, "round"), number))
        part = [pc.struct_field(of_round, name) for name in ("status", "try", "rejected")]
        tables.append({"round": number, "counts": status_counts(part[0]), "tries": tries_table([part])})
    return tables


def _variety(rows: Dataset) -> dict[str, Any]:
    """How new the rows of Self-Instruct are, and how varied."""
    nearest = column(rows, col.NEAREST_SEED)
    found = {"rouge_l": summarize("ROUGE-L", column(rows, col.ROUGE_L)), "nearest_seeds": len(nearest.unique())}
    found["classifications"] = sum(rows[col.IS_CLASSIFICATION])
    return found | of_words(rows)


def _is_scored(stages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the scores are those of the texts: nothing was written after them."""
    names = [entry["stage"] for entry in stages]
    last = max((place for place, name in enumerate(names) if name in _WRITE), default=0)
    return any(name in ("score", RUN) for name in names[last:])


def _examples(rows: Dataset, *, evolved: bool, scored: bool) -> list[dict[str, Any]]:
    """Three good rows: those with the highest IC-IFD, or else the first."""
    if col.INSTRUCTION not in rows.column_names or not len(rows):
        return []
    decided = [name for name in (col.EVOL_STATUS, col.ELIMINATION, col.RESPONSE_STATUS) if name in rows.column_names]
    if decided:
        found = failures({name: rows[name][:] for name in decided})
        rows = rows.select([place for place, why in enumerate(found) if why is None])
    if col.BACK_TRANSLATE_STATUS in rows.column_names:
        added = [place for place, status in enumerate(rows[col.BACK_TRANSLATE_STATUS]) if status == col.OK]
        rows = rows.select(added or range(len(rows)))
    if scored:
        scores = column(rows, col.IC_IFD)
        best = pc.sort_indices(scores, sort_keys=[("", "descending")])[: len(scores) - scores.null_count]
        rows = rows.select(best.to_pylist()[:3] or range(len(rows)))
    known = [*_TEXTS, *(_EVOLVED if evolved else ()), *((col.IC_IFD,) if scored else ())]
    nothing = dict.fromkeys((*_TEXTS, *_EVOLVED, col.IC_IFD))
    return [  # of rows from elsewhere, any column may hold anything
        nothing | {name: value for name, value in row.items() if isinstance(value, str) or name not in _TEXTS}
        for row in columns(rows.select(range(min(3, len(rows)))), known).to_list()
    ]


def _title(source: SourceRecord, models: Sequence[ModelRecord], stages: Sequence[Mapping[str, Any]]) -> str:
    for role, did in _DID.items():
        if records := [model for model in models if model.role == role]:
            return title(source, did, records)
    names = dict.fromkeys(entry["stage"] for entry in stages)
    return f"{source.name.rsplit('/', 1)[-1]}, after {' and '.join(names)}"
