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
from hf_evol.hub.card import card_text
from hf_evol.hub.provenance import shareable

PROVENANCE, CARD = "provenance.json", "README.md"
_SETS = ("evolved", "autoif", "stages", "study")  # kinds, each with a template for its card
_OTHERS = ("recipe", "method", "report")  # of a trainer, for evolving, and of the steps of a run


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
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    files = record.get("files") if isinstance(record, dict) else None
    if not isinstance(files, dict) or not all(map(_is_file, files.items())):
        raise ValueError("hf_evol has not written it, as it has no list of files")
    if record.get("kind") not in (*_SETS, *_OTHERS):
        raise ValueError("its kind is none of hf_evol's")
    if record.get("unfinished"):
        if unfinished and isinstance(record.get("earlier"), dict) and "kind" in record["earlier"]:
            return record
        raise ValueError("an upload has not ended")
    if record["kind"] in _SETS:
        if CARD not in files:
            raise ValueError("it lists no card")
        try:
            card_text(record)  # which looks at most of what it holds
        except OutputError as error:
            raise ValueError(str(error)) from error
    return record


def is_inside(name: str) -> bool:
    """Whether a path is that of a file within a folder, written plainly."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and path.as_posix() == name != "."


def _is_file(entry: tuple[str, Any]) -> bool:
    name, known = entry
    return is_inside(name) and (name == CARD or (isinstance(known, dict) and {"bytes", "sha256"} <= known.keys()))


def made(record: Mapping[str, Any]) -> str:
    """What a provenance is of: a ``set``, a ``recipe``, a ``method`` or a ``report``."""
    return record["kind"] if record["kind"] in _OTHERS else "set"


def own_files(record: Mapping[str, Any]) -> set[str]:
    """The paths of all files that make a set, a recipe, a method or a report."""
    return {*record["files"], PROVENANCE}


def stranger(fs: Any, root: str, record: Mapping[str, Any]) -> str | None:
    """What lies in a folder and is not a file as the record lists it, in words; None where nothing is. On a store, a file is
    known by its size; on this machine by its content."""
    own, here = own_files(record), sizes_in(fs, root)
    for name in sorted(here):
        if name not in own:
            return f"{name!r}, which hf_evol has not written"
        known = None if record.get("unfinished") else record["files"].get(name)
        if known and not _is_same(fs, f"{root}/{name}", here[name], known):
            return f"{name!r}, which has been changed since it was written"
    return None


def read_card(fs: Any, root: str) -> str | None:
    """The card of a folder, if it has one. Where that is a link to another place than the Hub's cache, which is made of links,
    it is not read: nobody knows whose words are there."""
    path, here = f"{root}/{CARD}", Path(root)
    if isinstance(fs, LocalFileSystem) and Path(path).is_symlink():
        leads = Path(path).resolve()
        if not leads.is_relative_to(here.resolve()) and leads.parent != here.resolve().parent.parent / "blobs":
            raise OutputError(f"The card {path!r} is a link to another place. Put a file there.")
    if not fs.exists(path):
        return None
    if not fs.isfile(path):
        raise OutputError(f"The card {path!r} is no file.")
    try:
        return fs.cat_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OutputError(f"The card {path!r} is no UTF-8 text, so it is left as it is.") from error
    except OSError as error:
        raise OutputError(f"The card {path!r} can't be read: {error}.") from error


def changed(folder: Path, record: Mapping[str, Any]) -> str | None:
    """The first file that the record lists and that is not in the folder as it was written; None where all are."""
    for name, known in record["files"].items():
        path = folder / name
        if not path.is_file() or (known and not _is_same(LocalFileSystem(), str(path), path.stat().st_size, known)):
            return name
    return None


def sizes_in(fs: Any, root: str) -> dict[str, int]:
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
