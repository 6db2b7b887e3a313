"""The default engine: a `transformers` causal language model in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hf_evol import models
from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation import continuous
from hf_evol.generation.base import Chat, Completion, Engine, LocalEngine, SamplingParams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransformersEngine(LocalEngine):
    """Completes chats by continuous batching (`transformers`' paged cache), or in static batches. A row gets the same text
    either way, in float32.

    In a static batch, what a prompt has in common at the beginning with the one read before it, such as a system turn and
    worked examples, is not computed again, and rows that end make room for waiting ones. The cache takes at most half of the
    memory that is free at the beginning; rows that it has no room for wait. Models with layers that keep less than all keys
    and values, such as those with sliding windows, read batches whole, padded on the left, and shrink them.

    Args:
        model: name, folder or `ModelSpec`.
        batch_size: the most rows decoded together in a static batch; halved, for this process, when memory runs out.
        batching: ``"continuous"``, ``"static"``, or ``"auto"``: continuous on a CUDA GPU, and static elsewhere, for
            models that can't be batched continuously, and for what is left when continuous batching fails.
    """

    batch_size: int = 64
    batching: str = "auto"

    def __post_init__(self) -> None:
        if self.batching not in ("auto", "static", "continuous"):
            raise ConfigError(f"batching must be auto, static or continuous; got {self.batching!r}.")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more; got {self.batch_size!r}.")

    def check(self) -> None:
        super().check()
        models.check_device(self.model)

    def stream(
        self, chats: Sequence[Chat], params: SamplingParams, keys: Sequence[str]
    ) -> Iterator[list[tuple[int, Completion]]]:
        self.check()
        model, tokenizer = models.load_model(self.model), models.load_tokenizer(self.model)
        context = models.context_length(model.config)
        prompts, unfit = self.rendered(chats, context)
        yield unfit
        requests = {
            place: _Request(prompt, keys[place], min(params.max_new_tokens, context - len(prompt)))
            for place, prompt in prompts.items()
        }
        wanted = self.batching == "continuous" or (self.batching == "auto" and _is_on_gpu(model))
        if wanted and requests and not params.top1_probs:  # which the library's scheduler doesn't give
            try:
                for place, completion in _continuous(model, tokenizer, requests, params):
                    del requests[place]
                    yield [(place, completion)]
            except (ModelError, RuntimeError, ValueError, AttributeError) as error:
                if self.batching == "continuous":
                    raise ModelError(f"Continuous batching of {self.model.name!r} failed: {error}") from error
                logger.warning("Going on in static batches, as continuous batching failed: %s", error)
        yield from self._static(model, tokenizer, requests, params)

    def _static(
        self, model: Any, tokenizer: Any, requests: dict[int, _Request], params: SamplingParams
    ) -> Iterator[list[tuple[int, Completion]]]:
        from hf_evol.generation import static

        stops, waiting = _stop_ids(model, tokenizer), dict(requests)
        while waiting:
            size = _sizes.get(self, self.batch_size)
            try:
                for place, tokens, probs in static.generate_tokens(model, waiting, params, stops, size):
                    request = waiting.pop(place)
                    yield [
                        (place, _completion(tokenizer, request, tokens, stops, probs if params.top1_probs else None))
                    ]
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not models.is_out_of_memory(error):
                    raise
                if size == 1:
                    raise ModelError(
                        f"Not enough memory to complete one prompt with {self.model.name!r}. Use a smaller model, "
                        "dtype='bfloat16', or a smaller max_new_tokens."
                    ) from error
                _sizes[self] = size // 2


class _Request(NamedTuple):
    """A rendered prompt, the key of its noise, and the most tokens to generate."""

    prompt: list[int]
    key: str
    limit: int


def _is_on_gpu(model: Any) -> bool:
    return model.device.type == "cuda"


def _continuous(
    model: Any, tokenizer: Any, requests: dict[int, _Request], params: SamplingParams
) -> Iterator[tuple[int, Completion]]:
    stops = _stop_ids(model, tokenizer)
    for place, tokens, error in continuous.generate_tokens(model, requests, params, stops):
        request = requests[place]
        if error is not None:
            yield place, Completion("", "error", len(request.prompt), error=f"engine_error: {error}")
            continue
        yield place, _completion(tokenizer, request, tokens, stops)


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured, tokenizer.eos_token_id]
    return {token for token in ids if token is not None}


def _completion(
    tokenizer: Any, request: _Request, tokens: list[int], stops: set[int], probs: list[float] | None = None
) -> Completion:
    stopped = bool(tokens) and tokens[-1] in stops
    tokens = tokens[:-1] if stopped else tokens
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Completion(text, "stop" if stopped else "length", len(request.prompt), len(tokens), top1_probs=probs)


def as_engine(model: str | models.ModelSpec | Engine) -> Engine:
    """The engine for a transform's ``model`` argument; a name or a spec means `TransformersEngine`."""
    if isinstance(model, (str, models.ModelSpec)):
        return TransformersEngine(models.as_spec(model))
    if not hasattr(model, "stream"):
        raise ConfigError(f"model must be a name, a folder, a ModelSpec or an engine, not {type(model).__name__}.")
    return model


_sizes: dict[TransformersEngine, int] = {}  # the batch size that worked, once memory has run out
