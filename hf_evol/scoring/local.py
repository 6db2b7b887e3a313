"""What transforms share that score with a model in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_evol import models
from hf_evol.models import ModelSpec
from hf_evol.transform import ModelTransform


@dataclass(frozen=True, kw_only=True)
class ScoringTransform(ModelTransform):
    """Loads its model here, whatever engine generates."""

    def resolve(self, model: Any) -> ModelSpec:
        return models.as_spec(model)

    @property
    def reads_chats(self) -> bool:
        """Whether the chat template decides the scores."""
        return True

    def check(self) -> None:
        models.load_config(self.model)
        models.check_device(self.model)

    def identity(self) -> Any:
        return models.model_identity(self.model, chat_template=self.reads_chats)
