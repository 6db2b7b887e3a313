"""The paper's benchmarks, for lighteval and, where it has none, the LM Evaluation Harness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hf_evol.errors import ConfigError
from hf_evol.training.files import local_or_name, recipe_folder, write_yaml
from hf_evol.training.sets import names_of

# Task names of lighteval 0.13, each with its number of shots. Its ``math`` is the majority of four samples that end with
# their first line, so MATH is measured on math_500: 500 of its 5,000 test problems, one answer each.
LIGHTEVAL_TASKS = ("ifeval|0", "gsm8k|0", "math_500|0")
# Tasks of lm-evaluation-harness 0.4.13: lighteval 0.13 has neither HumanEval nor MBPP (huggingface/lighteval#63).
HARNESS_TASKS = ("humaneval_instruct", "mbpp_instruct")
MAX_NEW_TOKENS = 2048  # as long as the responses trained on; lighteval's own limit for gsm8k, 256, cuts reasoning off


def write_evaluation(models: Sequence[str], output: str, *, overwrite: bool = False, batch_size: int = 16) -> list[str]:
    """Write what evaluates fine-tuned models on IFEval, GSM8K, MATH (500 problems), HumanEval and MBPP.

    Args:
        models: folders that a trainer has written, or names on the Hub, which are not looked up. The tools use the
            models' chat templates.
        output: the folder for the configurations, and for the results of the commands that this returns.
        batch_size: rows that are generated together.

    Raises:
        ConfigError: the same model twice, a folder that isn't there, or a batch size out of range.
        OutputError: the output can't be written, or exists.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more; got {batch_size!r}.")
    # folders a/model and b/model, as the trainers' configurations call them, are a and b
    sources = [
        model.rstrip("/").removesuffix("/model") if Path(model).expanduser().is_dir() else model for model in models
    ]
    named = dict(zip(names_of(sources), map(local_or_name, models), strict=True))
    commands = []
    with recipe_folder(output, overwrite, {"stage": "recipe lighteval", "models": named}) as folder:
        tasks = "# IFEval, GSM8K and MATH for lighteval 0.13. HumanEval and MBPP are in each model's lm_eval.yaml.\n"
        (folder / "tasks.txt").write_text(tasks + "\n".join(LIGHTEVAL_TASKS) + "\n", encoding="utf-8")
        for name, model in named.items():
            lighteval = {
                "model_name": model,
                "dtype": "bfloat16",
                "batch_size": batch_size,
                "generation_parameters": {"temperature": 0, "max_new_tokens": MAX_NEW_TOKENS},
            }
            lm_eval = {
                "model": "hf",
                "model_args": {"pretrained": model, "dtype": "bfloat16"},
                "tasks": list(HARNESS_TASKS),
                "apply_chat_template": True,
                "batch_size": batch_size,
                "output_path": f"{name}/results",
            }
            write_yaml(
                folder / name / "lighteval.yaml", {"model_parameters": lighteval},
                "Written by hf-evol for `lighteval accelerate` (lighteval 0.13); greedy, zero-shot.",
                "Benchmarks of arXiv:2412.11231; MATH by the 500 problems of math_500.",
            )  # fmt: skip
            write_yaml(
                folder / name / "lm_eval.yaml", lm_eval,
                "Written by hf-evol for `lm-eval run` (lm-evaluation-harness 0.4.13): HumanEval and MBPP of",
                "arXiv:2412.11231, which lighteval 0.13 doesn't have. It runs the code that the model writes.",
            )  # fmt: skip
            commands += [
                f"lighteval accelerate {name}/lighteval.yaml tasks.txt --output-dir {name}/results",
                f"HF_ALLOW_CODE_EVAL=1 lm-eval run --config {name}/lm_eval.yaml --confirm_run_unsafe_code",
            ]
    return commands
