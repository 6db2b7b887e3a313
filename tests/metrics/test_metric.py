"""The module as users load it: by path, and by its bare name from another folder in a fresh process."""

import configparser
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import yaml
from hub_server import TOKEN, HubServer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hf_evol import models
from hf_evol.cli.main import main
from hf_evol.errors import ConfigError, HubError
from hf_evol.hub import metric as module
from hf_evol.hub.metric import install, metric_path, push, write_space
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


@pytest.mark.parametrize(("name", "private"), [("ic_ifd", False), ("my-own", True)])
def test_as_a_space(hub, tmp_path, tiny_model, capsys, name, private):
    for _ in range(2):
        assert main(["metric", "push", f"user/{name}", *["--private"] * private]) == 0, capsys.readouterr().err
    assert f"{hub.url}/spaces/user/{name}" in capsys.readouterr().out
    space = hub.repos["space", f"user/{name}"]
    assert (space.sdk, space.private, len(space.commits)) == ("gradio", private, 2)

    places = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    example = re.search(r"```python\n(.*?)\n```", space.files["README.md"].decode(), re.DOTALL)[1]
    assert f'evaluate.load("user/{name}")  # once before: pip install git+{hub.url}/spaces/user/{name}\n' in example
    code = example.replace(f'"user/{name}"', f'"user/{name}", token=True').replace("Qwen/Qwen2.5-0.5B", tiny_model)
    env = os.environ | hub.environment() | places
    code += "\nprint(result['n_scored'])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert loaded.stdout.strip() == "1", loaded.stderr


@pytest.fixture
def space(tmp_path):
    write_space(tmp_path, "user/ic_ifd")
    return tmp_path


def alone(folder, code):
    """What Python code says that finds, besides what is installed, this folder only."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


GRADIO = """
class Interface:
    def __init__(self, score, inputs, outputs, **said):
        self.fn = score

Textbox = Radio = JSON = lambda *_, **__: None
"""


def test_a_space_runs_by_what_it_holds(space, tiny_model):
    if importlib.util.find_spec("gradio") is None:
        (space / "gradio.py").write_text(GRADIO)
    app = (space / "app.py").read_text()
    (space / "app.py").write_text(app.replace("HuggingFaceTB/SmolLM2-135M", tiny_model))
    code = "import app, hf_evol; print(hf_evol.__file__, app.page.fn('Do it.', 'An answer.', 'paper')['status'])"
    assert alone(space, code).split() == [str(space / "hf_evol" / "__init__.py"), "ok"]


def test_without_the_package_evaluate_says_how_to_get_it(space, monkeypatch):
    monkeypatch.setitem(sys.modules, "hf_evol", None)
    with pytest.raises(ImportError, match=r"'pip install git\+https://huggingface.co/spaces/user/ic_ifd'"):
        evaluate.load(str(space / "ic_ifd.py"))


def test_a_space_names_what_it_needs(space):
    needed = [Requirement(entry) for entry in (space / "requirements.txt").read_text().splitlines()]
    own = [Requirement(entry) for entry in importlib.metadata.requires("hf_evol")]
    assert {entry.name for entry in needed} == {entry.name for entry in own if not entry.marker} | {"gradio"}
    data = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert data["sdk_version"] in next(entry for entry in needed if entry.name == "gradio").specifier
    assert data["python_version"] in SpecifierSet(importlib.metadata.metadata("hf_evol")["Requires-Python"])


def test_pip_installs_the_package_from_a_space(space, tmp_path_factory):
    pytest.importorskip("setuptools", "77")
    site, folder = tmp_path_factory.mktemp("site"), shutil.copytree(space, tmp_path_factory.mktemp("clone") / "space")
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site]
    subprocess.run([sys.executable, *pip, folder], check=True, capture_output=True)
    code = """
import pathlib, tempfile, hf_evol, hf_evol.prompts.words
from hf_evol.hub.card import _TEMPLATES
from hf_evol.hub.metric import write_space
from hf_evol.run.recipe import Recipe

Recipe.load("alpaca")
again, templates = pathlib.Path(tempfile.mkdtemp()), _TEMPLATES.list_templates()
write_space(again, "user/ic_ifd")
print(hf_evol.__file__, len(templates), *sorted(file.relative_to(again) for file in again.rglob("*") if file.is_file()))
"""
    where, templates, *files = alone(site, code).split()
    assert (where, templates) == (str(site / "hf_evol" / "__init__.py"), "5")
    assert files == [
        str(name) for name in sorted(file.relative_to(space) for file in space.rglob("*") if file.is_file())
    ]


def test_a_space_holds_all_data_of_the_package(space):
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent.parent / "setup.cfg", encoding="utf-8")
    for package, patterns in setup["options.package_data"].items():
        if package.startswith("hf_evol") and "metrics" not in package:
            folder = space.joinpath(*package.split("."))
            assert all([*folder.glob(pattern)] for pattern in re.split(r"[,\s]+", patterns.strip())), package
    assert (space / "hf_evol" / "study" / "steps.html").is_file()


def test_nothing_else_is_pushed(hub, tmp_path, monkeypatch):
    push("user/ic_ifd")
    space = hub.repos["space", "user/ic_ifd"]
    before = dict(space.files)
    package = shutil.copytree(Path(module.__file__).parent.parent, tmp_path / "hf_evol")
    shutil.copytree(metric_path(), package / "metrics" / "ic_ifd")
    cards = shutil.copytree(metric_path().parent.parent / "dataset_cards", package / "dataset_cards")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.py").write_text("KEY = 1")
    for folder in (package, package / "hub", package / "prompts", package / "metrics" / "ic_ifd", cards):
        for name in (".env", ".DS_Store", "._card.py", "notes.txt", "__pycache__/card.cpython-311.pyc", ".x/key.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("x")
        (folder / "link.py").symlink_to(tmp_path / "secret" / "key.py")
        (folder / "linked").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(module, "__file__", str(package / "hub" / "metric.py"))
    space.commit("An earlier version", {"hf_evol/old.py": b"", "mine.txt": b"Theirs."})
    push("user/ic_ifd")
    assert space.files == before | {"mine.txt": b"Theirs."}
    assert {path.partition("/")[0] for path in before} == {
        "README.md", "app.py", "hf_evol", "ic_ifd.py", "pyproject.toml", "requirements.txt",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["user/app", "user/ic.ifd"])
def test_a_name_that_evaluate_cannot_load_is_refused(hub, capsys, name):
    assert main(["metric", "push", name]) == 2
    assert "evaluate can't load a module with the name" in capsys.readouterr().err
    assert not hub.requests


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
