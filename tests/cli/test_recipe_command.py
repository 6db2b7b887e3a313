import json
import shlex

import pytest
import yaml

from hf_evol.cli.main import main


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Two folders of rows, of different size, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    for name, n in (("small", 2), ("large", 3)):
        (tmp_path / name).mkdir()
        row = json.dumps({"instruction": "Why?", "output": "So."})
        (tmp_path / name / "rows.jsonl").write_text(f"{row}\n" * n)
    return ["small", "large"]


@pytest.fixture
def call(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.mark.parametrize(("tool", "config"), [("trl", "sft.yaml"), ("llama-factory", "train.yaml")])
def test_the_commands_to_run_next_are_printed(call, sets, tmp_path, tool, config):
    code, said = call("recipe", tool, *sets, "--model", "base/model", "--output", "my out")
    assert code == 0
    lines = [line.strip() for line in said.splitlines()]
    assert lines[:2] == ["small: 2 rows of small (default)", "large: 3 rows of large (default)"]
    assert "differ in size" in said
    assert "cd 'my out'" in lines
    for name in sets:
        assert (tmp_path / "my out" / name / config).is_file()
        assert any(line.endswith(f" {name}/{config}") for line in lines)
    then = next(line for line in lines if line.startswith("Then: "))
    arguments = shlex.split(then.removeprefix("Then: hf-evol "))
    code, said = call(*arguments)
    assert (code, "There is no folder 'my out/small/model'" in said) == (2, True)
    for name in sets:
        (tmp_path / "my out" / name / "model").mkdir()  # as if trained
    code, said = call(*arguments)
    assert code == 0
    assert (tmp_path / "my out-evaluation" / "small" / "lighteval.yaml").is_file()
    assert "lighteval accelerate large/lighteval.yaml tasks.txt" in said
    assert "lm-eval runs code" in said


def test_every_option_arrives(call, sets, tmp_path):
    options = ["--gpus", "2", "--per-device-batch-size", "8", "--chat-template", "own", "--config-name", "default"]
    for _ in range(2):
        code, _ = call("recipe", "trl", "small", "--model", "b/m", "--output", "out", *options, "--overwrite")
        assert code == 0
    config = yaml.safe_load((tmp_path / "out" / "small" / "sft.yaml").read_text())
    assert (config["num_processes"], config["per_device_train_batch_size"]) == (2, 8)
    assert config["gradient_accumulation_steps"] == 4
    assert "chat_template_path" not in config


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["trl", "small", "--output", "out"], 2, "--model"),
        (["trl", "--model", "b/m", "--output", "out"], 2, "'sets'"),
        (["trl", "small", "--model", "b/m"], 2, "--output"),
        (["trl", "small", "--model", "", "--output", "out"], 2, "model is empty"),
        (["trl", "small", "--model", "b/m", "--output", "out", "--gpus", "3"], 2, "divide the global batch of 64"),
        (["trl", "small", "--model", "b/m", "--output", "out", "--config-name", "x"], 2, "Configs: default"),
        (["trl", "small", "small", "--model", "b/m", "--output", "out"], 2, "differ"),
        (["trl", "no/such/folder/here", "--model", "b/m", "--output", "out"], 1, "Cannot read the set"),
        (["llama-factory", "small", "--model", "b/m", "--output", "large"], 1, "--overwrite"),
        (["llama-factory", "small", "--model", "b/m", "--output", "s3://x"], 2, "local"),
        (["lighteval", "--output", "out"], 2, "'models'"),
        (["lighteval", "a/b", "--output", "large", "--overwrite"], 1, "left alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told_and_nothing_is_written(call, sets, tmp_path, arguments, code, said):
    exit_code, output = call("recipe", *arguments)
    assert (exit_code, said in output) == (code, True), output
    assert "Traceback" not in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "small"]
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["rows.jsonl"]
