"""Pick rows by a score, or at random to equal size. Memory is that of the columns looked at, as arrays."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_evol import columns as col
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.transform import check_columns

_BLOCK = 10_000  # rows gathered at once


def select(
    dataset: Dataset,
    by: str = col.IC_IFD,
    *,
    top: float | int | None = None,
    threshold: float | None = None,
    lowest: bool = False,
    per: str | None = None,
) -> Dataset:
    """Keep the rows with the best scores, in their order.

    The paper keeps the rows with the highest IC-IFD: the top 5, 10, 15 or 25 %.

    Args:
        dataset: rows with an ``id`` and the score column.
        by: any numeric column. Rows whose score is null or not finite are never selected.
        top: a fraction (``0.25``: a quarter of the rows that have a score, rounded up; ``1.0``: all of them), or a whole
            number of rows (``1``: one).
        threshold: the score must be at least this (at most, with ``lowest``).
        lowest: the lowest scores are the best.
        per: a column such as ``round`` or ``method``: ``top`` counts within each of its values.

    Returns:
        The selected rows, in their order. Ties at the edge break by ``id``, the smaller first.

    Raises:
        ConfigError: neither ``top`` nor ``threshold``, or values out of range.
        ColumnError: a missing column.
    """
    if top is None and threshold is None:
        raise ConfigError("select needs top= (a fraction such as 0.25, or a number of rows) or threshold=.")
    if top is not None and not (0 < top < 1 or (top >= 1 and float(top).is_integer())):
        raise ConfigError(f"top must be a fraction up to 1.0, or a whole number of rows; got {top!r}.")
    check_columns([name for name in (by, col.ID, per) if name], dataset.column_names)
    kind = getattr(dataset.features[by], "dtype", "none")
    if not kind.startswith(("int", "uint", "float", "bool", "decimal", "null")):
        raise ColumnError(f"Column {by!r} holds {kind}, not numbers. Select by a numeric column.")
    scores = column(dataset, by).cast(pa.float64(), safe=False)
    usable = pc.and_(pc.is_valid(scores), pc.fill_null(pc.is_finite(scores), False))
    if threshold is not None:
        passes = pc.less_equal(scores, threshold) if lowest else pc.greater_equal(scores, threshold)
        usable = pc.and_(usable, pc.fill_null(passes, False))
    places = pc.indices_nonzero(usable.combine_chunks())  # of no chunks at all, pyarrow before 26 crashes
    if top is not None:
        places = _best(dataset, places, scores, top, lowest, per)
    return dataset.select(places.to_numpy().astype("int64"))


def _best(dataset: Dataset, places: pa.Array, scores: Any, top: float, lowest: bool, per: str | None) -> pa.Array:
    group = column(dataset, per).take(places).combine_chunks() if per else pa.nulls(len(places), pa.int8())
    keys = pa.table({"score": scores.take(places), "id": column(dataset, col.ID).take(places)})
    is_share = top < 1 or (top == 1 and isinstance(top, float))
    order = pc.sort_indices(keys, sort_keys=[("score", "ascending" if lowest else "descending"), ("id", "ascending")])
    del keys
    order = order.to_numpy()
    codes = pc.fill_null(group.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)[order]
    by_group = np.argsort(codes, kind="stable")  # best first within each
    _, starts, sizes = np.unique(codes[by_group], return_index=True, return_counts=True)
    counts = np.ceil(top * sizes - 1e-9) if is_share else np.full(len(sizes), int(top))
    ranks = np.arange(len(codes)) - np.repeat(starts, sizes)
    picked = order[by_group[ranks < np.repeat(counts, sizes)]]
    return places.take(pa.array(np.sort(picked)))


def column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """One column as Arrow data, after any selection or shuffle of the dataset."""
    return gathered(dataset.select_columns([name])).data[name]


def gathered(dataset: Dataset) -> Dataset:
    """The same rows without a list of places beside them: by pieces of the table, which is quick where the places ascend, as
    `datasets` would look up each row by itself; and by blocks, as Arrow can't put together more than 2 GiB of texts."""
    if dataset._indices is None:
        return dataset
    places, pieces = np.asarray(dataset._indices.column(0)).astype("int64"), dataset.data.to_batches()
    starts, schema = np.cumsum([0, *map(len, pieces)]), dataset.data.schema
    tables = [pa.Table.from_batches([], schema=schema)]
    for begin in range(0, len(places), _BLOCK):
        order = np.argsort(places[begin : begin + _BLOCK], kind="stable")
        block = places[begin : begin + _BLOCK][order]
        edges = np.searchsorted(block, starts)
        taken = [
            pieces[n].take(pa.array(block[edges[n] : edges[n + 1]] - starts[n])) for n in np.flatnonzero(np.diff(edges))
        ]
        table = pa.Table.from_batches(taken, schema=schema)
        tables.append(table if (np.diff(order) == 1).all() else table.take(pa.array(np.argsort(order))))
    return Dataset(pa.concat_tables(tables), dataset.info, dataset.split, fingerprint=dataset._fingerprint)


def equal_size(first: Dataset, second: Dataset, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Cut the larger of two sets down to the size of the smaller, by a seeded random choice that keeps order.

    The paper makes the sets of two evolvers equal in size this way before they are compared (Scenario 3). Which rows stay
    depends on the seed and their ``id`` alone, not on their order.

    Raises:
        ColumnError: a set has no ``id``.
    """
    size = min(len(first), len(second))

    def cut(dataset: Dataset) -> Dataset:
        check_columns((col.ID,), dataset.column_names)
        if len(dataset) == size:
            return dataset
        texts = (f"{seed}|{row_id}".encode("utf-8", "surrogatepass") for row_id in dataset[col.ID])
        draws = (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") for text in texts)
        chosen = np.argsort(np.fromiter(draws, np.uint64, len(dataset)), kind="stable")[:size]
        return dataset.select(np.sort(chosen))

    return cut(first), cut(second)
