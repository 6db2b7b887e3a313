"""Write a finished set, whole or not at all, to a folder, a dataset on the Hub or any other fsspec URL."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, parse_hf_uri
from huggingface_hub.errors import RepositoryNotFoundError

from hf_evol.errors import HfEvolError, HubError, OutputError
from hf_evol.hub.card import within
from hf_evol.hub.publish import MESSAGE, check_right, check_room, commit_folder, why
from hf_evol.hub.record import CARD, PROVENANCE, made, own_files, parsed, read_card, read_provenance, sizes_in, stranger

_LOCK, _OLD = ".lock", "old"


@dataclass(frozen=True)
class Target:
    """A place for a set, recipe or method, and the digest of the ``provenance.json`` that `check_output` has found there."""

    output: str
    what: str = "set"
    replaces: str | None = None


def is_remote(output: str) -> bool:
    return "://" in output and not output.startswith(("file://", "local://"))


def check_output(
    output: str, overwrite: bool, what: str = "set", *, reads: str | None = None, file_format: str = "parquet"
) -> Target:
    """The place for a result; an `OutputError` unless one may be written there.

    A place that holds something is refused. With ``overwrite``, the result of an earlier run may be replaced, which is told
    by the list of files in its ``provenance.json``: a folder that holds others, or changed ones, is refused by their name, and
    one that holds a ``set``, ``recipe`` or ``method`` where another of these is to be written, too. A dataset on the Hub must
    be there, and may hold what others have put there (`hf_evol.publish`). A folder that the run ``reads`` from is refused.
    """
    target = Target(output, what)
    try:
        repo_id, revision = hub_dataset(output)
        if repo_id:
            check_right(HfApi(), repo_id)
        found = _found(target, overwrite)
        if repo_id:
            check_room(HfApi(), repo_id, revision, file_format)
        elif not is_remote(output):
            place = _local(output)
            is_read = reads and "://" not in reads and Path(reads).exists()
            if is_read and place in (_local(reads), *_local(reads).parents):
                raise OutputError(
                    f"The output {output!r} is where the rows are read from. Choose another with --output."
                )
            if place.is_mount():
                raise OutputError(f"The output {output!r} is a place where a disk is mounted. Choose a folder in it.")
            with _staging(place):
                pass
        return replace(target, replaces=found)
    except (OutputError, HubError):
        raise
    except RepositoryNotFoundError as error:
        raise OutputError(
            f"There is no dataset {repo_id!r} on the Hub that you may write to. Create it: hf repos create {repo_id} --type "
            f"dataset, with --private if so. {why(error)}"
        ) from error
    except Exception as error:  # stores raise errors of their own, such as S3's without credentials
        raise OutputError(f"The output {output!r} can't be written: {why(error)}") from error


def _found(target: Target, overwrite: bool) -> str | None:
    """The digest of what is there and may be replaced; None where nothing is."""
    output = target.output
    repo_id, _ = hub_dataset(output)
    fs, root = _store(output)
    if repo_id and not fs.exists(root):
        raise OutputError(f"The output {output!r} names a branch that is not there.")
    is_folder = fs.isdir(root)
    names = {path.rstrip("/").rpartition("/")[2] for path in (fs.ls(root, detail=False) if is_folder else ())}
    if not names - ({".gitattributes", CARD} if repo_id else set()) and (is_folder or not fs.exists(root)):
        return None
    try:
        text = fs.cat_file(f"{root}/{PROVENANCE}") if PROVENANCE in names else b"null"
        record = parsed(text.decode("utf-8"), unfinished=is_remote(output))
    except ValueError as error:
        said = f"can't be used: {error}" if PROVENANCE in names else "is missing"
        record, reason = {}, f"{PROVENANCE} {said}"
    if not overwrite and not record.get("unfinished"):
        raise OutputError(
            f"The output {output!r} exists. Choose another with --output, or replace it with --overwrite."
        )
    if not record:
        raise OutputError(
            f"The output {output!r} exists and is not the result of an earlier run: {reason}. It is left alone; choose "
            "another with --output."
        )
    if made(record) != target.what:
        raise OutputError(
            f"The output {output!r} holds a {made(record)}, no {target.what}. Choose another with --output."
        )
    if not repo_id and (strange := stranger(fs, root, record)):
        raise OutputError(
            f"The output {output!r} holds {strange}. All is left as it is: move that file, or choose another --output."
        )
    if not repo_id:
        _with_texts("---\n---\n", fs, root, record)  # which raises here, and not after hours
    return hashlib.sha256(text).hexdigest()


def _store(output: str) -> tuple[Any, str]:
    fs, root = fsspec.url_to_fs(output if is_remote(output) else str(_local(output)))
    fs.invalidate_cache()
    return fs, root.rstrip("/")


def _local(output: str) -> Path:
    path = fsspec.url_to_fs(output)[1] if "://" in output else output
    return Path(path).expanduser().resolve()


def hub_dataset(output: str) -> tuple[str | None, str | None]:
    """The dataset on the Hub that an output is, and its branch; a bucket is a store like others."""
    if not output.startswith("hf://"):
        return None, None
    uri = parse_hf_uri(output)
    if uri.is_bucket:
        return None, None
    if uri.type != "dataset" or uri.path_in_repo.strip("/"):
        raise OutputError(f"An output on the Hub is a whole dataset, hf://datasets/user/name; got {output!r}.")
    return uri.id, uri.revision


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    """An empty folder, in one beside the place that goes with all that is in it, so that a rename puts the result in place.
    What killed runs have left of such folders goes, too."""
    missing = [folder for folder in place.parents if not folder.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{place.name}-hf_evol-"
    for lock in place.parent.glob(f"{glob.escape(prefix)}*/{_LOCK}"):
        left = lock.parent
        with suppress(Timeout, OSError), FileLock(lock, blocking=False):
            if (left / _OLD).exists() and not place.exists():
                (left / _OLD).replace(place)
            shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory("", prefix, place.parent, ignore_cleanup_errors=True) as name:
            with FileLock(Path(name, _LOCK)):
                new = Path(name, "new")
                new.mkdir()
                yield new
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def writing(target: Target) -> Iterator[Path]:
    """A local folder to write into, with a `write_provenance` at the end, which becomes the output when the block ends
    without an error. After an error, what was at the output is still there; an upload that breaks off, to a store that is
    not the Hub, can be repeated.

    Raises:
        OutputError: the result can't be written; or it can't be put in place, as something else has come there in the
            meantime, or the Hub or store refused. It is then in a folder beside, or in the current one, which is named.
    """
    output = target.output
    place = Path(tempfile.gettempdir(), "hf_evol") if is_remote(output) else _local(output)
    try:
        with _staging(place) as folder:
            yield folder
            try:
                _upload(folder, target) if is_remote(output) else _put_in_place(folder, place, target)
            except Exception as error:  # a store's own, such as credentials that have expired
                said = (
                    str(error) if isinstance(error, HfEvolError) else f"It can't be written to {output!r}: {why(error)}"
                )
                kept = _kept(
                    folder, Path.cwd() / (_store(output)[1].rpartition("/")[2]) if is_remote(output) else place
                )
                raise OutputError(f"{said} The result of this run is in {str(kept)!r}.") from error
    except OSError as error:
        if isinstance(error, HfEvolError):
            raise
        raise OutputError(
            f"The result could not be written to {output!r}: {error}. Finished requests are in the journal; make room "
            "or choose another --output, and run the same command again."
        ) from error


def _kept(folder: Path, near: Path) -> Path:
    """Where a finished folder, which can't be put in its place, is kept."""
    numbers = (near.with_name(f"{near.name}-{number}") for number in count(2))
    free = next(other for other in numbers if not other.exists())
    shutil.move(folder, free)
    return free


