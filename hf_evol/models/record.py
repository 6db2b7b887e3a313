"""What is known of a model without loading it: its size, revision, precision and licence. Unknown stays unknown."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard, get_local_safetensors_metadata, snapshot_download
from huggingface_hub.errors import HTTPError, NotASafetensorsRepoError, SafetensorsParsingError

from hf_evol.models import DEMO, DEMO_PACKAGE, ModelSpec, precision
from hf_evol.models.loading import parameters_of
from hf_evol.secrets import public_name, without_secrets

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
# Types that quantized weights are packed in: their stored elements are not parameters, so the size stays unknown.
PACKED = frozenset({"I8", "U8", "I32", "U32"})


@dataclass(frozen=True)
class ModelRecord:
    """One model of a run. What can't be found out is None or ``"unknown"``."""

    role: str  # evolver, responder, scorer, judge or constrainer
    name: str
    revision: str
    n_parameters: int | None
    n_parameters_from: str
    dtype: str
    license: str
    base: str | None = None  # of a PEFT adapter; `n_parameters` counts both
    note: str | None = None  # what a server does otherwise than the settings say

    @property
    def size(self) -> str:
        """The number of parameters as people write it: ``"5.1M"``, ``"7.6B"`` or ``"unknown size"``."""
        return "unknown size" if self.n_parameters is None else human_number(self.n_parameters)


def human_number(number: int) -> str:
    """Three figures and a suffix: 5065472 gives ``"5.07M"``."""
    for size, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size * 0.9995:  # what rounds to the next suffix is written with it
            return f"{number / size:.3g}{suffix}"
    return str(number)


def describe(role: str, model: Any) -> ModelRecord:
    """What is known of a model by its `hf_evol.ModelSpec`, or by the engine that runs it."""
    spec = model if isinstance(model, ModelSpec) else model.model
    if not isinstance(spec, ModelSpec):  # its name on a server
        record = describe_model(role, model.name, spec, dtype="unknown", stated=model.n_parameters)
        return replace(record, note=" ".join(model.notes) or None)
    record = describe_model(
        role, spec.label, spec.path, revision=spec.revision, gguf_file=spec.gguf_file, dtype=precision(spec), stated=spec.n_parameters
    )  # fmt: skip
    return replace(record, revision=f"of the package {DEMO_PACKAGE}") if spec.name == DEMO else record


def describe_model(
    role: str, name: str, path: str, *, revision: str | None = None, gguf_file: str | None = None, dtype: str = "auto",
    stated: int | None = None,
) -> ModelRecord:  # fmt: skip
    """Find out about a model without loading it.

    Args:
        role: what it did in the run.
        name: as the user gave it; ``path`` is what that stands for: a folder, which may hold a ``gguf_file``, or a Hub id.
        revision: the revision asked for.
        dtype: the precision it ran in.
        stated: the number of parameters that the user states; it is believed.
    """
    folder, origin, reached = Path(path), "counted from the headers of the weights' files", True
    if folder.is_dir():
        commit, licence, counted = "local files", card_license(folder), _count_headers(folder)
    else:
        commit, licence, counted, origin, reached = _ask_hub(path, revision)
    base = None if gguf_file else _adapted(path, revision, reached)
    if gguf_file is not None:
        counted, own_licence, quantization = _read_gguf(path, gguf_file, commit)
        origin, dtype = "counted from the header of the GGUF file", f"{quantization}, unpacked to {dtype}"
        licence = own_licence if licence == UNKNOWN else licence
    elif base is not None:
        of_base = describe_model(role, base, base)
        counted = counted + of_base.n_parameters if counted and of_base.n_parameters else None
        origin = f"{origin}, with those of the base"
        licence = of_base.license if licence == UNKNOWN else licence
    elif counted is None and (counted := _count_architecture(path, revision, reached)):
        origin = "counted in the architecture, as the stored weights are packed or not in safetensors"
    if stated is not None:
        counted, origin = stated, "stated by the user"
    origin = UNKNOWN if counted is None else origin
    return ModelRecord(role, name, commit, counted, origin, dtype, licence, base and public_name(base))


def _read_gguf(path: str, file: str, revision: str | None) -> tuple[int | None, str, str]:
    """Parameters, licence and quantization that a GGUF file, in a folder or in the Hub's cache, says it has."""
    from transformers.utils import cached_file

    try:
        place = Path(cached_file(path, file, revision=revision, local_files_only=True))
        return _gguf_header(place, place.stat().st_mtime_ns)
    except (ImportError, OSError, ValueError, KeyError, IndexError) as error:
        logger.info("Cannot read the header of %s: %s", file, without_secrets(str(error)))
        return None, UNKNOWN, "GGUF"


