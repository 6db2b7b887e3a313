"""Models and tokenizers in memory, once per process and device."""

from __future__ import annotations

import gc
import io
import json
import os
import struct
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evol.errors import ConfigError, ModelError, require_extra
from hf_evol.models.spec import Files, ModelSpec, check_place, files_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CAUSAL = "AutoModelForCausalLM"
CLASSIFIER = "AutoModelForSequenceClassification"
EMBEDDER = "SentenceTransformer"
_SMALL = 300_000_000  # parameters

_models: dict[tuple[ModelSpec, str], tuple[Files, Any]] = {}  # what is in memory, and the files that it was read from


def load_config(spec: ModelSpec) -> Any:
    """The model's configuration; a few kilobytes.

    Raises:
        ModelError: there is no such model, or it can't be reached.
    """
    return _load_config(spec, files_of(spec))


@lru_cache(maxsize=8)
def _load_config(spec: ModelSpec, files: Files) -> Any:
    from transformers import AutoConfig

    check_place(spec)
    try:
        return AutoConfig.from_pretrained(
            **(base_of_adapter(spec) or spec).where, trust_remote_code=spec.trust_remote_code
        )
    except _UNREADABLE as error:
        raise _model_error(spec, "configuration", error) from error


def is_small(engine: Any) -> bool:
    """Whether an engine's model has fewer than 300 million parameters, so that it is better held to what can be checked
    (``benchmarks/results/small-models.md``)."""
    size = n_parameters(engine)
    return size is not None and size < _SMALL


def n_parameters(engine: Any) -> int | None:
    """How many parameters an engine's model has: as its user states, or by its configuration; None where neither says."""
    if (stated := getattr(engine, "n_parameters", None)) is not None:
        return stated
    spec = getattr(engine, "model", None)
    return (spec.n_parameters or _count_parameters(spec, files_of(spec))) if isinstance(spec, ModelSpec) else None


@lru_cache(maxsize=8)
def _count_parameters(spec: ModelSpec, files: Files) -> int | None:
    try:
        return parameters_of(load_config(spec))
    except _UNREADABLE:  # code of its own, or a model of another kind
        return None


def parameters_of(config: Any) -> int:
    """Parameters of the model that a configuration describes, built without memory; tied ones count once."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model.num_parameters()


def base_of_adapter(spec: ModelSpec) -> ModelSpec | None:
    """The model that a PEFT adapter adapts, if ``spec`` names an adapter; looked for once in a process."""
    return _base_of_adapter(spec, files_of(spec))


@lru_cache(maxsize=32)
def _base_of_adapter(spec: ModelSpec, files: Files) -> ModelSpec | None:
    from transformers.utils import find_adapter_config_file

    if spec.gguf_file is not None:
        return None
    try:
        file = find_adapter_config_file(spec.path, revision=spec.revision)
    except OSError:  # the configuration's own error says more
        return None
    if file is None:
        return None
    require_extra("peft", "peft", "A PEFT adapter")
    adapter = json.loads(Path(file).read_text(encoding="utf-8"))
    return ModelSpec(adapter["base_model_name_or_path"], adapter.get("revision"))


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with the spec's chat template if it names one. Padding is left to the caller."""
    return _load_tokenizer(spec, files_of(spec))


@lru_cache(maxsize=8)
def _load_tokenizer(spec: ModelSpec, files: Files) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(**spec.where, trust_remote_code=spec.trust_remote_code)
    except _UNREADABLE as error:
        raise _model_error(spec, "tokenizer", error) from error
    if spec.chat_template is not None:
        tokenizer.chat_template = _read_template(spec.chat_template)
    return tokenizer


def _read_template(template: str) -> str:
    if not template.endswith((".jinja", ".jinja2", ".j2")):
        return template
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the chat template {template!r}: {error}") from error


def load_model(spec: ModelSpec, kind: str = CAUSAL) -> PreTrainedModel:
    """The model in evaluation mode on its device; loaded at the first call in this process, and anew when its files have changed.

    Args:
        kind: the class of `transformers` to load it with: `CAUSAL` or `CLASSIFIER`.

    Raises:
        ModelError: the weights can't be loaded, or a classifier's head is not among them.
    """
    _calm_worker(os.getpid())
    return loaded(spec, kind, _load_model)


def loaded(spec: ModelSpec, kind: str, load: Callable[[ModelSpec, str], Any]) -> Any:
    """What is in memory, or else what ``load`` gives. Other weights under a name take the place of those before."""
    spec = replace(spec, device=choose_device(spec), chat_template=None, n_parameters=None)
    base = base_of_adapter(spec)
    files = files_of(spec) + (files_of(base) if base else ())
    if (spec, kind) in _models and _models[spec, kind][0] != files:
        _forget((spec, kind))  # before the others need the memory
    if (spec, kind) not in _models:
        _models[spec, kind] = (files, load(spec, kind))
    return _models[spec, kind][1]


@lru_cache(maxsize=1)
def _calm_worker(pid: int) -> None:
    """One thread in a worker of ``num_proc``: workers share the cores, and OpenMP threads don't survive a fork."""
    import multiprocess
    import torch

    if multiprocess.parent_process() is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def precision(spec: ModelSpec) -> str:
    """The precision that the model is loaded in, such as ``"float32"``; "auto" where only the checkpoint knows."""
    if spec.dtype != "auto" or choose_device(spec) == "cpu":
        return "float32" if spec.dtype == "auto" else spec.dtype
    return str(getattr(load_config(spec), "dtype", None) or "auto").removeprefix("torch.")


