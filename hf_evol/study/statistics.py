"""Is the difference between two models more than chance? Intervals, p-values, and a verdict in words.

Rows are paired: the same seed, evolved by the same method in the same round, or answered, once by each. Pairs must be
independent of each other, so each round is compared on its own: a seed has one row in each, and those are related.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hf_evol.errors import ColumnError

Values = Sequence[float] | np.ndarray

CONFIDENCE = 0.95  # of all intervals, and with it the level of the tests
NO_DIFFERENCE = "No difference shown"

_LARGE = 10_000  # rows; beyond, the noise of resampling is greater than what it corrects
_HITS = 10  # resamples that make a small p-value precise enough
_CELLS = 1_000_000  # drawn at a time: bounds the memory at some tens of MB, or bytes per row


@dataclass(frozen=True)
class Comparison:
    """Two models on one measure, in its unit; None without rows."""

    n: int  # pairs of rows
    mean_a: float | None = None
    mean_b: float | None = None
    difference: float | None = None  # mean of a - b
    low: float | None = None  # of the 95 % interval of the difference; it needs two rows
    high: float | None = None
    p_value: float | None = None  # two-sided, not adjusted for other comparisons


def compare(a: Values, b: Values, *, seed: int = 0, resamples: int = 10_000, family: int = 1) -> Comparison:
    """Mean difference of paired values, with a bootstrap interval and a permutation p-value.

    The interval is the symmetric bootstrap-t one (Efron and Tibshirani, 1993, section 12.5; Hall, 1988): difference ±
    q · standard error, where q is the quantile of the resamples' absolute t statistics; beyond 10,000 rows, the normal
    quantile, to which it tends. ``benchmarks/study_statistics.py`` measures it: it needs some thirty rows, more where
    differences are very skewed; with heavy tails it is too wide.

    The p-value is that of the sign-flip test (Davison and Hinkley, 1997, section 4.3): if it doesn't matter which
    model made a row, each difference could as well have had the other sign. It is exact where 2^m, for m differences
    other than zero, is at most ``resamples``, and (1 + count) / (1 + resamples) elsewhere. Of a ``family`` of comparisons that
    `holm` adjusts, small p-values are drawn as often as makes ten count at Holm's smallest level, unless Hoeffding's bound
    (1963, theorem 2) says that hardly any would.

    The result does not depend on the order of the rows, and swapping a and b negates it. One row has no interval, and
    p = 1; the interval of differences that are all the same is that value alone.

    Raises:
        ColumnError: the sides differ in length, or hold something other than finite numbers.

    Example:
        >>> compare([3.0, 5.0, 4.0, 6.0], [1.0, 2.0, 2.0, 3.0]).p_value  # 2 of the 16 ways to give signs
        0.125
    """
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    with np.errstate(invalid="ignore", over="ignore"):
        if left.shape != right.shape or not np.isfinite(left - right).all():
            raise ColumnError(f"Pairs need a finite number on each side; got {len(left)} and {len(right)} rows.")
    n, differences = len(left), _canonical(left - right)
    if n == 0:
        return Comparison(0)
    generator = np.random.default_rng(seed)
    mean, margin = math.fsum(left - right) / n, _margin(differences, generator, resamples)
    low, high = (mean - margin, mean + margin) if n > 1 else (None, None)
    most = max(resamples, math.ceil(_HITS * family / (1 - CONFIDENCE))) if family > 1 else resamples
    p_value = _sign_flip_p(differences, generator, resamples, most)
    return Comparison(n, math.fsum(left) / n, math.fsum(right) / n, mean, low, high, p_value)


def compare_sets(a: Values, b: Values, *, seed: int = 0, resamples: int = 10_000) -> Comparison:
    """As `compare`, of the means of two sets whose rows are not paired; ``n`` is that of the smaller one.

    The interval is the symmetric bootstrap-t one of two samples, and the p-value that of the permutation test of Welch's
    statistic, which holds where the variances differ, too, if there are some rows (Janssen, 1997); (1 + count) / (1 + resamples).
    Sets of fewer than two rows, or all of one value, have no interval, and p = 1.

    Example:
        >>> compare_sets([3.0, 5.0, 4.0, 6.0], [1.0, 2.0, 2.0, 3.0]).difference
        2.5
    """
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ColumnError("Sets are compared by finite numbers.")
    n = min(len(left), len(right))
    if n == 0:
        return Comparison(0)
    mean_a, mean_b = math.fsum(left) / len(left), math.fsum(right) / len(right)
    difference = mean_a - mean_b
    error = float(_standard_error(left[None], right[None])[0]) if n > 1 else 0.0
    if not error:
        return Comparison(n, mean_a, mean_b, difference, p_value=1.0)
    generator, statistics, hits = np.random.default_rng(seed), [], 0
    centred, both = (left - mean_a, right - mean_b), np.concatenate((left, right))
    for size in _chunks(resamples, len(both)):
        drawn = [side[generator.integers(len(side), size=(size, len(side)))] for side in centred]
        statistics.append(_welch(*drawn, floor=error / math.sqrt(n)))
        mixed = generator.permuted(np.tile(both, (size, 1)), axis=1)
        found = _welch(mixed[:, : len(left)], mixed[:, len(left) :], floor=1e-12 * error)
        hits += int((found >= abs(difference) / error * (1 - 1e-9)).sum())
    margin = float(np.quantile(np.concatenate(statistics), CONFIDENCE)) * error
    p_value = (1 + hits) / (1 + resamples)
    return Comparison(n, mean_a, mean_b, difference, difference - margin, difference + margin, p_value)


def _standard_error(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.sqrt(sum(side.var(axis=1, ddof=1) / side.shape[1] for side in (left, right)))


def _welch(left: np.ndarray, right: np.ndarray, floor: float) -> np.ndarray:
    return np.abs(left.mean(axis=1) - right.mean(axis=1)) / np.maximum(_standard_error(left, right), floor)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for their number, in the same order (Holm, 1979).

    Calling those under 5 % a difference is wrong about any of them in at most 5 % of studies, however they depend on
    each other, and only as one family (``benchmarks/study_statistics.py``). None stays None and doesn't count.

    Example:
        >>> holm([0.25, None, 0.0625])
        [0.25, None, 0.125]
    """
    adjusted: list[float | None] = [None] * len(p_values)
    ordered = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    highest = 0.0
    for rank, (p, place) in enumerate(ordered):
        adjusted[place] = highest = max(highest, min(1.0, (len(ordered) - rank) * p))
    return adjusted


