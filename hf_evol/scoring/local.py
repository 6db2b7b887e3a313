"""What transforms share that score with a model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from hf_evol import models, progress
from hf_evol.errors import ModelError
from hf_evol.generation.base import Record, check_has_template, remembered
from hf_evol.models import ModelSpec
from hf_evol.models.journal import open_journal
from hf_evol.scoring.losses import OUT_OF_MEMORY
from hf_evol.transform import ModelTransform


@dataclass(frozen=True, kw_only=True)
class ScoringTransform(ModelTransform):
    """Base of the transforms that load their model here, whatever engine generates.

    Args:
        model: a Hub id, a folder or a `ModelSpec`.
    """

    reads_chats = True  # whether the chat template decides the scores

    def resolve(self, model: Any) -> ModelSpec:
        return models.as_spec(model)

    def check(self) -> None:
        models.load_config(self.model)
        if self.reads_chats:
            check_has_template(self.model)
        models.check_device(self.model)

    def identity(self) -> Any:
        return models.model_identity(self.model, chat_template=self.reads_chats)

    def load(self, kind: str = models.CAUSAL) -> tuple[Any, Any]:
        self.check()
        return models.load_model(self.model, kind), models.load_tokenizer(self.model)

    def stream(self, requests: list[Any]) -> Iterator[dict[int, Record]]:
        """Yield records by the request's place, as they finish."""
        raise NotImplementedError

    def remembered(
        self, requests: Sequence[Any], kind: str, settings: dict[str, Any], rows: Sequence[int] | None = None
    ) -> list[Record]:
        """The records of requests, of which some may be known to the journal.

        Args:
            requests: what is scored; of a row that can't be, its record.
            kind: tells the journal's entries from others about equal requests.
            settings: what decides a record beside the model and the request.
            rows: by how many rows each request moves the progress bar.
        """
        rows = rows or [1] * len(requests)
        records = {place: request for place, request in enumerate(requests) if isinstance(request, dict)}
        progress.advance(sum(rows[place] for place in records))
        batches = remembered(
            open_journal(self.journal),
            lambda: self.identity() | settings,
            {place: (request, kind) for place, request in enumerate(requests) if place not in records},
            lambda places: self.stream([requests[place] for place in places]),
            lambda record: OUT_OF_MEMORY not in record.values(),
        )
        with closing(batches):
            for finished in batches:
                records |= finished
                progress.advance(sum(rows[place] for place in finished))
        return [records[place] for place in range(len(requests))]


def check_causal(spec: ModelSpec) -> None:
    """Raise `ModelError` for a model of another kind, whose missing head would be loaded with random numbers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = models.load_config(spec)
    causal, made = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()), set(config.architectures or ())
    if made and not made & causal and "AutoModelForCausalLM" not in (getattr(config, "auto_map", None) or {}):
        raise ModelError(
            f"The model {spec.name!r} is not causal: it is a {', '.join(sorted(made))}. Name a causal language model, such as "
            "HuggingFaceTB/SmolLM2-135M."
        )
