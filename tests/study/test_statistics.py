import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_evol.errors import ColumnError
from hf_evol.study import statistics
from hf_evol.study.statistics import NO_DIFFERENCE, Comparison, compare, compare_sets, holm, verdict

VALUES = st.floats(-1e6, 1e6, allow_subnormal=False) | st.integers(0, 4).map(float)
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=25)


def drawn(n, seed=0, shift=0.0):
    generator = np.random.default_rng(seed)
    b = generator.normal(size=n)
    return b + generator.lognormal(sigma=0.5, size=n) - 1 + shift, b


def _differences(mean, n=200):
    """Whose test statistic is the same for any drawing: as far from zero, on either side, as a mean would be."""
    values = np.random.default_rng(1).normal(size=n)
    return (values - values.mean()) / values.std() + mean


@pytest.mark.parametrize("mean", [0.3, 0.7, 10.0])
def test_clear_differences_are_stated_in_a_large_family(mean):
    """With 10,000 resamples, no p-value of 501 could be small enough."""
    family = 501
    clear = compare(_differences(mean), np.zeros(200), family=family)
    others = [compare(_differences(0.0), np.zeros(200)).p_value] * (family - 1)
    adjusted = holm([clear.p_value, *others])[0]
    assert adjusted < 0.05 < holm([compare(_differences(mean), np.zeros(200)).p_value, *others])[0] * 1.01
    assert "is higher" in verdict("a", "b", "score", clear, adjusted)


def test_a_small_p_value_in_a_large_family_is_that_of_the_normal_limit():
    """Of 300 differences the sum of random signs is near to normal out to its far tail."""
    values = _differences(0.0, 300) + 0.225
    z = values.sum() / np.sqrt((values**2).sum())
    expected = math.erfc(z / 2**0.5)
    assert 1e-5 < expected < 3e-4
    found = compare(values, np.zeros(300), family=3000).p_value
    assert found == pytest.approx(expected, rel=0.5)


def test_a_family_changes_no_p_value_that_is_not_small():
    values = _differences(0.1)
    assert compare(values, np.zeros(200), family=1000) == compare(values, np.zeros(200))


def test_means_and_difference():
    result = compare([1.0, 2.0, 6.0], [1.0, 1.0, 1.0])
    assert (result.n, result.mean_a, result.mean_b, result.difference) == (3, 3.0, 1.0, 2.0)
    assert result.low <= 2.0 <= result.high


@pytest.mark.parametrize("n", [2, 5, 9])
def test_p_value_of_few_rows_is_that_of_all_signs(n):
    a, b = drawn(n)
    differences = [float(x - y) for x, y in zip(a, b, strict=True)]
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=n)
    ]
    expected = sum(value >= abs(sum(differences)) - 1e-9 for value in sums) / 2**n
    assert compare(a, b).p_value == expected


def test_zeros_take_no_part_in_the_signs():
    a = [1.0] * 5 + [0.0] * 1000
    assert compare(a, [0.0] * 1005).p_value == 2 / 2**5


def test_equal_sums_count_though_rounding_differs():
    """0.1 + 0.2 and 0.3 are not the same float, and neither are their differences."""
    assert compare([0.1, 0.2, 0.3], [0.0] * 3).p_value == 2 / 2**3
    assert compare([0.1, 0.2, -0.3, 0.3], [0.0] * 4).p_value == compare([1.0, 2.0, -3.0, 3.0], [0.0] * 4).p_value


@pytest.mark.parametrize("n", [20, 300])
def test_p_value_of_many_rows_is_close_to_that_of_all_signs(n):
    """Of 0/1 differences the sign-flip test is the sign test, whose p-value the binomial distribution gives."""
    ones = round(n / 2 + 0.8 * n**0.5)
    differences = [1.0] * ones + [-1.0] * (n - ones)
    tail = 2 * sum(math.comb(n, k) for k in range(ones, n + 1)) / 2**n
    assert compare(differences, [0.0] * n).p_value == pytest.approx(tail, abs=4 * (tail / 10_000) ** 0.5)


