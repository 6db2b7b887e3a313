"""vLLM, from this process (extra ``vllm``)."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from hf_evol import models
from hf_evol.errors import ConfigError, ModelError, require_extra
from hf_evol.generation.base import GREEDY, Chat, Completion, LocalEngine, SamplingParams
from hf_evol.generation.sampling import CYCLE, LOOP, request_seed

_KIND = "vLLM"
# Of vLLM's arguments: those that fields of `ModelSpec` stand for, and those that decide no text.
_OF_THE_SPEC = {"model", "tokenizer", "revision", "tokenizer_revision", "dtype", "trust_remote_code"}
_OF_PLACE_AND_SPEED = {
    "gpu_memory_utilization", "kv_cache_memory_bytes", "cpu_offload_gb", "tensor_parallel_size", "pipeline_parallel_size",
    "distributed_executor_backend", "max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching", "block_size", "load_format",
    "download_dir",
}  # fmt: skip
_MORE = "VLLM_LOGGING_LEVEL=INFO in the environment shows all that vLLM logs."
_CAUSE = re.compile(r"(?:^|[\s.])(\w*(?:Error|Exception|Exit)): (.+)")


@dataclass(frozen=True)
class VllmEngine(LocalEngine):
    """Completes chats with vLLM, which schedules and batches by itself, in processes of its own.

    Each request carries a seed made of its row key. vLLM gives the same text for the same seed as far as its kernels
    don't depend on the batch; unlike with `TransformersEngine`, that is no promise. A text that repeats the same 33 to 64 tokens
    eight times is ended there, as if it had reached its limit.

    One engine runs at a time in a process: another takes its place, and `hf_evol.models.release` ends it. As it starts
    processes, call it under ``if __name__ == "__main__":``. What vLLM logs is shown, on standard error, where the
    environment variable ``VLLM_LOGGING_LEVEL`` says so, such as ``INFO``.

    Args:
        model: name, folder or `ModelSpec`. Its ``loading`` holds arguments of vLLM's ``EngineArgs``, such as
            ``{"gpu_memory_utilization": 0.5, "tensor_parallel_size": 2, "max_model_len": 8192}``. By default the share of the
            memory, ``gpu_memory_utilization``, is nine tenths of what is free on a GPU, and half of it on a CPU. Its
            ``device`` must be unset: vLLM chooses.

    Raises:
        MissingExtraError: vLLM is not installed.
        ConfigError: a device, a GGUF file or a PEFT adapter, or arguments that vLLM doesn't have.
        ModelError: vLLM can't start or broke off; with its reason.
    """

    is_shared_out: ClassVar[bool] = False  # vLLM chooses its devices

    def __post_init__(self) -> None:
        require_extra("vllm", "vllm", "VllmEngine")
        if self.model.device is not None:
            raise ConfigError(f"vLLM chooses its device; leave device unset instead of {self.model.device!r}.")
        if self.model.gguf_file is not None:
            raise ConfigError(
                f"VllmEngine reads no GGUF files, as of {self.model.name!r}. Name the model's own weights, such as --model "
                "HuggingFaceTB/SmolLM2-135M-Instruct for the demo's, or leave it to the engine transformers."
            )

    def check(self, params: SamplingParams = GREEDY) -> None:
        super().check(params)
        if models.base_of_adapter(self.model) is not None:
            raise ConfigError(
                f"{self.model.name!r} is a PEFT adapter. Merge it into its base for vLLM, or use transformers."
            )
        given = self.model.loading_options.keys()
        if ours := sorted(given & _OF_THE_SPEC):
            raise ConfigError(f"loading must not hold {', '.join(ours)}, as other settings of the model say so.")
        if unknown := sorted(given - _library().EngineArgs.__dataclass_fields__.keys()):
            raise ConfigError(
                f"vLLM has no argument {', '.join(map(repr, unknown))}. loading takes those of its EngineArgs."
            )

    def identity(self) -> dict[str, object]:
        options = {name: of for name, of in self.model.loading_options.items() if name not in _OF_PLACE_AND_SPEED}
        return models.model_identity(replace(self.model, loading=options or None)) | {"engine": "vllm"}

    def stream(
        self, chats: Sequence[Chat], params: SamplingParams, keys: Sequence[str]
    ) -> Iterator[list[tuple[int, Completion]]]:
        self.check()
        running = models.loaded(self.model, _KIND, _start)
        prompts, unfit = self.rendered(chats, running.context)
        yield unfit
        try:
            for place, prompt in prompts.items():
                running.add(place, prompt, keys[place], params)
            while running.engine.has_unfinished_requests():
                if finished := [output for output in running.engine.step() if output.finished]:
                    yield [(int(output.request_id), self._completion(output, params)) for output in finished]
        except Exception as error:
            raise ModelError(
                f"vLLM broke off with {self.model.name!r}: {_reason(running.said, error)}. Memory may have run out. {_MORE}"
            ) from error
        finally:
            if running.engine.has_unfinished_requests():  # Ctrl-C ends vLLM's processes, too
                models.release(_KIND)

    def _completion(self, output: Any, params: SamplingParams) -> Completion:
        best, n_prompt_tokens = output.outputs[0], len(output.prompt_token_ids)
        if best.finish_reason not in ("stop", "length", "repetition"):
            return Completion("", "error", n_prompt_tokens, error=f"engine_error: finish reason {best.finish_reason}")
        tokens = list(best.token_ids)[: -1 if best.finish_reason == "stop" else None]  # without the end token
        probs = None
        if params.top1_probs:
            probs = [math.exp(max(of.logprob for of in at.values())) for at in best.logprobs[: params.top1_probs]]
        text = models.load_tokenizer(self.model).decode(tokens, skip_special_tokens=True)
        return Completion(
            text, "stop" if best.finish_reason == "stop" else "length", n_prompt_tokens, len(tokens), top1_probs=probs
        )


class _Running:
    """vLLM's engine and what its processes say."""

    def __init__(self, engine: Any, said: Any) -> None:
        self.engine, self.said, self.context = engine, said, engine.model_config.max_model_len

    def shutdown(self) -> None:
        self.engine.engine_core.shutdown()

    def add(self, place: int, prompt: list[int], key: str, params: SamplingParams) -> None:
        from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind

        settings = _library().SamplingParams(
            temperature=params.temperature,
            top_p=params.top_p,
            max_tokens=min(params.max_new_tokens, self.context - len(prompt)),
            seed=request_seed(key) if params.temperature > 0 else None,
            logprobs=1 if params.top1_probs else None,
            detokenize=False,
            # A repetition of fewer tokens is one of a multiple of them, too.
            repetition_detection=RepetitionDetectionParams(
                max_pattern_size=CYCLE, min_pattern_size=CYCLE // 2 + 1, min_count=2 * LOOP // CYCLE
            ),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self.engine.add_request(str(place), {"prompt_token_ids": prompt}, settings)


@lru_cache(maxsize=1)
def _library() -> Any:
    """vLLM, told to log on standard error, and errors alone, unless the environment says more."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    logging.getLogger("vllm").setLevel(os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR"))  # from the import on
    # The scheduler runs here and the model in processes below, which end with this one: vLLM's own would outlive a SIGKILL.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm

    return vllm


def _start(spec: models.ModelSpec, kind: str) -> _Running:
    import torch

    models.release(kind)
    vllm = _library()
    loading = {"distributed_executor_backend": "mp", "disable_log_stats": True} | spec.loading_options
    quiet = os.environ["VLLM_LOGGING_LEVEL"] == "ERROR"
    said = tempfile.TemporaryFile() if quiet else None  # noqa: SIM115 - vLLM's processes write to it as long as they run
    try:
        with _output_to(said.fileno() if said else 2):
            if not torch.cuda.is_available():
                # A prompt read in parts draws from its seed's generator each time, and that of a CPU can't be set back.
                loading.setdefault("enable_chunked_prefill", False)
            if "gpu_memory_utilization" not in loading:
                loading["gpu_memory_utilization"] = _free_share(loading.get("tensor_parallel_size", 1))
            settings = vllm.EngineArgs(
                model=spec.path,
                revision=spec.revision,
                dtype=models.precision(spec),
                trust_remote_code=spec.trust_remote_code,
                **loading,
            )
            running = _Running(vllm.LLMEngine.from_engine_args(settings), said)
    except Exception as error:  # of vLLM, or of what it is made of
        raise ModelError(f"vLLM can't start with {spec.name!r}: {_reason(said, error)}. {_MORE}") from error
    if quiet:
        logging.getLogger("vllm").setLevel(logging.CRITICAL)  # below, it prints all requests when it breaks off
    return running


def _free_share(gpus: int) -> float:
    """A share of the memory that is free now: of a GPU's nearly all, of a machine's half."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return 0.9 * min(free / total for free, total in map(torch.cuda.mem_get_info, range(gpus)))
    memory = psutil.virtual_memory()
    return 0.5 * memory.available / memory.total


@contextmanager
def _output_to(file: int) -> Iterator[None]:
    """Send to ``file`` what this process, and those that it starts, write to standard output and error."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        for number in (1, 2):
            os.dup2(file, number)
        yield
    finally:
        for stream in streams:
            stream.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


def _reason(said: Any, error: Exception) -> str:
    """What went wrong first, by what vLLM's processes said; else by the error that came of it."""
    if said is not None:
        said.seek(0)
        for line in said.read().decode("utf-8", "replace").splitlines():
            if (cause := _CAUSE.search(line)) and "root cause" not in line:
                return cause.group(2).rstrip(".")
    if wrong := getattr(error, "errors", None):  # pydantic's, of arguments
        return "; ".join(": ".join([*map(str, of["loc"]), of["msg"]]) for of in wrong())
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
