"""What each step of a run brought: its sets, what they are compared with, costs, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest
from datasets import load_dataset
from talkative import make_talkative

import hf_evol
from hf_evol.cli.main import main
from hf_evol.errors import ConfigError
from hf_evol.hub.record import read_provenance, write_provenance
from hf_evol.progress import counted_tokens
from hf_evol.run.pipeline import times_of
from hf_evol.run.recipe import Recipe
from hf_evol.study.by_step import _costs, compare_steps, recipe_of
from hf_evol.study.figures import draw_steps
from hf_evol.study.report import write_steps

STEPS = ["seeds", "self_instruct", "round_1", "round_2", "back_translate", "selected"]


@pytest.fixture(scope="module", autouse=True)
def _talkative_models(tmp_path_factory):
    pytest.importorskip("rapidfuzz")
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        patch.setenv("HF_EVOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory, wide_model):
    """The recipe of a run from scratch, what it recorded, and what is found of its steps."""
    folder = tmp_path_factory.mktemp("steps")
    recipe = Recipe(
        dataset="demo/general", limit=12, model=wide_model, self_instruct=14, rounds=2, back_translate=2, select=0.5,
        max_new_tokens=24, response_max_new_tokens=24, output=str(folder / "run"),
    )  # fmt: skip
    record = hf_evol.run(recipe).provenance
    report = replace(recipe, output=str(folder / "report"))
    return recipe, record, compare_steps(recipe.output, report, judge=wide_model, embedding=wide_model)


def test_every_step_is_measured(done):
    recipe, record, result = done
    results = json.loads(Path(result.output, "steps.json").read_text(encoding="utf-8"))
    found = {entry["step"]: entry for entry in results["steps"]}
    assert list(found) == STEPS and not result.failed
    assert (found["seeds"]["rows_in"], found["seeds"]["kept"]) == (12, 12)
    assert found["self_instruct"]["kept"] == 14
    assert found["self_instruct"]["rows_in"] == sum(record["self_instruct"]["counts"].values())
    for table in record["rounds"]:
        entry = found[f"round_{table['round']}"]
        assert (entry["rows_in"], entry["kept"]) == (table["rows_in"], table["in_set"])
    rows = [row for n in (1, 2) for row in load_dataset(recipe.output, f"round_{n}", split="train")]
    assert found["back_translate"]["kept"] == found["selected"]["rows_in"] == len(rows)
    for name in ("ic_ifd", "ifd"):
        scored = [row[name] for row in rows if row[name] is not None]
        assert found["back_translate"][name]["mean"] == pytest.approx(fmean(scored))
    assert [m["name"] for m in results["measures"]] == [
        "ic_ifd",
        "ifd",
        "difficulty_level",
        "difficulty_score",
        "n_words",
    ]
    table = pd.read_csv(f"{result.output}/steps.csv")
    assert list(table["step"]) == STEPS and table["ic_ifd.mean"][4] == pytest.approx(
        found["back_translate"]["ic_ifd"]["mean"]
    )
    page = Path(result.output, "report.html").read_text(encoding="utf-8")
    assert (
        "<svg" in page
        and "back translate" in page
        and "http" not in page.replace("http-equiv", "").replace("www.w3.org", "")
    )


def test_rows_are_compared_with_what_they_came_from(done):
    recipe, _, result = done
    found = {entry["step"]: entry for entry in result.provenance["results"]["steps"]}
    against = {name: found[name]["n_words"]["change"] and found[name]["n_words"]["change"]["before"] for name in STEPS}
    assert against == {
        "seeds": None, "self_instruct": "seeds", "round_1": "self_instruct", "round_2": "round_1",
        "back_translate": "round_1 and round_2", "selected": None,
    }  # fmt: skip
    rows = load_dataset(recipe.output, "round_1", split="train")
    grown = [
        len((row["parent_instruction"] if row["back_translate_status"] == "ok" else row["instruction"]).split())
        - len(row["seed_instruction"].split())
        for row in rows
    ]
    change = found["round_1"]["n_words"]["change"]
    assert (change["n"], change["difference"]) == (len(rows), pytest.approx(fmean(grown)))
    assert change["low"] <= change["difference"] <= change["high"]
    longer = found["back_translate"]["n_words"]["change"]
    assert longer["difference"] > 0 and longer["mean_a"] - longer["mean_b"] == pytest.approx(longer["difference"])


def test_nothing_is_made_twice_and_costs_come_from_the_run(done, tmp_path):
    recipe, record, result = done
    with counted_tokens() as new:
        compare_steps(recipe.output, replace(recipe, output=str(tmp_path / "again")), embedding=None)
    assert new == [0]
    found = {entry["step"]: entry for entry in result.provenance["results"]["steps"]}
    told = times_of(recipe, record["recipe"])
    assert sum(time["tokens"] for time in told) == sum(found[name]["tokens"] for name in STEPS)
    assert (
        found["seeds"]["tokens"] == found["back_translate"]["tokens"] == 0
        and found["self_instruct"]["tokens_per_row"] == found["self_instruct"]["tokens"] / 14
    )
    hf_evol.run(replace(recipe, output=str(tmp_path / "run")))  # which takes all from the journal
    assert times_of(recipe, record["recipe"]) == told


def test_tokens_of_earlier_runs_count_and_their_seconds_are_unknown():
    times = [
        {"label": "Evolve the first 32 rows", "seconds": 2.0, "tokens": 30, "reused": 0},
        {"label": "Evolve, round 1 of 2", "seconds": 3.0, "tokens": 50, "reused": 30},
        {"label": "Evolve, round 2 of 2", "seconds": 4.0, "tokens": 50, "reused": 10},
    ]
    assert _costs(times) == {"round_1": {"tokens": 80, "seconds": 5.0}, "round_2": {"tokens": 60, "seconds": None}}


def test_what_is_written_decides(done):
    recipe = done[0]
    own = recipe_of(recipe.output, Recipe(limit=3, output="x"), {"limit", "output"})
    assert (own.limit, own.output, own.rounds, own.dataset) == (3, "x", 2, "demo/general")
    from_file = Recipe(dataset="demo/general", rounds=5, output="x")
    assert recipe_of(recipe.output, from_file, {"dataset", "output"}) is from_file


def test_a_record_runs_no_code_and_sends_texts_nowhere(done, tmp_path):
    record = read_provenance(done[0].output)
    evil = {"name": "evil/model", "trust_remote_code": True, "base_url": "http://evil", "api_key_env": "HF_TOKEN"}
    evil |= {
        "revision": "main",
        "loading": {"attn_implementation": "evil/kernel", "load_in_4bit": True, "code_revision": "x"},
    }
    forged = {"trust_remote_code": True, "overwrite": True, "push_to": "evil/set", "responder": evil, "unheard_of": 1}
    Path(tmp_path, "README.md").write_text("", encoding="utf-8")

    def taken(settings, **given):
        write_provenance(record | {"recipe": record["recipe"] | settings}, tmp_path)
        return recipe_of(str(tmp_path), Recipe(**given), {*given})

    found = taken(forged, output="x")
    assert found.responder == {"name": "evil/model", "revision": "main", "loading": {"load_in_4bit": True}}
    assert not (found.trust_remote_code or found.overwrite or found.push_to)
    on_a_server = {"engine": "endpoint", "base_url": "http://evil", "responder": "m"}
    for forged, given in (
        (on_a_server, {"output": "x"}),
        (on_a_server, {"engine": "endpoint"}),
        ({"engine": "vllm"}, {"output": "x"}),
        ({"responder": evil | {"engine": "endpoint"}}, {"output": "x"}),
    ):
        with pytest.raises(ConfigError, match="--engine endpoint with --base-url"):
            taken(forged, **given)
    here = "http://localhost:8000/v1"
    assert taken(on_a_server, engine="endpoint", base_url=here).base_url == here


def test_another_scorer_scores_all_anew_and_another_responder_is_refused(done, tmp_path, bos_model):
    recipe, _, result = done
    other = replace(recipe, scorer=bos_model, output=str(tmp_path / "other"))
    mine, its = (
        {step["step"]: step["ic_ifd"] for step in of.provenance["results"]["steps"]}
        for of in (compare_steps(recipe.output, other, embedding=None), result)
    )
    assert all(mine[name]["n"] and mine[name]["mean"] != its[name]["mean"] for name in STEPS)
    for change in ({"responder": bos_model}, {"response_temperature": 0.5}):
        with pytest.raises(ConfigError, match="Give the run's own responder"):
            compare_steps(recipe.output, replace(recipe, output=str(tmp_path / "x"), **change))


def test_a_measure_without_pairs_is_not_told_as_resting_on_no_rows(done, tmp_path):
    results = json.loads(Path(done[2].output, "steps.json").read_text(encoding="utf-8"))
    results["steps"][2]["ic_ifd"]["change"]["n"] = 0
    write_steps(results, draw_steps(results, tmp_path), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Some changes rest on" in page and "rest on 0 rows" not in page


def test_what_is_no_run_is_refused(done, tmp_path, capsys, wide_model):
    recipe, _, result = done
    with pytest.raises(ConfigError, match=r"holds what another command has made \(report\)"):
        compare_steps(result.output, replace(recipe, output=str(tmp_path / "x")))
    options = ["study", "--steps", recipe.output, "--output", str(tmp_path / "x")]
    assert main([*options, "--rounds", "3", "--positions", "5", "--push-to", "me/set"]) == 2
    assert "leave out --positions, --rounds, --push-to" in " ".join(capsys.readouterr().err.split())
    assert main(["study", "--steps", str(tmp_path), "--output", "x"]) == 1
    assert "holds no finished set" in capsys.readouterr().err
    models = ["--responder", wide_model, "--scorer", wide_model, "--embedding", "none"]
    assert main([*options, *models]) == 0 and "steps.csv" in capsys.readouterr().out
