"""The engine protocol: chats, sampling parameters and row keys in; completions in the same order out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from hf_evol import progress
from hf_evol.errors import ConfigError
from hf_evol.models.journal import Journal

Chat = list[dict[str, str]]

_WRITE_EVERY_S = 0.25  # making a journal durable takes milliseconds; a killed run does this much again


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. The defaults are the paper's for evolving.

    Args:
        temperature: 0 means greedy.
        top_p: nucleus sampling keeps the smallest set of tokens whose probability reaches this share.
        max_new_tokens: at most so many tokens, and never more than the model's context leaves.
        top1_probs: of how many first generated tokens to record the most probable token's probability.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 2048
    top1_probs: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigError(f"temperature must be 0 (greedy) or more; got {self.temperature!r}.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be over 0 and at most 1; got {self.top_p!r}.")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be 1 or more; got {self.max_new_tokens!r}.")
        if self.top1_probs < 0:
            raise ConfigError(f"top1_probs must be 0 or more; got {self.top1_probs!r}.")


GREEDY = SamplingParams(temperature=0.0, top_p=1.0)  # the paper's for responses and judgements


@dataclass(frozen=True)
class Completion:
    """What came back for one chat.

    Args:
        text: the generated text, without special tokens; empty where there is an error.
        finish_reason: ``"stop"``, ``"length"`` (cut off by the token limit) or ``"error"``.
        n_prompt_tokens: tokens of the rendered prompt.
        n_tokens: generated tokens.
        error: why this row failed, as ``"too_long: …"`` or ``"engine_error: …"``; or None.
        top1_probs: the probability of the most probable token, before temperature and top-p, at each of the first
            positions that were asked for; or None where none were, or the engine doesn't say.
    """

    text: str
    finish_reason: str
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    error: str | None = None
    top1_probs: list[float] | None = None


def too_long(n_tokens: int, context: int) -> Completion:
    """The completion of a prompt that the model's context can't hold."""
    message = f"too_long: the prompt has {n_tokens} tokens and the model's context is {context}"
    return Completion("", "error", n_prompt_tokens=n_tokens, error=message)


class Engine(Protocol):
    """Something that completes chats. Engines are frozen dataclasses of their settings, so that they pickle
    and hash the same in every process; loaded weights live in `hf_evol.models`."""

    @property
    def name(self) -> str:
        """The model's name, as recorded in the ``evolver`` and ``responder`` columns."""
        ...

    def check(self) -> None:
        """Raise what is wrong with the settings, without loading weights."""
        ...

    def identity(self) -> dict[str, object]:
        """What decides the text besides prompt, parameters and key: model, revision, template, precision."""
        ...

    def count_prompt_tokens(self, chats: Sequence[Chat]) -> int:
        """Tokens of the rendered prompts, without loading weights."""
        ...

    def stream(
        self, chats: Sequence[Chat], params: SamplingParams, keys: Sequence[str]
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Yield (position, completion) pairs, in lists as they finish, each position once.

        A row's sampling noise depends on its key and on nothing else. A row that fails gives a completion
        with an error; only what would fail for every row is raised.
        """
        ...


def generate(
    engine: Engine,
    chats: Sequence[Chat],
    params: SamplingParams,
    keys: Sequence[str],
    journal: Journal | None,
) -> list[Completion]:
    """Complete ``chats`` in order, each finished request durable in ``journal`` within a fraction of a second.

    Requests that the journal already holds are not generated again; failed ones are.
    """
    done: dict[int, Completion] = {}
    hashes: list[str] = []
    if journal is not None:
        identity = engine.identity() | asdict(params)
        hashes = [journal.key(identity, chat, key) for chat, key in zip(chats, keys, strict=True)]
        found = journal.get(hashes)
        done = {place: Completion(**found[digest]) for place, digest in enumerate(hashes) if digest in found}
        progress.advance(len(done))
    missing = [place for place in range(len(chats)) if place not in done]
    unwritten: dict[str, dict[str, object]] = {}
    written = time.monotonic()
    try:
        for finished in (
            engine.stream([chats[i] for i in missing], params, [keys[i] for i in missing]) if missing else ()
        ):
            for i, completion in finished:
                done[missing[i]] = completion
                if journal is not None and completion.error is None:
                    unwritten[hashes[missing[i]]] = asdict(completion)
            if journal is not None and time.monotonic() - written > _WRITE_EVERY_S:
                journal.put(unwritten)
                unwritten, written = {}, time.monotonic()
            progress.advance(
                len(finished),
                sum(completion.n_tokens for _, completion in finished),
                sum(completion.error is not None for _, completion in finished),
            )
    finally:  # also when interrupted
        if journal is not None:
            journal.put(unwritten)
    return [done[place] for place in range(len(chats))]
