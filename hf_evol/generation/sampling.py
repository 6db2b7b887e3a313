"""Sampling whose noise belongs to the row: the same key gives the same text in any batch, order or process."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from hf_evol.generation.base import SamplingParams


_LIKELY = 1024  # tokens sorted first: the whole vocabulary takes ten times as long, and the nucleus is seldom larger
LOOP, CYCLE = 256, 64  # tokens: a text that ends in so many, which repeat the same few, does not find its end
_ROUNDING = 1e-6  # more than that of a sum of probabilities


def row_key(seed: int, row_id: str, round: int, stage: str, attempt: int = 1) -> str:
    """The key of a request's sampling noise; ``attempt`` counts the tries of a row from 1."""
    return f"{seed}|{round}|{stage}|{attempt}|{row_id}"


def request_seed(key: str) -> int:
    """A seed, below 2**31, for engines that draw their own noise."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def uniforms(key: str, n: int) -> np.ndarray:
    """Uniform numbers in [0, 1), which depend on the key alone; a larger ``n`` only appends. Position *t* is the noise of the
    *t*-th generated token."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"))).random(n)


def sample(logits: torch.Tensor, params: SamplingParams, noise: torch.Tensor) -> torch.Tensor:
    """Choose a token for each row of logits by inverting the cumulative distribution at its ``noise``, which is uniform
    in [0, 1): each token of the nucleus has its renormalised probability. At temperature 0, the most probable one."""
    if params.temperature == 0:
        return logits.argmax(-1)
    logits = logits.float()
    # From the greatest logit down: a tiny temperature then gives minus infinities, not a difference of infinities.
    probabilities = ((logits - logits.amax(-1, keepdim=True)) / params.temperature).softmax(-1)
    noise = noise.to(probabilities)[:, None]
    if probabilities.shape[-1] <= _LIKELY or params.top_p == 1:
        return _inverted(probabilities, params.top_p, noise)[0]
    likely = probabilities.topk(_LIKELY, sorted=False).indices.sort().values  # in order, for those that are equal
    places, chosen, total = _inverted(part := probabilities.gather(-1, likely), params.top_p, noise)
    tokens = likely.gather(-1, places[:, None]).squeeze(-1)
    # Of tokens as probable as the least of the part, others may come first.
    unsure = (total < params.top_p + _ROUNDING) | (chosen == part.amin(-1))
    if unsure.any():
        tokens[unsure] = _inverted(probabilities[unsure], params.top_p, noise[unsure])[0]
    return tokens


def _inverted(
    probabilities: torch.Tensor, top_p: float, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each row, where the chosen token stands, its probability, and the sum of all. Equal ones stay in order."""
    probabilities, places = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = probabilities.cumsum(-1)
    # A token is in the nucleus if the tokens before it do not reach top_p; the first one always is.
    size = (cumulative - probabilities < top_p).sum(-1, keepdim=True)
    mass = cumulative.gather(-1, size - 1)
    rank = (cumulative <= noise * mass).sum(-1, keepdim=True).minimum(size - 1)
    return places.gather(-1, rank).squeeze(-1), probabilities.gather(-1, rank).squeeze(-1), cumulative[:, -1]