@lru_cache(maxsize=8)
def _gguf_header(place: Path, changed: int) -> tuple[int | None, str, str]:
    """As `_read_gguf`; kept, as the reader takes seconds for a vocabulary, and a run's roles often share a model."""
    import gguf

    reader = gguf.GGUFReader(place)
    said = {name: field.contents() for name, field in reader.fields.items() if name.startswith("general.")}
    counted = sum(int(math.prod(tensor.shape)) for tensor in reader.tensors)
    kind = gguf.LlamaFileType(said["general.file_type"]).name if "general.file_type" in said else "GGUF"
    quantization = kind.removeprefix("MOSTLY_").removeprefix("ALL_")
    return counted, str(said.get("general.license") or UNKNOWN), f"{quantization} (GGUF)"


def _adapted(path: str, revision: str | None, online: bool) -> str | None:
    """The base of a PEFT adapter, by its adapter_config.json; None of any other model."""
    from transformers.utils import cached_file

    try:
        file = cached_file(path, "adapter_config.json", revision=revision, local_files_only=not online)
        return json.loads(Path(file).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, HTTPError, ValueError, KeyError, TypeError):
        return None


def _count_architecture(path: str, revision: str | None, online: bool) -> int | None:
    """Parameters of the model that the configuration describes, before it is quantized."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, revision=revision, local_files_only=not online)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        return parameters_of(config)
    except (OSError, HTTPError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        logger.info("Cannot count the parameters of %s in its architecture: %s", path, without_secrets(str(error)))
        return None


def _ask_hub(repo_id: str, revision: str | None) -> tuple[str, str, int | None, str, bool]:
    """(revision, licence, parameters, where their number comes from, whether the Hub answered) of a model on the Hub or in
    its cache."""
    commit, licence, counted = revision or UNKNOWN, UNKNOWN, None
    try:
        info = HfApi().model_info(repo_id, revision=revision)
        commit, licence = info.sha or commit, license_of(info.card_data)
        metadata = HfApi().get_safetensors_metadata(repo_id, revision=info.sha)
        return commit, licence, _unpacked(metadata.parameter_count), "safetensors metadata on the Hub", True
    except (OSError, HTTPError, NotASafetensorsRepoError, SafetensorsParsingError, ValueError) as error:
        reached = getattr(error, "response", None) is not None or isinstance(error, ValueError)
        logger.info("The Hub gives no size for %s: %s", repo_id, without_secrets(str(error)))
    try:
        folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
        counted = _count_headers(folder)
        commit = folder.name if commit in (revision, UNKNOWN) else commit
        licence = card_license(folder) if licence == UNKNOWN else licence
    except (OSError, ValueError) as error:
        logger.info("No cached copy of %s: %s", repo_id, without_secrets(str(error)))
    return commit, licence, counted, "counted from the headers of the weights' files", reached


def _count_headers(folder: Path) -> int | None:
    """Parameters in a folder's safetensors files, from their headers; None if there are none."""
    adapter = folder / "adapter_model.safetensors"
    try:
        metadata = get_local_safetensors_metadata(adapter if adapter.is_file() else folder)
        return _unpacked(metadata.parameter_count) or None
    except NotASafetensorsRepoError:
        return None
    except (OSError, ValueError, AttributeError, SafetensorsParsingError) as error:
        logger.warning("Cannot count the parameters in %s: %s", folder, without_secrets(str(error)))
        return None


def _unpacked(counts: Mapping[str, int]) -> int | None:
    """Parameters, by how many there are of each type; None if some are packed."""
    return None if PACKED & counts.keys() else sum(counts.values())


def card_license(folder: Path) -> str:
    path = folder / "README.md"
    try:
        return license_of(ModelCard.load(path).data) if path.is_file() else UNKNOWN
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        logger.warning("Cannot read the card %s: %s", path, without_secrets(str(error)))
        return UNKNOWN


def license_of(card_data: Any) -> str:
    return ", ".join(listed(card_data, "license")) or UNKNOWN


def listed(card_data: Any, name: str) -> list[str]:
    """A field of a card that holds one value or a list of them."""
    value = getattr(card_data, name, None)
    return [str(entry) for entry in (value if isinstance(value, list) else [value] if value else [])]
