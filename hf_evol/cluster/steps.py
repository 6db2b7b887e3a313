"""datatrove pipeline steps: a shard of the main job, its end, and any transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched
from datatrove.utils.logging import logger

from hf_evol import columns as col
from hf_evol.cluster.folder import JOURNALS, LOGS, WorkFolder
from hf_evol.models import set_rank
from hf_evol.progress import without_datasets_bars
from hf_evol.run import steps
from hf_evol.run.pipeline import conclude
from hf_evol.run.stages import Stages

if TYPE_CHECKING:
    from hf_evol.hub.writer import RunResult
    from hf_evol.run.recipe import Recipe
    from hf_evol.transform import Transform

ROWS = steps.MAP_ROWS
_PARTS = ("rows", "failed", "unanswered")  # of a round


class Shard(PipelineStep):
    """All steps of a recipe for one part of its seeds, from a work folder and into it.

    Args:
        recipe: what to do; its output is not touched.
        folder: the work folder, which holds the seeds' parts.
        journal: a file in place of the recipe's journal; ``{rank}`` in it stands for the task's number. SQLite files are not
            safe where several machines write to one of them.
    """

    name = "shard"
    type = "hf_evol"

    def __init__(self, recipe: Recipe, folder: str, journal: str | None = None) -> None:
        super().__init__()
        self.recipe = replace(recipe, num_proc=1)
        self.path, self.journal = folder, journal

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        set_rank(rank, once=True)
        folder, recipe = WorkFolder(self.path), self.recipe
        if self.journal is not None and recipe.journal is not False:
            recipe = replace(recipe, journal=self.journal.format(rank=f"{rank:05}"))
        seeds, say = folder.load_shards("seeds", [rank]), None if rank else logger.warning
        with without_datasets_bars(), self.track_time("shard"):
            rounds = steps.run(seeds, Stages.of(recipe), recipe.rounds, steps.mapper(recipe), say)
        for number, entry in enumerate(rounds):
            for kind in _PARTS:
                folder.put_shard(getattr(entry, kind), kind, number * world_size + rank)
        self.stat_update("rows", value=len(seeds), unit="task")
        yield from data or ()


def finish(recipe: Recipe, folder: WorkFolder, n_seeds: int, tasks: int, keep: Sequence[str] = ()) -> RunResult:
    """What follows when all shards are done: select, write the set and, if asked, publish it; and clear the folder.

    Args:
        keep: what stays in the work folder.

    Raises:
        SourceError: a shard is missing.
    """
    with folder.scratch() as cache:
        rounds = [
            steps.Round(*(folder.load_shards(kind, range(first, first + tasks), cache) for kind in _PARTS))
            for first in range(0, recipe.rounds * tasks, tasks)
        ]
        result = conclude(recipe, Stages.of(recipe), n_seeds, rounds)
    folder.clear([*keep, *([JOURNALS] if result.n_failed_requests else [])])  # for those that another run asks again
    return result


class Finish(PipelineStep):
    """The end of a run as a task of its own, where the launcher does not wait for the shards; it gives back the lock."""

    name = "finish"
    type = "hf_evol"

    def __init__(self, recipe: Recipe, folder: str, n_seeds: int, tasks: int) -> None:
        super().__init__()
        self.recipe, self.path, self.n_seeds, self.n_tasks = recipe, folder, n_seeds, tasks

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        folder = WorkFolder(self.path)
        finish(self.recipe, folder, self.n_seeds, self.n_tasks, keep=[LOGS])  # which this task still writes to
        folder.unlock()
        yield from data or ()


class Apply(PipelineStep):
    """Apply a transform to the documents that pass, as ``Dataset.map`` would: one in, one out, in order.

    A document's columns are its metadata; its text is the ``instruction``, and its id the ``id`` where the metadata has none.

    Args:
        transform: any transform of this package.
        batch_size: rows handed to it at a time.

    Example:
        >>> from datatrove.data import Document
        >>> from hf_evol import IcIfd
        >>> score = Apply(IcIfd("demo"))
        >>> documents = score([Document("Name a river.", "a-0", metadata={"output": "The Nile, in Africa."})])
        >>> [document.metadata["ic_ifd_status"] for document in documents]
        ['ok']

        In a pipeline: ``LocalPipelineExecutor([JsonlReader("rows"), score, JsonlWriter("scored")], tasks=8)``.
    """

    type = "hf_evol"

    def __init__(self, transform: Transform, batch_size: int = ROWS) -> None:
        self.transform, self.batch_size, self.name = transform, batch_size, type(transform).__name__
        super().__init__()

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        set_rank(rank, once=True)  # so that workers of one machine share out its GPUs
        for documents in batched(data, self.batch_size):
            with self.track_time("batch"):
                columns = columns_of([row_of(document) for document in documents])
                columns |= self.transform(columns)
            self.stat_update("rows", value=len(documents), unit="batch")
            for values in zip(*columns.values(), strict=True):
                yield document_of(dict(zip(columns, values, strict=True)))


def document_of(row: Mapping[str, Any]) -> Document:
    """The row as a Document: all columns in the metadata, the instruction as text."""
    return Document(text=row.get(col.INSTRUCTION) or "", id=str(row.get(col.ID)), metadata=dict(row))


def row_of(document: Document) -> dict[str, Any]:
    """The Document's row. Where its text was changed, by another block, or there is nothing else, it is the instruction."""
    row = document.metadata
    if col.ID not in row:  # of another library's reader
        row = {col.ID: document.id} | row
    if document.text != (row.get(col.INSTRUCTION) or ""):
        row = row | {col.INSTRUCTION: document.text}
    return row


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, with None where a row lacks one."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
