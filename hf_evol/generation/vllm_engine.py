"""vLLM in this process (extra ``vllm``)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from hf_evol.errors import ConfigError, require_extra
from hf_evol.generation.base import Chat, Completion, LocalEngine, SamplingParams
from hf_evol.generation.sampling import request_seed

_REQUESTS = 1024  # handed to vLLM together; finished ones are durable after each such part


@dataclass(frozen=True)
class VllmEngine(LocalEngine):
    """Completes chats with vLLM's offline engine, which schedules and batches by itself.

    Each request carries a seed made of its row key. vLLM gives the same text for the same seed as far as its kernels
    don't depend on the batch; unlike with `TransformersEngine`, that is no promise.

    Args:
        model: name, folder or `ModelSpec`. Its ``device`` must be unset: vLLM chooses.
        gpu_memory_utilization: the share of the GPU's memory that vLLM takes.
        tensor_parallel_size: how many GPUs share the model.

    Raises:
        MissingExtraError: vLLM is not installed.
    """

    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1

    is_shared_out: ClassVar[bool] = False  # vLLM chooses its devices

    def __post_init__(self) -> None:
        require_extra("vllm", "vllm", "VllmEngine")
        if self.model.device is not None:
            raise ConfigError(f"vLLM chooses its device; leave device unset instead of {self.model.device!r}.")

    def identity(self) -> dict[str, object]:
        return super().identity() | {"engine": "vllm"}

    def stream(
        self, chats: Sequence[Chat], params: SamplingParams, keys: Sequence[str]
    ) -> Iterator[list[tuple[int, Completion]]]:
        import vllm

        self.check()
        llm = _load(self)
        context = llm.llm_engine.model_config.max_model_len
        prompts, unfit = self.rendered(chats, context)
        yield unfit
        for start in range(0, len(prompts), _REQUESTS):
            part = list(prompts)[start : start + _REQUESTS]
            requests = [{"prompt_token_ids": prompts[place]} for place in part]
            settings = [
                vllm.SamplingParams(
                    temperature=params.temperature,
                    top_p=params.top_p,
                    max_tokens=min(params.max_new_tokens, context - len(prompts[place])),
                    seed=request_seed(keys[place]),
                    logprobs=1 if params.top1_probs else None,
                )
                for place in part
            ]
            outputs = llm.generate(requests, settings, use_tqdm=False)
            yield [(place, _completion(output, params)) for place, output in zip(part, outputs, strict=True)]


@lru_cache(maxsize=1)
def _load(engine: VllmEngine) -> Any:
    from vllm import LLM

    spec = engine.model
    return LLM(
        model=spec.path,
        revision=spec.revision,
        dtype=spec.dtype,
        trust_remote_code=spec.trust_remote_code,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        tensor_parallel_size=engine.tensor_parallel_size,
        enable_prefix_caching=True,
    )


def _completion(output: Any, params: SamplingParams) -> Completion:
    best = output.outputs[0]
    probs = None
    if params.top1_probs and best.logprobs:
        probs = [math.exp(max(p.logprob for p in at.values())) for at in best.logprobs[: params.top1_probs]]
    reason = "length" if best.finish_reason == "length" else "stop"
    return Completion(best.text, reason, len(output.prompt_token_ids), len(best.token_ids), top1_probs=probs)
