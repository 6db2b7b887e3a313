"""Distances of embeddings to their nearest neighbours."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

from hf_evol.errors import ConfigError, require_extra

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 2048  # rows compared with as many others at once: 32 MiB of distances
_PROBES = 64  # lists of the index searched for each row: 5 % of the lists of 100,000 rows, 1.6 % of those of a million
_CANDIDATES = 4  # approximate neighbours whose distances are computed anew


def nearest_distances(embeddings: Any, distance: str = "euclidean", exact_up_to: int = 100_000) -> np.ndarray:
    """The distance of each row to its nearest other row (paper, "Diversity").

    The neighbour is found by products of centred rows in float64, and its distance is then that of the difference of
    the two, so that it is right for rows that are almost equal, too; for equal rows it is exactly 0. This takes memory
    for the embeddings in float64, twice, and for blocks of 2,048 rows by 2,048, and time that grows with the square of
    the number of different rows; it runs on a CUDA GPU where there is one. Above ``exact_up_to`` different rows the
    neighbours come from a faiss index (inverted lists, of which 64 are searched for each row), which may miss the
    nearest one: then a distance is too large, never too small. It finds nearly all where rows lie in clusters, as texts
    do; where they don't, it misses more, and those distances are too large by a few percent.

    Args:
        embeddings: numbers of shape (rows, dimensions).
        distance: ``"euclidean"``, or ``"cosine"``: 1 less the cosine of the angle between two rows.
        exact_up_to: the most different rows that are all compared with each other.

    Returns:
        Distances as float64, of shape (rows,); infinity for a row that is the only one.

    Raises:
        ConfigError: a wrong argument, a number that is not finite, or, for cosine, a row of zeros.
        MissingExtraError: there are more than ``exact_up_to`` different rows and faiss is not installed.

    Example:
        >>> nearest_distances([[0, 0], [3, 4], [3, 4], [0, 1]]).tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    import numpy as np

    if distance not in ("euclidean", "cosine"):
        raise ConfigError(f"distance must be 'euclidean' or 'cosine'; got {distance!r}.")
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ConfigError(f"Embeddings must be finite numbers of shape (rows, dimensions); got shape {rows.shape}.")
    rows, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    exact = len(rows) <= exact_up_to
    rows = rows.astype(np.float64 if exact else np.float32)
    if distance == "cosine":
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not lengths.all():
            raise ConfigError("An embedding of zeros has no direction, so no cosine distance. Leave such rows out.")
        rows /= lengths
    find = _exact if exact else _approximate
    nearest = _distances(rows, find(rows)) if len(rows) > 1 else np.full(len(rows), np.inf)
    nearest = np.where(counts > 1, 0.0, nearest)[inverse]
    return nearest**2 / 2 if distance == "cosine" else nearest  # |a - b|² = 2 - 2 cos, for unit lengths


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
    require_extra("faiss", "embeddings", "nearest_distances of so many rows")
    import faiss
    import numpy as np

    lists = min(len(rows), round(4 * math.sqrt(len(rows))))
    index = faiss.index_factory(rows.shape[1], f"IVF{lists},Flat")
    index.train(rows)
    index.add(rows)
    index.nprobe = min(lists, _PROBES)
    _, places = index.search(rows, _CANDIDATES + 1)  # a row finds itself, too
    return np.where(places < 0, np.arange(len(rows))[:, None], places)


def _distances(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The least distance of each row to those of its ``places`` that are others."""
    import numpy as np

    nearest = np.full(len(rows), np.inf)
    for start in range(0, len(rows), _BLOCK):
        here = slice(start, start + _BLOCK)
        itself = np.arange(len(rows))[here]
        for candidate in places[here].T:
            distances = np.linalg.norm(rows[here].astype(np.float64) - rows[candidate], axis=1)
            nearest[here] = np.minimum(nearest[here], np.where(candidate == itself, np.inf, distances))
    return nearest
