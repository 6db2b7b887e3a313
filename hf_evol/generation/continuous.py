"""Continuous batching: `transformers`' paged cache and scheduler, with our sampling noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hf_evol.errors import ModelError
from hf_evol.generation.base import SamplingParams
from hf_evol.generation.sampling import sample, uniforms

if TYPE_CHECKING:
    import torch

_POLL_S = 1.0


def generate_tokens(
    model: Any, requests: Mapping[int, Any], params: SamplingParams, stop_ids: set[int]
) -> Iterator[tuple[int, list[int], str | None]]:
    """Yield (place, generated tokens, error or None) as requests finish.

    Requests go in sorted, so that prompts with a common beginning follow each other and share its cache.

    Raises:
        ModelError: the model can't be batched this way, or the generation thread ended.
    """
    import torch
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    context = max(len(request.prompt) + request.limit for request in requests.values())
    longest = max(request.limit for request in requests.values())
    config = GenerationConfig(do_sample=False, eos_token_id=sorted(stop_ids) or -1, max_new_tokens=longest)
    # Room for the sorted vocabulary of the sampling, as the library leaves it for its own logits processors.
    # On a GPU the library sizes the cache to what is free; elsewhere it would take most of the machine.
    on_gpu = model.device.type == "cuda"
    sizes = {} if on_gpu else {"num_blocks": max(16, -(-context // 256)), "max_batch_tokens": 1024}
    settings = ContinuousBatchingConfig(max_memory_percent=0.8, **sizes)
    with torch.inference_mode():
        manager = model.init_continuous_batching(generation_config=config, continuous_batching_config=settings)
        if params.temperature > 0:
            manager.logit_processor = _processors(params)
        waiting = set(map(str, requests))
        try:
            if on_gpu:
                manager.warmup()  # captures CUDA graphs
            manager.start()
            for place in sorted(requests, key=lambda place: requests[place].prompt, reverse=True):
                (prompt, key, limit), extra = requests[place], {"eos_token_id": config.eos_token_id}
                if params.temperature > 0:
                    extra |= {"noise": uniforms([key], limit)[0], "prompt_length": len(prompt)}
                manager.add_request(prompt, str(place), limit, **extra)
            while waiting:
                result = manager.get_result(timeout=_POLL_S)
                if result is None:
                    if not manager.is_running():
                        raise ModelError(f"Continuous batching stopped: {manager.background_thread_status.fatal_error}")
                elif result.is_finished():
                    waiting.discard(result.request_id)
                    yield int(result.request_id), list(result.generated_tokens), result.error
        finally:
            manager.stop(block=True, timeout=10)
            manager.destroy()


def _processors(params: SamplingParams) -> Any:
    """The library's list of logits processors, holding one that makes the choice by the request's own noise."""
    import numpy as np
    import torch
    from transformers import LogitsProcessorList
    from transformers.generation.continuous_batching.cb_logits_processors import (
        ContinuousBatchingLogitsProcessor,
        ContinuousBatchingLogitsProcessorList,
    )

    class KeyedNoise(ContinuousBatchingLogitsProcessor):
        """Leaves one token possible: the one that `sample` chooses. The library then takes the most probable."""

        supported_kwargs = {"noise": np.ndarray, "prompt_length": int}
        ignored_kwargs = ()

        def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
            int32_tensor.zero_()

        def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
            # ``position_offset`` counts all the tokens scheduled so far, so it holds when steps overlap, and when a
            # request is put back and prefilled anew with what it had generated.
            states = [request.state for request in requests_with_new_token]
            given = [(state.logit_processor_kwargs, state.position_offset) for state in states]
            noise = [extra["noise"][at - extra["prompt_length"]] if extra else 0.0 for extra, at in given]
            return torch.tensor(noise, dtype=torch.float32).view(torch.int32)

        def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
            tokens = sample(scores, params, tensor_arg[: len(scores)].view(torch.float32))
            return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)

    processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([KeyedNoise()]))
    processors.tensors_required = 1  # one number for each request and step
    return processors
