"""What every transform shares, and `hf_evol.map`, which applies one the right way."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import KW_ONLY, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import multiprocess
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Value
from datasets.fingerprint import Hasher
from datasets.utils._dill import pklregister

from hf_evol import __version__, progress
from hf_evol import columns as col
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.generation.base import GREEDY, Chat, Completion, SamplingParams, generate
from hf_evol.generation.transformers_engine import as_engine
from hf_evol.models import ModelSpec, set_rank
from hf_evol.models.journal import open_journal

AnyDataset = TypeVar("AnyDataset", Dataset, DatasetDict, IterableDataset, IterableDatasetDict)
Batch = dict[str, list[Any]]

# Of the arguments of ``Dataset.map``, those that change no row.
_OF_PLACE_AND_SPEED = {
    "keep_in_memory", "load_from_cache_file", "cache_file_name", "writer_batch_size", "suffix_template", "new_fingerprint",
}  # fmt: skip


class Transform:
    """Base of the transforms: frozen dataclasses of settings, passed to ``Dataset.map(…, batched=True)``.

    A transform takes and returns ``dict[str, list]`` and changes neither its argument nor the number of rows.
    Its fields are plain values, so it pickles, and hashes the same in every process; loaded models are kept
    by `hf_evol.models`, once per process and device.
    """

    input_columns: ClassVar[tuple[str, ...]] = ()
    output_columns: ClassVar[dict[str, Any]] = {}  # name: a `datasets` type name, or a nested feature
    rewritten_columns: ClassVar[tuple[str, ...]] = ()  # are written anew where a dataset has them
    keyed_by: ClassVar[tuple[str, ...]] = ()  # columns that tell all rows apart, as the sampling noise belongs to them
    label: ClassVar[str] = "Map"

    def __new__(cls, *_: Any, **__: Any) -> Transform:
        _fingerprint_by_what_decides(cls)
        return super().__new__(cls)

    def __call__(self, batch: Mapping[str, Sequence[Any]], rank: int | None = None) -> Batch:
        """Transform one batch. ``rank`` is the worker's number under ``with_rank=True``.

        Raises:
            ColumnError: an input column is missing, or this is one row, or a table, and not a batch.
        """
        if not isinstance(batch, Mapping):
            raise ColumnError(
                f"{type(self).__name__} takes a dict of lists, not a {type(batch).__name__}. Map "
                "dataset.with_format(None), or use hf_evol.map."
            )
        check_columns(self.input_columns, list(batch))
        lists = _Lists(batch)
        for name in (*list(batch)[:1], *self.input_columns):
            if isinstance(value := lists.given[name], str) or not hasattr(value, "__len__"):
                raise ColumnError(
                    f"{type(self).__name__} takes a batch, a list for each column; {name!r} is {value!r}. Pass "
                    "batched=True to Dataset.map, or use hf_evol.map; for one row, put each value into a list."
                )
        set_rank(rank)
        return self.apply(lists)

    def apply(self, batch: Mapping[str, list[Any]]) -> Batch:
        """The work on one batch whose input columns are all there; the batch is read-only."""
        raise NotImplementedError

    def statuses(self, table: Any) -> Iterator[Any]:
        """Of a pyarrow table of transformed rows, what this transform said of them: `columns.OK`, or why a row failed."""
        yield from (table[name] for name in self.output_columns if name.endswith("_status"))

    @property
    def uses_model(self) -> bool:
        """Whether this takes long enough for its progress bar to stay."""
        return True

    @property
    def passes(self) -> int:
        """How often each row moves the progress bar."""
        return 1

    @property
    def processes(self) -> int:
        """How many processes of `map` make sense on this machine."""
        return 1

    def identity(self) -> Any:
        """What else decides the result: the models' weights and templates, which the settings only name."""
        return None

    def deciding(self) -> dict[str, Any]:
        """All that decides the result, and nothing else: the settings without models and journal, and `identity`. The
        fingerprint of `datasets` is made of it, so what is cached is found again on another device, and not after other
        weights have taken a model's name."""
        settings = (
            {entry.name: getattr(self, entry.name) for entry in fields(self)} if is_dataclass(self) else vars(self)
        )
        identity = self.identity()
        elsewhere = {"journal"} if identity is None else {"journal", "model", "judge"}
        return {name: value for name, value in settings.items() if name not in elsewhere} | {"identity": identity}

    def check(self) -> None:
        """Raise what is wrong with the settings or models, before any weights are loaded."""

    def features(self, features: Features) -> Features:
        """The features of a dataset after this transform: pass them to ``Dataset.map(features=…)`` where a
        column's first thousand values may all be null, as it would take the column for one of nulls. `hf_evol.map` does."""

        def feature(spec: Any) -> Any:
            if isinstance(spec, str):
                return Value(spec)
            if isinstance(spec, list):
                return [feature(spec[0])]
            return {name: feature(part) for name, part in spec.items()}

        return Features(dict(features) | {name: feature(spec) for name, spec in self.output_columns.items()})


