"""A study of responders: every one answers the same rows, and is compared for one base."""

import json
import re
from pathlib import Path
from statistics import mean

import pytest
import torch
from chat_server import ChatServer
from datasets import load_dataset
from talkative import make_talkative
from tiny_models import build_classifier, build_llama, build_tokenizer, loss_by_hand
from transformers import AutoModelForSequenceClassification

import hf_evol
from hf_evol.cli.main import main
from hf_evol.errors import ConfigError
from hf_evol.models import loading
from hf_evol.run.recipe import Recipe
from hf_evol.study.study import Study, run
from hf_evol.study.work import Work

TEXTS = [
    "Write a short poem about the sea.",
    "List three facts.",
    "Explain why rivers flow.",
    "How many apples are left?",
    "Why?",
]


@pytest.fixture(scope="module", autouse=True)
def _talkative_models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        patch.setenv("HF_EVOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two responders, a base, and reward models: with rewards around 1, around -1, and with two outputs."""
    found = {}
    for name, seed in (("one", 0), ("two", 5), ("tiny", 3)):
        found[name] = folder = str(tmp_path_factory.mktemp("models") / name)
        build_llama(seed=seed, context=4096).save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
    for name, sign in (("positive", 1), ("negative", -1)):
        found[name] = build_classifier(tmp_path_factory.mktemp("rewards") / name, context=4096)
        model = AutoModelForSequenceClassification.from_pretrained(found[name])
        with torch.no_grad():  # that of the token that ends the chat, and a little of all else
            model.model.embed_tokens.weight[3] = 1
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight *= 0.05
                layer.mlp.down_proj.weight *= 0.05
            model.score.weight.fill_(sign / 32)
        model.save_pretrained(found[name])
    found["labels"] = build_classifier(tmp_path_factory.mktemp("rewards") / "labels", labels=2)
    return found


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    file = tmp_path_factory.mktemp("seeds") / "asked.jsonl"
    rows = [{"instruction": text, "input": "", "output": "Of another model."} for text in [*TEXTS, "   ", *TEXTS[:1]]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def options(folders, seeds, tmp_path):
    """Of the command line, for a study of both responders."""
    pairs = {"responder": [f"{name}={folders[name]}" for name in ("one", "two")], "base": [folders["tiny"]]}
    pairs |= {"reward": [folders["positive"]], "dataset": [seeds], "response-max-new-tokens": ["24"]}
    pairs |= {"output": [str(tmp_path / "study")]}

    def made(**changes):
        changed = pairs | {name.replace("_", "-"): value for name, value in changes.items()}
        given = [part for name, values in changed.items() for value in values for part in (f"--{name}", value)]
        return ["study", "--overwrite", *given]

    return made


def results_of(folder):
    return json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))


def test_on_the_command_line(options, folders, seeds, tmp_path, capsys):
    folder = tmp_path / "study"
    assert main(options(judge=[folders["one"]], scorer=[folders["tiny"]])) == 0
    shown = capsys.readouterr().out
    assert "compatibility-adjusted reward" in shown and "round" not in shown and "set_one" in shown
    results, rows = results_of(folder), load_dataset(str(folder), split="train").to_list()
    asked = [*TEXTS, "   ", TEXTS[0]]
    assert [row["label"] for row in rows] == ["one"] * 7 + ["two"] * 7
    assert [row["instruction"] for row in rows] == asked * 2
    assert {row["status"] for row in rows if not row["instruction"].strip()} == {"invalid_input"}
    alone = hf_evol.map(hf_evol.load_seeds(seeds), hf_evol.Respond(folders["two"], max_new_tokens=24))
    assert [row["output"] for row in rows[7:]] == alone["output"][:]

    usable = [row for row in rows if row["status"] == "ok"]
    assert len(usable) > 8
    for row in usable:
        assert row["base_loss"] == pytest.approx(
            loss_by_hand(folders["tiny"], row["instruction"], row["output"]), rel=1e-5
        )
        assert row["car"] == pytest.approx(row["reward"] / (1 + row["base_loss"]))
        assert row["n_words"] == len(row["output"].split()) and row["ic_ifd"]
    for label in ("one", "two"):
        own = [row for row in usable if row["label"] == label]
        found = load_dataset(str(folder), f"set_{label}", split="train")
        assert found["output"][:] == [row["output"] for row in own] and set(found["responder"]) == {label}
        summary = next(s for s in results["summaries"] if (s["measure"], s["responder"]) == ("car", label))
        car = mean(row["reward"] for row in own) / (1 + mean(row["base_loss"] for row in own))
        assert summary["mean"] == pytest.approx(car) and summary["ci95"][0] <= car <= summary["ci95"][1]
        cost = next(cost for cost in results["costs"] if cost["responder"] == label)
        assert cost["tokens"] > 0 and cost["prompt_tokens"] > 0 and cost["seconds"] > 0
    assert [m["measure"] for m in results["measures"]] == [
        "usable", "car", "preferred", "reward", "base_loss", "ifd", "ic_ifd", "n_words"
    ]  # fmt: skip
    assert (results["role"], results["rounds"], results["n_seeds"], results["failures"]) == ("responder", 0, 7, [])
    assert results["verdict"][0].startswith("For tiny, ")
    assert [model["role"] for model in results["models"]] == ["scorer", "judge", "reward", "base"]
    assert sum(results["judgements"][0][name] for name in ("win", "tie", "lose", "unreadable")) > 3
    recipe = json.loads((folder / "provenance.json").read_text())["recipe"]
    assert {"responders", "base", "beta"} <= set(recipe) and not {"methods", "rounds", "temperature"} & set(recipe)
    assert main(["card", str(folder), "--diff"]) == 0
    for page in ("README.md", "report.html"):
        text = (folder / page).read_text(encoding="utf-8")
        text = re.sub(r"(?s)<script.*?</script>|<style>.*?</style>|<svg.*?</svg>", "", text)
        assert "Responder" in text or "responder" in text
        text = re.sub("(?s)<label hidden>.*?</label>|Better Instruction Evolvers", "", text)
        assert not re.search(r"[Ee]volver|[Rr]ounds?\b|rewrit|None", text)