def _replaced(target: Target, folder: Path) -> str | None:
    """What the result in a folder replaces, as `_found`; an `OutputError` if that is not what was there before, or the same
    result, which this run has written before it was started again."""
    found = _found(target, overwrite=True)
    if found not in (target.replaces, hashlib.sha256((folder / PROVENANCE).read_bytes()).hexdigest()):
        raise OutputError(
            f"Another run has written to the output {target.output!r} in the meantime. That is left as it is."
        )
    return found


def _put_in_place(folder: Path, place: Path, target: Target) -> None:
    of_user = hashlib.sha256(f"{Path.home()} {place}".encode()).hexdigest()[
        :32
    ]  # others may not open a file of this one
    with FileLock(
        Path(tempfile.gettempdir(), f"hf_evol-{of_user}.lock")
    ):  # of two runs that end at once, one sees what the other has written
        if not _replaced(target, folder):
            folder.replace(place)
            return
        fs, root = _store(target.output)
        record = parsed(fs.cat_file(f"{root}/{PROVENANCE}").decode("utf-8"))
        _keep_texts(folder, fs, root, record)
        old = folder.with_name(_OLD)
        _exchange(folder, place, old)
        if sizes_in(fs, str(old)).keys() - own_files(record):  # they have come in the last moment
            _exchange(old, place, folder)
            raise OutputError(
                f"Files have come to the output {target.output!r} that hf_evol has not written. All is as it was."
            )


