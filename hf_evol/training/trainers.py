"""Supervised fine-tuning with the paper's settings, for TRL and LLaMA-Factory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol.data.files import write_dataset
from hf_evol.data.formats import to_training
from hf_evol.errors import ConfigError
from hf_evol.progress import without_datasets_bars
from hf_evol.training.files import check_folder, local_or_name, recipe_folder, write_yaml
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
    "zero_optimization": {
        "stage": 3,
        "contiguous_gradients": True,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
}


@dataclass(frozen=True)
class _Trainer:
    """What one trainer reads.

    Args:
        name: the tool, with the version that its configuration was checked with.
        layout: the format of its rows, as of `to_training`.
        file: what its configuration is called.
        settings: the configuration for the set of a name.
        files: further files, by name.
    """

    name: str
    layout: str
    file: str
    settings: Callable[[str], dict[str, Any]]
    files: Mapping[str, str] = field(default_factory=dict)


def write_trl(sets: Sequence[TrainingSet], tuning: FineTuning, output: str, *, overwrite: bool = False) -> list[str]:
    """Write, for each set, its rows (prompt-completion) and a configuration for ``trl sft``.

    Returns:
        The commands to run in ``output``, in order.

    Raises:
        ConfigError: a chat template that can't be read, or an output that is no local folder.
        OutputError: the output can't be written, or exists.
        ColumnError: rows that can't be trained on.
    """
    template, text = _trl_template(tuning.chat_template)

    def settings(name: str) -> dict[str, Any]:
        launch = {"num_processes": tuning.gpus} | ({"accelerate_config": "fsdp2"} if tuning.gpus > 1 else {})
        return {
            "dataset_name": f"{name}/data",
            **tuning.settings(name),
            "warmup_steps": WARMUP_RATIO,  # below 1 a share of all steps, since transformers 5
            "max_length": CUTOFF_LENGTH,
            "packing": False,
            "completion_only_loss": True,
            **({"chat_template_path": template} if template else {}),
            **launch,  # for accelerate, which trl starts
        }

    files = {} if text is None else {TEMPLATE_FILE: text}
    _write(sets, tuning, output, overwrite, _Trainer("TRL 1.16", "prompt-completion", "sft.yaml", settings, files))
    # A lone process would otherwise use every GPU it sees, each with a batch of its own.
    only = "CUDA_VISIBLE_DEVICES=0 " if tuning.gpus == 1 else ""
    return [f"{only}trl sft --config {one.name}/sft.yaml" for one in sets]


def write_llama_factory(
    sets: Sequence[TrainingSet], tuning: FineTuning, output: str, *, overwrite: bool = False
) -> list[str]:
    """Write, for each set, its rows (alpaca) and a configuration for ``llamafactory-cli train``, and ``dataset_info.json``.

    Returns:
        The commands to run in ``output``, in order.

    Raises:
        ConfigError: an output that is no local folder.
        OutputError: the output can't be written, or exists.
        ColumnError: rows that can't be trained on.
    """
    template = {PLAIN: "default", OWN: None}.get(tuning.chat_template, tuning.chat_template)

    def settings(name: str) -> dict[str, Any]:
        return {
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "dataset_dir": ".",
            "dataset": name,
            **tuning.settings(name),
            "warmup_ratio": WARMUP_RATIO,  # LLaMA-Factory 0.9.5 takes transformers 4.55 to 5.6, which all know it
            "cutoff_len": CUTOFF_LENGTH,
            "packing": False,
            "train_on_prompt": False,
            "plot_loss": True,
            **({"template": template} if template else {}),
            **({"deepspeed": SHARDING_FILE} if tuning.gpus > 1 else {}),
        }

    columns = {"prompt": col.INSTRUCTION, "query": col.INPUT, "response": col.OUTPUT}
    files = {
        "dataset_info.json": _json({one.name: {"file_name": f"{one.name}/data", "columns": columns} for one in sets})
    }
    if tuning.gpus > 1:
        files[SHARDING_FILE] = _json(ZERO3)
    _write(sets, tuning, output, overwrite, _Trainer("LLaMA-Factory 0.9.5", "alpaca", "train.yaml", settings, files))
    start = f"FORCE_TORCHRUN=1 NPROC_PER_NODE={tuning.gpus}"  # it would otherwise use every GPU it sees
    return [f"{start} llamafactory-cli train {one.name}/train.yaml" for one in sets]


def _write(sets: Sequence[TrainingSet], tuning: FineTuning, output: str, overwrite: bool, trainer: _Trainer) -> None:
    check_folder(output, overwrite)
    with without_datasets_bars():
        rows = {one.name: to_training(one.rows, trainer.layout) for one in sets}
    described = [{"name": one.name, "source": one.source, "config": one.config, "rows": len(one.rows)} for one in sets]
    record = {"stage": f"recipe for {trainer.name}", "tuning": asdict(tuning), "sets": described}
    with recipe_folder(output, record) as folder:
        for name, text in trainer.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name in rows:
            write_dataset(rows[name], folder / name / "data", "parquet")
            write_yaml(folder / name / trainer.file, trainer.settings(name), _comment(trainer, tuning))


def _comment(trainer: _Trainer, tuning: FineTuning) -> list[str]:
    return [
        f"Written by hf-evol for {trainer.name}; paths are relative to the folder above.",
        "The settings of arXiv:2412.11231: a global batch of "
        f"{GLOBAL_BATCH_SIZE} rows (GPUs: {tuning.gpus}, rows on each: {tuning.per_device_batch_size}, times "
        f"{tuning.gradient_accumulation_steps} accumulated),",
        f"at most {CUTOFF_LENGTH} tokens, learning rate {PAPER['learning_rate']}, cosine, warm-up over {WARMUP_RATIO} of "
        f"the steps, {PAPER['num_train_epochs']} epochs, bf16.",
        "The loss is on the response only. Logging, saving, the chat template and how GPUs share the work are ours.",
    ]


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


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
