import pytest

from hf_evol.study.measures import RESPONDER
from hf_evol.study.results import analyse
from hf_evol.study.statistics import NO_DIFFERENCE


def rows_of(label, levels, number=1, **more):
    return [
        {"label": label, "id": f"s-{i}", "round": number, "status": "ok" if level else "empty", "usable": float(bool(level)),
         "difficulty_level": level, **{name: values[i] for name, values in more.items()}}
        for i, level in enumerate(levels)
    ]  # fmt: skip


def found(results, measure, number=1):
    return next(c for c in results["comparisons"] if (c["measure"], c["round"]) == (measure, number))


def test_rows_are_paired_by_id_and_nulls_counted():
    a = rows_of("a", ["hard", "hard", "medium", None])
    b = rows_of("b", ["easy", None, "very easy", "hard"])
    results = analyse(a + b[::-1], None, ["a", "b"], 1, seed=0)
    entry = found(results, "difficulty_level")
    assert (entry["mean_a"], entry["mean_b"], entry["difference"]) == (2.5, 0.5, 2.0)
    assert (entry["n"], entry["n_unpaired"]) == (2, 2)
    usable = found(results, "usable")
    assert (usable["mean_a"], usable["mean_b"], usable["n"], usable["n_unpaired"]) == (0.75, 0.75, 4, 0)
    assert results["yields"][0] == {
        "evolver": "a",
        "round": 1,
        "rows_in": 4,
        "ok": 3,
        "dropped": {"empty": 1},
        "unanswered": {},
    }
    assert results["levels"][0]["counts"]["hard"] == 2 and results["levels"][0]["unreadable"] == 0
    summary = next(s for s in results["summaries"] if (s["measure"], s["evolver"]) == ("difficulty_level", "b"))
    assert (summary["n"], summary["nulls"], summary["mean"]) == (3, 1, (1 + 0 + 3) / 3)


def test_the_key_names_of_a_comparison():
    results = analyse(rows_of("a", ["hard"]) + rows_of("b", ["easy"]), None, ["a", "b"], 1, seed=0)
    keys = {"measure", "round", "a", "b", "mean_a", "mean_b", "difference", "low", "high", "p_value", "n"}
    assert keys <= set(results["comparisons"][0])
    assert found(results, "difficulty_level")["low"] is None and found(results, "difficulty_level")["p_value"] == 1