def _exchange(new: Path, place: Path, old: Path) -> None:
    """Put a folder in the place of another, which becomes ``old``: at one stroke on Linux, so that a kill leaves either."""
    try:
        at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        swapped = ctypes.CDLL(None).renameat2(at_cwd, os.fsencode(new), at_cwd, os.fsencode(place), exchange) == 0
    except (AttributeError, OSError):
        swapped = False
    if swapped:
        new.replace(old)
        return
    try:
        place.replace(old)
        new.replace(place)
    except BaseException:  # Ctrl-C, too
        if old.exists() and not place.exists():
            old.replace(place)
        raise


def _keep_texts(folder: Path, fs: Any, root: str, record: Mapping[str, Any]) -> None:
    if (folder / CARD).is_file():
        text = _with_texts((folder / CARD).read_text(encoding="utf-8"), fs, root, record)
        (folder / CARD).write_bytes(text.encode("utf-8"))


def _with_texts(new: str, fs: Any, root: str, record: Mapping[str, Any]) -> str:
    """A new card within the one that is there, which may hold words of people; an `OutputError` if that can't be read."""
    try:
        return within(read_card(fs, root), new, record.get("earlier", record))  # the one before a broken upload
    except HubError as error:
        raise OutputError(f"The card {root}/{CARD} may hold words of people: {error}") from error


def _upload(folder: Path, target: Target) -> None:
    repo_id, revision = hub_dataset(target.output)
    if repo_id:
        agrees = lambda there: there.digest == target.replaces  # noqa: E731
        commit_folder(HfApi(), folder, repo_id, agrees, revision=revision, commit_message=MESSAGE)
        return
    found, (fs, root) = _replaced(target, folder), _store(target.output)
    record, mark = read_provenance(str(folder)), f"{root}/{PROVENANCE}"
    old = parsed(fs.cat_file(mark).decode("utf-8"), unfinished=True) if found else {"kind": record["kind"], "files": {}}
    if found:
        _keep_texts(folder, fs, root, old)
    # What lies there until the end is known as ours, so that a broken upload can be repeated; and as this upload's.
    until_then = {"kind": record["kind"], "files": old["files"] | record["files"], "earlier": old.get("earlier", old)}
    until_then["unfinished"] = uuid.uuid4().hex
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(mark, json.dumps(until_then).encode())
    own = own_files(record) - {PROVENANCE}
    for name in sorted(own, key=lambda name: (name == CARD, name)):
        fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        _check_mine(fs, mark, until_then, target)
        fs.put_file(str(folder / name), f"{root}/{name}")
    if gone := [f"{root}/{name}" for name in sorted(old["files"].keys() - own) if fs.exists(f"{root}/{name}")]:
        fs.rm(gone)
    _check_mine(fs, mark, until_then, target)
    fs.put_file(str(folder / PROVENANCE), mark)


def _check_mine(fs: Any, mark: str, until_then: Mapping[str, Any], target: Target) -> None:
    if json.loads(fs.cat_file(mark)) != until_then:
        raise OutputError(f"Another run writes to the output {target.output!r} at this moment.")