def _load_model(spec: ModelSpec, kind: str) -> PreTrainedModel:
    import torch
    import transformers

    from hf_evol.models.packing import pack

    dtype = precision(spec)
    # The bar of a GGUF file's reader heeds no setting of the library.
    unwanted = spec.gguf_file is not None and not transformers.utils.logging.is_progress_bar_enabled()
    try:
        with redirect_stderr(io.StringIO()) if unwanted else nullcontext():
            model, loaded = getattr(transformers, kind).from_pretrained(
                **spec.where,
                trust_remote_code=spec.trust_remote_code,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                output_loading_info=True,
                **spec.loading_options,
            )
    except (*_UNREADABLE, ImportError) as error:
        raise _model_error(spec, "weights", error) from error
    if kind == CLASSIFIER and loaded["missing_keys"]:  # transformers would fill them with random numbers
        raise ModelError(
            f"The model {spec.name!r} is no trained classifier: its weights lack {', '.join(sorted(loaded['missing_keys']))}."
        )
    quantized = getattr(model, "is_quantized", False) and spec.gguf_file is None
    placed = "device_map" in spec.loading_options or quantized
    model = (model if placed else model.to(spec.device)).eval()
    if not placed and model.device.type == "cpu":
        tokens = torch.arange(4)[None]
        pack(model, lambda: model(input_ids=tokens).logits)
    return model


def load_embedder(spec: ModelSpec) -> SentenceTransformer:
    """The sentence-transformers model on its device, as `load_model`."""
    _calm_worker(os.getpid())
    return loaded(spec, EMBEDDER, _load_embedder)


def _load_embedder(spec: ModelSpec, kind: str) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer

    from hf_evol.models.packing import pack

    dtype = precision(spec)
    try:
        model = SentenceTransformer(
            spec.path,
            revision=spec.revision,
            device=spec.device,
            trust_remote_code=spec.trust_remote_code,
            model_kwargs={"dtype": dtype if dtype == "auto" else getattr(torch, dtype)} | spec.loading_options,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _model_error(spec, "weights", error) from error
    model.tokenizer.split_special_tokens = True  # those inside a text count as ordinary characters, as everywhere here
    if model.eval().device.type == "cpu":
        pack(model, lambda: model.encode(["A sentence."], convert_to_tensor=True, show_progress_bar=False))
    return model


def release(kind: str | None = None) -> None:
    """Forget every loaded model, or those of a kind, so that the next stage has the memory."""
    for key in [key for key in _models if kind in (None, key[1])]:
        _forget(key)
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _forget(key: tuple[ModelSpec, str]) -> None:
    _, model = _models.pop(key)
    if hasattr(model, "shutdown"):  # it runs in processes of its own
        model.shutdown()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine had no memory left."""
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text


_rank: int | None = None


def set_rank(rank: int | None, *, once: bool = False) -> None:
    """Tell this process which worker of a ``map`` it is; worker *r* takes GPU *r* modulo their number.

    Args:
        once: leave it where the process has been told already.
    """
    global _rank
    if rank is not None and not (once and _rank is not None):
        _rank = rank


def choose_device(spec: ModelSpec) -> str:
    """The device for this process."""
    import torch

    if spec.device is not None:
        return spec.device
    if torch.cuda.is_available():
        return f"cuda:{(_rank or 0) % torch.cuda.device_count()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def context_length(config: Any) -> int:
    """The most tokens, prompt and completion together, that the model takes; very large if it has no limit."""
    text = config.get_text_config()
    said = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions"))
    return next((n for n in said if isinstance(n, int) and n > 0), 2**31)


def check_device(spec: ModelSpec) -> None:
    """Raise `ConfigError` unless the device asked for is there. CUDA is not started: workers may be forked later."""
    import torch

    if "device_map" in spec.loading_options:
        return
    try:
        device = torch.device(choose_device(spec))
        if device.type == "cuda":
            count = torch.cuda.device_count()
            if (device.index or 0) >= count:
                raise RuntimeError(f"there are {count} CUDA devices")
        else:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The device {spec.device!r} can't be used: {reason}") from error


# What `transformers` raises where files are missing, damaged or of an unknown kind.
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, NotImplementedError, struct.error)


def _model_error(spec: ModelSpec, part: str, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines()
    if spec.gguf_file is not None and spec.is_local:
        return ModelError(
            f"Cannot read the {part} of the GGUF file {spec.name!r}. {lines[0] if lines else type(error).__name__} "
            "transformers reads some architectures and types alone; a server such as llama.cpp reads all: "
            "llama-server -m FILE, and then --engine endpoint --base-url http://localhost:8080/v1."
        )
    return ModelError(
        f"Cannot load the {part} of the model {spec.name!r}"
        + (f" at revision {spec.revision!r}" if spec.revision else "")
        + f". {lines[0] if lines else type(error).__name__} "
        "Check the name, sign in with `hf auth login` if the model is gated or private, or give a local folder."
    )
