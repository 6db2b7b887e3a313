"""Seconds of sampling a step's tokens, against sorting the whole vocabulary: the same logits, noise and tokens.

    python benchmarks/sampling.py

In turns, at temperature 0.7 and top-p 0.95. Probabilities are peaked, falling with the square of a token's rank (of
SmolLM2-135M, half of the steps leave 2 tokens in the nucleus, 99 % fewer than 100); flat, where no 1,024 tokens reach top-p and
all are sorted; or mixed, one row in eight flat.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from ic_ifd import hardware  # the benchmark beside this one

from hf_evol.generation.base import SamplingParams
from hf_evol.generation.sampling import sample

PARAMS = SamplingParams(temperature=0.7, top_p=0.95)
KINDS = {"peaked": 0, "mixed": 8, "flat": 1}  # one row in how many is flat


def whole_vocabulary(logits: torch.Tensor, params: SamplingParams, noise: torch.Tensor) -> torch.Tensor:
    """The rival: a stable sort of each row, and the cumulative distribution inverted."""
    probabilities = ((logits - logits.amax(-1, keepdim=True)) / params.temperature).softmax(-1)
    probabilities, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = probabilities.cumsum(-1)
    size = (cumulative - probabilities < params.top_p).sum(-1, keepdim=True)
    mass = cumulative.gather(-1, size - 1)
    place = (cumulative <= noise[:, None] * mass).sum(-1, keepdim=True)
    return tokens.gather(-1, place.minimum(size - 1)).squeeze(-1)


def logits_of(batch: int, vocabulary: int, flat: int) -> torch.Tensor:
    ranks = torch.stack([torch.randperm(vocabulary) for _ in range(batch)]) + 1
    logits = -2 * PARAMS.temperature * ranks.log()
    if flat:
        logits[::flat] = 0.1 * torch.randn_like(logits[::flat])
    return logits


def timed(function: Callable[..., torch.Tensor], *args: object) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    print(
        f"{hardware('cpu')}; torch {torch.__version__}; load {load}; batch {args.batch}, the middle of {args.turns} turns\n"
    )
    print(
        f"{'vocabulary':>10}  {'logits':8}{'whole, ms':>10}{'hf_evol, ms':>13}{'ratio':>7}{'of ratios':>14}  same tokens"
    )
    for vocabulary in (49_152, 262_144):
        for name, flat in KINDS.items():
            inputs = logits_of(args.batch, vocabulary, flat), PARAMS, torch.rand(args.batch)
            same = torch.equal(whole_vocabulary(*inputs), sample(*inputs))  # warms up, too
            turns = [(timed(whole_vocabulary, *inputs), timed(sample, *inputs)) for _ in range(args.turns)]
            whole, ours = (statistics.median(times) * 1000 for times in zip(*turns, strict=True))
            ratios = [one / other for one, other in turns]
            span = f"{min(ratios):.1f} to {max(ratios):.1f}"
            print(
                f"{vocabulary:10}  {name:8}{whole:10.1f}{ours:13.1f}{statistics.median(ratios):7.1f}{span:>14}  {same}"
            )


if __name__ == "__main__":
    main()
