"""How varied the instructions of a set are (paper, "Diversity")."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from datasets import Dataset, Value

from hf_evol import columns as col
from hf_evol.errors import ColumnError, require_extra
from hf_evol.progress import without_datasets_bars
from hf_evol.scoring.embed import TRUNCATED
from hf_evol.scoring.pairs import questions
from hf_evol.transform import check_columns

_BLOCK = 2048  # rows compared with as many others at once: 32 MiB of distances
_PROBES = 64  # lists of the index searched for each row: 5 % of the lists of 100,000 rows, 1.6 % of those of a million
_CANDIDATES = 4  # approximate neighbours whose distances are computed anew


def diversity(
    dataset: Dataset, *, repeat_below: float = 0.05, exact_up_to: int = 100_000
) -> tuple[Dataset, dict[str, Any]]:
    r"""Measure the minimum neighbour distance (MND) of each row, and the variety of the whole set.

    The MND is the Euclidean distance of a row's embedding to that of its nearest other row; a row below 0.05 is a
    repeat (paper, "Diversity"). Words are what stands between white space, in lower case; the text is instruction +
    "\n" + input.

    Args:
        dataset: rows with ``instruction`` and the columns of `Embed`.
        repeat_below: the MND below which a row counts as a repeat.
        exact_up_to: the most different embeddings that are all compared with each other, on a CUDA GPU where there is
            one, in time that grows with the square of their number. With more, the neighbours come from a faiss index
            (inverted lists), which may miss the nearest one: then a distance is too large, by a few percent.

    Returns:
        The dataset with the column ``mnd`` (null for a row without embedding, and for one that is alone), and a summary
        of the rows that have an embedding, where what is not defined is None: ``n``; ``mean_mnd``, ``median_mnd``,
        ``repeats``, ``repeat_share``; ``mean_words``, the mean length; ``distinct_1``, ``distinct_2``, ``distinct_3``:
        different n-grams over all n-grams of the set (Li et al., arXiv:1510.03055), none of which spans two rows;
        ``self_similarity``, the mean cosine similarity of all pairs of rows; ``truncated``, how many are embedded by a
        part of their text; and ``left_out``, the number of other rows by reason.

    Raises:
        ColumnError: a missing column, or embeddings that are not finite or differ in length.
        MissingExtraError: there are more than ``exact_up_to`` different embeddings and faiss is not installed.
    """
    check_columns((col.INSTRUCTION, col.EMBEDDING), dataset.column_names)
    embeddings, present = _embeddings(dataset)
    found = nearest_distances(embeddings, exact_up_to)
    known = found[np.isfinite(found)]
    values = np.full(len(dataset), None)
    values[present] = np.where(np.isfinite(found), found, None)
    measured = dataset.remove_columns(col.MND) if col.MND in dataset.column_names else dataset
    with without_datasets_bars():
        measured = measured.add_column(col.MND, values.tolist(), feature=Value("float64"))
    repeats = int((known < repeat_below).sum())
    summary = {
        "n": len(found),
        "mean_mnd": float(known.mean()) if len(known) else None,
        "median_mnd": float(np.median(known)) if len(known) else None,
        "repeats": repeats,
        "repeat_share": repeats / len(known) if len(known) else None,
    }
    summary |= of_words(dataset, present) | {"self_similarity": self_similarity(embeddings)}
    return measured, summary | _statuses(dataset, present)


def self_similarity(embeddings: np.ndarray) -> float | None:
    """The mean cosine similarity of all pairs of rows; None for fewer than two. A row of zeros is similar to none."""
    if len(embeddings) < 2:
        return None
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    total = (1 / np.where(lengths > 0, lengths, np.inf)) @ embeddings
    # Of n rows of unit length with the sum s, the pairs' products add up to (|s|² - n) / 2.
    return float((total @ total - np.count_nonzero(lengths)) / (len(embeddings) * (len(embeddings) - 1)))


def _embeddings(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings as one array, and which rows they are of."""
    column = dataset.select_columns(col.EMBEDDING).with_format("arrow")[:][col.EMBEDDING]
    present = column.is_valid().to_numpy().astype(bool)
    parts = [chunk.drop_null() for chunk in column.chunks] if present.any() else []
    lengths = {length for part in parts for length in part.value_lengths().unique().to_pylist()}
    numbers = [part.flatten().to_numpy(zero_copy_only=False) for part in parts]
    flat = np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.float32)
    if len(lengths) > 1 or lengths == {0} or not np.isfinite(flat).all():
        raise ColumnError(
            f"Column {col.EMBEDDING!r} must hold lists of finite numbers, all of one length; lengths: {sorted(lengths)}. "
            "Make it with hf_evol.map(dataset, hf_evol.Embed())."
        )
    return flat.reshape(int(present.sum()), -1 if len(flat) else 0), present


