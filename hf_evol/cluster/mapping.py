"""`hf_evol.map` by many tasks: the same rows, in the same order."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evol import __version__
from hf_evol import transform as transform_module
from hf_evol.cluster.shards import ReadShard, WriteParquet, load_shards, part_of, write_shards
from hf_evol.cluster.stages import Stage
from hf_evol.cluster.steps import RANK, ROWS, Apply, MakeRoom, at_rank
from hf_evol.cluster.work import MAPS
from hf_evol.cluster.workers import at_work
from hf_evol.errors import ColumnError, ConfigError, MissingExtraError, ModelError, TaskError
from hf_evol.transform import Transform, check_columns, holds_failures, status_columns

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_evol.cluster.run import Execution
    from hf_evol.cluster.workers import Workers

_OF_TRANSFORMS = (ColumnError, ConfigError, MissingExtraError, ModelError)


def map(
    dataset: Dataset, transform: Transform, execution: Execution, *, batch_size: int = ROWS, desc: str | None = None
) -> Dataset:
    """Apply a transform by many tasks, as `hf_evol.map` does in one process.

    The shards stay in the work folder, where the same call finds them: one after an interruption does what is missing,
    and asks again for what a server or the memory refused. Delete the folder when you are done with the rows.

    Args:
        dataset: the rows.
        transform: what to apply. One without a model is applied here, without tasks.
        execution: where and by how many tasks; its ``work_folder`` is needed. With Slurm, too, this waits for the end.
        batch_size: rows handed over at a time.
        desc: what it is called in the progress bar and in Slurm's queue; by default the transform's label.

    Raises:
        HfEvolError: as `hf_evol.map` does.
        OutputError: another launcher is at work in the work folder.
        TaskError: tasks failed or died.

    Example:
        ``map(rows, IcIfd("Qwen/Qwen2.5-0.5B"), Execution(tasks=8, workers=2, work_folder="scoring.work"))``
    """
    if execution.work_folder is None:
        raise ConfigError("A map by tasks needs a place for its shards: Execution(work_folder=…).")
    folder = execution.folder(execution.work_folder)
    with folder.locked(), at_work(execution, folder) as workers:
        return Mapper(workers)(dataset, transform, batch_size=batch_size, desc=desc)


class Mapper:
    """Called as `hf_evol.map`, for the maps of one work folder, each in a folder of its own: ``maps/<digest>``.

    Args:
        workers: who does the tasks.
        cache: a folder for memory-mapped rows where the work folder is remote; by default that of `datasets`.
    """

    def __init__(self, workers: Workers, cache: str | None = None) -> None:
        self.workers, self.cache = workers, cache
        self.folder, self.tasks = workers.folder, workers.execution.n_tasks

    def __call__(
        self,
        dataset: Dataset,
        transform: Transform,
        *,
        batch_size: int = ROWS,
        desc: str | None = None,
        num_proc: int | None = None,
    ) -> Dataset:
        """The transformed rows. ``num_proc`` counts only where there are no tasks: for a transform without a model."""
        if not transform.uses_model or not len(dataset):
            return transform_module.map(dataset, transform, batch_size=batch_size, desc=desc, num_proc=num_proc)
        check_columns(transform.input_columns, dataset.column_names)
        transform.check()
        place = f"{MAPS}/{_digest(dataset, transform, self.tasks)}"
        source, target = (self.folder.at(place, kind, f"{RANK}.parquet") for kind in ("in", "out"))
        write_shards(dataset, source, self.tasks)
        self._forget_failures(transform, place, target)
        pipeline = [
            MakeRoom(_model_of(transform)),
            ReadShard(source),
            Apply(transform, batch_size, self.workers.execution.journal(self.folder)),
            WriteParquet(target, transform.features(dataset.features)),
        ]
        label = desc or transform.label
        stage = Stage(re.sub(r"\W+", "-", label.lower()).strip("-"), label, self.tasks, pipeline)
        rows = [len(part_of(len(dataset), rank, self.tasks)) for rank in range(self.tasks)]
        try:
            self.workers.run(stage, self.folder.at(place, "logs"), rows)
        except TaskError as error:
            if isinstance(error.__cause__, _OF_TRANSFORMS):  # as `hf_evol.map` would
                raise error.__cause__ from error
            raise
        if self.folder.is_local:
            return load_shards(target, range(self.tasks), str(Path(self.folder.root, place, "rows")))
        # One of its own, as not every store says when a shard has changed.
        return load_shards(target, range(self.tasks), self.cache and tempfile.mkdtemp(dir=self.cache))

    def _forget_failures(self, transform: Transform, place: str, target: str) -> None:
        """Take the completion mark from tasks of an earlier call that were refused by a server or the memory."""
        import pyarrow.parquet as pq

        self.folder.fs.invalidate_cache()
        for rank in range(self.tasks):
            mark, shard = f"{place}/logs/completions/{rank:05d}", at_rank(target, rank)
            if self.folder.fs.exists(f"{self.folder.root}/{mark}"):
                with self.folder.fs.open(shard, "rb") as file:
                    table = pq.read_table(file, columns=status_columns(transform))
                if holds_failures(table, transform):
                    self.folder.remove(mark)


def _digest(dataset: Dataset, transform: Transform, tasks: int) -> str:
    """What decides the shards of a map, as a name: rows, settings, weights, number of tasks and version."""
    from datasets.fingerprint import Hasher

    digest = hashlib.sha256()
    settings = [Hasher.hash([transform, transform.identity()]), tasks, __version__, repr(dataset.features)]
    digest.update(json.dumps(settings).encode())
    for batch in dataset.with_format(None).iter(ROWS):
        digest.update(json.dumps(batch, default=str).encode())
    return digest.hexdigest()[:16]


def _model_of(transform: Any) -> Any:
    model = getattr(transform, "model", None) or getattr(transform, "judge", None)
    return getattr(model, "model", model)  # an engine's
