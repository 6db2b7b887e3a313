"""The engine protocol: chats, sampling parameters and row keys in; completions in the same order out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from jinja2 import TemplateError

from hf_evol import models, progress
from hf_evol.errors import ConfigError
from hf_evol.models import encoding
from hf_evol.models.journal import Journal

Chat = list[dict[str, str]]
Record = dict[str, Any]


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
        for name, fine, allowed in (
            ("temperature", self.temperature >= 0 and math.isfinite(self.temperature), "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "over 0 and at most 1"),
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("top1_probs", self.top1_probs >= 0, "0 or more"),
        ):
            if not fine:
                raise ConfigError(f"{name} must be {allowed}; got {getattr(self, name)!r}.")


GREEDY = SamplingParams(temperature=0.0, top_p=1.0)  # the paper's for responses and judgements


@dataclass(frozen=True)
class Completion:
    """What came back for one chat.

    Args:
        text: the generated text, without special tokens; empty where there is an error.
        finish_reason: ``"stop"``, ``"length"`` (cut off by the token limit), ``"unknown"`` (a server doesn't say) or ``"error"``.
        n_prompt_tokens: tokens of the rendered prompt.
        n_tokens: generated tokens, without the one that ends the text. Of a server, what it counts, less one where it says
            that the text ended: servers count that token.
        error: why this row failed, as ``"too_long: …"``, ``"template_error: …"`` or ``"engine_error: …"``; or None.
        top1_probs: the probability of the most probable token, before temperature and top-p, at each of the first
            positions that were asked for; or None where none were, or the engine doesn't say.
    """

    text: str
    finish_reason: str
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    error: str | None = None
    top1_probs: list[float] | None = None


class Engine(Protocol):
    """Something that completes chats. Engines are frozen dataclasses of their settings, so that they pickle and hash
    the same in every process; loaded weights live in `hf_evol.models`."""

    @property
    def name(self) -> str:
        """The model's name, as recorded in the ``evolver`` and ``responder`` columns."""

    def check(self, params: SamplingParams = GREEDY) -> None:
        """Raise what is wrong with the settings, without loading weights."""

    def identity(self) -> dict[str, object]:
        """What decides the text besides prompt, parameters and key: model, revision, template, precision."""

    def count_prompt_tokens(self, chats: Sequence[Chat]) -> int:
        """Tokens of the rendered prompts, without loading weights."""

    def stream(
        self, chats: Sequence[Chat], params: SamplingParams, keys: Sequence[str]
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Yield (position, completion) pairs, in lists as they finish, each position once.

        A row's sampling noise depends on its key and on nothing else. A row that fails gives a completion with an
        error; only what would fail for every row is raised.
        """


def check_has_template(spec: models.ModelSpec) -> None:
    """Raise `ConfigError` if the model has no chat template."""
    if not models.load_tokenizer(spec).chat_template:
        raise ConfigError(
            f"The model {spec.name!r} has no chat template. Supply one with chat_template= in hf_evol.ModelSpec, or "
            "--chat-template FILE.jinja on the command line."
        )


@dataclass(frozen=True)
class LocalEngine:
    """Base of the engines that run a model in this process, their first field."""

    model: models.ModelSpec = field(default_factory=models.ModelSpec)

    @property
    def name(self) -> str:
        return self.model.label

    def check(self, params: SamplingParams = GREEDY) -> None:
        """Raise if the model can't be found or has no chat template; reads no weights."""
        models.load_config(self.model)
        check_has_template(self.model)
        encoding.check_chat_template(self.model)

    def identity(self) -> dict[str, object]:
        return models.model_identity(self.model)

    def count_prompt_tokens(self, chats: Sequence[Chat]) -> int:
        return encoding.count_prompt_tokens(self.model, chats)

    def rendered(
        self, chats: Sequence[Chat], context: int
    ) -> tuple[dict[int, list[int]], list[tuple[int, Completion]]]:
        """By place, the token ids of the prompts that leave room for an answer, and the completions of the others."""
        tokenizer, prompts, unfit = models.load_tokenizer(self.model), {}, []
        for place, ids in enumerate(encoding.render_chats(tokenizer, chats)):
            error = None
            if isinstance(ids, TemplateError):
                ids, error = [], f"template_error: the chat template refuses the turns: {ids}"
            elif not ids:
                error = "template_error: the chat template renders nothing"
            elif len(ids) >= context:
                error = f"too_long: the prompt has {len(ids)} tokens and the model's context is {context}"
            if error is None:
                prompts[place] = ids
            else:
                unfit.append((place, Completion("", "error", len(ids), error=error)))
        return prompts, unfit


def generate(
    engine: Engine,
    chats: Sequence[Chat],
    params: SamplingParams,
    keys: Sequence[str],
    journal: Journal | None,
    is_through: Callable[[int, Completion], bool] = lambda place, completion: True,
) -> list[Completion]:
    """Complete ``chats`` in order. Requests that the journal holds are not generated again; failed ones are.

    Args:
        is_through: is given each completion as it comes; says whether its row, which then moves the progress bar, needs no other.
    """

    def stream(places: list[int]) -> Iterator[dict[int, Record]]:
        for finished in engine.stream([chats[i] for i in places], params, [keys[i] for i in places]):
            yield {number: dict(vars(completion)) for number, completion in finished}

    def read(records: dict[int, Record]) -> tuple[dict[int, Completion], list[bool]]:
        finished = {place: Completion(**record) for place, record in records.items()}
        return finished, [is_through(place, completion) for place, completion in finished.items()]

    requests = dict(enumerate(zip(chats, keys, strict=True)))
    with closing(remembered(journal, lambda: engine.identity() | asdict(params), requests, stream)) as batches:
        done, through = read(next(batches))
        progress.underway(limit=params.max_new_tokens, waiting=len(chats) - len(done))
        progress.advance(sum(through), reused=sum(completion.n_tokens for completion in done.values()))
        for records in batches:
            finished, through = read(records)
            done |= finished
            progress.generated(through, list(finished.values()))
    return [done[place] for place in range(len(chats))]


def remembered(
    journal: Journal | None,
    identity: Callable[[], dict[str, Any]],
    requests: Mapping[int, tuple[Any, str]],
    stream: Callable[[list[int]], Iterator[dict[int, Record]]],
    lasting: Callable[[Record], bool] = lambda record: record["error"] is None,
) -> Iterator[dict[int, Record]]:
    """Yield records by place: those that the journal knows, then those of ``stream``, durable within two seconds, and at
    the end.

    Args:
        identity: what decides a record beside its request.
        requests: by place, what is asked, and its key.
        stream: from places to their requests' records, by number among these places, as they finish.
        lasting: whether a record is worth remembering; of the others, another try may give better ones.
    """
    hashes: dict[int, bytes] = {}
    if journal is not None:
        whole = identity()
        hashes = {place: journal.key(whole, *request) for place, request in requests.items()}
    known = journal.get(hashes.values()) if journal is not None else {}
    yield {place: known[digest] for place, digest in hashes.items() if digest in known}
    missing = [place for place in requests if hashes.get(place) not in known]
    try:
        for finished in stream(missing) if missing else ():
            records = {missing[number]: record for number, record in finished.items()}
            if journal is not None:
                journal.put({hashes[place]: record for place, record in records.items() if lasting(record)})
            yield records
    finally:  # also when interrupted
        if journal is not None:
            journal.flush()