def test_what_is_done_is_not_done_again(options, folders, monkeypatch, tmp_path):
    def interrupted(self, rows):
        raise KeyboardInterrupt

    monkeypatch.setenv("HF_EVOL_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(Work, "_compatibility", interrupted)
        assert main(options()) == 130
    loaded, load = [], loading._load_model
    monkeypatch.setattr(loading, "_load_model", lambda spec, *more: loaded.append(spec.name) or load(spec, *more))
    assert main(options()) == 0
    assert loaded == [folders["tiny"]]


def test_negative_rewards_give_no_figure(options, folders, tmp_path):
    assert main(options(reward=[folders["negative"]])) == 0
    results = results_of(tmp_path / "study")
    (failure,) = results["failures"]
    assert failure["stage"] == "compatibility-adjusted reward" and "The mean reward of one is -" in failure["error"]
    measures = [measure["measure"] for measure in results["measures"]]
    assert "car" not in measures and {"reward", "base_loss"} <= set(measures)
    assert "compatibility" not in results["verdict"][0]


def test_requests_that_failed_say_nothing_about_the_responder(options, folders, tmp_path):
    with ChatServer() as server:
        server.fault = lambda prompt, attempt: 400 if "rivers" in prompt else None
        far = f"far={{engine: endpoint, name: far, base_url: '{server.url}'}}"
        assert main(options(responder=[f"one={folders['one']}", far])) == 1
        results = results_of(tmp_path / "study")
        server.fault = lambda prompt, attempt: 400 if prompt != "Hello" else None
        down = far.replace("name: far", "name: other")
        assert main(options(responder=[f"one={folders['one']}", down])) == 1
    (failure,) = results["failures"]
    assert failure["stage"] == "1 of 7 rows of far"
    usable = next(entry for entry in results["comparisons"] if entry["measure"] == "usable")
    assert (usable["n"], usable["n_unpaired"]) == (5, 2)  # the other one has nothing to answer
    assert results["yields"][1]["dropped"]["engine_error"] == 1 and results["costs"][1]["tokens"] > 0
    results = results_of(tmp_path / "study")
    assert results["yields"][1]["ok"] == 0 and results["verdict"][0].endswith("they have no rows in common.")


WRONG = {
    "one responder": ({"responder": ["one={one}"]}, "two or more responders; got 1"),
    "no base": ({"base": []}, "name it with --base"),
    "a base that is not causal": ({"base": ["{positive}"]}, "not causal"),
    "two kinds": ({"evolver": ["a={one}", "b={two}"]}, "one --responder MODEL"),
    "two outputs": ({"reward": ["{labels}"]}, "2 outputs"),
    "evolving": ({"methods": ["alpaca"]}, "leave out --methods"),
    "no label": ({"responder": ["{one}", "{two}"]}, "is not LABEL=MODEL"),
    "an embedding": ({"embedding": ["user/model"]}, "embedding is of studies of evolvers"),
    "a base of evolvers": (
        {"evolver": ["a={one}", "b={two}"], "responder": ["{one}"]},
        "base is of studies of responders",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_come_before_a_model_is_loaded(case, options, folders, capsys, monkeypatch):
    changes, message = WRONG[case]
    filled = {name: [value.format(**folders) for value in values] for name, values in changes.items()}
    monkeypatch.setattr(loading, "_load_model", lambda *args: pytest.fail("The model was loaded."))
    assert main(options(**filled)) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())


def test_both_kinds_in_python():
    two = {"a": "user/a", "b": "user/b"}
    with pytest.raises(ConfigError, match="got both"):
        Study(two, responders=two, base="user/c")
    with pytest.raises(ConfigError, match="leave the recipe's own responder out"):
        run(Study(responders=two, base="user/c"), Recipe(responder="user/d"))
