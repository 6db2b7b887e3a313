"""datatrove pipeline steps: a shard of the main job, its end, and any transform."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched
from datatrove.utils.logging import logger

from hf_evol import columns as col
from hf_evol.cluster.folder import JOURNALS, LOGS, PLAN, WorkFolder
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.hub.target import Target
from hf_evol.hub.writer import RunResult
from hf_evol.models import set_rank
from hf_evol.models.journal import cache_folder
from hf_evol.progress import without_datasets_bars
from hf_evol.run import steps
from hf_evol.run.pipeline import conclude
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages
from hf_evol.transform import Transform

_PARTS = ("rows", "failed", "unanswered")  # of a round


class Shard(PipelineStep):
    """All steps of a recipe for one part of its seeds; with own journals, as machines can't share an SQLite file."""

    name, type = "shards", "hf_evol"

    def __init__(self, recipe: Recipe, folder: WorkFolder, own_journals: bool = False) -> None:
        super().__init__()
        self.recipe, self.folder, self.own_journals = replace(recipe, num_proc=1), folder, own_journals

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        set_rank(rank, once=True)
        recipe, folder, say = self.recipe, self.folder, None if rank else logger.warning
        if self.own_journals and recipe.journal is not False:
            place = f"{folder.path}/{JOURNALS}/" if folder.is_local() else f"{cache_folder()}/cluster/{folder.digest}-"
            recipe = replace(recipe, journal=f"{place}{rank:05}.sqlite")
        with without_datasets_bars(), self.track_time("shard"):
            seeds = folder.load_shards("seeds", [rank])
            rounds = steps.run(seeds, Stages.of(recipe), recipe.rounds, steps.mapper(recipe), say)
        for number, entry in enumerate(rounds):
            for kind in _PARTS:
                folder.put_shard(getattr(entry, kind), kind, number * world_size + rank)
        yield from data or ()


class Finish(PipelineStep):
    """The end of a run when all shards are done, here or as a task of its own, which takes along what was found of servers."""

    name, type = "finish", "hf_evol"

    def __init__(
        self, recipe: Recipe, stages: Stages, target: Target, folder: WorkFolder, n_seeds: int, tasks: int
    ) -> None:
        super().__init__()
        self.recipe, self.target, self.folder, self.n_seeds, self.tasks = recipe, target, folder, n_seeds, tasks
        self.found = [(model, model.notes) for model in stages.models.values() if isinstance(model, EndpointEngine)]

    def conclude(self, keep: Sequence[str] = ()) -> RunResult:
        """Select, write the set and, if asked, publish it; and clear the work folder but for ``keep``."""
        recipe, folder = self.recipe, self.folder
        for engine, notes in self.found:
            engine.recall(notes)
        with tempfile.TemporaryDirectory(prefix="hf_evol-") as copies:
            rounds = (
                steps.Round(*(folder.load_shards(kind, range(first, first + self.tasks), copies) for kind in _PARTS))
                for first in range(0, recipe.rounds * self.tasks, self.tasks)
            )
            # A list that nothing here keeps: files that are still mapped can't be removed for good on NFS.
            result = conclude(recipe, Stages.of(recipe), self.n_seeds, list(rounds), self.target)
        folder.clear([*keep, JOURNALS, PLAN] if result.failed else keep)  # another run asks those again
        return result

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        self.conclude(keep=[LOGS, PLAN])  # which this task still writes to
        self.folder.unlock()
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

    def __init__(self, transform: Transform, batch_size: int = steps.MAP_ROWS) -> None:
        self.transform, self.batch_size, self.name = transform, batch_size, type(transform).__name__
        super().__init__()

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        set_rank(rank, once=True)  # so that workers of one machine share out its GPUs
        for documents in batched(data, self.batch_size):
            rows = [row_of(document) for document in documents]
            columns = {
                name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)
            }
            with self.track_time("batch"):
                columns |= self.transform(columns)
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                yield Document(text=row.get(col.INSTRUCTION) or "", id=str(row.get(col.ID)), metadata=row)


def row_of(document: Document) -> dict[str, Any]:
    """The Document's row. Where its text was changed, by another block, or there is nothing else, it is the instruction."""
    row = {col.ID: document.id} | document.metadata
    if document.text != (row.get(col.INSTRUCTION) or ""):
        row = row | {col.INSTRUCTION: document.text}
    return row
