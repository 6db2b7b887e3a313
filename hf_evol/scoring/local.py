"""What transforms share that score with a model in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from hf_evol import models, progress
from hf_evol.errors import ConfigError
from hf_evol.models import ModelSpec
from hf_evol.models.journal import open_journal
from hf_evol.scoring.losses import OUT_OF_MEMORY
from hf_evol.transform import ModelTransform

Record = dict[str, Any]

_WRITE_EVERY_S = 0.25  # making a journal durable takes milliseconds; a killed run does this much again


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

    def load(self, kind: str = models.CAUSAL) -> tuple[Any, Any]:
        """The loaded model, and its tokenizer; loaded at the first call in this process."""
        self.check()
        return models.load_model(self.model, kind), models.load_tokenizer(self.model)

    def stream(self, requests: list[Any]) -> Iterator[dict[int, Record]]:
        """Yield records by the request's place, as they finish."""
        raise NotImplementedError

    def remembered(
        self, requests: Sequence[Any], kind: str, settings: dict[str, Any], rows: Sequence[int] | None = None
    ) -> list[Record]:
        """The requests' records, those that the journal knows among them; new ones are durable within a second.

        Args:
            requests: what is scored; of a row that can't be, its record.
            kind: tells the journal's entries from others about equal requests.
            settings: what decides a record beside the model and the request.
            rows: by how many rows each request moves the progress bar; by default by one.
        """
        rows = rows or [1] * len(requests)
        records = [request if isinstance(request, dict) else None for request in requests]
        missing = [place for place, record in enumerate(records) if record is None]
        journal, hashes = open_journal(self.journal), {}
        if journal is not None:
            identity = self.identity() | settings
            hashes = {place: journal.key(identity, requests[place], kind) for place in missing}
            known = journal.get(hashes.values())
            records = [known.get(hashes.get(place), record) for place, record in enumerate(records)]
            missing = [place for place, record in enumerate(records) if record is None]
        progress.advance(sum(rows) - sum(rows[place] for place in missing))
        if not missing:
            return records
        unwritten, written = {}, time.monotonic()
        try:
            with closing(self.stream([requests[place] for place in missing])) as stream:
                for finished in stream:
                    for number, record in finished.items():
                        place = missing[number]
                        records[place] = record
                        if hashes and OUT_OF_MEMORY not in record.values():
                            unwritten[hashes[place]] = record
                    if journal is not None and time.monotonic() - written > _WRITE_EVERY_S:
                        journal.put(unwritten)
                        unwritten, written = {}, time.monotonic()
                    progress.advance(sum(rows[missing[number]] for number in finished))
        finally:  # also when interrupted
            if journal is not None:
                journal.put(unwritten)
        return records


def check_counts(settings: Any, *names: str) -> None:
    """Raise `ConfigError` unless each of these settings is None, or 1 or more."""
    for name in names:
        if (value := getattr(settings, name)) is not None and value < 1:
            raise ConfigError(f"{name} must be 1 or more; got {value!r}.")
