from xml.etree import ElementTree

import numpy as np
import pytest
from study_data import make, unmeasured

from hf_evol.study.figures import density, draw

FEW = ("difficulty_score", "ifd", "ic_ifd", "mnd", "top1_mean")
OTHERS = {"levels", "mnd_density", "top1_density"}
ALL = OTHERS | {f"by_round_{measure}" for measure in FEW}


def texts(figure):
    return [element.text for element in ElementTree.parse(figure["path_svg"]).iter() if element.tag.endswith("}text")]


def only(folder, results, rows, **changes):
    """The figures of a study without what is drawn elsewhere, by name."""
    results = results | {"levels": []} | changes
    return {figure["name"]: figure for figure in draw(results, rows, folder)}


def test_everything_is_drawn_and_said(tmp_path):
    labels = ("one", "two", "three")
    figures = draw(*make(labels, measures=FEW), tmp_path / "new" / "folder")
    assert {figure["name"] for figure in figures} == ALL
    for figure in figures:
        assert figure["path_png"].read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(figure["path_svg"]).getroot().tag.endswith("svg")
        assert figure["caption"] and all(label in figure["alt"] for label in labels)


def test_svg_bytes_are_the_same_each_time(tmp_path):
    study = make(measures=("ifd", "ic_ifd", "top1_mean"))
    first, second = draw(*study, tmp_path / "a"), draw(*study, tmp_path / "b")
    assert len(first) == 4
    for one, other in zip(first, second, strict=True):
        assert one["path_svg"].read_bytes() == other["path_svg"].read_bytes()
        assert one["path_png"].read_bytes() == other["path_png"].read_bytes()


def test_only_what_was_measured_is_drawn(tmp_path):
    results, rows = make(measures=("ifd", "n_words"))
    results |= {"levels": []}
    assert [figure["name"] for figure in draw(results, rows, tmp_path)] == ["by_round_ifd", "by_round_n_words"]


def test_nulls_and_single_rows_are_drawn_as_far_as_they_go(tmp_path):
    results, rows = make(measures=FEW)
    names = {figure["name"] for figure in draw(unmeasured(results), rows, tmp_path / "null")}
    assert names == {"levels", "mnd_density", "top1_density"}
    names = {figure["name"] for figure in draw(*make(n=1, rounds=1, measures=FEW), tmp_path / "one")}
    assert names == ALL - {"mnd_density"}  # a density needs two values
    assert only(tmp_path / "none", results, rows.select([])).keys() == ALL - OTHERS


def test_bars_are_shares(tmp_path):
    counts = {"very easy": 0, "easy": 1, "medium": 1, "hard": 2, "very hard": 0}
    levels = [{"evolver": "small", "round": 1, "counts": counts, "unreadable": 7, "failed": 2}]
    figure = only(tmp_path, *make(rounds=1, measures=()), levels=levels)["levels"]
    assert texts(figure).count("25") == 2 and texts(figure).count("50") == 1
    assert "hard 50 %" in figure["alt"] and "7 replies" in figure["caption"]


def test_seeds_are_round_zero(tmp_path):
    figure = only(tmp_path, *make(measures=("difficulty_score",)))["by_round_difficulty_score"]
    assert "small: seeds 30, round 1" in figure["alt"] and "seeds" in texts(figure)


@pytest.mark.parametrize("high", [np.inf, 1])
@pytest.mark.parametrize(
    "values",
    [[1.0] * 9 + [0.99], [0.1, 0.2, 0.9], np.random.default_rng(1).beta(5, 0.3, 300)],
    ids=["at the bound", "few", "many"],
)
def test_densities_integrate_to_one_within_the_bounds(values, high):
    end = min(high, 3)
    x = (np.arange(3000) + 0.5) / 3000 * end
    assert density(np.array(values), x, high).mean() * end == pytest.approx(1, abs=2e-3)


def test_density_is_the_sum_of_the_kernels_and_their_reflections():
    values = np.random.default_rng(2).uniform(size=200)
    width = values.std(ddof=1) * (200 * 3 / 4) ** -0.2  # Silverman's rule
    x = np.linspace(0, 1, 101)
    mirrored = np.concatenate([values, -values, 2 - values])
    expected = np.exp(-0.5 * ((x[:, None] - mirrored) / width) ** 2).sum(axis=1) / (200 * width * np.sqrt(2 * np.pi))
    assert density(values, x, 1) == pytest.approx(expected)
    assert density(values, x, 1)[0] > 0.5  # not reflected, it would be half as high at the bound