class _Lists(Mapping[str, list[Any]]):
    """The columns of a batch as lists, read when they are asked for. Of a `LazyBatch` of `datasets`, a column that was read is
    written anew; so a copy is read. But of rows picked here and there, each is a chunk, which takes longer to write than a list."""

    def __init__(self, batch: Mapping[str, Sequence[Any]]) -> None:
        table = getattr(batch, "pa_table", None)
        is_scattered = table is not None and table.num_columns and 2 * table[0].num_chunks > len(table)
        self.given = dict(batch) if is_scattered else copy(batch)
        self._lists: Batch = {}

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._lists:
            self._lists[name] = list(self.given[name])
        return self._lists[name]

    def __contains__(self, name: object) -> bool:
        return name in self.given

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)

    def __or__(self, other: Batch) -> Batch:
        return dict(self) | other


@cache
def _fingerprint_by_what_decides(kind: type[Transform]) -> None:
    """Have ``Dataset.map`` know transforms of a class by `Transform.deciding`. `datasets` has no public way to say so."""

    @pklregister(kind)
    def save(pickler: Any, transform: Transform) -> None:
        pickler.save_reduce(tuple, ((kind, transform.deciding()),), obj=transform)


@dataclass(frozen=True)
class ModelTransform(Transform):
    """Base of the transforms that use a model, their first field; all others are given by keyword.

    Args:
        model: a Hub id, a folder, a `hf_evol.ModelSpec` or, where it writes text, an engine.
        journal: True for the journal in the cache folder, False for none, or a file.
    """

    model: Any
    _: KW_ONLY
    journal: bool | str | Path = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.resolve(self.model))
        open_journal(self.journal)  # whether what it names is one

    def resolve(self, model: Any) -> Any:
        """What ``model`` stands for: an engine."""
        return as_engine(model)

    def check(self) -> None:
        self.model.check()

    def identity(self) -> Any:
        return self.model.identity()

    @property
    def processes(self) -> int:
        return processes_of(self.model)


@dataclass(frozen=True, kw_only=True)
class GreedyTransform(ModelTransform):
    """Base of the transforms whose model writes text, greedily (paper, "Sampling").

    Args:
        max_new_tokens: the longest reply, in tokens; 2,048 in the paper.
    """

    max_new_tokens: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sampling  # noqa: B018 - checks its settings now

    @property
    def sampling(self) -> SamplingParams:
        return replace(GREEDY, max_new_tokens=self.max_new_tokens)

    def check(self) -> None:
        self.model.check(self.sampling)

    def complete(self, chats: Sequence[Chat], keys: Sequence[str] | None = None, **options: Any) -> list[Completion]:
        """The replies, in order; those that the journal knows are not generated again.

        Args:
            keys: what each chat's sampling noise belongs to. Without: equal prompts have equal greedy answers.
            options: as `generate` has them.
        """
        keys = ["greedy"] * len(chats) if keys is None else keys
        return generate(self.model, chats, self.sampling, keys, open_journal(self.journal), **options)

    def replies_to(self, chats: Sequence[Chat | None], keys: Sequence[str] | None = None) -> list[Completion | None]:
        """As `complete`, of rows of which some have nothing to ask: None, which moves the progress bar at once."""
        asking = [place for place, chat in enumerate(chats) if chat is not None]
        progress.advance(len(chats) - len(asking))
        replies: list[Completion | None] = [None] * len(chats)
        completions = self.complete([chats[place] for place in asking], keys and [keys[place] for place in asking])
        for place, completion in zip(asking, completions, strict=True):
            replies[place] = completion
        return replies


@dataclass(frozen=True, kw_only=True)
class SampledTransform(GreedyTransform):
    """Base of the transforms whose model may sample.

    Args:
        seed: of the sampling noise.
        temperature: 0 is greedy; 0.7 in the paper.
        top_p: nucleus sampling, where the temperature is over 0; 0.95 in the paper.
    """

    seed: int = 0
    temperature: float = 0.7
    top_p: float = 0.95

    @property
    def sampling(self) -> SamplingParams:
        return SamplingParams(self.temperature, self.top_p, self.max_new_tokens)


def processes_of(model: Any) -> int:
    """One for each GPU where weights are loaded on whichever is free; one where a server, or one device, does the work."""
    spec = getattr(model, "model", model)
    if not isinstance(spec, ModelSpec) or spec.device is not None or "device_map" in spec.loading_options:
        return 1
    import torch

    return max(1, torch.cuda.device_count() if getattr(model, "is_shared_out", True) else 1)


