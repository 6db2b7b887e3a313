import shlex

import pytest
import yaml

from hf_evol.errors import ConfigError, OutputError
from hf_evol.training.evaluation import write_evaluation

# Of lighteval 0.13's tasks/tasks folder, as `lighteval tasks list` shows them: those of the paper's benchmarks.
LIGHTEVAL = {"ifeval", "gsm8k", "math:algebra", "math:geometry", "math_500"}
# Of lm-evaluation-harness 0.4.13's tasks/humaneval and tasks/mbpp.
HARNESS = {"humaneval", "humaneval_instruct", "humaneval_plus", "mbpp", "mbpp_instruct", "mbpp_plus"}
# Of lighteval 0.13's TransformersModelConfig, and of lm-evaluation-harness 0.4.13's EvaluatorConfig; both refuse others.
MODEL_PARAMETERS = {"model_name", "dtype", "batch_size", "generation_parameters"}
EVALUATOR = {"model", "model_args", "tasks", "apply_chat_template", "batch_size", "output_path"}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def test_the_five_benchmarks_have_their_tasks(out):
    write_evaluation(["user/model"], str(out))
    tasks = [line for line in (out / "tasks.txt").read_text().splitlines() if not line.startswith("#")]
    shots = dict(task.split("|") for task in tasks)
    assert shots == {"ifeval": "0", "gsm8k": "0", "math_500": "0"}
    assert shots.keys() <= LIGHTEVAL
    assert set(read(out / "model" / "lm_eval.yaml")["tasks"]) == {"humaneval_instruct", "mbpp_instruct"} <= HARNESS


def test_each_model_has_its_configurations_and_commands(out, tmp_path):
    trained = tmp_path / "sets" / "a" / "model"
    trained.mkdir(parents=True)
    commands = write_evaluation(["sets/a/model", "user/b"], str(out), batch_size=4)
    for name, model in (("a", str(trained)), ("b", "user/b")):
        parameters = read(out / name / "lighteval.yaml")["model_parameters"]
        assert parameters.keys() == MODEL_PARAMETERS
        assert (parameters["model_name"], parameters["batch_size"]) == (model, 4)
        assert parameters["generation_parameters"] == {"temperature": 0, "max_new_tokens": 2048}
        harness = read(out / name / "lm_eval.yaml")
        assert harness.keys() == EVALUATOR
        assert harness["model_args"]["pretrained"] == model
        assert harness["apply_chat_template"] is True
    words = [shlex.split(command) for command in commands]
    files = [word for command in words for word in command if word.endswith((".yaml", ".txt"))]
    assert len(commands) == 4 and all((out / file).is_file() for file in files)


def test_the_user_agrees_to_run_the_models_code_not_the_file(out):
    commands = write_evaluation(["user/a"], str(out))
    assert [("--confirm_run_unsafe_code" in command) for command in commands] == [False, True]
    assert "confirm_run_unsafe_code" not in read(out / "a" / "lm_eval.yaml")


def test_models_of_several_recipes_are_told_apart(out, tmp_path):
    for folder in ("trl/a/model", "llama-factory/a/model"):
        (tmp_path / folder).mkdir(parents=True)
    write_evaluation(["trl/a/model", "llama-factory/a/model/"], str(out))
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"trl-a", "llama-factory-a"}


def test_bad_settings_are_refused(out):
    with pytest.raises(ConfigError, match="batch_size"):
        write_evaluation(["user/a"], str(out), batch_size=0)
    with pytest.raises(ConfigError, match="differ"):
        write_evaluation(["user/a", "user/a"], str(out))
    assert not out.exists()


def test_results_are_never_overwritten(out):
    write_evaluation(["user/a"], str(out))
    with pytest.raises(OutputError, match="--overwrite"):
        write_evaluation(["user/a"], str(out))
    write_evaluation(["user/a"], str(out), overwrite=True)
    (out / "a" / "results").mkdir()
    (out / "a" / "results" / "results.json").write_text("{}")
    with pytest.raises(OutputError, match=r"a/results/results\.json"):
        write_evaluation(["user/a"], str(out), overwrite=True)
