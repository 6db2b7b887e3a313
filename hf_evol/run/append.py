"""Add a round to a published set."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, concatenate_datasets, load_dataset
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError

from hf_evol import columns as col
from hf_evol.data import FILE_FORMATS
from hf_evol.data.selection import select
from hf_evol.errors import ColumnError, HubError
from hf_evol.evolve.eliminate import Eliminate
from hf_evol.hub.licences import notes, plain_licence
from hf_evol.hub.provenance import library_versions
from hf_evol.hub.publish import check_repo_id, publish, why
from hf_evol.hub.record import parsed
from hf_evol.hub.target import Target
from hf_evol.hub.writer import Config
from hf_evol.models.record import describe_model
from hf_evol.run.pipeline import write_rounds
from hf_evol.run.steps import Round, evolution_reasons, part, response_reasons, set_columns, without_repeats
from hf_evol.run.tables import round_table
from hf_evol.secrets import public_name
from hf_evol.transform import check_columns, map_dataset

_NEEDED = (
    col.ID, col.INSTRUCTION, col.PARENT_INSTRUCTION, col.OUTPUT, col.ROUND, col.EVOL_STATUS, col.RESPONSE_STATUS,
    col.EVOLVER, col.RESPONDER, col.IC_IFD, col.IC_IFD_STATUS, col.IC_IFD_CONVENTION,
)  # fmt: skip


def append(
    rows: Dataset, repo_id: str, *, message: str | None = None, revision: str | None = None, create_pr: bool = False
) -> str:
    """Add one further round to a set that `hf_evol.run` has published, in one commit.

    The rows are those of the last published round after `EvolInstruct`, `Respond` and `IcIfd`::

        rows = load_dataset("user/name", "round_3", split="train")
        for transform in (EvolInstruct(model), Respond(responder), IcIfd(scorer)):
            rows = hf_evol.map(rows, transform)
        hf_evol.append(rows, "user/name")

    They become the config ``round_4``, without those that failed or are eliminated, which go to ``dropped``; the recipe's
    share of them, those with the highest scores, goes to ``selected``; provenance, figures and the generated part of the
    card follow. Published rows stay as they are. To append the same rows once more changes nothing.

    Args:
        rows: with the columns of those transforms.
        repo_id: ``user/name``.
        message: the commit message.
        revision: the branch; by default the main one.
        create_pr: open a pull request instead.

    Returns:
        The address of the dataset, or of the pull request.

    Raises:
        ColumnError: the rows lack a column, are not all of the round after the last one, or hold ids that the set lacks.
        HubError: there is no such set, someone else pushed in the meantime, or as in `hf_evol.publish`.
    """
    check_repo_id(repo_id)
    check_columns(_NEEDED, rows.column_names)
    record, head = _provenance(repo_id, revision)
    names, number = [entry["name"] for entry in record["configs"]], len(record["rounds"]) + 1
    published = {name: load_dataset(repo_id, name, split="train", revision=head) for name in names}
    _check_rows(rows, number, record, published, repo_id)
    if set(rows[col.ROUND]) == {number - 1}:  # appended already
        return f"{constants.ENDPOINT}/datasets/{repo_id}"
    earlier = [published[f"round_{n}"] for n in range(1, number) if f"round_{n}" in published]
    [new] = without_repeats([_divided(rows)], earlier)
    kept = set_columns(new.rows)
    chosen = select(kept, record["recipe"].get("select_by", col.IC_IFD), top=record["recipe"]["select"])
    more = {"selected": chosen, "dropped": new.dropped}
    whole = {
        name: concatenate_datasets([_typed_as(added, published[name]), added] if name in published else [added])
        for name, added in more.items()
    }
    others = [
        Config(entry["name"], published[entry["name"]], entry["description"])
        for entry in record["configs"]
        if entry["name"] not in (*whole, *(f"round_{n}" for n in range(1, number)))
    ]
    _extend(record, rows, new)
    file_format = _file_format(record)
    with tempfile.TemporaryDirectory(prefix="hf_evol-") as made:
        folder, message = Path(made, "set"), message or f"Add round {number}"
        sets = [*earlier, kept]
        write_rounds(Target(str(folder)), record, whole["selected"], sets, whole["dropped"], file_format, others)
        return publish(folder, repo_id, message=message, revision=revision, create_pr=create_pr, parent=head)


def _typed_as(added: Dataset, rows: Dataset) -> Dataset:
    """The rows with the column types of those that are added: files of JSON have others."""
    return rows.cast(Features({name: added.features.get(name, kind) for name, kind in rows.features.items()}))


def _extend(record: dict[str, Any], rows: Dataset, new: Round) -> None:
    """Add the round to what the set's provenance says of its rounds, models, licences and libraries."""
    number = len(record["rounds"]) + 1
    record["rounds"].append(round_table(new, number))
    record["recipe"]["rounds"] = number
    record["models"] += _new_models(rows, record["models"])
    source = record["source"]["license"]
    licences = [(model["role"], model["name"], model["license"]) for model in record["models"]]
    record["licence_notes"] = notes(source, licences)
    if record["license"] == source:  # it was allowed plainly; a new model may not allow it
        record["license"] = plain_licence(source, licences)
    record["libraries"] = library_versions(record["libraries"])


