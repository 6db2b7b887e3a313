"""The one writer of a set: configs of rows, what lies beside them, provenance, card and, if asked, the Hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_evol import columns as col
from hf_evol.data.files import FILE_FORMATS, columns_of_dates, write_dataset
from hf_evol.data.sources import public_name
from hf_evol.errors import ConfigError
from hf_evol.hub.card import card_text
from hf_evol.hub.publish import check_repo_id, publish
from hf_evol.hub.target import check_output, hub_dataset, is_remote, write_provenance, writing

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run made: where it lies, its whole provenance (as in ``provenance.json``), where it is on the Hub, and what was
    said most often of requests that failed."""

    output: str
    provenance: dict[str, Any]
    url: str | None = None
    failed_because: str | None = None

    @property
    def n_failed_requests(self) -> int:
        """How many rows were left out, over all rounds, because a server or the memory failed: another run may have them."""
        dropped = [table["dropped"] for table in self.provenance.get("rounds", ())]
        return sum(count for table in dropped for name, count in table.items() if name.endswith(col.PASSING_FAILURES))


class Config(NamedTuple):
    """One config of a set, which is a folder of its files; the only one of a set may lie beside the card (``folder=""``)."""

    name: str
    rows: Dataset
    description: str
    folder: str | None = None


def check_target(output: str, *, overwrite: bool, push_to: str | None) -> None:
    """Raise unless a set may be written there (`check_output`), and be pushed from there (`ConfigError`)."""
    check_output(output, overwrite)
    if push_to:
        check_repo_id(push_to)
        if is_remote(output):
            raise ConfigError("push_to uploads a local folder: give a local --output, or write to an hf:// URL alone.")


@contextmanager
def set_folder(
    output: str, record: dict[str, Any], configs: Sequence[Config], *, file_format: str, repo_id: str | None = None
) -> Iterator[Path]:
    """Write a set: its configs before the block, provenance and card after it, and all of it in place when that is done.

    Args:
        output: a folder, a dataset on the Hub or any other fsspec URL.
        record: the provenance, which gets ``configs``; the block may add what follows from files that it writes into
            the folder that it is given.
        configs: those without rows are left out, as `datasets` can't load them.
        file_format: as in `hf_evol.data.files.FILE_FORMATS`; parquet, with a warning, where JSON would change texts.
        repo_id: the dataset on the Hub that the set is for.
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
    with writing(output) as folder:
        for config in configs:
            write_dataset(config.rows, folder / (config.name if config.folder is None else config.folder), file_format)
        yield folder
        write_provenance(record, folder)
        shown_as = public_name(output)
        card = card_text(record, repo_id=repo_id or hub_dataset(shown_as)[0], folder=shown_as)
        (folder / "README.md").write_text(card, encoding="utf-8")


def finished(
    output: str, record: dict[str, Any], *, push_to: str | None, private: bool, failed_because: str | None = None
) -> RunResult:
    """The result of a run whose set is in place, pushed if asked."""
    url = publish(output, push_to, private=private) if push_to else None
    return RunResult(output, record, url, failed_because)