def test_exact_and_drawn_signs_agree():
    a, b = drawn(12)
    exact, approximate = compare(a, b, resamples=4096).p_value, compare(a, b, resamples=4095).p_value
    assert exact * 4096 == round(exact * 4096) and approximate != exact
    assert approximate == pytest.approx(exact, abs=4 * (exact / 4095) ** 0.5)


def test_p_value_is_never_zero():
    assert compare(np.arange(1.0, 101.0), np.zeros(100), resamples=500).p_value == 1 / 501


def test_interval_is_that_of_a_loop():
    """The symmetric bootstrap-t interval, one resample at a time."""
    a, b = drawn(25)
    d = [float(x - y) for x, y in zip(a, b, strict=True)]

    def mean_and_error(rows):
        mean = sum(rows) / len(rows)
        return mean, (sum((row - mean) ** 2 for row in rows) / len(rows) / (len(rows) - 1)) ** 0.5

    source = random.Random(5)
    mean, error = mean_and_error(d)
    resamples = [mean_and_error(source.choices(d, k=len(d))) for _ in range(10_000)]
    statistics = sorted(abs(m - mean) / e for m, e in resamples)
    margin = statistics[9500] * error
    result = compare(a, b)
    assert result.high - result.difference == pytest.approx(margin, rel=0.04)
    assert result.difference - result.low == pytest.approx(margin, rel=0.04)


def test_interval_of_normal_differences_is_students():
    """2.0452 is the 97.5th percentile of Student's t with 29 degrees of freedom."""
    margins, students = [], []
    for seed in range(40):
        differences = np.random.default_rng(seed).normal(size=30)
        result = compare(differences, np.zeros(30), seed=seed, resamples=2000)
        margins.append(result.high - result.difference)
        students.append(2.0452 * differences.std(ddof=1) / 30**0.5)
    assert np.mean(margins) == pytest.approx(np.mean(students), rel=0.03)


def test_many_rows_use_the_normal_quantile_that_resampling_tends_to(monkeypatch):
    a, b = drawn(1500)
    resampled = compare(a, b)
    monkeypatch.setattr(statistics, "_LARGE", 1000)
    limit = compare(a, b)
    assert limit.high - limit.difference == pytest.approx(1.959964 * np.std(a - b) / 1500**0.5)
    assert (limit.low, limit.high) == pytest.approx(
        (resampled.low, resampled.high), abs=0.04 * (limit.high - limit.low)
    )


def test_chunks_bound_the_memory(monkeypatch):
    """Any size of the chunks gives resamples of the same kind, and as many."""
    a, b = drawn(60, shift=0.1)
    whole = compare(a, b, resamples=3000)
    monkeypatch.setattr(statistics, "_CELLS", 1000)
    assert statistics._chunks(40, 60) == [16, 16, 8] and statistics._chunks(2, 5000) == [1, 1]
    parts = compare(a, b, resamples=3000)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.04 * (whole.high - whole.low))
    assert parts.p_value == pytest.approx(whole.p_value, abs=0.05)


def test_a_million_rows():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 1_000_000))
    result = compare(a + 0.01, b, resamples=50)
    assert result.low < 0.01 < result.high and result.high - result.low == pytest.approx(
        2 * 1.96 * (2 / 1e6) ** 0.5, rel=0.01
    )
    assert result.p_value == 1 / 51


def test_no_rows():
    assert compare([], []) == Comparison(0, None, None, None, None, None, None)
    assert verdict("a", "b", "score", compare([], []), None) is None


def test_one_row_has_no_interval():
    assert compare([3.0], [1.0]) == Comparison(1, 3.0, 1.0, 2.0, None, None, 1.0)
    assert verdict("a", "b", "score", compare([3.0], [1.0]), 0.001) == NO_DIFFERENCE


@pytest.mark.parametrize("n", [2, 9, 40])
def test_equal_sides(n):
    a, _ = drawn(n)
    result = compare(a, a)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)
    assert verdict("a", "b", "score", result, result.p_value) == NO_DIFFERENCE


