"""Mean cross-entropy of spans of token sequences under a causal language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# 2**27 float32 logits are half a GiB.
_MAX_LOGITS = 2**27


@dataclass(frozen=True)
class TokenSpans:
    """A token sequence and the spans of it whose loss is wanted.

    Args:
        ids: token ids.
        spans: pairs (start, end) of token positions, counted from 0, end not included. The token at position
            0 is never predicted, so it never counts.
    """

    ids: Sequence[int]
    spans: tuple[tuple[int, int], ...]


def mean_losses(
    model: Any, sequences: Sequence[TokenSpans], batch_tokens: int = 8192
) -> Iterator[list[tuple[int, list[float | None]]]]:
    """Yield, batch by batch, (index of a sequence, mean loss of each of its spans in nats per token).

    A span without predicted tokens gives None; one whose loss overflows gives a value that is not finite.
    Sequences are sorted by length and padded on the right. Under a causal model that changes no loss.

    Args:
        model: a causal language model in evaluation mode.
        sequences: not longer than the model's context.
        batch_tokens: at most so many tokens, padding included, in one forward pass (or one sequence).
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    budget = max(1, min(batch_tokens, _MAX_LOGITS // vocabulary))
    order = sorted(range(len(sequences)), key=lambda place: (-len(sequences[place].ids), place))
    while order:
        longest = max(1, len(sequences[order[0]].ids))
        batch, order = order[: max(1, budget // longest)], order[max(1, budget // longest) :]
        losses = _token_losses(model, [sequences[place].ids for place in batch])
        yield [
            (
                place,
                [_mean(losses[row], start, end, len(sequences[place].ids)) for start, end in sequences[place].spans],
            )
            for row, place in enumerate(batch)
        ]


def _mean(losses: torch.Tensor, start: int, end: int, length: int) -> float | None:
    start, end = max(start, 1), min(end, length)
    if end <= start:
        return None
    return float(losses[start - 1 : end - 1].double().mean())


def _token_losses(model: Any, batch: list[Sequence[int]]) -> torch.Tensor:
    """Loss of the token at each position from 1 on, shape (rows, longest - 1); padding holds no meaning."""
    import torch

    width = max(2, max(map(len, batch)))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu()
