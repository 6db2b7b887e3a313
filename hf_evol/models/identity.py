"""What tells a model from every other: its weights, and how they are used."""

from __future__ import annotations

from typing import Any

from hf_evol.models.loading import base_of_adapter, load_config, load_tokenizer, precision
from hf_evol.models.spec import ModelSpec, files_of


def weights_identity(spec: ModelSpec) -> dict[str, Any]:
    """What tells these weights from others: the name and commit on the Hub, or the files of a local folder, whatever it is
    called; of an adapter, those of its base as well."""
    base = base_of_adapter(spec)
    own: dict[str, Any] = {"files": files_of(spec)} if spec.is_local else {"model": spec.name}
    if base is not None:
        own |= {"revision": _commit(spec)} if not spec.is_local else {}
        return own | {"loading": spec.loading, "base": weights_identity(base)}
    if not spec.is_local:
        own["revision"] = getattr(load_config(spec), "_commit_hash", None) or spec.revision
    return own | {"loading": spec.loading}


def model_identity(spec: ModelSpec, *, chat_template: bool = True) -> dict[str, Any]:
    """`weights_identity`, the precision and, if it counts, the chat template."""
    template = {"chat_template": load_tokenizer(spec).chat_template} if chat_template else {}
    return weights_identity(spec) | {"dtype": precision(spec)} | template


def _commit(adapter: ModelSpec) -> str | None:
    """The commit of an adapter on the Hub or in its cache."""
    from huggingface_hub import hf_hub_download

    try:
        file = hf_hub_download(adapter.path, "adapter_config.json", revision=adapter.revision)
    except OSError:
        return adapter.revision
    parts = file.replace("\\", "/").split("/")
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else adapter.revision
