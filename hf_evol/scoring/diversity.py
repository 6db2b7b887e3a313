"""How varied the instructions of a set are (paper, "Diversity")."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol.errors import ColumnError
from hf_evol.scoring.embed import TRUNCATED
from hf_evol.scoring.neighbours import nearest_distances
from hf_evol.scoring.pairs import questions
from hf_evol.transform import check_columns

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset


def diversity(
    dataset: Dataset, *, distance: str = "euclidean", repeat_below: float = 0.05, exact_up_to: int = 100_000
) -> tuple[Dataset, dict[str, Any]]:
    r"""Measure the minimum neighbour distance (MND) of each row, and the variety of the whole set.

    The MND is the distance of a row's embedding to that of its nearest other row; a row below 0.05 is a repeat (paper,
    "Diversity"). Words are what stands between white space, in lower case; the text is instruction + "\n" + input.

    Args:
        dataset: rows with ``instruction`` and the columns of `Embed`.
        distance: ``"euclidean"``, the paper's, or ``"cosine"``.
        repeat_below: the MND below which a row counts as a repeat.
        exact_up_to: as of `hf_evol.scoring.neighbours.nearest_distances`.

    Returns:
        The dataset with the column ``mnd`` (null for a row without embedding, and for one that is alone), and a summary
        of the rows that have an embedding, where what is not defined is None: ``n``; ``mean_mnd``, ``median_mnd``,
        ``repeats``, ``repeat_share``; ``mean_words``, the mean length; ``distinct_1``, ``distinct_2``, ``distinct_3``:
        different n-grams over all n-grams of the set (Li et al., arXiv:1510.03055), none of which spans two rows;
        ``self_similarity``, the mean cosine similarity of all pairs of rows; ``truncated``, how many are embedded by a
        part of their text; and ``left_out``, the number of other rows by reason.

    Raises:
        ColumnError: a missing column, or embeddings that are not finite or differ in length.
        ConfigError: a wrong argument.
        MissingExtraError: there are more than ``exact_up_to`` different embeddings and faiss is not installed.
    """
    import numpy as np
    from datasets import Value

    check_columns((col.INSTRUCTION, col.EMBEDDING), dataset.column_names)
    embeddings, present = _embeddings(dataset)
    found = nearest_distances(embeddings, distance, exact_up_to)
    values = np.full(len(dataset), np.nan)
    values[present] = np.where(np.isfinite(found), found, np.nan)
    columns = [value if value == value else None for value in values.tolist()]
    measured = dataset.remove_columns(col.MND) if col.MND in dataset.column_names else dataset
    measured = measured.add_column(col.MND, columns, feature=Value("float64"))
    known = found[np.isfinite(found)]
    repeats = int((known < repeat_below).sum())
    summary = {
        "n": len(found),
        "mean_mnd": float(known.mean()) if len(known) else None,
        "median_mnd": float(np.median(known)) if len(known) else None,
        "repeats": repeats,
        "repeat_share": repeats / len(known) if len(known) else None,
    }
    summary |= _words(dataset, present) | {"self_similarity": self_similarity(embeddings)}
    return measured, summary | _statuses(dataset, present)


def self_similarity(embeddings: np.ndarray) -> float | None:
    """The mean cosine similarity of all pairs of rows; None for fewer than two. A row of zeros is similar to none.

    Of n rows of unit length with the sum s, the pairs' products add up to (|s|² - n) / 2.
    """
    import numpy as np

    if len(embeddings) < 2:
        return None
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    total = (1 / np.where(lengths > 0, lengths, np.inf)) @ embeddings
    return float((total @ total - np.count_nonzero(lengths)) / (len(embeddings) * (len(embeddings) - 1)))


def _embeddings(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings as one array, and which rows they are of."""
    import numpy as np

    column = dataset.select_columns(col.EMBEDDING).with_format("arrow")[:][col.EMBEDDING]
    present = column.is_valid().to_numpy().astype(bool)
    parts = [chunk.drop_null() for chunk in column.chunks] if present.any() else []
    lengths = {len(vector) for part in parts for vector in part}
    numbers = [part.flatten().to_numpy(zero_copy_only=False) for part in parts]
    flat = np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.float32)
    if len(lengths) > 1 or lengths == {0} or not np.isfinite(flat).all():
        raise ColumnError(
            f"Column {col.EMBEDDING!r} must hold lists of finite numbers, all of one length; lengths: {sorted(lengths)}. "
            "Make it with hf_evol.map(dataset, hf_evol.Embed())."
        )
    return flat.reshape(int(present.sum()), -1 if len(flat) else 0), present


def _words(dataset: Dataset, present: np.ndarray) -> dict[str, float | None]:
    """Mean length in words, and distinct n-grams over all n-grams."""
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
