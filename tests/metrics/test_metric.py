"""The module as users load it: by path, and by its bare name from another folder in a fresh process."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
from hub_server import TOKEN, HubServer

from hf_evol import models
from hf_evol.cli.main import main
from hf_evol.errors import ConfigError, HubError
from hf_evol.hub.metric import install, metric_path, push
from hf_evol.models import ModelSpec
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.scoring.summary import summarize

RESPONSES = ["The sea is deep.", "It is salty and blue.", "x"]
INSTRUCTIONS = ["Describe the sea.", "List facts about the sea.", "Why is it so?"]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(metric_path()))


def test_it_gives_what_the_transform_gives(metric, tiny_model):
    result = metric.compute(predictions=RESPONSES, references=INSTRUCTIONS, model=tiny_model)
    expected = IcIfd(tiny_model, journal=False)({"instruction": INSTRUCTIONS, "output": RESPONSES})
    assert result["ic_ifd"] == expected["ic_ifd"] and result["ic_ifd"][2] is None
    assert (result["n_scored"], result["n_unscored"]) == (2, 1)
    assert result["status"] == ["ok", "ok", "short_answer"]
    summary = summarize("ic_ifd", expected["ic_ifd"])
    assert (result["mean_ic_ifd"], result["ci95_ic_ifd"]) == (summary["mean"], summary["ci95"])
    assert result["quartiles_ic_ifd"] == [summary["q1"], summary["q3"]]
    for name in ("ifd", "loss_q", "loss_a", "loss_a_given_q", "n_tokens_q", "n_tokens_a"):
        assert result[name] == expected[name]


@pytest.mark.parametrize("convention", ["paper", "superfiltering", "exact", "exact_chat"])
def test_conventions(metric, tiny_model, convention):
    options = {"convention": convention, "max_length": 30, "truncate": True}
    result = metric.compute(predictions=["word " * 50], references=["Do it."], model=tiny_model, **options)
    expected = IcIfd(tiny_model, journal=False, **options)({"instruction": ["Do it."], "output": ["word " * 50]})
    assert result["ic_ifd"] == expected["ic_ifd"] and result["ic_ifd"][0] > 0
    assert (result["convention"], result["status"]) == (convention, ["truncated"])


def test_nothing_scored(metric, tiny_model):
    result = metric.compute(predictions=["", "x"], references=["Do it.", "Why?"], model=tiny_model)
    assert (result["n_scored"], result["n_unscored"], result["ic_ifd"]) == (0, 2, [None, None])
    assert result["mean_ic_ifd"] is result["ci95_ic_ifd"] is result["quartiles_ic_ifd"] is None


def test_a_loaded_pair_is_used_and_left_as_it_was(metric, tiny_model):
    spec = ModelSpec(tiny_model)
    model = models.load_model(spec)
    model.train()
    try:
        pair = model, models.load_tokenizer(spec)
        result = metric.compute(predictions=RESPONSES, references=INSTRUCTIONS, model=pair)
        assert model.training
    finally:
        model.eval()
    assert (
        result["ic_ifd"] == metric.compute(predictions=RESPONSES, references=INSTRUCTIONS, model=tiny_model)["ic_ifd"]
    )


def test_a_model_must_be_named(metric, tiny_model):
    with pytest.raises(ConfigError, match=r"Name the scoring model: .*model="):
        metric.compute(predictions=RESPONSES, references=INSTRUCTIONS)
    named = evaluate.load(str(metric_path()), model=tiny_model)
    assert named.compute(predictions=RESPONSES, references=INSTRUCTIONS)["n_scored"] == 2


def test_models_are_loaded_once(metric, bos_model, monkeypatch):
    from transformers import AutoModelForCausalLM

    metric.compute(predictions=RESPONSES, references=INSTRUCTIONS, model=bos_model)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    metric.compute(predictions=RESPONSES, references=INSTRUCTIONS, model=bos_model)


def test_combined_with_another_metric(tiny_model, tmp_path):
    (tmp_path / "n_words").mkdir()
    (tmp_path / "n_words" / "n_words.py").write_text(
        "import datasets\nimport evaluate\n\n\n"
        "class NWords(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        text = datasets.Value('string')\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='',\n"
        "            features=datasets.Features({'predictions': text, 'references': text}))\n\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'n_words': sum(len(text.split()) for text in predictions)}\n"
    )
    ours = evaluate.load(str(metric_path()), model=tiny_model)
    both = evaluate.combine([ours, evaluate.load(str(tmp_path / "n_words"))])
    result = both.compute(predictions=RESPONSES, references=INSTRUCTIONS)
    assert result["n_words"] == 10
    alone = IcIfd(tiny_model, journal=False)({"instruction": INSTRUCTIONS, "output": RESPONSES})
    assert result["ic_ifd"] == alone["ic_ifd"]
    both.add_batch(predictions=RESPONSES, references=INSTRUCTIONS)
    assert both.compute()["n_words"] == 10


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hub-cache")
        yield server


@pytest.mark.parametrize("private", [False, True])
def test_as_a_space(hub, tmp_path, tiny_model, capsys, private):
    for _ in range(2):
        assert main(["metric", "push", "user/ic_ifd", *["--private"] * private]) == 0, capsys.readouterr().err
    assert f"{hub.url}/spaces/user/ic_ifd" in capsys.readouterr().out
    space = hub.repos["space", "user/ic_ifd"]
    assert (space.sdk, space.private, len(space.commits)) == ("gradio", private, 2)
    assert space.files == {file.name: file.read_bytes() for file in metric_path().iterdir() if file.is_file()}

    places = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    code = (
        "import evaluate; m = evaluate.load('user/ic_ifd', token=True);"
        f"print(m.compute(predictions=['An answer.'], references=['Do it.'], model={tiny_model!r})['n_scored'])"
    )
    env = os.environ | hub.environment() | places
    loaded = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert loaded.stdout.strip() == "1", loaded.stderr


def test_byte_code_is_not_pushed(hub, tmp_path, monkeypatch):
    folder = shutil.copytree(metric_path(), tmp_path / "ic_ifd", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "ic_ifd.cpython-311.pyc").write_bytes(b"code")
    monkeypatch.setattr("hf_evol.hub.metric.metric_path", lambda: folder)
    push("user/ic_ifd")
    assert set(hub.repos["space", "user/ic_ifd"].files) == {file.name for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    ("place", "status"), [("/repos/create", 401), ("/repos/create", 403), ("/commit/", 403), ("/commit/", "reset")]
)
def test_a_refused_push_names_the_command_that_finishes_it(hub, capsys, place, status, private):
    hub.fail_next(place, status)
    assert main(["metric", "push", "user/ic_ifd", *["--private"] * private]) == 1
    said = capsys.readouterr().err
    assert "hf auth login" in said and TOKEN not in said and "Traceback" not in said
    hub.heal()
    assert main(shlex.split(re.search(r"hf-evol (metric push .*)", said)[1])) == 0
    assert hub.repos["space", "user/ic_ifd"].private is private


@pytest.mark.parametrize("token", [None, "hf_Wrong"])
def test_without_a_valid_token(hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"hf auth login.*: hf-evol metric push user/ic_ifd"):
        push("user/ic_ifd")
    assert not hub.repos


def test_inputs_count_as_part_of_the_instruction(metric, tiny_model):
    joined = metric.compute(predictions=["An answer."], references=["Do it.\nwith this"], model=tiny_model)
    apart = metric.compute(predictions=["An answer."], references=["Do it."], inputs=["with this"], model=tiny_model)
    assert joined["ic_ifd"] == apart["ic_ifd"]
    with pytest.raises(ValueError, match="2 inputs for 1 predictions"):
        metric.compute(predictions=["a"], references=["b"], inputs=["c", "d"], model=tiny_model)


def test_added_in_batches(metric, tiny_model):
    whole = metric.compute(predictions=RESPONSES, references=INSTRUCTIONS, model=tiny_model)
    for response, instruction in zip(RESPONSES, INSTRUCTIONS, strict=True):
        metric.add(prediction=response, reference=instruction)
    assert metric.compute(model=tiny_model)["mean_ic_ifd"] == pytest.approx(whole["mean_ic_ifd"], abs=1e-6)


def test_bare_name_after_install(tmp_path, tiny_model):
    env = os.environ | {
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1",
    }
    install = """
import evaluate
from hf_evol.cli.main import main
try:
    evaluate.load("ic_ifd")
except FileNotFoundError:
    print("not there")
main(["metric", "install"])
"""
    use = (
        "import evaluate; m = evaluate.load('ic_ifd');"
        f"print(m.compute(predictions=['An answer.'], references=['Do it.'], model={tiny_model!r})['n_scored'])"
    )
    for code, said in ((install, "not there"), (use, "1")):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(said)


def test_install_is_the_module_itself(tmp_path, monkeypatch):
    import evaluate.loading

    monkeypatch.setattr(evaluate.loading, "init_dynamic_modules", lambda *_: str(tmp_path))
    folder = install()
    assert install() == folder
    assert (folder / "ic_ifd.py").read_text() == (metric_path() / "ic_ifd.py").read_text()
    assert Path(folder).parent == tmp_path / "metrics" / "evaluate-metric--ic_ifd"
