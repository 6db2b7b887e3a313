"""The one writer of a set: configs of rows, what lies beside them, provenance, card and, if asked, the Hub."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from hf_evol.data import FILE_FORMATS
from hf_evol.data.files import columns_of_dates, write_dataset
from hf_evol.errors import ConfigError, HfEvolError
from hf_evol.hub.card import card_text
from hf_evol.hub.publish import check_push, publish
from hf_evol.hub.record import CARD, write_provenance
from hf_evol.hub.target import Target, check_output, hub_dataset, is_remote, writing
from hf_evol.run.recipe import Recipe
from hf_evol.secrets import public_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run made: where it lies, its whole provenance (as in ``provenance.json``), where it is on the Hub, and how many
    rows' requests failed, by what was said of them: another run may have those rows."""

    output: str
    provenance: dict[str, Any]
    url: str | None = None
    failed: Counter[str] = field(default_factory=Counter)


class Config(NamedTuple):
    """One config of a set, which is a folder of its files; the only one of a set may lie beside the card (``folder=""``)."""

    name: str
    rows: Dataset
    description: str
    folder: str | None = None


def check_target(recipe: Recipe) -> Target:
    """The place that a recipe's set may be written to (`check_output`), and be pushed from (`check_push`)."""
    if recipe.push_to and is_remote(recipe.output):
        raise ConfigError("push_to uploads a local folder: give a local --output, or write to an hf:// URL alone.")
    target = check_output(recipe.output, recipe.overwrite, reads=recipe.dataset, file_format=recipe.file_format)
    if recipe.push_to:
        check_push(recipe.push_to, private=recipe.private, file_format=recipe.file_format)
    return target


@contextmanager
def set_folder(
    target: Target, record: dict[str, Any], configs: Sequence[Config], *, file_format: str
) -> Iterator[Path]:
    """Write a set: its configs before the block, provenance and card after it, and all of it in place when that is done.

    Args:
        target: a folder, a dataset on the Hub or any other fsspec URL, as `check_output` gives it.
        record: the provenance, which gets ``configs``; the block may add what follows from files that it writes into
            the folder that it is given.
        configs: those without rows are left out, as `datasets` can't load them.
        file_format: as in `hf_evol.data.FILE_FORMATS`; parquet, with a warning, where JSON would change texts.
    """
    configs = [config for config in configs if len(config.rows)]
    dates = [name for config in configs for name in columns_of_dates(config.rows)] if file_format == "json" else []
    if dates:
        said = f"All texts of the column {dates[0]!r} look like dates, which readers of JSON take for times."
        logger.warning("%s The set is written as parquet.", said)
        file_format = "parquet"
    extension = FILE_FORMATS[file_format]
    record["configs"] = [
        {"name": config.name, "rows": len(config.rows), "description": config.description, "extension": extension}
        | ({"data_files": f"train-*.{extension}"} if config.folder == "" else {})
        for config in configs
    ]
    with writing(target) as folder:
        for config in configs:
            write_dataset(config.rows, folder / (config.name if config.folder is None else config.folder), file_format)
        yield folder
        shown_as = public_name(target.output)
        repo_id, revision = hub_dataset(shown_as)
        card = card_text(record, repo_id=repo_id, revision=revision, folder=shown_as)
        (folder / CARD).write_text(card, encoding="utf-8")
        write_provenance(record, folder)


def finished(recipe: Recipe, record: dict[str, Any], failed: Counter[str]) -> RunResult:
    """The result of a run whose set is in place, pushed if asked, unless requests failed. If the push fails, the error has the
    result, and what to do then."""
    result = RunResult(recipe.output, record, failed=failed)
    if not recipe.push_to:
        return result
    push = f"hf-evol push {shlex.quote(recipe.output)} {recipe.push_to}"
    if failed:
        logger.warning("The set is not pushed, as requests failed. To push it as it is: %s", push)
        return result
    try:
        return replace(result, url=publish(recipe.output, recipe.push_to, private=recipe.private))
    except (HfEvolError, KeyboardInterrupt) as error:
        error.result = result  # type: ignore[union-attr]
        error.then = f"The set is in {recipe.output!r}: {push}"
        raise