def test_constant_differences():
    """The rows show no spread; that two of them agree is no evidence, and the p-value says so."""
    few, many = (compare([1.5] * n, [1.0] * n) for n in (2, 40))
    assert (few.low, few.high, few.p_value) == (0.5, 0.5, 0.5)
    assert (many.low, many.high, many.p_value) == (0.5, 0.5, 1 / 10_001)
    assert verdict("a", "b", "score", few, few.p_value) == NO_DIFFERENCE
    noisy = compare([0.3, 0.7, 0.1 + 0.2], [0.2, 0.6, 0.2])  # 0.1 each, but for rounding
    assert (noisy.low, noisy.high) == pytest.approx((0.1, 0.1))


def test_one_odd_row_gives_a_finite_interval():
    """A third of the resamples hold zeros only."""
    result = compare([1.0] + [0.0] * 29, [0.0] * 30)
    assert result.low < 0 and 0.1 < result.high < 0.3 and result.p_value == 1


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_swapping_sides_negates(pairs):
    a, b = zip(*pairs, strict=True)
    one, other = compare(a, b, resamples=300), compare(b, a, resamples=300)
    assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
    assert one.p_value == other.p_value


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.randoms())
def test_order_of_rows_and_repetition_change_nothing(pairs, order):
    shuffled = pairs[:]
    order.shuffle(shuffled)
    assert compare(*zip(*pairs, strict=True), resamples=300) == compare(*zip(*shuffled, strict=True), resamples=300)


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_numbers_are_finite_and_in_order(pairs):
    result = compare(*zip(*pairs, strict=True), resamples=300)
    assert result.low <= result.difference <= result.high
    assert 0 < result.p_value <= 1 and math.isfinite(result.low) and math.isfinite(result.high)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=25), st.integers(-9, 9))
def test_shift_and_unit(pairs, shift):
    """Whole numbers, so that shifted differences are the same to the last bit; so are those in a unit of 1/8."""
    a, b = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    one = compare(a, b, resamples=300)
    assert compare(a + shift, b + shift, resamples=300).low == one.low
    eighths = compare(a / 8, b / 8, resamples=300)
    assert (eighths.low, eighths.high, eighths.p_value) == (one.low / 8, one.high / 8, one.p_value)


def test_seed_decides_the_draws():
    a, b = drawn(50)
    assert compare(a, b) == compare(a, b, seed=0)
    assert compare(a, b) != compare(a, b, seed=1)
    assert compare(a, b).low == pytest.approx(compare(a, b, seed=1).low, abs=0.02)


def test_input_is_left_alone():
    a, b = drawn(20)
    copies = a.copy(), b.copy()
    compare(a, b)
    assert (a == copies[0]).all() and (b == copies[1]).all()


@pytest.mark.parametrize("bad", [[1.0, None], [1.0, math.nan], [1.0, math.inf]])
def test_values_must_be_finite(bad):
    with pytest.raises(ColumnError, match="finite"):
        compare(bad, [1.0, 2.0])
    with pytest.raises(ColumnError, match="finite"):
        compare([1.0, 2.0], bad)


def test_sides_must_be_aligned():
    with pytest.raises(ColumnError, match="2 and 3 rows"):
        compare([1.0, 2.0], [1.0, 2.0, 3.0])


def test_coverage_and_false_positives():
    """1,000 studies of 0/1 differences: 4 standard errors are 2.8 points."""
    generator, inside, small = np.random.default_rng(0), 0, 0
    for study in range(1000):
        a, b = (generator.random((2, 40)) < 0.4).astype(float)
        result = compare(a, b, seed=study, resamples=400)
        inside += result.low <= 0 <= result.high
        small += result.p_value <= 0.05
    assert 0.922 <= inside / 1000 <= 0.978 and small / 1000 <= 0.078


