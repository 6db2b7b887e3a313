"""The paper's settings of fine-tuning, and what is left to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_evol.errors import ConfigError
from hf_evol.training.files import local_or_name

# The fine-tuning settings of arXiv:2412.11231, which trained with LLaMA-Factory.
GLOBAL_BATCH_SIZE = 64  # rows per step
CUTOFF_LENGTH = 2048  # tokens of prompt and completion
WARMUP_RATIO = 0.03  # share of all steps
PAPER = {"learning_rate": 2e-5, "lr_scheduler_type": "cosine", "num_train_epochs": 3, "bf16": True}

PLAIN, OWN = "plain", "own"


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
        for name in ("gpus", "per_device_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more; got {getattr(self, name)!r}.")
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
        """What both trainers call by the same names, as they hand it to transformers' ``TrainingArguments``."""
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
