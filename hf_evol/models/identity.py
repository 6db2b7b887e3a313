"""What tells a model from every other: its weights, and how they are used."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HTTPError

from hf_evol.models.loading import base_of_adapter, load_tokenizer, precision
from hf_evol.models.spec import ModelSpec, files_of


def weights_identity(spec: ModelSpec) -> dict[str, Any]:
    """What tells these weights from others: the name and commit on the Hub, or the files of a local folder, whatever it is
    called; of an adapter, those of its base as well."""
    base = base_of_adapter(spec)
    own: dict[str, Any] = {"files": files_of(spec)}
    if not spec.is_local:
        file = "adapter_config.json" if base else spec.gguf_file or "config.json"
        own = {"model": spec.name, "revision": _commit(spec.path, spec.revision, file)}
    return own | {"loading": spec.loading} | ({"base": weights_identity(base)} if base else {})


def model_identity(spec: ModelSpec, *, chat_template: bool = True) -> dict[str, Any]:
    """`weights_identity`, the precision and, if it counts, the chat template."""
    template = {"chat_template": load_tokenizer(spec).chat_template} if chat_template else {}
    return weights_identity(spec) | {"dtype": precision(spec)} | template


@lru_cache(maxsize=32)
def _commit(repo_id: str, revision: str | None, file: str) -> str | None:
    """The commit of a model on the Hub or in its cache, asked for once in a process; else the revision asked for."""
    try:
        parts = Path(hf_hub_download(repo_id, file, revision=revision)).parts
    except (OSError, HTTPError, ValueError):
        return revision
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else revision