def failures(batch: Mapping[str, Sequence[Any]]) -> list[str | None]:
    """Of each row, which earlier stage failed, by its status columns: ``not_evolved``, ``eliminated``, ``not_answered``; or None."""
    size = len(next(iter(batch.values()), ()))
    fine = {col.EVOL_STATUS: (None, col.OK), col.ELIMINATION: (None, col.KEPT), col.RESPONSE_STATUS: (None, col.OK)}
    found: list[str | None] = [None] * size
    for name, why in zip(reversed(fine), ("not_answered", "eliminated", "not_evolved"), strict=True):
        for place, status in enumerate(batch.get(name, ())):
            if status not in fine[name]:
                found[place] = why
    return found


def rows_in(batch: Mapping[str, Sequence[Any]], *names: str) -> Iterator[tuple[Any, ...]]:
    """Of each row of a batch, its values in these columns, of which the first is there; None where another is not."""
    nothing = [None] * len(batch[names[0]])
    return zip(*(batch.get(name, nothing) for name in names), strict=True)


def values_of(rows: Dataset, *names: str) -> Iterator[tuple[Any, ...]]:
    """Of each row, its values in these columns. To iterate over rows or a column of `datasets` takes many times as long."""
    for batch in rows.select_columns(list(names)).with_format(None).iter(1000):
        yield from zip(*(batch[name] for name in names), strict=True)


def check_columns(needed: Sequence[str], present: Sequence[str]) -> None:
    """Raise `ColumnError`, saying what to do, unless every needed column is there."""
    missing = [name for name in needed if name not in present]
    if missing:
        raise ColumnError(
            f"Column {str(missing)[1:-1]} not found. Columns present: {str(list(present))[1:-1]}. "
            "Convert the dataset first: hf_evol.to_instructions(dataset)."
        )


def map_dataset(
    dataset: AnyDataset,
    transform: Transform,
    *,
    batch_size: int = 1000,
    num_proc: int | None = None,
    num_gpus: int | Literal["auto"] = "auto",
    desc: str | None = None,
    **kwargs: Any,
) -> AnyDataset:
    """``dataset.map(transform, batched=True)`` with devices, start method, column types and a progress bar.

    Args:
        dataset: a `Dataset`, `DatasetDict`, `IterableDataset` or `IterableDatasetDict`.
        transform: what to apply.
        batch_size: rows handed over at a time. Larger is faster, as rows are sorted by length within it; a
            finished batch is written to the `datasets` cache file.
        num_proc: processes; by default one for each of ``num_gpus``. Workers are started with "spawn", and worker *r*
            takes GPU *r* modulo the number of GPUs; a script must then call this under
            ``if __name__ == "__main__":``.
        num_gpus: how many GPUs to use, each by a process of its own; "auto" is all that are there, if the transform's model is
            loaded here and on no given device. This process alone works where there are fewer than two.
        desc: label of the progress bar; by default the transform's.
        kwargs: further arguments of ``Dataset.map``, such as ``remove_columns``.

    Raises:
        ColumnError: an input column is missing.
        ConfigError: the transform's settings, or its models, can't work. Nothing has been loaded then.
    """
    if isinstance(dataset, (DatasetDict, IterableDatasetDict)):
        for split in dataset.values():
            check_columns(transform.input_columns, split.column_names or transform.input_columns)
        options = {"batch_size": batch_size, "num_proc": num_proc, "num_gpus": num_gpus} | kwargs
        mapped = {
            name: map_dataset(split, transform, desc=f"{desc or transform.label} ({name})", **options)
            for name, split in dataset.items()
        }
        return type(dataset)(mapped)
    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise ConfigError(f"hf_evol.map takes a dataset of the datasets library, not {type(dataset).__name__}.")
    if dataset.column_names is not None:
        check_columns(transform.input_columns, dataset.column_names)
    transform.check()
    if isinstance(dataset, IterableDataset):
        known = {"features": _features(dataset, transform, kwargs)} if dataset.features else {}
        return dataset.map(transform, batched=True, batch_size=batch_size, **(known | kwargs))
    _check_keys(dataset, transform)
    wanted = transform.processes if num_gpus == "auto" else min(transform.processes, _gpu_count(num_gpus))
    return _map_dataset(dataset, transform, batch_size, num_proc or wanted, desc or transform.label, kwargs)


def _check_keys(dataset: Dataset, transform: Transform) -> None:
    """Raise `ColumnError` if rows have the same key of sampling noise."""
    names = [name for name in transform.keyed_by if name in dataset.column_names]
    if col.ID not in names or not len(dataset):
        return
    keys = dataset.select_columns(names).with_format("arrow")[:].group_by(names).aggregate([([], "count_all")])
    if len(keys) < len(dataset):
        again = next(row for row in keys.to_pylist() if row["count_all"] > 1)
        raise ColumnError(
            f"The id {again[col.ID]!r} stands in {again['count_all']} rows, whose sampling noise would be the same. Give each set "
            "that you put together a name of its own: to_instructions(dataset, name=…)."
        )


