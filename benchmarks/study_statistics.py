"""Do the statistics of a study keep their promises? Simulated studies, of which the truth is known.

    python benchmarks/study_statistics.py

A scenario is a way to draw the pairs of a study. Its coverage is the share of studies whose 95 % interval holds the
true difference; wanted are 95 % ± 1.5 points. Where the evolvers are equal, the share of p-values of at most 5 % is
wanted to be at most 5 %, give or take twice the standard error of a share of so many studies. The next table counts
studies of 8 measures x 3 rounds, in all of which the evolvers are equal, that find any difference. The last one asks which
comparisons should share a family: studies of 7 evolvers, three of them equal, with two measures that nearly repeat others.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from itertools import combinations
from statistics import NormalDist

import numpy as np

from hf_evol.study.statistics import NO_DIFFERENCE, compare, holm, verdict

Pairs = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, int], Pairs]

RESAMPLES = 1000  # fewer than a study's 10,000: over 2,000 studies the noise of resampling averages out
MEASURES, ROUNDS, FAMILY_ROWS = 8, 3, 20
HIGH, LOW = (0.05, 0.15, 0.25, 0.30, 0.25), (0.10, 0.25, 0.30, 0.25, 0.10)  # shares of the levels 0 to 4


def normal(generator: np.random.Generator, n: int) -> Pairs:
    """Scores that share what the seed brings with it."""
    seed = generator.normal(size=n)
    return seed + generator.normal(size=n), seed + generator.normal(size=n)


def skewed_scores(sigma: float) -> Draw:
    """Lognormal scores, correlated: skewed on either side, so differences have heavy tails."""

    def draw(generator: np.random.Generator, n: int) -> Pairs:
        a, b = normal(generator, n)
        return np.exp(sigma * 0.5**0.5 * a), np.exp(sigma * 0.5**0.5 * b)

    return draw


def skewed_differences(sigma: float) -> Draw:
    """Lognormal differences less their mean: true difference 0, though not by exchangeable evolvers."""

    def draw(generator: np.random.Generator, n: int) -> Pairs:
        b = generator.normal(size=n)
        return b + generator.lognormal(sigma=sigma, size=n) - np.exp(sigma**2 / 2), b

    return draw


def graded(shares_a: tuple[float, ...], shares_b: tuple[float, ...]) -> Draw:
    """Levels 0, 1, ... with the shares given; in half of the pairs both stand at the same place of their ranking."""

    def draw(generator: np.random.Generator, n: int) -> Pairs:
        place, other = generator.random((2, n))
        of_b = np.where(generator.random(n) < 0.5, place, other)
        levels = (np.searchsorted(np.cumsum(s)[:-1], u) for s, u in ((shares_a, place), (shares_b, of_b)))
        return tuple(level.astype(float) for level in levels)

    return draw


def mean_level(shares: tuple[float, ...]) -> float:
    return sum(level * share for level, share in enumerate(shares))


# scenario: how to draw, the true difference, whether the evolvers are equal
SCENARIOS: dict[str, tuple[Draw, float, bool]] = {
    "normal": (normal, 0.0, True),
    "skewed scores (1.75)": (skewed_scores(0.5), 0.0, True),
    "skewed scores (6.2)": (skewed_scores(1.0), 0.0, True),
    "skewed differences (1.75)": (skewed_differences(0.5), 0.0, False),
    "skewed differences (6.2)": (skewed_differences(1.0), 0.0, False),
    "levels 0-4, equal": (graded(LOW, LOW), 0.0, True),
    "levels 0-4, apart": (graded(HIGH, LOW), mean_level(HIGH) - mean_level(LOW), False),
    "binary, equal": (graded((0.5, 0.5), (0.5, 0.5)), 0.0, True),
    "binary, 65 % and 50 %": (graded((0.35, 0.65), (0.5, 0.5)), 0.15, False),
    "binary, 15 % and 5 %": (graded((0.85, 0.15), (0.95, 0.05)), 0.10, False),
}


def single(studies: int, rows: list[int]) -> list[str]:
    """One comparison a study: coverage, and p-values where the evolvers are equal. Returns what misses."""
    print(f"{'scenario (skewness)':28}{'rows':>6}{'coverage':>10}{'':9}{'p <= 5 %':>10}{'':7}{'width':>8}")
    missed = []
    for place, (name, (draw, truth, equal)) in enumerate(SCENARIOS.items()):
        for n in rows:
            generator, inside, small, width = np.random.default_rng((place, n)), 0, 0, 0.0
            for study in range(studies):
                result = compare(*draw(generator, n), seed=study, resamples=RESAMPLES)
                inside += result.low - 1e-12 <= truth <= result.high + 1e-12
                small += result.p_value <= 0.05
                width += (result.high - result.low) / studies
            coverage, rate = inside / studies, small / studies
            covers = "below" if coverage < 0.935 else "above" if coverage > 0.965 else "pass"
            of_p = f"{rate:10.1%} {held(rate, studies):6}" if equal else f"{'':17}"
            print(f"{name:28}{n:6}{coverage:10.1%} {covers:8}{of_p}{width:8.3f}", flush=True)
            missed += [f"coverage {covers} the bar: {name}, {n} rows"] * (covers != "pass")
            missed += [f"p-values at most 5 % too often: {name}, {n} rows"] * (equal and held(rate, studies) != "pass")
    return missed


def families(studies: int) -> list[str]:
    """Studies of equal evolvers and many comparisons: how many find any difference. Returns what misses."""
    draws = [draw for draw, _, equal in SCENARIOS.values() if equal]
    generator = np.random.default_rng(0)
    plain = after_holm = worded = 0
    for study in range(studies):
        results = [
            compare(*draws[measure % len(draws)](generator, FAMILY_ROWS), seed=study, resamples=RESAMPLES)
            for _ in range(ROUNDS)
            for measure in range(MEASURES)
        ]
        adjusted = holm([result.p_value for result in results])
        verdicts = [verdict("a", "b", "m", result, p) for result, p in zip(results, adjusted, strict=True)]
        plain += any(result.p_value <= 0.05 for result in results)
        after_holm += any(p <= 0.05 for p in adjusted)
        worded += any(words != NO_DIFFERENCE for words in verdicts)
    print(f"\n{MEASURES} measures x {ROUNDS} rounds, {FAMILY_ROWS} rows each, evolvers equal; studies with")
    print(f"{'any p <= 5 %, not adjusted':34}{plain / studies:10.1%}")
    missed = []
    for name, count in (("any p <= 5 % after Holm", after_holm), ("any verdict", worded)):
        print(f"{name:34}{count / studies:10.1%} {held(count / studies, studies)}")
        missed += [name] * (held(count / studies, studies) != "pass")
    return missed


def partitions(studies: int) -> None:
    """What families of comparisons cost: differences that are stated, and studies that state one that isn't there."""
    effects, n, measures = np.array([0, 0, 0, 0.1, 0.2, 0.35, 0.5]), 200, 8
    repeats = {6: 0, 7: 1}  # measures that nearly repeat another, as level and score, IFD and IC-IFD do
    groups = {
        "all in one": [range(measures)],
        "repeating measures apart": [range(6), range(6, measures)],
        "each measure by itself": [[measure] for measure in range(measures)],
    }
    stated, wrong = dict.fromkeys(groups, 0.0), dict.fromkeys(groups, 0)
    pairs = list(combinations(range(len(effects)), 2))
    real = np.array([effects[a] != effects[b] for a, b in pairs])
    for study in range(studies):
        generator = np.random.default_rng(study)
        p_values = np.empty((measures, ROUNDS, len(pairs)))
        for round_ in range(ROUNDS):
            values = generator.normal(size=(measures, len(effects), n)) + effects[:, None]
            for repeat, of in repeats.items():
                noise = values[repeat] - effects[:, None]
                values[repeat] = 0.9 * values[of] + 0.1 * effects[:, None] + (1 - 0.9**2) ** 0.5 * noise
            for place, (a, b) in enumerate(pairs):
                differences = values[:, a] - values[:, b]
                z = differences.mean(-1) / differences.std(-1) * n**0.5
                p_values[:, round_, place] = [2 * NormalDist().cdf(-abs(one)) for one in z]
        for name, families_ in groups.items():
            adjusted = np.empty_like(p_values)
            for family in map(list, families_):
                adjusted[family] = np.reshape(holm(p_values[family].ravel().tolist()), p_values[family].shape)
            stated[name] += (adjusted[:6, :, real] < 0.05).mean() / studies
            wrong[name] += bool((adjusted[..., ~real] < 0.05).any())
    print(
        f"\n7 evolvers, {measures} measures x {ROUNDS} rounds ({measures * ROUNDS * len(pairs)} comparisons), {n} rows each"
    )
    print(f"{'family':28}{'real differences stated':>26}{'studies with a false one':>26}")
    for name in groups:
        print(f"{name:28}{stated[name]:26.1%}{wrong[name] / studies:26.1%}")


def held(rate: float, studies: int) -> str:
    return "pass" if rate <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5 else "above"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--rows", type=int, nargs="+", default=[10, 30, 100])
    arguments = parser.parse_args()
    print(f"{arguments.studies} studies a line, {RESAMPLES} resamples; Python {platform.python_version()}, ", end="")
    print(f"numpy {np.__version__}, {platform.system()} {platform.machine()}\n")
    start = time.perf_counter()
    missed = single(arguments.studies, arguments.rows) + families(arguments.studies)
    partitions(arguments.studies // 5)
    print(f"\n{time.perf_counter() - start:.0f} s; {len(missed)} misses")
    print("\n".join(missed))


if __name__ == "__main__":
    main()
