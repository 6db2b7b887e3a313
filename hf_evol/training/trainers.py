"""Supervised fine-tuning with the paper's settings, for TRL and LLaMA-Factory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol.data.files import write_dataset
from hf_evol.data.formats import to_training
from hf_evol.errors import ConfigError
from hf_evol.progress import without_datasets_bars
from hf_evol.training.files import local_or_name, recipe_folder, write_yaml
from hf_evol.training.settings import CUTOFF_LENGTH, GLOBAL_BATCH_SIZE, OWN, PAPER, PLAIN, WARMUP_RATIO, FineTuning

if TYPE_CHECKING:
    from hf_evol.training.sets import TrainingSet

# The words of LLaMA-Factory's template "default"; needs no special token but EOS, so any base model can use it.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ {'system': 'System: ', 'user': 'Human: ', 'assistant': 'Assistant:'}[message['role']] }}"
    "{{ message['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"
)
TEMPLATE_FILE, SHARDING_FILE = "chat_template.jinja", "zero3.json"
# DeepSpeed's ZeRO stage 3: one model's weights, gradients and optimizer state over all GPUs; the trainer fills in "auto".
ZERO3 = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 3, "contiguous_gradients": True, "stage3_gather_16bit_weights_on_model_save": True},
}


def write_trl(sets: Sequence[TrainingSet], tuning: FineTuning, output: str, *, overwrite: bool = False) -> list[str]:
    """Write each set's rows (prompt-completion) and a configuration for ``trl sft``; gives the commands to run in ``output``.

    Raises:
        ConfigError: a chat template that can't be read, or an output that is no local folder.
        OutputError: the output can't be written, or exists.
        ColumnError: rows that can't be trained on.
    """
    trainer, (template, text) = "TRL 1.16", _trl_template(tuning.chat_template)
    shared = {
        "warmup_steps": WARMUP_RATIO,  # below 1 a share of all steps, since transformers 5
        "max_length": CUTOFF_LENGTH,
        "packing": False,
        "completion_only_loss": True,
        **({"chat_template_path": template} if template else {}),
        "num_processes": tuning.gpus,  # this and the next are for accelerate, which trl starts
        **({"accelerate_config": "fsdp2"} if tuning.gpus > 1 else {}),
    }
    with recipe_folder(output, overwrite, _record(trainer, sets, tuning)) as folder:
        if text is not None:
            (folder / TEMPLATE_FILE).write_text(text, encoding="utf-8")
        for one in sets:
            _write_rows(one, "prompt-completion", folder)
            settings = {"dataset_name": f"{one.name}/data", **tuning.settings(one.name), **shared}
            write_yaml(folder / one.name / "sft.yaml", settings, *_comment(trainer, tuning))
    # A lone process would otherwise use every GPU it sees, each with a batch of its own.
    only = "CUDA_VISIBLE_DEVICES=0 " if tuning.gpus == 1 else ""
    return [f"{only}trl sft --config {one.name}/sft.yaml" for one in sets]


def write_llama_factory(
    sets: Sequence[TrainingSet], tuning: FineTuning, output: str, *, overwrite: bool = False
) -> list[str]:
    """Write each set's rows (alpaca) and a configuration for ``llamafactory-cli train``, with their ``dataset_info.json``; gives
    the commands to run in ``output``.

    Raises:
        ConfigError: an output that is no local folder.
        OutputError: the output can't be written, or exists.
        ColumnError: rows that can't be trained on.
    """
    trainer = "LLaMA-Factory 0.9.5"
    template = {PLAIN: "default", OWN: None}.get(tuning.chat_template, tuning.chat_template)
    task = {"stage": "sft", "do_train": True, "finetuning_type": "full", "dataset_dir": "."}
    shared = {
        "warmup_ratio": WARMUP_RATIO,  # LLaMA-Factory 0.9.5 takes transformers 4.55 to 5.6, which all know it
        "cutoff_len": CUTOFF_LENGTH,
        "packing": False,
        "train_on_prompt": False,
        "plot_loss": True,
        **({"template": template} if template else {}),
        **({"deepspeed": SHARDING_FILE} if tuning.gpus > 1 else {}),
    }
    columns = {"prompt": col.INSTRUCTION, "query": col.INPUT, "response": col.OUTPUT}
    before = {"system": "system", "history": "history"}  # of `to_training`, where rows have a context
    info = {
        one.name: {
            "file_name": f"{one.name}/data",
            "columns": columns | (before if col.CONTEXT in one.rows.column_names else {}),
        }
        for one in sets
    }
    with recipe_folder(output, overwrite, _record(trainer, sets, tuning)) as folder:
        (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        if tuning.gpus > 1:
            (folder / SHARDING_FILE).write_text(json.dumps(ZERO3, indent=2) + "\n", encoding="utf-8")
        for one in sets:
            _write_rows(one, "alpaca", folder)
            settings = {**task, "dataset": one.name, **tuning.settings(one.name), **shared}
            write_yaml(folder / one.name / "train.yaml", settings, *_comment(trainer, tuning))
    start = f"FORCE_TORCHRUN=1 NPROC_PER_NODE={tuning.gpus}"  # it would otherwise use every GPU it sees
    return [f"{start} llamafactory-cli train {one.name}/train.yaml" for one in sets]


def _record(trainer: str, sets: Sequence[TrainingSet], tuning: FineTuning) -> dict[str, Any]:
    described = [{"name": one.name, "source": one.source, "config": one.config, "rows": len(one.rows)} for one in sets]
    return {"stage": f"recipe for {trainer}", "tuning": asdict(tuning), "sets": described}


def _write_rows(one: TrainingSet, layout: str, folder: Path) -> None:
    with without_datasets_bars():
        rows = to_training(one.rows, layout)
    write_dataset(rows, folder / one.name / "data", "parquet")


def _comment(trainer: str, tuning: FineTuning) -> list[str]:
    return [
        f"Written by hf-evol for {trainer}; paths are relative to the folder above.",
        f"The settings of arXiv:2412.11231: a global batch of {GLOBAL_BATCH_SIZE} rows (GPUs: {tuning.gpus}, rows on each: "
        f"{tuning.per_device_batch_size}, times {tuning.gradient_accumulation_steps} accumulated),",
        f"at most {CUTOFF_LENGTH} tokens, learning rate {PAPER['learning_rate']}, cosine, warm-up over {WARMUP_RATIO} of "
        f"the steps, {PAPER['num_train_epochs']} epochs, bf16.",
        "The loss is on the response only. Logging, saving, the chat template and how GPUs share the work are ours.",
    ]


def _trl_template(chosen: str) -> tuple[str | None, str | None]:
    """What ``chat_template_path`` is, and the text of the file it names if that is to be written."""
    if chosen == OWN:
        return None, None
    if chosen == PLAIN:
        return TEMPLATE_FILE, PLAIN_TEMPLATE
    if chosen.endswith((".jinja", ".j2")):
        try:
            return TEMPLATE_FILE, Path(chosen).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The chat template {chosen!r} can't be read: {error}") from error
    return local_or_name(chosen), None
