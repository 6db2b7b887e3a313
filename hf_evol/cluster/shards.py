"""Rows in and out of a datatrove pipeline: any seed set in, parquet shards out, to any fsspec store or the Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched
from fsspec.implementations.local import LocalFileSystem

from hf_evol import columns as col
from hf_evol.cluster.steps import RANK, ROWS, Row, at_rank, document_of, row_of
from hf_evol.data.formats import to_instructions
from hf_evol.data.sources import load_seeds
from hf_evol.errors import ConfigError, SourceError
from hf_evol.progress import without_datasets_bars
from hf_evol.transform import check_columns

if TYPE_CHECKING:
    from datasets import Dataset, Features


class ReadRows(PipelineStep):
    """Read a set; each task takes its part, so that every row goes to exactly one, in order.

    Ids are those of `to_instructions` on the whole set, whatever the number of tasks. A task loads the whole set through
    the `datasets` cache (memory-mapped): on several machines, put ``HF_HOME`` on storage that they share.

    Args:
        source: a Hub name, file, glob, fsspec URL or folder, as `load_seeds` takes it.
        config: the set's configuration.
        split: the split to read.
        revision: branch, tag or commit on the Hub.
        format: of `to_instructions`; or None to take all columns as they are, with their ``id``.
        keep_columns: further columns to keep, where there is a format.
        limit: the first rows only.

    Raises:
        SourceError, FormatError, ColumnError: when it runs; the set can't be read or is not of the format.
    """

    name = "rows"
    type = "hf_evol"

    def __init__(
        self,
        source: str,
        *,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        format: str | None = "auto",
        keep_columns: Sequence[str] = (),
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.source, self.format, self.keep_columns, self.limit = source, format, tuple(keep_columns), limit
        self.options = {"config": config, "split": split, "revision": revision}

    def dataset(self) -> Dataset:
        """The whole set as it is read."""
        dataset = load_seeds(self.source, **self.options)
        if self.limit is not None:
            dataset = dataset.select(range(min(self.limit, len(dataset))))
        if self.format is None:
            check_columns((col.ID,), dataset.column_names)
            return dataset
        with without_datasets_bars():
            return to_instructions(dataset, self.format, keep_columns=self.keep_columns)

    def features(self) -> Features:
        """The features of the rows read."""
        return self.dataset().features

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        if data:
            yield from data
        dataset = self.dataset()
        part = dataset.select(part_of(len(dataset), rank, world_size))
        for row in part:
            yield document_of(row)
        self.stat_update("rows", value=len(part), unit="task")


class ReadShard(PipelineStep):
    """Read what the task of the same number wrote in an earlier pipeline.

    Args:
        path: a parquet file on any fsspec store; ``${rank}`` in it stands for the task's number.

    Raises:
        SourceError: when it runs; the file is not there.
    """

    name = "shard"
    type = "hf_evol"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = _checked(path)

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Dataset

        if data:
            yield from data
        path = at_rank(self.path, rank)
        try:
            file = fsspec.open(path, "rb").open()
        except FileNotFoundError as error:
            raise SourceError(f"The shard {path!r} is missing. Was the stage before this one finished?") from error
        with file:
            for batch in pq.ParquetFile(file).iter_batches(ROWS):
                for row in Dataset(pa.Table.from_batches([batch])):
                    yield document_of(row)


class WriteParquet(PipelineStep):
    """Write the rows that pass to one parquet file for each task, and pass them on.

    A file is there whole or not at all: it is put in place when the task's last row has been written. A task without
    rows leaves a file without rows.

    Args:
        path: the file on any fsspec store, or ``hf://``; ``${rank}`` in it stands for the task's number.
        features: the columns to write, with their types: those of the rows read, through `Apply.features`. A column
            whose values are all null keeps its type; a column that is not among them is left out.
        first: the number of task 0's file.

    Raises:
        ConfigError: a path without ``${rank}``.
    """

    name = "parquet"
    type = "hf_evol"

    def __init__(self, path: str, features: Features, first: int = 0) -> None:
        super().__init__()
        self.path, self.kinds, self.first = _checked(path), features, first

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        with self.opened(rank) as write:
            for documents in batched(data, ROWS):
                write([row_of(document) for document in documents])
                yield from documents

    @contextmanager
    def opened(self, rank: int) -> Iterator[Callable[[Sequence[Row]], None]]:
        """A function that writes rows. The file is in place when the block ends without an error."""
        import pyarrow.parquet as pq
        from datasets import Dataset

        def write(rows: Sequence[Row]) -> None:
            if not rows:  # `datasets` can't read an empty row group
                return
            columns = {name: [row.get(name) for row in rows] for name in self.kinds}
            writer.write_table(Dataset.from_dict(columns, features=self.kinds).data.table)
            self.stat_update("rows", value=len(rows), unit="batch")

        with placing(at_rank(self.path, self.first + rank)) as file:
            with pq.ParquetWriter(file, self.kinds.arrow_schema) as writer:
                yield write


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


def write_shards(dataset: Dataset, path: str, tasks: int) -> None:
    """Cut rows into a parquet shard for each task. A shard that is there is whole, and stays."""
    for rank in range(tasks):
        shard = at_rank(path, rank)
        fs, target = fsspec.url_to_fs(shard)
        if fs.exists(target):
            continue
        with placing(shard) as file, without_datasets_bars():
            dataset.select(part_of(len(dataset), rank, tasks)).to_parquet(file)


def load_shards(path: str, numbers: range, cache: str | None) -> Dataset:
    """The rows of parquet shards, in order, memory-mapped from the folder ``cache``."""
    from datasets import Dataset, load_dataset

    files = [at_rank(path, number) for number in numbers]
    if not any(shard_schema(file)[1] for file in files):  # datasets can't load files without any rows
        features, _ = shard_schema(files[0])
        return Dataset.from_dict({name: [] for name in features}, features=features)
    with without_datasets_bars():
        return load_dataset("parquet", data_files=files, split="train", cache_dir=cache)


def shard_schema(path: str) -> tuple[Features, int]:
    """The features of a parquet file of ours, and how many rows it has."""
    import pyarrow.parquet as pq
    from datasets import Features

    with fsspec.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        return Features.from_arrow_schema(parquet.schema_arrow), parquet.metadata.num_rows


def part_of(n_rows: int, rank: int, world_size: int) -> range:
    """The places of the rows that a task takes."""
    return range(n_rows * rank // world_size, n_rows * (rank + 1) // world_size)


def _checked(path: str) -> str:
    if RANK not in path:
        raise ConfigError(f"The path of shards needs {RANK}, the task's number, in it; got {path!r}.")
    return path if "://" in path else str(Path(path).expanduser().absolute())
