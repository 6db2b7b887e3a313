"""What a provenance says of the seed set, the models, the licences that follow, and the libraries. Unknown stays unknown."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HTTPError

from hf_evol import __version__
from hf_evol.hub.licences import notes, plain_licence
from hf_evol.models.record import UNKNOWN, ModelRecord, card_license, license_of, listed
from hf_evol.secrets import public_name, without_secrets

logger = logging.getLogger(__name__)

_BUNDLED = f"bundled with hf_evol {__version__}"
LIBRARIES = ("datasets", "transformers", "torch", "huggingface_hub", "tokenizers")


@dataclass(frozen=True)
class SourceRecord:
    """The seed set of a run. Evolving keeps its languages."""

    name: str
    config: str | None
    split: str
    revision: str
    license: str
    on_hub: bool
    language: list[str]


def describe_source(name: str, *, config: str | None, split: str, revision: str | None) -> SourceRecord:
    """Find out about the seed set: its commit and licence where it, or the file of it, is on the Hub; else by its card."""
    if name.startswith("demo/"):
        return SourceRecord(name, config, split, _BUNDLED, "apache-2.0", False, ["en"])
    if file := re.match(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/", name):
        name, revision = file[1], unquote(file[2] or "") or revision
    folder = Path(name).expanduser()
    if folder.is_dir():
        licence = card_license(folder)
        return SourceRecord(public_name(name), config, split, "local files", licence, False, [])
    if "://" in name or Path(name).expanduser().exists() or "*" in name:
        kept = UNKNOWN if "://" in name else "local files"
        return SourceRecord(public_name(name), config, split, kept, UNKNOWN, False, [])
    try:
        info = HfApi().dataset_info(name, revision=revision)
        licence, languages = license_of(info.card_data), listed(info.card_data, "language")
        if licence == UNKNOWN and any(entry.rfilename == "README.md" for entry in info.siblings or ()):
            card = hf_hub_download(name, "README.md", repo_type="dataset", revision=info.sha)
            licence = card_license(Path(card).parent)
        return SourceRecord(name, config, split, info.sha or UNKNOWN, licence, True, languages)
    except (OSError, HTTPError, ValueError) as error:
        logger.info("The Hub tells nothing about %s: %s", name, without_secrets(str(error)))
        return SourceRecord(name, config, split, revision or UNKNOWN, UNKNOWN, True, [])


def shareable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A provenance without secrets. Texts of rows, which are published as they are, stay so here, too."""
    return without_secrets(record) | {name: record[name] for name in ("examples", "failures") if name in record}


def library_versions(earlier: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of Python and of the libraries that decide the result, after those that an earlier part of it was made with."""
    versions = {"python": platform.python_version(), "hf_evol": __version__}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    known = dict(earlier or {})
    return known | {
        name: ", ".join(dict.fromkeys([*known.get(name, version).split(", "), version]))
        for name, version in versions.items()
    }


def title(source: SourceRecord, did: str, records: Sequence[ModelRecord]) -> str:
    """Such as ``alpaca, evolved by Qwen2.5-0.5B-Instruct (494M)``."""
    by = " and ".join(f"{record.name.rsplit('/', 1)[-1]} ({record.size})" for record in records)
    return f"{source.name.rsplit('/', 1)[-1]}, {did} by {by}"


def origin(source: SourceRecord, records: Sequence[ModelRecord], licence: str | None) -> dict[str, Any]:
    """What a provenance says of the seed set, the models, and the licences that follow from them unless one is given."""
    licences = [(record.role, record.name, record.license) for record in records]
    return {
        "source": asdict(source),
        "license": licence or plain_licence(source.license, licences),
        "licence_notes": notes(source.license, licences),
        "models": [asdict(record) for record in records],
    }
