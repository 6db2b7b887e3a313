"""The default engine: a `transformers` causal language model in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_evol import models, progress
from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation import continuous
from hf_evol.generation.base import GREEDY, Chat, Completion, Engine, LocalEngine, SamplingParams
from hf_evol.generation.sampling import sample, uniforms

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransformersEngine(LocalEngine):
    """Completes chats by continuous batching (`transformers`' paged cache), or in static batches.

    Static batches are sorted by length and padded on the left, and finished rows are dropped from them. A row gets the
    same text either way, in float32.

    Args:
        model: name, folder or `ModelSpec`.
        batch_size: rows decoded together in a static batch; halved, for this process, when memory runs out.
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

    def check(self, params: SamplingParams = GREEDY) -> None:
        super().check(params)
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
        waiting = sorted(requests, key=lambda place: (len(requests[place].prompt), place))
        while waiting:
            size = _sizes.get(self, self.batch_size)
            batch = waiting[:size]
            decoder = _Decoder(model, tokenizer, [requests[place] for place in batch], params)
            try:
                for finished in decoder.run():
                    yield [(batch[row], completion) for row, completion in finished]
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not models.is_out_of_memory(error):
                    raise
                if size == 1:
                    raise ModelError(
                        f"Not enough memory to complete one prompt with {self.model.name!r}. Use a smaller model, "
                        "dtype='bfloat16', or a smaller max_new_tokens."
                    ) from error
                _sizes[self] = size // 2
            ended = {batch[row] for row in decoder.done}
            waiting = [place for place in waiting if place not in ended]


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
        stopped = bool(tokens) and tokens[-1] in stops
        yield place, _completion(tokenizer, request, tokens[:-1] if stopped else tokens, stopped)


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured, tokenizer.eos_token_id]
    return {token for token in ids if token is not None}


def _completion(
    tokenizer: Any, request: _Request, tokens: list[int], stopped: bool, probs: list[float] | None = None
) -> Completion:
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


class _Decoder:
    """Decodes one batch; knows which of its rows are done."""

    def __init__(self, model: Any, tokenizer: Any, requests: list[_Request], params: SamplingParams) -> None:
        self.model, self.tokenizer, self.requests, self.params = model, tokenizer, requests, params
        self.stop_ids = _stop_ids(model, tokenizer)
        longest = max(request.limit for request in requests)
        self.noise = uniforms([request.key for request in requests], longest) if params.temperature > 0 else None
        self.generated: list[list[int]] = [[] for _ in requests]
        self.probs: list[list[float]] = [[] for _ in requests]
        self.done: set[int] = set()

    def run(self) -> Iterator[list[tuple[int, Completion]]]:
        """Yield (row, completion) pairs as rows finish."""
        import torch

        device = self.model.device
        prompts = [request.prompt for request in self.requests]
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        rows = list(range(len(prompts)))  # the row of each line of the batch
        state: dict[str, Any] = {}  # the key-value cache, under the model's own name for it
        with torch.inference_mode():
            while rows:
                inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions} | state
                with self._reading(rows) if not state else nullcontext():
                    out = self.model(**inputs, use_cache=True, logits_to_keep=1)
                state = state or self._state(out)
                tokens = self._next_tokens(out.logits[:, -1], rows)
                finished, keep = self._record(tokens.tolist(), rows)
                self._report([rows[line] for line in keep])
                if finished:
                    self.done.update(row for row, _ in finished)
                    yield finished
                    lines = torch.tensor(keep, device=device, dtype=torch.long)
                    next(iter(state.values())).reorder_cache(lines)
                    tokens, mask, positions = tokens[lines], mask[lines], positions[lines]
                    rows = [rows[line] for line in keep]
                ids = tokens[:, None]
                mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
                positions = positions[:, -1:] + 1

    @contextmanager
    def _reading(self, rows: list[int]) -> Iterator[None]:
        """Report layer by layer: to read the prompts of a batch may take minutes."""
        import torch

        layers = next((part for part in self.model.modules() if isinstance(part, torch.nn.ModuleList)), ())
        shares = (number / len(layers) for number in range(1, len(layers) + 1))
        hooks = [layer.register_forward_hook(lambda *_: self._report(rows, next(shares, 1.0))) for layer in layers]
        self._report(rows, 0.0)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _report(self, rows: list[int], share_read: float = 1.0) -> None:
        to_read = sum(len(self.requests[row].prompt) for row in rows)
        writing = sum(len(self.generated[row]) for row in rows)
        progress.underway(in_hand=len(rows), to_read=to_read, reading=to_read * share_read, writing=writing)

    def _state(self, out: Any) -> dict[str, Any]:
        """The cache that a forward pass gave back: ``past_key_values`` until transformers 5.23, then ``cache``."""
        from transformers import Cache

        for name in ("cache", "past_key_values"):
            cache = out.get(name)
            if isinstance(cache, Cache) and any(getattr(layer, "keys", None) is not None for layer in cache.layers):
                return {name: cache}
        raise ModelError(
            f"The model {self.model.name_or_path!r} ({type(self.model).__name__}) keeps its state in a form of its own; only "
            "models with a key-value cache can generate here. Serve it elsewhere, or choose another."
        )

    def _next_tokens(self, logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
        import torch

        if self.params.top1_probs and len(self.generated[rows[0]]) < self.params.top1_probs:
            for row, prob in zip(rows, logits.float().softmax(-1).amax(-1).tolist(), strict=True):
                self.probs[row].append(prob)
        noise = None
        if self.noise is not None:
            noise = torch.tensor([self.noise[row, len(self.generated[row])] for row in rows], device=logits.device)
        return sample(logits, self.params, noise)

    def _record(self, tokens: list[int], rows: list[int]) -> tuple[list[tuple[int, Completion]], list[int]]:
        """Append one token a row; return the completions of rows that end here, and the lines that go on."""
        finished, keep = [], []
        for line, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if token in self.stop_ids:
                finished.append((row, self._completion(row, True)))
                continue
            self.generated[row].append(token)
            if len(self.generated[row]) >= self.requests[row].limit:
                finished.append((row, self._completion(row, False)))
            else:
                keep.append(line)
        return finished, keep

    def _completion(self, row: int, stopped: bool) -> Completion:
        probs = self.probs[row] if self.params.top1_probs else None
        return _completion(self.tokenizer, self.requests[row], self.generated[row], stopped, probs)