def test_holm():
    """The example by hand: 4 x 0.01, 3 x 0.02, then 2 x 0.025 = 0.05, raised to the 0.06 before it."""
    assert holm([0.02, 0.9, 0.01, 0.025]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.02, None, 0.9, 0.01, None, 0.025]) == pytest.approx([0.06, None, 0.9, 0.04, None, 0.06])
    assert holm([]) == [] and holm([None]) == [None] and holm([0.7, 0.8]) == [1.0, 1.0]


@given(st.lists(st.none() | st.floats(0, 1), max_size=12))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """Adjusted, a p-value is the greatest of Bonferroni's over all sets of hypotheses that hold it."""
    known = [p for p in p_values if p is not None]

    def closed(p):
        rest = sorted(known)
        rest.remove(p)
        sets = ([p, *(rest[len(rest) - size :])] for size in range(len(rest) + 1))  # the greatest others are the worst
        return max(min(1.0, len(chosen) * min(chosen)) for chosen in sets)

    assert holm(p_values) == [None if p is None else pytest.approx(closed(p)) for p in p_values]


def test_verdict_in_words():
    harder = Comparison(100, 72.125, 65.375, 6.75, 5.2, 8.3, 0.001)
    words = "On difficulty score, small is harder than large, by 6.75 (95 % interval 5.2 to 8.3)"
    assert verdict("small", "large", "difficulty score", harder, 0.01, "harder") == words
    easier = Comparison(100, 65.375, 72.125, -6.75, -8.3, -5.2, 0.001)
    assert verdict("large", "small", "difficulty score", easier, 0.01, "harder") == words
    assert verdict("a", "b", "reward", harder, 0.01).startswith("On reward, a is higher than b, by 6.75")


def test_verdict_needs_the_interval_and_the_adjusted_p_value():
    apart = Comparison(100, 2.0, 1.0, 1.0, 0.5, 1.5, 0.01)
    assert verdict("a", "b", "score", apart, 0.04) != NO_DIFFERENCE
    for adjusted in (0.06, 0.24, None):
        assert verdict("a", "b", "score", apart, adjusted) == NO_DIFFERENCE
    for low, high in ((-0.5, 2.5), (0.0, 2.0), (-2.0, 0.0), (0.0, 0.0)):
        touching = Comparison(100, 2.0, 1.0, (low + high) / 2, low, high, 0.01)
        assert verdict("a", "b", "score", touching, 0.01) == NO_DIFFERENCE


def test_sets_are_compared_under_all_ways_to_part_the_rows():
    a, b = [4.0, 7.5, 6.0, 9.0], [1.0, 3.0, 2.5, 5.0, 4.5]

    def welch(left, right):
        return abs(np.mean(left) - np.mean(right)) / math.sqrt(
            np.var(left, ddof=1) / len(left) + np.var(right, ddof=1) / len(right)
        )

    both = np.array(a + b)
    parted = [(both[list(places)], np.delete(both, places)) for places in itertools.combinations(range(9), 4)]
    expected = np.mean([welch(*sides) >= welch(a, b) - 1e-9 for sides in parted])
    found = compare_sets(a, b)
    assert found.p_value == pytest.approx(expected, abs=0.01) and found.difference == pytest.approx(6.625 - 3.2)
    swapped = compare_sets(b, a)
    assert swapped.difference == -found.difference and swapped.low < -found.difference < swapped.high


def test_the_interval_of_large_sets_is_the_normal_one():
    left, right = np.random.default_rng(2).normal(0, 1, 400), np.random.default_rng(3).normal(0, 3, 300)
    error = math.sqrt(left.var(ddof=1) / 400 + right.var(ddof=1) / 300)
    found = compare_sets(left, right)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_sets_too_small_or_of_one_value_show_no_difference():
    assert compare_sets([], [1.0]) == Comparison(0)
    for a, b in (([1.0], [2.0, 3.0]), ([1.0, 1.0], [2.0, 2.0])):
        found = compare_sets(a, b)
        assert (found.low, found.p_value) == (None, 1.0)
    with pytest.raises(ColumnError, match="finite"):
        compare_sets([math.nan, 1.0], [1.0, 2.0])
