"""``provenance.json``: what a set says of itself and which files it is made of; written, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from hf_evol.errors import OutputError
from hf_evol.hub.provenance import ModelRecord, SourceRecord, shareable

PROVENANCE, CARD = "provenance.json", "README.md"
_SETS = ("evolved", "autoif", "stages", "study")  # kinds, each with a template for its card
_OTHERS = ("recipe", "method")  # of a trainer, and for evolving
_PARTS = {"title": str, "recipe": dict, "source": dict, "models": list, "configs": list, "libraries": dict}


def write_provenance(provenance: dict[str, Any], folder: Path) -> None:
    """Write ``provenance.json`` into a folder whose other files are there, and are now listed in it as ``files``: each with
    its size in bytes and its SHA-256, but for the card, into which people may write."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {PROVENANCE}
    provenance["files"] = {
        name: None if name == CARD else {"bytes": (folder / name).stat().st_size, "sha256": _digest(folder / name)}
        for name in sorted(names)
    }
    text = json.dumps(shareable(provenance), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / PROVENANCE).write_text(text + "\n", encoding="utf-8")


def read_provenance(folder: str) -> dict[str, Any]:
    """What an earlier run wrote about itself; an `OutputError` where there is no finished set, or none of ours."""
    try:
        with fsspec.open(f"{folder.rstrip('/')}/{PROVENANCE}", "r", encoding="utf-8") as file:
            return parsed(file.read())
    except Exception as error:  # stores raise errors of their own
        raise OutputError(f"{folder!r} holds no finished set: {PROVENANCE} can't be read there ({error}).") from error


def parsed(text: str, *, unfinished: bool = False) -> dict[str, Any]:
    """A provenance from the text of its file, which may come from anywhere; a `ValueError` where it is none of ours.

    Args:
        unfinished: take the one of an upload that has not ended, too.
    """
    record = json.loads(text)
    files = record.get("files") if isinstance(record, dict) else None
    if not isinstance(files, dict) or not all(map(_is_file, files.items())):
        raise ValueError("hf_evol has not written it, as it has no list of files")
    if record.get("unfinished"):
        if unfinished:
            return record
        raise ValueError("an upload has not ended")
    if record.get("kind") in _OTHERS:
        return record
    wrong = [name for name, kind in _PARTS.items() if not isinstance(record.get(name), kind)]
    if record.get("kind") not in _SETS or wrong:
        raise ValueError(f"its {wrong[0] if wrong else 'kind'} is not as hf_evol writes it")
    try:
        SourceRecord(**record["source"])
        for model in record["models"]:  # a study's evolvers have labels
            ModelRecord(**{name: value for name, value in model.items() if name != "label"})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"its source or models are not as hf_evol writes them: {error}") from error
    return record


def is_inside(name: str) -> bool:
    """Whether a path is that of a file within a folder, written plainly."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and path.as_posix() == name != "."


def _is_file(entry: tuple[str, Any]) -> bool:
    name, known = entry
    return is_inside(name) and (name == CARD or (isinstance(known, dict) and {"bytes", "sha256"} <= known.keys()))


def made(record: Mapping[str, Any]) -> str:
    """What a provenance is of: a ``set``, a ``recipe`` or a ``method``."""
    return record["kind"] if record["kind"] in _OTHERS else "set"


def own_files(record: Mapping[str, Any]) -> set[str]:
    """The paths of all files that make a set, or a recipe, or a method."""
    return {*record["files"], PROVENANCE}


def stranger(fs: Any, root: str, record: Mapping[str, Any]) -> str | None:
    """What lies in a folder and is not a file as the record lists it, in words; None where nothing is. On a store, a file is
    known by its size; on this machine by its content."""
    own, here = own_files(record), _here(fs, root)
    for name in sorted(here):
        if name not in own:
            return f"{name!r}, which hf_evol has not written"
        known = None if record.get("unfinished") else record["files"].get(name)
        if known and not _is_same(fs, f"{root}/{name}", here[name], known):
            return f"{name!r}, which has been changed since it was written"
    return None


def changed(folder: Path, record: Mapping[str, Any]) -> str | None:
    """The first file that the record lists and that is not in the folder as it was written; None where all are."""
    for name, known in record["files"].items():
        path = folder / name
        if not path.is_file():
            return name
        if known and (path.stat().st_size != known["bytes"] or _digest(path) != known["sha256"]):
            return name
    return None


def _here(fs: Any, root: str) -> dict[str, int]:
    """Every file under a place, with its size; a link to a folder is one."""
    if not isinstance(fs, LocalFileSystem):
        found = fs.find(root, detail=True)
        sizes = {path[len(root) :].lstrip("/"): int(entry["size"] or 0) for path, entry in found.items()}
        return {name: size for name, size in sizes.items() if name}  # no mark of a folder
    found = (path for path in Path(root).rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(root).as_posix(): path.lstat().st_size for path in found}


def _is_same(fs: Any, path: str, size: int, known: Mapping[str, Any]) -> bool:
    if not isinstance(fs, LocalFileSystem):
        return size == known["bytes"]
    return Path(path).is_file() and size == known["bytes"] and _digest(Path(path)) == known["sha256"]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