def verdict(
    name_a: str, name_b: str, measure: str, comparison: Comparison, adjusted_p: float | None, higher_is: str = "higher"
) -> str | None:
    """What a comparison shows, as a sentence; None without rows.

    A difference is stated only where the interval excludes zero and the p-value, adjusted by `holm` over all comparisons of
    the study, is below 0.05: the interval alone would find one too often among many comparisons, and the p-value alone could
    name one that the interval beside it doesn't show.

    Example:
        >>> verdict("small", "large", "difficulty score", Comparison(9, 5.0, 7.0, -2.0, -3.0, -1.0), 0.01, "harder")
        'On difficulty score, large is harder than small, by 2 (95 % interval 1 to 3)'
    """
    if comparison.n == 0:
        return None
    low, high = comparison.low, comparison.high
    if low is None or low <= 0 <= high or adjusted_p is None or adjusted_p >= 1 - CONFIDENCE:
        return NO_DIFFERENCE
    if low < 0:
        name_a, name_b, low, high = name_b, name_a, -high, -low
    return (
        f"On {measure}, {name_a} is {higher_is} than {name_b}, by {abs(comparison.difference):.3g} "
        f"({100 * CONFIDENCE:g} % interval {low:.3g} to {high:.3g})"
    )


def _canonical(differences: np.ndarray) -> np.ndarray:
    """The differences, or all of them negated, in order: the same for any order of rows and for a and b swapped."""
    ordered = np.sort(differences)
    mirrored = -ordered[::-1]
    return mirrored if mirrored.tolist() < ordered.tolist() else ordered


def _margin(differences: np.ndarray, generator: np.random.Generator, resamples: int) -> float:
    """Half the width of the symmetric bootstrap-t interval of the mean."""
    n = len(differences)
    if differences[0] == differences[-1]:
        return 0.0
    scale = float(max(-differences[0], differences[-1]))
    values = differences / scale
    values = values - values.mean()
    variance = float(values @ values) / n
    if n > _LARGE:
        return NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(variance / n) * scale
    statistics = []
    for size in _chunks(resamples, n):
        drawn = values[generator.integers(n, size=(size, n))]
        means = drawn.mean(axis=1)
        variances = (drawn**2).mean(axis=1) - means**2
        # A resample of equal rows has no variance, and with few distinct values there are enough of them to make the
        # interval infinite (Owen, 2025, arXiv:2508.10083). With two values, the floor lies below the variance of
        # every other resample.
        statistics.append(np.abs(means) / np.sqrt(np.maximum(variances, variance / n) / n))
    return float(np.quantile(np.concatenate(statistics), CONFIDENCE)) * math.sqrt(variance / n) * scale


def _sign_flip_p(differences: np.ndarray, generator: np.random.Generator, resamples: int, most: int) -> float:
    """How often random signs make the sum of differences at least as far from zero; drawn up to ``most`` times if seldom."""
    values = differences[differences != 0]
    n = len(values)
    if n == 0:
        return 1.0
    values = values / np.abs(values).max()
    total = math.fsum(values)
    least = abs(total) - 1e-12 * float(np.abs(values).sum())  # sums that differ by rounding are equal
    if n < resamples.bit_length():  # 2^n <= resamples
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate((sums + value, sums - value))
        return float((np.abs(sums) >= least).mean())

    def hits(resamples: int) -> int:
        count = 0
        for size in _chunks(resamples, n):
            bits = np.frombuffer(generator.bytes(size * -(-n // 8)), dtype=np.uint8)
            kept = np.unpackbits(bits.reshape(size, -1), axis=1, count=n) @ values
            count += int((np.abs(2 * kept - total) >= least).sum())
        return count

    count = hits(resamples)
    if count >= _HITS or most == resamples:
        return (1 + count) / (1 + resamples)
    bound = 2 * math.exp(-(total**2) / (2 * float(values @ values)))  # of the p-value itself
    return (1 + count + (hits(most - resamples) if bound * most > 1 else 0)) / (1 + most)


def _chunks(resamples: int, width: int) -> list[int]:
    step = max(1, _CELLS // width)
    return [min(step, resamples - start) for start in range(0, resamples, step)]
