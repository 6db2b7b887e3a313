"""Transforms as datatrove pipeline steps: a row travels as a Document whose metadata holds all its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched

from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ConfigError
from hf_evol.run.result import REASON

if TYPE_CHECKING:
    from datasets import Features

    from hf_evol.cluster.shards import WriteParquet
    from hf_evol.transform import Transform

ROWS = 1000  # rows handed over at once, as in a run without datatrove
RANK = "${rank}"  # in a path: the task's number, in five digits

Row = dict[str, Any]


def document_of(row: Mapping[str, Any]) -> Document:
    """The row as a Document: all columns in the metadata, the instruction as text."""
    return Document(text=row.get(col.INSTRUCTION) or "", id=str(row.get(col.ID)), metadata=dict(row))


def row_of(document: Document) -> Row:
    """The Document's row. Where its text was changed, by another block, or there is nothing else, it is the instruction."""
    row = document.metadata
    if col.ID not in row:  # of another library's reader
        row = {col.ID: document.id} | row
    if document.text != (row.get(col.INSTRUCTION) or ""):
        row = row | {col.INSTRUCTION: document.text}
    return row


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows as columns, with None where a row lacks one."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def rows_of(columns: Mapping[str, Sequence[Any]]) -> Iterable[Row]:
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def at_rank(path: str, rank: int) -> str:
    return path.replace(RANK, f"{rank:05d}")


class Apply(PipelineStep):
    """Apply a transform to the rows that pass, as ``Dataset.map`` would: one row in, one row out, in order.

    Args:
        transform: any transform of this package.
        batch_size: rows handed to it at a time.
        journal: a file of finished requests for each task, in place of the transform's own journal; ``${rank}`` in it
            stands for the task's number. SQLite files are not safe where several machines write to one of them.

    Raises:
        ConfigError: a journal without ``${rank}``.

    Example:
        >>> from datasets import Dataset
        >>> from hf_evol import IcIfd
        >>> rows = ReadRows("demo/general", limit=3)
        >>> score = Apply(IcIfd("demo"))
        >>> write = WriteParquet("memory://scored/${rank}.parquet", score.features(rows.features()))
        >>> [document.metadata["ic_ifd_status"] for document in write(score(rows()))]
        ['ok', 'ok', 'ok']

        A datatrove executor takes the three as its pipeline: ``LocalPipelineExecutor([rows, score, write], tasks=8)``.
    """

    name = "transform"
    type = "hf_evol"

    def __init__(self, transform: Transform, batch_size: int = ROWS, journal: str | None = None) -> None:
        if journal is not None and RANK not in journal:
            raise ConfigError(f"The journal of several tasks needs {RANK} in its name; got {journal!r}.")
        self.transform, self.batch_size, self.journal = transform, batch_size, journal
        self.name = type(transform).__name__
        super().__init__()

    def features(self, features: Features) -> Features:
        """The features of rows after this step, from those before."""
        return self.transform.features(features)

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        transform = self.transform
        if self.journal is not None and getattr(transform, "journal", False) is not False:
            transform = replace(transform, journal=at_rank(self.journal, rank))
        for documents in batched(data, self.batch_size):
            with self.track_time("batch"):
                columns = columns_of([row_of(document) for document in documents])
                rows = list(rows_of(columns | transform(columns)))
            self.stat_update("rows", value=len(rows), unit="batch")
            yield from map(document_of, rows)


class Keep(PipelineStep):
    """Pass on the rows that are kept; write the others, with the reason in ``dropped_because``, to a place of their own.

    Args:
        reasons: gives, of columns, for each row ``kept`` or why it is left out; such as
            `hf_evol.result.evolution_reasons`.
        lost: where the others go. Its features need ``dropped_because``.
    """

    name = "keep"
    type = "hf_evol"

    def __init__(self, reasons: Callable[[Mapping[str, list[Any]]], list[str]], lost: WriteParquet) -> None:
        super().__init__()
        self.reasons, self.lost = reasons, lost

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        with self.lost.opened(rank) as write:
            for documents in batched(data, ROWS):
                rows = [row_of(document) for document in documents]
                kept, lost = [], []
                for document, row, reason in zip(documents, rows, self.reasons(columns_of(rows)), strict=True):
                    if reason == col.KEPT:
                        kept.append(document)
                    else:
                        lost.append(row | {REASON: reason})
                        self.stat_update(f"dropped_{reason}")
                write(lost)
                yield from kept


_in_use: Any = None


class MakeRoom(PipelineStep):
    """Forget other models of this process before a stage that needs ``model``; a worker keeps its models between tasks."""

    name = "make room"
    type = "hf_evol"

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        global _in_use
        if _in_use not in (None, self.model):
            models.release()
        _in_use = self.model
        yield from data or ()
