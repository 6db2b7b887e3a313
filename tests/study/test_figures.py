from xml.etree import ElementTree

import numpy as np
import pytest
from study_data import MEASURES, UTF8, make, unmeasured

from hf_evol.study.canvas import short_names
from hf_evol.study.density import density
from hf_evol.study.figures import draw

ALWAYS = {f"by_round_{measure}" for measure in MEASURES}
ALL = ALWAYS | {"levels", "mnd_density", "top1_density", "ifd_ic_ifd", "judgements", "yield", "cost"}


def texts(figure):
    return [element.text for element in ElementTree.parse(figure["path_svg"]).iter() if element.tag.endswith("}text")]


@pytest.mark.parametrize("labels", [("small", "large"), ("one", "two", "three")])
def test_everything_is_drawn_and_said(tmp_path, labels):
    figures = draw(*make(labels), tmp_path / "new" / "folder")
    assert {figure["name"] for figure in figures} == ALL
    for figure in figures:
        assert figure["path_png"].read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(figure["path_svg"]).getroot().tag.endswith("svg")
        assert figure["caption"] and all(label in figure["alt"] for label in labels)


def test_svg_bytes_are_the_same_each_time(tmp_path):
    study = make(measures=("difficulty_score", "ifd", "ic_ifd", "mnd", "top1_mean"))
    first, second = draw(*study, tmp_path / "a"), draw(*study, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one["path_svg"].read_bytes() == other["path_svg"].read_bytes()
        assert one["path_png"].read_bytes() == other["path_png"].read_bytes()


def test_only_what_was_measured_is_drawn(tmp_path):
    results, rows = make(measures=("ifd", "n_words"))
    results |= {"levels": [], "judgements": [], "costs": []}
    assert [figure["name"] for figure in draw(results, rows, tmp_path)] == ["by_round_ifd", "by_round_n_words", "yield"]


def test_nulls_and_single_rows_are_drawn_as_far_as_they_go(tmp_path):
    results, rows = make()
    names = {figure["name"] for figure in draw(unmeasured(results), rows, tmp_path / "null")}
    assert names == {"levels", "mnd_density", "top1_density", "judgements", "yield"}
    names = {figure["name"] for figure in draw(*make(n=1, rounds=1), tmp_path / "one")}
    assert names == ALL - {"mnd_density"}  # a density needs two values
    names = {figure["name"] for figure in draw(results, rows.select([]), tmp_path / "none")}
    assert names == ALL - {"mnd_density", "top1_density"}


def test_names_are_drawn_as_they_are(tmp_path):
    labels = ("$x_{1}$ & <b>", "_hidden", UTF8 * 3)
    figures = {
        figure["name"]: figure
        for figure in draw(*make(labels, rounds=1, measures=("difficulty_score", "reward")), tmp_path)
    }
    drawn = texts(figures["by_round_reward"])
    assert "$x_{1}$ & <b>" in drawn and any(text.strip() == "_hidden" for text in drawn)
    assert "$x_{1}$ & <b>, round 1" in texts(figures["levels"])
    assert all(len(text) < 60 for text in drawn)


def test_short_names_keep_both_ends_and_stay_apart():
    long = "organisation/" + "x" * 40 + "-0.5B"
    names = short_names([long, long + " ", "a\nb", "\x00"])
    assert names[long].startswith("organisation") and names[long].endswith("-0.5B") and "…" in names[long]
    assert len(set(names.values())) == 4 and names["a\nb"] == "a b" and names["\x00"] == "?"


def test_bars_are_shares(tmp_path):
    results, rows = make(rounds=1, measures=("difficulty_score",))
    counts = {"very easy": 0, "easy": 1, "medium": 1, "hard": 2, "very hard": 0}
    results["levels"] = [{"evolver": "small", "round": 1, "counts": counts, "unreadable": 7}]
    figure = next(figure for figure in draw(results, rows, tmp_path) if figure["name"] == "levels")
    assert texts(figure).count("25") == 2 and texts(figure).count("50") == 1
    assert "hard 50 %" in figure["alt"] and "7 replies" in figure["caption"]


def test_cost_adds_up_over_rounds_and_stops_where_it_is_unknown(tmp_path):
    results, rows = make(rounds=3, measures=("difficulty_score",))
    results["costs"][2]["flops"] = None  # the small one's third round
    alt = next(figure["alt"] for figure in draw(results, rows, tmp_path) if figure["name"] == "cost")
    assert "small, round 2: 2e+12 FLOPs" in alt and "small, round 3: 3000 tokens" in alt
    assert "small, round 3: 3e+12" not in alt and "large, round 3: 3e+13 FLOPs" in alt


def test_seeds_are_round_zero(tmp_path):
    figures = {figure["name"]: figure for figure in draw(*make(measures=("difficulty_score",)), tmp_path)}
    assert "small: seeds 30, round 1" in figures["by_round_difficulty_score"]["alt"]
    assert "seeds" in texts(figures["by_round_difficulty_score"])


@pytest.mark.parametrize("high", [np.inf, 1])
@pytest.mark.parametrize(
    "values",
    [[0.5], [0.0] * 5, [1.0] * 9 + [0.99], [0.1, 0.2, 0.9], np.random.default_rng(1).beta(5, 0.3, 3000), [0, 1e-4, 1]],
    ids=["one", "same", "at the bound", "few", "many", "spread"],
)
def test_densities_integrate_to_one(values, high):
    x, y = density(values, high)
    assert np.all(y >= 0) and np.isfinite(y).all()
    assert np.sum(y) * (x[1] - x[0]) == pytest.approx(1)
    assert x.min() >= 0 and x.max() <= high


def test_density_is_the_sum_of_the_kernels_and_their_reflections():
    values = np.random.default_rng(2).uniform(size=200)
    width = 0.9 * min(values.std(), np.subtract(*np.quantile(values, (0.75, 0.25))) / 1.34) * 200**-0.2
    x, y = density(values, 1)
    mirrored = np.concatenate([values, -values, 2 - values])
    expected = np.exp(-0.5 * ((x[:, None] - mirrored) / width) ** 2).sum(axis=1) / (200 * width * np.sqrt(2 * np.pi))
    assert np.abs(y - expected).max() < 0.01
    assert y[0] > 0.5  # not reflected, it would be half as high at the bound
