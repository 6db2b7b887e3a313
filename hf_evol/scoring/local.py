"""What transforms share that score with a model in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
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

    def remembered(
        self,
        requests: Sequence[Any],
        settings: dict[str, Any],
        kind: str,
        score: Callable[[list[Any]], Iterator[dict[int, Record]]],
        rows: Sequence[int] | None = None,
    ) -> list[Record]:
        """The requests' records, those that the journal knows among them; new ones are durable within a second.

        Args:
            settings: what decides a record beside the model and the request.
            kind: what the journal's entries are, apart from others about the same.
            score: yields the records of requests by their place, as they finish. Those out of memory are not remembered.
            rows: by how many rows each request moves the progress bar; by default by one.
        """
        rows = [1] * len(requests) if rows is None else rows
        journal = open_journal(self.journal)
        records: list[Any] = [None] * len(requests)
        hashes: list[str] = []
        if journal is not None:
            identity = self.identity() | settings
            hashes = [journal.key(identity, request, kind) for request in requests]
            known = journal.get(hashes)
            records = [known.get(digest) for digest in hashes]
        missing = [place for place, record in enumerate(records) if record is None]
        progress.advance(sum(rows) - sum(rows[place] for place in missing))
        if not missing:
            return records
        unwritten, written = {}, time.monotonic()
        try:
            with closing(score([requests[place] for place in missing])) as stream:
                for finished in stream:
                    for number, record in finished.items():
                        records[missing[number]] = record
                        if journal is not None and OUT_OF_MEMORY not in record.values():
                            unwritten[hashes[missing[number]]] = record
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