def test_a_clear_difference_is_stated_and_adjusted():
    n = 60
    a = rows_of("a", ["hard"] * n, ic_ifd=[i / n for i in range(n)])
    b = rows_of("b", ["easy", "medium"] * (n // 2), ic_ifd=[i / n for i in reversed(range(n))])
    results = analyse(a + b, None, ["a", "b"], 1, seed=0)
    entry = found(results, "difficulty_level")
    assert entry["verdict"].startswith("On difficulty level, a is harder than b, by 1.5")
    assert entry["adjusted_p"] >= entry["p_value"]
    assert found(results, "ic_ifd")["verdict"] == NO_DIFFERENCE


def test_identical_evolvers_differ_in_nothing():
    levels = ["hard", "easy", "medium", "very hard"] * 5
    results = analyse(rows_of("a", levels) + rows_of("b", levels), None, ["a", "b"], 1, seed=0)
    assert all(entry["low"] == entry["high"] == 0 for entry in results["comparisons"])
    assert {entry["verdict"] for entry in results["comparisons"]} == {NO_DIFFERENCE}


def test_three_evolvers_make_three_pairs_and_one_family():
    rows = [row for label in "abc" for row in rows_of(label, ["hard", "easy", "medium"])]
    results = analyse(rows, None, ["a", "b", "c"], 1, seed=0)
    pairs = [(entry["a"], entry["b"]) for entry in results["comparisons"] if entry["measure"] == "usable"]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


def test_preferences_count_ties_as_neither():
    verdicts = ["win", "win", "lose", "tie", None, None]
    statuses = ["ok", "ok", "ok", "disagreement", "unreadable", "engine_error: no"]
    judged = [
        {
            "a": "a",
            "b": "b",
            "round": 1,
            "id": f"s-{i}",
            "verdict": v,
            "judge_status": status,
        }
        for i, (v, status) in enumerate(zip(verdicts, statuses, strict=True))
    ]
    results = analyse(rows_of("a", ["hard"] * 6) + rows_of("b", ["hard"] * 6), judged, ["a", "b"], 1, seed=0)
    entry = found(results, "preferred")
    assert (entry["mean_a"], entry["mean_b"], entry["n"], entry["n_unpaired"]) == (0.5, 0.25, 4, 2)
    assert results["judgements"] == [
        {"a": "a", "b": "b", "round": 1, "win": 2, "tie": 1, "lose": 1, "disagreement": 1, "unreadable": 1, "failed": 1}
    ]


def test_a_failed_request_is_no_reply_that_could_not_be_read():
    rows = rows_of("a", [None, None, "hard"])
    for row, status in zip(rows, ("engine_error: no", "unreadable", "ok"), strict=True):
        row |= {"status": "ok", "difficulty_status": status}
    (levels,) = analyse(rows, None, ["a"], 1, seed=0)["levels"]
    assert (levels["counts"]["hard"], levels["unreadable"], levels["failed"]) == (1, 1, 1)


def test_nothing_usable_is_no_error():
    results = analyse(rows_of("a", [None, None]) + rows_of("b", [None, None]), None, ["a", "b"], 1, seed=0)
    assert found(results, "difficulty_level")["n"] == 0 and found(results, "difficulty_level")["verdict"] is None
    assert [entry["ok"] for entry in results["yields"]] == [0, 0]


def test_a_pair_that_nobody_could_judge_is_unpaired():
    """Of five seeds, a failed at one, so that four are judged, one of them in vain."""
    judged = [{"a": "a", "b": "b", "round": 1, "id": f"s-{i}", "verdict": v, "judge_status": "ok"}
              for i, v in enumerate(["win", "lose", "win", None])]  # fmt: skip
    rows = rows_of("a", ["hard"] * 4 + [None]) + rows_of("b", ["hard"] * 5)
    entry = found(analyse(rows, judged, ["a", "b"], 1, seed=0), "preferred")
    assert (entry["n"], entry["n_unpaired"]) == (3, 2)


def test_seeds_that_could_not_be_rated_have_no_levels():
    seed = {"label": "seeds", "id": "s-0", "round": 0, "status": "ok"}
    results = analyse([seed, *rows_of("a", ["hard"]), *rows_of("b", ["easy"])], None, ["a", "b"], 1, seed=0)
    (levels,) = (entry for entry in results["levels"] if entry["evolver"] == "seeds")
    assert set(levels["counts"].values()) == {0} and levels["unreadable"] == 0


def test_the_adjusted_reward_is_that_of_the_rows_that_are_paired():
    """Row by row b is rewarded as a is, and half as likely under the base."""
    n = 40
    rewards, losses = [1 + i % 3 for i in range(n)], [0.5 + i % 5 / 10 for i in range(n)]
    a = rows_of("a", ["hard"] * n, 0, reward=rewards, base_loss=losses, car=losses)
    b = rows_of("b", ["hard"] * n, 0, reward=[*rewards[1:], None], base_loss=[2 * x for x in losses], car=losses)
    results = analyse(a + b, None, ["a", "b"], 0, seed=0, role=RESPONDER, beta=2.0)
    entry = found(results, "car", 0)
    car_a = sum(rewards[:-1]) / (n - 1 + 2 * sum(losses[:-1]))
    car_b = sum(rewards[1:]) / (n - 1 + 2 * sum(2 * x for x in losses[:-1]))
    assert (entry["mean_a"], entry["mean_b"]) == (pytest.approx(car_a), pytest.approx(car_b))
    assert (entry["n"], entry["n_unpaired"]) == (n - 1, 1) and "a is better for the base than b" in entry["verdict"]
    assert found(results, "reward", 0)["verdict"] == NO_DIFFERENCE
    b = rows_of("b", ["hard"] * n, 0, reward=[-1.0] * n, base_loss=losses, car=losses)
    entry = found(analyse(a + b, None, ["a", "b"], 0, seed=0, role=RESPONDER), "car", 0)
    assert (entry["n"], entry["verdict"]) == (0, None)
