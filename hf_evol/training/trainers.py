"""Supervised fine-tuning with the paper's settings, for TRL and LLaMA-Factory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_evol import columns as col
from hf_evol.data.files import write_dataset
from hf_evol.data.formats import to_training
from hf_evol.errors import ConfigError, check_counts
from hf_evol.progress import without_datasets_bars
from hf_evol.training.files import local_or_name, recipe_folder, write_yaml
from hf_evol.training.sets import TrainingSet

# The fine-tuning settings of arXiv:2412.11231, which trained with LLaMA-Factory.
GLOBAL_BATCH_SIZE = 64  # rows per step
CUTOFF_LENGTH = 2048  # tokens of prompt and completion
WARMUP_RATIO = 0.03  # share of all steps
PAPER = {"learning_rate": 2e-5, "lr_scheduler_type": "cosine", "num_train_epochs": 3, "bf16": True}

PLAIN, OWN = "plain", "own"
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


@dataclass(frozen=True)
class FineTuning:
    """How to fine-tune; everything else is the paper's.

    Raises:
        ConfigError: a model's folder that isn't there, a value out of range, or a batch size that doesn't divide the global one.
    """

    model: str  # the base model: a folder, or a name on the Hub, which is not looked up
    gpus: int = 1  # with more than one, the model is sharded over them
    per_device_batch_size: int = 4  # rows that one GPU holds at once
    # plain (suits any base model), own (the base model's own), or, for TRL, a .jinja file or a model to take it from, and,
    # for LLaMA-Factory, the name of one of its templates
    chat_template: str = PLAIN

    def __post_init__(self) -> None:
        for name in ("model", "chat_template"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name} is empty.")
        local_or_name(self.model)
        check_counts(self, "gpus", "per_device_batch_size")
        if GLOBAL_BATCH_SIZE % (self.gpus * self.per_device_batch_size):
            raise ConfigError(
                f"{self.gpus} GPUs with {self.per_device_batch_size} rows each don't divide the global batch of "
                f"{GLOBAL_BATCH_SIZE} rows. Choose --gpus and --per-device-batch-size so that their product does."
            )

    @property
    def gradient_accumulation_steps(self) -> int:
        """Forward passes of each GPU per step."""
        return GLOBAL_BATCH_SIZE // (self.gpus * self.per_device_batch_size)

    def settings(self, name: str) -> dict[str, Any]:
        """What both trainers hand to transformers' ``TrainingArguments``."""
        return {
            "model_name_or_path": local_or_name(self.model),
            "output_dir": f"{name}/model",
            "per_device_train_batch_size": self.per_device_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            **PAPER,
            "logging_steps": 10,
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "report_to": "none",
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
            write_dataset(_rows(one, "prompt-completion"), folder / one.name / "data", "parquet")
            settings = {"dataset_name": f"{one.name}/data", **tuning.settings(one.name), **shared}
            write_yaml(folder / one.name / "sft.yaml", settings, *_comment(trainer, tuning))
    # A lone process would otherwise use every GPU it sees, each with a batch of its own.
    only = "CUDA_VISIBLE_DEVICES=0 " if tuning.gpus == 1 else ""
    return [f"{only}trl sft --config {one.name}/sft.yaml" for one in sets]


def write_llama_factory(
    sets: Sequence[TrainingSet], tuning: FineTuning, output: str, *, overwrite: bool = False
) -> list[str]:
    """Write each set's rows (alpaca) and a configuration for ``llamafactory-cli train``, with their ``dataset_info.json``; else
    as `write_trl`."""
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
    info = {}
    for one in sets:
        more = before if col.CONTEXT in one.rows.column_names else {}
        info[one.name] = {"file_name": f"{one.name}/data", "columns": columns | more}
    with recipe_folder(output, overwrite, _record(trainer, sets, tuning)) as folder:
        (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        if tuning.gpus > 1:
            (folder / SHARDING_FILE).write_text(json.dumps(ZERO3, indent=2) + "\n", encoding="utf-8")
        for one in sets:
            write_dataset(_rows(one, "alpaca"), folder / one.name / "data", "parquet")
            settings = {**task, "dataset": one.name, **tuning.settings(one.name), **shared}
            write_yaml(folder / one.name / "train.yaml", settings, *_comment(trainer, tuning))
    start = f"FORCE_TORCHRUN=1 NPROC_PER_NODE={tuning.gpus}"  # it would otherwise use every GPU it sees
    return [f"{start} llamafactory-cli train {one.name}/train.yaml" for one in sets]


def _record(trainer: str, sets: Sequence[TrainingSet], tuning: FineTuning) -> dict[str, Any]:
    described = [{"name": one.name, "source": one.source, "config": one.config, "rows": len(one.rows)} for one in sets]
    return {"stage": f"recipe for {trainer}", "tuning": asdict(tuning), "sets": described}


def _rows(one: TrainingSet, layout: str) -> Dataset:
    with without_datasets_bars():
        return to_training(one.rows, layout)


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