def of_words(dataset: Dataset, present: np.ndarray | None = None) -> dict[str, float | None]:
    """Mean length in words, and distinct n-grams over all n-grams, of all rows or of some."""
    present = np.ones(len(dataset), dtype=bool) if present is None else present
    columns = [name for name in (col.INSTRUCTION, col.INPUT) if name in dataset.column_names]
    texts = questions(dataset.select_columns(columns).with_format(None)[:])
    different: dict[int, set[tuple[str, ...]]] = {1: set(), 2: set(), 3: set()}
    counts = dict.fromkeys(different, 0)
    for text, measured in zip(texts, present, strict=True):
        words = (text or "").lower().split() if measured else []
        for n, grams in different.items():
            counts[n] += max(0, len(words) - n + 1)
            grams.update(zip(*(words[start:] for start in range(n)), strict=False))
    shares = {f"distinct_{n}": len(grams) / counts[n] if counts[n] else None for n, grams in different.items()}
    return {"mean_words": counts[1] / int(present.sum()) if present.any() else None} | shares


def _statuses(dataset: Dataset, present: np.ndarray) -> dict[str, Any]:
    named = col.EMBEDDING_STATUS in dataset.column_names
    statuses = dataset[col.EMBEDDING_STATUS][:] if named else [None] * len(dataset)
    pairs = list(zip(statuses, present, strict=True))
    left_out = Counter(col.reason(status or "no_embedding") for status, measured in pairs if not measured)
    return {"truncated": sum(status == TRUNCATED for status, _ in pairs), "left_out": dict(left_out)}


def nearest_distances(rows: np.ndarray, exact_up_to: int = 100_000) -> np.ndarray:
    """The distance of each row to its nearest other row, as float64; infinity for a row that is the only one. Neighbours are
    found by products, and distances are those of differences: right for rows that are almost equal, too."""
    rows, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    exact = len(rows) <= exact_up_to
    rows = rows.astype(np.float64 if exact else np.float32)
    find = _exact if exact else _approximate
    nearest = _distances(rows, find(rows)) if len(rows) > 1 else np.full(len(rows), np.inf)
    return np.where(counts > 1, 0.0, nearest)[inverse]


def _exact(rows: np.ndarray) -> np.ndarray:
    """The place of each row's nearest other one. Each pair of blocks is compared once, for the rows of both."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    points = torch.from_numpy(rows).to(device)
    points = points - points.mean(0)  # near the origin, products lose least
    squares = points.square().sum(1)
    least = torch.full((len(rows),), math.inf, dtype=torch.float64, device=device)
    places = torch.zeros(len(rows), dtype=torch.int64, device=device)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(rows), _BLOCK)]
    for here, there in combinations_with_replacement(blocks, 2):
        distances = torch.addmm(squares[there], points[here], points[there].T, alpha=-2).add_(squares[here, None])
        if here == there:
            distances.fill_diagonal_(math.inf)
        for block, others, (values, found) in ((here, there, distances.min(1)), (there, here, distances.min(0))):
            nearer = values < least[block]
            least[block][nearer], places[block][nearer] = values[nearer], found[nearer] + others.start
    return places[:, None].cpu().numpy()


def _approximate(rows: np.ndarray) -> np.ndarray:
    """The places of some of each row's nearest other ones; of the row itself where there are fewer."""
    require_extra("faiss", "embeddings", "diversity of so many rows")
    import faiss

    lists = min(len(rows), round(4 * math.sqrt(len(rows))))
    index = faiss.index_factory(rows.shape[1], f"IVF{lists},Flat")
    index.train(rows)
    index.add(rows)
    index.nprobe = min(lists, _PROBES)
    _, places = index.search(rows, _CANDIDATES + 1)  # a row finds itself, too
    return np.where(places < 0, np.arange(len(rows))[:, None], places)


def _distances(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The least distance of each row to those of its ``places`` that are others."""
    nearest, itself = np.full(len(rows), np.inf), np.arange(len(rows))
    for start in range(0, len(rows), _BLOCK):
        here = slice(start, start + _BLOCK)
        for candidate in places[here].T:
            distances = np.linalg.norm(rows[here].astype(np.float64) - rows[candidate], axis=1)
            nearest[here] = np.minimum(nearest[here], np.where(candidate == itself[here], np.inf, distances))
    return nearest