def _provenance(repo_id: str, revision: str | None) -> tuple[dict[str, Any], str]:
    """The published provenance, and the commit that it is of."""
    api = HfApi()
    try:
        head = api.repo_info(repo_id, repo_type="dataset", revision=revision).sha
        file = api.hf_hub_download(repo_id, "provenance.json", repo_type="dataset", revision=head)
        record = parsed(Path(file).read_text(encoding="utf-8"))
        if record["kind"] != "evolved":
            raise ValueError("its provenance.json is not of a run")
        _file_format(record)
        return record, head
    except (RemoteEntryNotFoundError, RepositoryNotFoundError, ValueError) as error:
        raise HubError(
            f"There is no set of hf_evol to append to at {repo_id!r}. {why(error)} Publish a run's result there first, with hf-evol push."
        ) from error
    except (OSError, HTTPError) as error:
        raise HubError(f"What is published at {repo_id!r} can't be read. {why(error)} Nothing was changed.") from error


def _file_format(record: dict[str, Any]) -> str:
    """That of a published set; a `ValueError` unless its record has all that appending looks at."""
    recipe, rounds, configs = record["recipe"], record.get("rounds"), record["configs"]
    formats = [name for name, known in FILE_FORMATS.items() if configs and known == configs[0].get("extension")]
    if not formats or not isinstance(rounds, list) or not {"select", "convention"} <= recipe.keys():
        raise ValueError("its provenance.json is not as a run writes it")
    return formats[0]


def _check_rows(
    rows: Dataset, number: int, record: dict[str, Any], published: dict[str, Dataset], repo_id: str
) -> None:
    rounds, ids = set(rows[col.ROUND]), rows[col.ID][:]
    last = published.get(f"round_{number - 1}")
    again = rounds == {number - 1} and last is not None and _texts(_divided(rows).rows) == _texts(last)
    if rounds != {number} and not again:
        raise ColumnError(
            f"The rows are of round {', '.join(sorted(str(entry) for entry in rounds)) or 'none'}; {repo_id!r} has "
            f"{number - 1} rounds, so they must be of round {number}. Evolve the config round_{number - 1} on."
        )
    known = {row_id for entry in published.values() for row_id in entry[col.ID]}
    strangers = [row_id for row_id in ids if row_id not in known]
    if strangers or len(set(ids)) < len(ids):
        what = f"{strangers[0]!r}, which {repo_id!r} lacks" if strangers else "an id more than once"
        raise ColumnError(f"The rows hold {what}. A round has each row of the set at most once.")
    conventions = set(rows[col.IC_IFD_CONVENTION])
    if conventions != {record["recipe"]["convention"]}:
        raise ColumnError(
            f"The rows are scored by {', '.join(sorted(repr(name) for name in conventions))}; {repo_id!r} by "
            f"{record['recipe']['convention']!r}. Score them alike: the selection compares them."
        )


def _texts(rows: Dataset) -> list[list[str]]:
    return [rows[name][:] for name in (col.ID, col.INSTRUCTION, col.OUTPUT)]


def _divided(rows: Dataset) -> Round:
    """The round's rows, those whose evolution failed, and those without a usable response."""
    earlier = rows[col.ELIMINATION][:] if col.ELIMINATION in rows.column_names else [col.KEPT] * len(rows)
    rows = map_dataset(rows, Eliminate(keep=True), desc="Eliminate")
    pairs = zip(earlier, rows[col.ELIMINATION], strict=True)
    both = [now if first in (None, col.KEPT) else first for first, now in pairs]
    rows = rows.remove_columns(col.ELIMINATION).add_column(col.ELIMINATION, both)
    kept, failed = part(rows, evolution_reasons(rows))
    kept, unanswered = part(kept, response_reasons(kept))
    return Round(kept, failed, unanswered)


def _new_models(rows: Dataset, known: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of the evolvers and responders that the published set does not know yet."""
    names = {(entry["role"], entry["name"]) for entry in known}
    found = {(role, name) for role in (col.EVOLVER, col.RESPONDER) for name in rows[role]}
    return [asdict(describe_model(role, public_name(name), name)) for role, name in sorted(found - names)]