def _map_dataset(
    dataset: Dataset, transform: Transform, batch_size: int, processes: int, label: str, kwargs: dict[str, Any]
) -> Dataset:
    features = _features(dataset, transform, kwargs)
    if not len(dataset):  # Dataset.map would leave the new columns out
        return Dataset.from_dict({name: [] for name in features}, features=features)
    layout = dataset.format
    if layout["type"] is not None:  # tables or arrays, in place of lists
        mapped = _map_dataset(dataset.with_format(None), transform, batch_size, processes, label, kwargs)
        return mapped.with_format(layout["type"], **layout["format_kwargs"])
    given = {name: value for name, value in kwargs.items() if name not in _OF_PLACE_AND_SPEED}
    decisive = [dataset._fingerprint, transform, __version__, given]
    options = {"batched": True, "batch_size": batch_size, "features": features, "with_rank": processes > 1}
    options |= {"new_fingerprint": Hasher.hash(decisive)} | kwargs
    begun = time.time()
    mapped = _mapped(dataset, transform, processes, label, options)
    # What a server or the memory refused is asked for again, and so is all that follows from it.
    is_cached = options.get("load_from_cache_file") is not False and _is_older(mapped, begun)
    if is_cached and failed_requests(mapped.data, transform):
        options["new_fingerprint"] = Hasher.hash([*decisive, begun])
        mapped = _mapped(dataset, transform, processes, label, options)
    return mapped


def _features(dataset: Dataset | IterableDataset, transform: Transform, options: Mapping[str, Any]) -> Features:
    """The mapped columns: those of before that are not removed, and the transform's, which ``remove_columns`` does not touch."""
    removed = options.get("remove_columns") or ()
    removed = {removed} if isinstance(removed, str) else set(removed)
    before = {name: kind for name, kind in dataset.features.items() if name not in removed}
    after = transform.features(dataset.features)
    written = {*transform.output_columns, *transform.rewritten_columns}
    made = {name: kind for name, kind in after.items() if name in written or name not in dataset.features}
    return Features({name: after[name] for name in before | made})


def _is_older(dataset: Dataset, moment: float) -> bool:
    """Whether the rows were there before: they come from the `datasets` cache."""
    files = [Path(entry["filename"]) for entry in dataset.cache_files]
    return bool(files) and all(file.exists() and file.stat().st_mtime < moment for file in files)


def failed_requests(table: Any, transform: Transform) -> Counter[str]:
    """Of a pyarrow table of transformed rows, how many another try may mend, by what the transform said of them."""
    said: Counter[str] = Counter()
    for statuses in transform.statuses(table):
        counts = {entry["values"]: entry["counts"] for entry in statuses.value_counts().to_pylist()}
        said.update({status: counts[status] for status in col.failed(counts)})
    return said


def _mapped(dataset: Dataset, transform: Transform, processes: int, label: str, options: dict[str, Any]) -> Dataset:
    with progress.without_datasets_bars() as shown, ExitStack() as stack:
        if shown:  # our bar, which counts tokens too, in place of the one of datasets
            total = len(dataset) * transform.passes
            stack.enter_context(progress.bar(label, total, leave=transform.uses_model))
        if processes == 1 or len(dataset) == 1:
            return dataset.map(transform, **options)
        stack.enter_context(_spawning(processes))
        stack.enter_context(progress.of_workers())
        try:
            return dataset.map(transform, num_proc=processes, **options)
        except EOFError as error:  # a worker ended before it began
            raise ConfigError(
                "The worker processes could not start. A script that uses several processes must call hf_evol under "
                "if __name__ == '__main__':, as each worker imports the script anew; or pass num_proc=1."
            ) from error


def _gpu_count(wanted: int) -> int:
    import torch

    count = torch.cuda.device_count()  # does not start CUDA in this process
    if not isinstance(wanted, int) or not 1 <= wanted <= max(1, count):
        raise ConfigError(f"num_gpus must be 'auto' or from 1 to the number of GPUs, {count}; got {wanted!r}.")
    return wanted


@contextmanager
def _spawning(processes: int) -> Iterator[None]:
    """Start workers afresh: neither CUDA nor OpenMP survives a fork. Restores what it changes."""
    method, threads = multiprocess.get_start_method(allow_none=True), os.environ.get("OMP_NUM_THREADS")
    multiprocess.set_start_method("spawn", force=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        yield
    finally:
        multiprocess.set_start_method(method, force=True)
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
