"""Sentence embeddings of instructions (paper, "Diversity")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_evol import columns as col
from hf_evol import models, progress
from hf_evol.errors import check_counts, require_extra
from hf_evol.models import ModelSpec
from hf_evol.scoring.local import ScoringTransform
from hf_evol.scoring.pairs import questions
from hf_evol.transform import Batch

TRUNCATED = "truncated"  # embedded, by a part of the text


@dataclass(frozen=True, kw_only=True)
class Embed(ScoringTransform):
    r"""Embed each row's instruction and, on a new line, its input, with sentence-transformers.

    The vectors are the model's own: those of the default, which is the paper's, are of unit length. Special tokens
    written inside a text, such as ``<s>``, count as ordinary characters. Batching changes a number by rounding alone.

    Input columns:
        ``instruction``; and, if there, ``input``.

    Output columns:
        ``embedding`` (a list of float32) and ``embedding_status``: ``ok``, ``truncated`` (embedded by its first tokens,
        as the text is longer than the model takes: 384 tokens with the default), or why the embedding is null:
        ``invalid_input`` (no text) or ``not_finite``.

    Args:
        model: a Hub id, a folder or a `ModelSpec`.
        batch_size: texts embedded together; sorted by length before. Halved when memory runs out.

    Raises:
        MissingExtraError: sentence-transformers is not installed; at construction.
    """

    model: str | ModelSpec = field(default="sentence-transformers/all-mpnet-base-v2", kw_only=False)
    batch_size: int = 64

    input_columns = (col.INSTRUCTION,)
    output_columns = {col.EMBEDDING: ["float32"], col.EMBEDDING_STATUS: "string"}
    label = "Embed"
    reads_chats = False

    def __post_init__(self) -> None:
        require_extra("sentence_transformers", "embeddings", "Embed")
        check_counts(self, "batch_size")
        super().__post_init__()

    def apply(self, batch: Batch) -> Batch:
        texts = questions(batch)
        known: dict[str, tuple[Any, str]] = {}
        if distinct := sorted({text for text in texts if text is not None}):  # equal texts, equal vectors
            self.check()
            known = dict(zip(distinct, self._embed(distinct), strict=True))
        progress.advance(len(texts))
        results = [(None, "invalid_input") if text is None else known[text] for text in texts]
        return {name: [result[place] for result in results] for place, name in enumerate(self.output_columns)}

    def _embed(self, texts: list[str]) -> list[tuple[np.ndarray | None, str]]:
        model = models.load_embedder(self.model)
        lengths = [len(ids) for ids in model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
        vectors = _encode(model, texts, min(self.batch_size, len(texts)))
        finite = np.isfinite(vectors).all(-1)
        return [
            (vector, TRUNCATED if length > model.max_seq_length else col.OK) if usable else (None, "not_finite")
            for vector, usable, length in zip(vectors, finite, lengths, strict=True)
        ]


def _encode(model: Any, texts: list[str], batch_size: int) -> np.ndarray:
    try:
        return model.encode(texts, batch_size=batch_size, show_progress_bar=False).astype(np.float32)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not models.is_out_of_memory(error) or batch_size == 1:
            raise
    return _encode(model, texts, batch_size // 2)
