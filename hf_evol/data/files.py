"""Rows into files: parquet, JSON lines or Arrow, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import pyarrow as pa
from datasets import Dataset
from fsspec.implementations.local import LocalFileSystem

from hf_evol.data import FILE_FORMATS
from hf_evol.data.selection import column, gathered
from hf_evol.progress import without_datasets_bars

FILE_BYTES = 500_000_000  # of datasets.config.MAX_SHARD_SIZE, which push_to_hub keeps to
_BATCH_ROWS = 10_000


def write_dataset(dataset: Dataset, folder: Path, file_format: str, *, max_bytes: int = FILE_BYTES) -> None:
    """Write one config's rows in files ``train-00000-of-00012`` of the given format, by batches of rows.

    Args:
        dataset: the rows, also memory-mapped ones that are more than memory holds.
        folder: made where it isn't there.
        file_format: as in `hf_evol.data.FILE_FORMATS`.
        max_bytes: about as many bytes of Arrow data go into a file, as in ``Dataset.push_to_hub``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = min(int(dataset._estimate_nbytes() / max_bytes) + 1, max(1, len(dataset)))
    with without_datasets_bars():
        for place in range(count):
            file = folder / f"train-{place:05}-of-{count:05}.{FILE_FORMATS[file_format]}"
            write_file(gathered(dataset.shard(count, place, contiguous=True)), file, file_format)


def columns_of_dates(dataset: Dataset) -> list[str]:
    """The text columns that readers of JSON would take for times, as all of their texts look like one."""
    found = []
    for name in (name for name, kind in dataset.features.items() if getattr(kind, "dtype", None) == "string"):
        texts = column(dataset, name).drop_null()
        try:
            for part in (texts[:1], texts):  # most columns are told by their first text
                part.cast(pa.timestamp("ns"))
        except pa.ArrowInvalid:
            continue
        if len(texts):
            found.append(name)
    return found


def write_file(dataset: Dataset, file: Path, file_format: str) -> None:
    """Write rows in one file of a format of `FILE_FORMATS`."""
    if file_format == "parquet":
        dataset.to_parquet(file)
    elif file_format == "json":
        dataset.to_json(file, force_ascii=False)
    else:
        schema = dataset.features.arrow_schema
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for table in dataset.with_format("arrow").iter(_BATCH_ROWS):
                writer.write_table(table.cast(schema))


@contextmanager
def placing(path: str) -> Iterator[Path]:
    """A local file to write, which is put at ``path``, on any fsspec store, when the block ends without an error."""
    fs, target = fsspec.url_to_fs(path)
    local = isinstance(fs, LocalFileSystem)
    fs.makedirs(target.rpartition("/")[0], exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".part", dir=Path(target).parent if local else None)
    try:
        os.close(handle)
        yield Path(name)
        if local:
            with Path(name).open("rb") as file:
                os.fsync(file.fileno())  # the completion mark, which is written next, must not outlive the rows
            Path(name).chmod(0o644)
            Path(name).replace(target)
        else:
            fs.put_file(name, target)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()
