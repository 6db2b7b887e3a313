"""The default engine: a `transformers` causal language model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hf_evol import models
from hf_evol.errors import ConfigError, ModelError, check_counts
from hf_evol.generation.base import GREEDY, Chat, Completion, Engine, LocalEngine, SamplingParams

_AT_ONCE = {"cpu": 64, "cuda": 512}


@dataclass(frozen=True)
class TransformersEngine(LocalEngine):
    """Completes chats in batches. In float32, a row gets the same text in any batch.

    What a prompt has in common at the beginning with the one read before it, such as a system turn and worked examples, is not
    computed again, and rows that end make room for waiting ones. The cache takes at most half of the memory that is free at the
    beginning; rows that it has no room for wait. A text whose last 256 tokens only repeat up to 64 is ended there, as if it had
    reached its limit. On a CUDA GPU, steps are replayed as CUDA graphs. Models with layers that keep
    less than all keys and values, such as those with sliding windows, read batches whole, padded on the left, and shrink them.

    Args:
        model: name, folder or `ModelSpec`.
        batch_size: the most rows decoded together; by default 512 on a CUDA GPU and 64 elsewhere. Halved, for this process,
            when memory runs out.
    """

    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "batch_size")

    def check(self, params: SamplingParams = GREEDY) -> None:
        super().check(params)
        models.check_device(self.model)

    def stream(
        self, chats: Sequence[Chat], params: SamplingParams, keys: Sequence[str]
    ) -> Iterator[list[tuple[int, Completion]]]:
        from hf_evol.generation import batches

        self.check()
        model, tokenizer = models.load_model(self.model), models.load_tokenizer(self.model)
        context = models.context_length(model.config)
        prompts, unfit = self.rendered(chats, context)
        yield unfit
        requests = {
            place: _Request(prompt, keys[place], min(params.max_new_tokens, context - len(prompt)))
            for place, prompt in prompts.items()
        }
        stops = _stop_ids(model, tokenizer)
        while requests:
            most = _sizes.get(self, self.batch_size or _AT_ONCE.get(model.device.type, _AT_ONCE["cpu"]))
            size = min(most, len(requests))
            try:
                for place, tokens, probs in batches.generate_tokens(model, requests, params, stops, size):
                    request = requests.pop(place)
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
