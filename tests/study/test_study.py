import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import ChatServer
from datasets import get_dataset_config_names, load_dataset
from hub_server import HubServer
from talkative import make_talkative
from tiny_models import build_classifier, plain_model

from hf_evol import columns as col
from hf_evol.cli.main import main
from hf_evol.errors import ConfigError, ModelError
from hf_evol.models import loading
from hf_evol.run.recipe import Recipe
from hf_evol.study.study import Study, run
from hf_evol.study.work import Work


@pytest.fixture(scope="module", autouse=True)
def _talkative_models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        patch.setenv(
            "HF_EVOL_CACHE", str(tmp_path_factory.mktemp("cache"))
        )  # what one test has generated, the next need not
        yield


@pytest.fixture(scope="module")
def settings(wide_model):
    return Recipe(
        dataset="demo/gsm8k", methods="gsm8k", limit=4, rounds=2, responder=wide_model, scorer=wide_model, max_new_tokens=24,
        response_max_new_tokens=24,
    )  # fmt: skip


@pytest.fixture
def recipe(settings, tmp_path):
    return replace(settings, output=str(tmp_path / "study"))


@pytest.fixture(scope="module")
def evolvers(wide_model):
    return {"whole": wide_model, "half": {"name": wide_model, "dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def study(evolvers, wide_model):
    return Study(evolvers, judge=wide_model, embedding=wide_model)


@pytest.fixture(scope="module")
def first(study, settings, tmp_path_factory):
    """The recipe of a finished study."""
    recipe = replace(settings, output=str(tmp_path_factory.mktemp("first") / "study"))
    run(study, recipe)
    return recipe


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take seconds, and are looked at elsewhere."""
    monkeypatch.setattr(sys.modules[Study.__module__], "draw", lambda results, rows, folder: [])


def watched(monkeypatch):
    """The models that are loaded from now on."""
    loaded, load = [], loading._load_model

    def noted(spec, *more):
        loaded.append(spec.name)
        return load(spec, *more)

    monkeypatch.setattr(loading, "_load_model", noted)
    return loaded


def results_of(recipe):
    return json.loads(open(recipe.output + "/results.json", encoding="utf-8").read())  # noqa: PTH123


def test_everything_is_there_and_accounted_for(first, wide_model):
    recipe, results = first, results_of(first)
    rows = load_dataset(recipe.output, split="train")
    assert get_dataset_config_names(recipe.output)[0] == "rows"
    assert len(rows) == 2 * 2 * 4
    sets = {name: load_dataset(recipe.output, name, split="train") for name in ("set_whole", "set_half")}
    for label in ("whole", "half"):
        usable = [row["instruction"] for row in rows if (row["label"], row["status"]) == (label, col.OK)]
        assert sets[f"set_{label}"]["instruction"][:] == usable and all(sets[f"set_{label}"]["output"])
    for entry in results["yields"]:
        assert entry["rows_in"] == 4 == entry["ok"] + sum(entry["dropped"].values())
    measures = {entry["measure"] for entry in results["measures"]}
    assert measures >= {
        "usable",
        "difficulty_level",
        "difficulty_score",
        "preferred",
        "mnd",
        "top1_mean",
        "ifd",
        "ic_ifd",
        "n_words",
    }
    assert len(results["comparisons"]) == 2 * len(measures)
    parameters = plain_model(wide_model).num_parameters()
    for cost in results["costs"]:
        assert cost["flops"] == 2 * parameters * (cost["prompt_tokens"] + cost["tokens"]) and cost["seconds"] > 0
    for role in ("responder", "scorer", "judge", "embedding"):
        assert any(f"The {role} is the model of the evolver" in sentence for sentence in results["verdict"])
    folder = recipe.output
    for name in ("report.html", "README.md", "provenance.json", "figures"):
        assert (Path(folder) / name).exists()
    assert main(["card", folder, "--diff"]) == 0


@pytest.mark.usefixtures("undrawn")
def test_a_judge_and_a_reward_model(evolvers, recipe, tmp_path):
    def choice(body):
        prompt = body["messages"][-1]["content"]
        words = len(prompt.split())
        if "\n\nResponse 1: " in prompt:
            first, second = prompt.split("\n\nResponse 1: ")[1].split("\n\nResponse 2: ")
            text = (
                "better than" if len(first) > len(second) else "worse than" if len(first) < len(second) else "equal to"
            )
        else:
            text = (
                "**Hard**." if "five levels" in body["messages"][0]["content"] else f"Score: {min(100, words // 2)}/100"
            )
        return {"message": {"role": "assistant", "content": text}}

    with ChatServer() as server:
        server.choice = choice
        judge = {"engine": "endpoint", "name": "wise", "base_url": server.url}
        run(Study(evolvers, judge, build_classifier(tmp_path / "reward", context=4096), None), recipe)
    results, rows = results_of(recipe), load_dataset(recipe.output, split="train").to_list()
    usable = {(row["label"], row["round"], row["id"]): row for row in rows if row["status"] == col.OK}
    for number in (1, 2):
        pairs = [
            (usable["whole", number, i], usable["half", number, i])
            for _, n, i in usable
            if n == number and _ == "whole"
        ]
        lengths = [(len(a["instruction"]), len(b["instruction"])) for a, b in pairs]
        judged = next(entry for entry in results["judgements"] if entry["round"] == number)
        assert (judged["win"], judged["tie"], judged["lose"]) == tuple(
            sum(test(a, b) for a, b in lengths) for test in (int.__gt__, int.__eq__, int.__lt__)
        )
        levels = [entry for entry in results["levels"] if entry["round"] == number]
        asked = {label: sum((of, n) == (label, number) for of, n, _ in usable) for label in ("whole", "half")}
        assert all(
            entry["counts"]["hard"] == asked.get(entry["evolver"], 4) and entry["unreadable"] == 0 for entry in levels
        )
    for measure in ("reward", "reward_evolution", "difficulty_score"):
        summary = [s for s in results["summaries"] if s["measure"] == measure and s["round"] == 2]
        assert [s["nulls"] for s in summary] == [0, 0] and all(s["mean"] is not None for s in summary)
    assert {model["role"] for model in results["models"]} == {"responder", "scorer", "judge", "reward"}


@pytest.mark.usefixtures("undrawn")
def test_failed_rows_have_a_reason_and_no_measure(study, recipe, tiny_model, wide_model):
    run(replace(study, evolvers={"whole": wide_model, "random": tiny_model}), recipe)
    rows = load_dataset(recipe.output, split="train").to_list()
    failed = [row for row in rows if row["status"] != col.OK]
    assert {row["status"] for row in failed if row["label"] == "random"} == {"too_long"}
    assert all(row[name] is None for row in failed for name in ("ic_ifd", "difficulty_score", "mnd", "n_words"))


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_generates_nothing_and_gives_the_same(first, study, recipe, monkeypatch):
    loaded, first = watched(monkeypatch), results_of(first)
    run(replace(study, embedding=None), recipe)  # embeddings are not in the journal
    second = results_of(recipe)
    assert loaded == []
    for name in ("yields", "levels", "judgements"):
        assert first[name] == second[name]
    assert [cost | {"seconds": None} for cost in first["costs"]] == second["costs"]  # known where all is new
    kept = [entry for entry in first["comparisons"] if entry["measure"] != "mnd"]
    assert [{**entry, "adjusted_p": 0, "verdict": 0} for entry in kept] == [
        {**entry, "adjusted_p": 0, "verdict": 0} for entry in second["comparisons"]
    ]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.usefixtures("first")
def test_a_third_evolver_reuses_what_is_done(study, recipe, monkeypatch, wide_model):
    loaded = watched(monkeypatch)
    three = replace(study, evolvers={**study.evolvers, "twin": {"name": wide_model}}, embedding=None)  # the same again
    run(three, recipe)
    results = results_of(recipe)
    twins = [entry for entry in results["comparisons"] if {entry["a"], entry["b"]} == {"whole", "twin"}]
    assert all(entry["low"] <= 0 <= entry["high"] for entry in twins if entry["n"] > 1)
    assert loaded == [wide_model]  # the judge, for pairs of equal texts; the twin's texts are those of the first


@pytest.mark.usefixtures("undrawn")
def test_a_measure_that_fails_leaves_the_others(study, recipe, monkeypatch):
    def broken(self, rows):
        raise ModelError("The judge burned down.")

    monkeypatch.setattr(Work, "_confidence", broken)
    run(study, recipe)
    results = results_of(recipe)
    assert results["failures"] == [{"stage": "top-1 probability", "error": "The judge burned down."}]
    measures = {entry["measure"] for entry in results["measures"]}
    assert "ic_ifd" in measures and "top1_mean" not in measures


@pytest.mark.usefixtures("undrawn")
def test_only_one_row(study, recipe):
    run(study, replace(recipe, limit=1, rounds=1))
    assert all(entry["low"] is None for entry in results_of(recipe)["comparisons"])


def test_all_rows_failed(recipe, tiny_model, wide_model):
    run(
        Study({"a": tiny_model, "b": tiny_model}, judge=wide_model, embedding=wide_model),
        replace(recipe, max_new_tokens=1),
    )
    assert [entry["ok"] for entry in results_of(recipe)["yields"]] == [0] * 4


@pytest.mark.usefixtures("undrawn")
def test_the_default_embedding_model_may_be_missing_a_named_one_may_not(study, recipe, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    default = Study(study.evolvers)
    run(default, recipe)
    (failure,) = results_of(recipe)["failures"]
    assert failure["stage"] == "diversity"
    with pytest.raises(ModelError):
        run(replace(study, embedding="user/none"), replace(recipe, overwrite=True))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"evolvers": {"a": "user/model"}}, "two or more"),
        ({"evolvers": {"a": "user/model", "Seeds": "user/model"}}, "label must be"),
        ({"evolvers": {"a": "user/model", "A": "user/model"}}, "more than case"),
        ({"evolvers": {"a": "user/model", "../x": "user/model"}}, "label must be"),
        ({"evolvers": {"a": "user/model", "größe": "user/model"}}, "A-Z a-z"),
        ({"evolvers": {"a": "user/model", "x" * 31: "user/model"}}, "1 to 30"),
        ({"positions": 0}, "positions"),
    ],
)
def test_wrong_settings(study, wrong, message):
    with pytest.raises(ConfigError, match=message):
        replace(study, **wrong)


def test_no_responder(study, recipe):
    with pytest.raises(ConfigError, match="--responder"):
        run(study, replace(recipe, responder=None))


@pytest.mark.usefixtures("undrawn")
def test_on_the_command_line(recipe, tiny_model, wide_model, capsys):
    options = "--dataset demo/gsm8k --methods gsm8k --limit 4 --rounds 1 --embedding none --max-new-tokens 24".split()
    options += ["--response-max-new-tokens", "24", "--responder", wide_model, "--output", recipe.output]
    assert main(["study", "--evolver", f"a={wide_model}", "--evolver", f"b={tiny_model}", *options]) == 0
    shown = capsys.readouterr().out
    assert "report.html" in shown and "usable rows" in shown
    assert main(["study", "--evolver", f"a={wide_model}", *options, "--overwrite"]) == 2
    assert main(["study", "--evolver", wide_model, *options]) == 2
    assert main(["study", "--evolver", f"a={wide_model}", "--evolver", f"a={wide_model}", *options]) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_study_on_the_hub(evolvers, recipe, monkeypatch, tmp_path):
    study = Study(evolvers, embedding=None)
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "hub-cache")
        result = run(study, replace(recipe, limit=4, rounds=1, push_to="user/study"))
        repo = hub.repos["dataset", "user/study"]
        assert len(repo.commits) == 2 and result.url.endswith("user/study")
        assert {"report.html", "results.json", "README.md", "provenance.json"} <= set(repo.files)
        assert (
            load_dataset("user/study", split="train").to_list() == load_dataset(recipe.output, split="train").to_list()
        )
        assert len(load_dataset("user/study", "comparisons", split="train")) == len(results_of(recipe)["comparisons"])


@pytest.mark.usefixtures("undrawn")
def test_seeds_without_text_are_counted(study, recipe, tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    texts = ["Name a river.", None, "", "   ", "Write a poem."]
    seeds.write_text("".join(json.dumps({"instruction": text, "output": "x"}) + "\n" for text in texts))
    recipe = replace(recipe, dataset=str(seeds), methods="alpaca", rounds=1, limit=None, tries=1)
    run(study, recipe)
    results = results_of(recipe)
    of_seeds = {entry["measure"]: entry for entry in results["summaries"] if entry["evolver"] == "seeds"}
    assert {(name, entry["n"] + entry["nulls"]) for name, entry in of_seeds.items()} == {
        (name, 5) for name in ("difficulty_level", "difficulty_score", "mnd", "n_words")
    }
    assert (of_seeds["n_words"]["n"], of_seeds["n_words"]["mean"]) == (2, 3)
    (levels,) = (entry for entry in results["levels"] if entry["evolver"] == "seeds")
    assert sum(levels["counts"].values()) + levels["unreadable"] == 2
    (spread,) = (entry for entry in results["diversity"] if entry["evolver"] == "seeds")
    assert (spread["n"], spread["left_out"]) == (2, {"invalid_input": 3})


@pytest.mark.usefixtures("undrawn")
def test_a_response_that_is_cut_off_counts_against_the_responder_alone(evolvers, recipe):
    run(Study(evolvers, embedding=None), replace(recipe, rounds=1, response_max_new_tokens=1))
    results, rows = results_of(recipe), load_dataset(recipe.output, split="train").to_list()
    fine = [row for row in rows if row["status"] == "ok"]
    assert fine and {row["response_status"] for row in fine} == {"cut_off"}
    assert all(row["usable"] == 1 and row["n_words"] and row["top1_mean"] and row["ic_ifd"] is None for row in fine)
    for entry in results["yields"]:
        assert entry["unanswered"] == {"cut_off": entry["ok"]} and entry["ok"]
    assert "set_whole" not in get_dataset_config_names(recipe.output)


@pytest.mark.usefixtures("undrawn")
def test_a_server_that_was_down_is_noted_and_asked_again(recipe, wide_model):
    def evolving(body):
        text = f"On a rainy Monday in Oslo, with 97 guests watching: {body['messages'][-1]['content']}"
        return {"message": {"role": "assistant", "content": text}}

    recipe = replace(recipe, rounds=1)
    with ChatServer() as server:
        server.choice = evolving
        far = {"engine": "endpoint", "name": "far", "base_url": server.url, "max_concurrency": 1}
        study = Study({"whole": wide_model, "far": far}, embedding=None)
        server.fault = lambda prompt, attempt: 400 if len(server.attempts) > 2 else None
        run(study, recipe)
        first, answered = results_of(recipe), len(server.requests)
        server.fault = lambda prompt, attempt: None
        run(study, replace(recipe, overwrite=True))
        second = results_of(recipe)
        asked = len(server.requests) - answered
    (lost,) = (entry for entry in first["yields"] if entry["evolver"] == "far")
    failed = lost["dropped"]["engine_error"]
    usable = next(entry for entry in first["comparisons"] if entry["measure"] == "usable")
    assert failed and usable["n_unpaired"] == failed  # not worse: unknown
    assert first["failures"][0]["stage"] == f"{failed} of 4 rows of far in round 1"
    assert "engine_error" not in second["yields"][1]["dropped"] and second["failures"] == []
    assert (lost["ok"], second["yields"][1]["ok"]) == (4 - failed, 4)
    assert asked >= failed


def test_a_study_of_which_all_requests_failed_says_why_and_exits_with_1(recipe, wide_model, capsys):
    with ChatServer() as server:
        server.fault = lambda prompt, attempt: 400 if prompt != "Hello" else None
        far = f"{{engine: endpoint, name: far, base_url: '{server.url}'}}"
        options = ["--dataset", recipe.dataset, "--limit", "2", "--scorer", wide_model, "--responder", wide_model]
        options += ["--evolver", f"a={far}", "--evolver", f"b={far}", "--rounds", "1", "--embedding", "none"]
        options += ["--output", recipe.output]
        assert main(["study", *options]) == 1
    assert "Requests failed for 4 rows. Most often: engine_error: HTTP 400" in capsys.readouterr().out


def test_what_an_evolver_says_twice_counts_once():
    """As in the set of a run; what another evolver says is its own."""
    from datasets import Dataset

    from hf_evol.run.steps import Round, part
    from hf_evol.study.results import LABEL, STATUS
    from hf_evol.study.rows import decided

    texts = ["Name two rivers of Asia.", "Why?", "Name the two rivers of Asia!", "Name two rivers of Asia."]
    rows = Dataset.from_dict(
        {
            LABEL: ["small", "small", "small", "large"], col.ROUND: [1, 1, 2, 1], col.INSTRUCTION: texts, col.INPUT: [""] * 4,
            col.OUTPUT: ["So."] * 4, col.RESPONSE_STATUS: ["ok"] * 4,
        }
    )  # fmt: skip
    kept, failed = part(rows, ["kept"] * 4)
    found = decided(Round(kept, failed, failed))
    assert found[STATUS][:] == ["ok", "ok", "duplicate", "ok"]
    assert found[col.RESPONSE_STATUS][:] == ["ok", "ok", None, "ok"] and found["usable"][:] == [1, 1, 0, 1]
    kept, failed = part(rows, ["kept", "near_copy", "kept", "engine_error"])
    kept, unanswered = part(kept, ["response_cut_off", "kept"])
    found = decided(Round(kept, failed.remove_columns(col.OUTPUT), unanswered))
    assert found[STATUS][:] == ["ok", "near_copy", "engine_error", "ok"] and found[col.OUTPUT][:] == [
        "So.",
        None,
        None,
        "So.",
    ]
    assert found[col.RESPONSE_STATUS][:] == ["ok", None, None, "cut_off"] and found["usable"][:] == [1, 0, None, 1]
