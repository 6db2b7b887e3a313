"""The loss under the base is the model's own, token by token; CAR is a ratio of means, and its interval that of the ratio."""

import numpy as np
import pytest
from datasets import Dataset
from scored_rows import ROWS, batch_of, unloadable
from tiny_models import build_classifier, loss_by_hand

import hf_evol
from hf_evol import columns as col
from hf_evol.errors import ConfigError, ModelError
from hf_evol.scoring.compatibility import Compatibility, compatibility_adjusted_reward, linearized
from hf_evol.scoring.ic_ifd import IcIfd


@pytest.mark.parametrize("model", ["tiny_model", "bos_model"])  # with a chat template and without
def test_the_loss_is_that_of_the_models_own_logits(model, request):
    folder = request.getfixturevalue(model)
    out = Compatibility(folder, journal=False)(batch_of(ROWS))
    expected = {"": "invalid_input", "too long " * 300: "too_long"}
    assert out[col.COMPATIBILITY_STATUS] == [expected.get(question, "ok") for question, _ in ROWS]
    for (question, answer), loss, status in zip(ROWS, out[col.BASE_LOSS], out[col.COMPATIBILITY_STATUS], strict=True):
        assert loss == (pytest.approx(loss_by_hand(folder, question, answer), rel=1e-5) if status == "ok" else None)
    assert out[col.CAR] == [None] * len(ROWS)
    alone = [Compatibility(folder, journal=False)(batch_of([row]))[col.BASE_LOSS][0] for row in ROWS]
    assert alone == out[col.BASE_LOSS]


def test_rewards_are_adjusted_row_by_row(tiny_model, tmp_path):
    rows = Dataset.from_dict(batch_of(ROWS[:3]) | {"reward": [2.0, -1.0, None], "response_status": ["ok"] * 3})
    scored = hf_evol.map(rows, Compatibility(tiny_model, beta=0.5, journal=tmp_path / "journal"))
    assert scored[col.CAR][:] == [2.0 / (1 + 0.5 * scored[col.BASE_LOSS][0]), None, None]
    assert scored[col.COMPATIBILITY_STATUS][:] == ["ok", "negative_reward", "ok"]
    assert None not in scored[col.BASE_LOSS][:]
    with unloadable("_load_model"):  # another reward needs no model
        rewards = {"reward": [3.0, float("nan")]}  # as pandas writes what is missing
        again = Compatibility(tiny_model, journal=tmp_path / "journal")(batch_of([ROWS[0]] * 2) | rewards)
    assert again[col.CAR] == [3.0 / (1 + again[col.BASE_LOSS][0]), None]
    assert again[col.COMPATIBILITY_STATUS] == ["ok", "ok"]
    failed = Compatibility(tiny_model, journal=False)(batch_of(ROWS[:1]) | {"response_status": ["cut_off"]})
    assert failed[col.COMPATIBILITY_STATUS] == ["not_answered"] and failed[col.BASE_LOSS] == [None]


def test_the_sets_figure_is_a_ratio_of_means():
    found = compatibility_adjusted_reward([4.0, None, 1.0, 1.0], [0.5, 9.0, 1.5, 1.0], beta=2)
    assert (
        found["car"] == pytest.approx(2.0 / (1 + 2 * 1.0)) and found["status"] == "ok"
    )  # not the mean of 2, 0.25 and 1/3
    assert (found["n"], found["nulls"], found["mean_reward"], found["mean_loss"]) == (3, 1, 2.0, 1.0)


def test_without_a_figure_the_status_says_why():
    negative = compatibility_adjusted_reward([-1.0, 0.5], [1.0, 2.0])
    assert (negative["car"], negative["ci95"], negative["status"]) == (None, None, "negative_reward")
    assert negative["mean_reward"] == -0.25 and negative["n"] == 2
    assert compatibility_adjusted_reward([None], [1.0])["status"] == "no_rows"
    assert (
        compatibility_adjusted_reward([float("nan"), 2.0], [1.0, 1.0])["car"] == 1.0
    )  # as pandas writes what is missing
    for beta in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="beta must be over 0"):
            compatibility_adjusted_reward([1.0], [1.0], beta=beta)


def test_the_interval_is_the_one_of_the_ratio_itself():
    random = np.random.default_rng(0)
    losses = random.gamma(4, 0.3, 200)
    rewards = 3 + 2 * losses + random.normal(size=200)  # what is rewarded is also less likely
    values = linearized(rewards, losses)
    car = rewards.mean() / (1 + losses.mean())
    assert np.mean(values) == pytest.approx(car)
    drawn = random.integers(200, size=(4000, 200))
    cars = rewards[drawn].mean(axis=1) / (1 + losses[drawn].mean(axis=1))
    low, high = compatibility_adjusted_reward(rewards, losses)["ci95"]
    expected = np.quantile(cars, (0.025, 0.975))
    assert [low, high] == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))


def test_the_model_must_be_causal(tmp_path):
    """A head that is missing would be loaded with random numbers."""
    folder = build_classifier(tmp_path / "reward")
    for transform in (Compatibility(folder), IcIfd(folder)):
        with unloadable("_load_model"), pytest.raises(ModelError, match="not causal: it is a LlamaForSequenceClassif"):
            transform.check()
    with pytest.raises(ConfigError, match="beta must be over 0; got 0"):
        Compatibility("no-such-model", beta=0)
