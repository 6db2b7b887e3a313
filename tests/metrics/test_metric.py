"""The module as users load it: by path, and by its bare name from another folder in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

from hf_evol.metric import install, metric_path
from hf_evol.scoring.ic_ifd import IcIfd

RESPONSES = ["The sea is deep.", "It is salty and blue.", "x"]
INSTRUCTIONS = ["Describe the sea.", "List facts about the sea.", "Why is it so?"]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(metric_path()))


def test_it_gives_what_the_transform_gives(metric, tiny_model):
    result = metric.compute(predictions=RESPONSES, references=INSTRUCTIONS, model=tiny_model)
    expected = IcIfd(tiny_model)({"instruction": INSTRUCTIONS, "output": RESPONSES})
    assert result["ic_ifd"] == expected["ic_ifd"] and result["ic_ifd"][2] is None
    assert (result["n_scored"], result["n_unscored"]) == (2, 1)
    assert result["status"] == ["ok", "ok", "short_answer"]
    assert result["mean_ic_ifd"] == pytest.approx(sum(expected["ic_ifd"][:2]) / 2)


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
    code = (
        "import evaluate; m = evaluate.load('ic_ifd');"
        f"print(m.compute(predictions=['An answer.'], references=['Do it.'], model={tiny_model!r})['n_scored'])"
    )

    def python(*args):
        return subprocess.run([sys.executable, *args], cwd=tmp_path, env=env, capture_output=True, text=True)

    assert "FileNotFoundError" in python("-c", code).stderr
    installed = python("-m", "hf_evol.cli.main", "metric", "install")
    assert installed.returncode == 0, installed.stderr
    loaded = python("-c", code)
    assert loaded.stdout.strip() == "1", loaded.stderr


def test_install_is_the_module_itself(tmp_path, monkeypatch):
    import evaluate.loading

    monkeypatch.setattr(evaluate.loading, "init_dynamic_modules", lambda *_: str(tmp_path))
    folder = install()
    assert install() == folder
    assert (folder / "ic_ifd.py").read_text() == (metric_path() / "ic_ifd.py").read_text()
    assert Path(folder).parent == tmp_path / "metrics" / "evaluate-metric--ic_ifd"
