"""Write a finished set, whole or not at all, to a folder, a dataset on the Hub or any other fsspec URL."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import fsspec

from hf_evol.errors import HubError, OutputError
from hf_evol.hub.card import card_data
from hf_evol.hub.merge import merge_cards
from hf_evol.hub.publish import MESSAGE, check_right, commit_folder, why
from hf_evol.hub.record import CARD, PROVENANCE, made, own_files, parsed, read_provenance, stranger


@dataclass(frozen=True)
class Target:
    """A place for a set, recipe or method, and the digest of the ``provenance.json`` that `check_output` has found there."""

    output: str
    what: str = "set"
    replaces: str | None = None


def is_remote(output: str) -> bool:
    return "://" in output and not output.startswith(("file://", "local://"))


def check_output(output: str, overwrite: bool, what: str = "set", reads: str | None = None) -> Target:
    """The place for a result; an `OutputError` unless one may be written there.

    A place that holds something is refused. With ``overwrite``, the result of an earlier run may be replaced, which is told
    by the list of files in its ``provenance.json``: a folder that holds others, or changed ones, is refused by their name, and
    one that holds a ``set``, ``recipe`` or ``method`` where another of these is to be written, too. A dataset on the Hub must
    be there, and may hold what others have put there (`hf_evol.publish`). A folder that the run ``reads`` from is refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        repo_id, _ = hub_dataset(output)
        if repo_id:
            check_right(HfApi(), repo_id)
        if reads and not is_remote(output) and _local(output) in (_local(reads), *_local(reads).parents):
            raise OutputError(f"The output {output!r} is where the rows are read from. Choose another with --output.")
        target = Target(output, what)
        found = _found(target, overwrite)
        if not is_remote(output):
            with _staging(_local(output)):
                pass
        return replace(target, replaces=found)
    except OutputError:
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
        record = parsed(text.decode("utf-8"), unfinished=True)
    except ValueError as error:
        record, reason = (
            {},
            f"{PROVENANCE} can't be used: {error}" if PROVENANCE in names else f"{PROVENANCE} is missing",
        )
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
    from huggingface_hub import parse_hf_uri

    uri = parse_hf_uri(output)
    if uri.is_bucket:
        return None, None
    if uri.type != "dataset" or uri.path_in_repo.strip("/"):
        raise OutputError(f"An output on the Hub is a whole dataset, hf://datasets/user/name; got {output!r}.")
    return uri.id, uri.revision


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, so that a rename puts the result in place; removed if left over."""
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory("", f".{target.name}-", target.parent, ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)
            yield Path(name)
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
        OutputError: the result can't be written; or something else has come to the output in the meantime, which stays, and
            the result is put beside it where that is a folder.
    """
    output = target.output
    place = Path(tempfile.gettempdir(), "hf_evol") if is_remote(output) else _local(output)
    try:
        with _staging(place) as folder:
            yield folder
            if is_remote(output):
                try:
                    _upload(folder, target)
                except (OutputError, HubError):
                    raise
                except Exception as error:  # a store's own, such as credentials that have expired
                    raise OSError(why(error).rstrip(".")) from error
            else:
                _put_in_place(folder, place, target)
    except (OutputError, HubError):
        raise
    except OSError as error:
        raise OutputError(
            f"The result could not be written to {output!r}: {error}. Finished requests are in the journal; make room "
            "or choose another --output, and run the same command again."
        ) from error


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
    old = folder.with_name(folder.name + "-old")
    try:
        if _replaced(target, folder):
            _keep_texts(folder, *_store(target.output))
        try:
            if place.exists():
                place.replace(old)
                _replaced(replace(target, output=str(old)), folder)  # nobody finds it where it is now
            folder.replace(place)
        except BaseException:  # Ctrl-C, too
            if old.exists() and not place.exists():
                old.replace(place)
            raise
    except OutputError as error:
        numbers = (place.with_name(f"{place.name}-{number}") for number in count(2))
        free = next(other for other in numbers if not other.exists())
        folder.replace(free)
        raise OutputError(f"{error} The result of this run is in {str(free)!r}.") from error
    shutil.rmtree(old, ignore_errors=True)


def _keep_texts(folder: Path, fs: Any, root: str) -> None:
    """What people have written into the card that is replaced goes into the new one."""
    record = parsed(fs.cat_file(f"{root}/{PROVENANCE}").decode("utf-8"), unfinished=True)
    if (folder / CARD).is_file() and fs.exists(f"{root}/{CARD}"):
        try:
            published, new = fs.cat_file(f"{root}/{CARD}").decode("utf-8"), (folder / CARD).read_text(encoding="utf-8")
            merged = merge_cards(published, new, card_data(record).to_dict() if "title" in record else None)
        except (UnicodeDecodeError, HubError) as error:
            raise OutputError(
                f"The card {root}/{CARD}, which may hold words of others, can't be read: {error}"
            ) from error
        (folder / CARD).write_bytes(merged.encode("utf-8"))


def _upload(folder: Path, target: Target) -> None:
    repo_id, revision = hub_dataset(target.output)
    if repo_id:
        from huggingface_hub import HfApi

        agrees = lambda there: there.digest == target.replaces  # noqa: E731
        commit_folder(HfApi(), folder, repo_id, agrees, revision=revision, commit_message=MESSAGE)
        return
    found, (fs, root) = _replaced(target, folder), _store(target.output)
    record = read_provenance(str(folder))
    old = parsed(fs.cat_file(f"{root}/{PROVENANCE}").decode(), unfinished=True) if found else {"files": {}}
    if found:
        _keep_texts(folder, fs, root)
    # What lies there until the end is known as ours, so that a broken upload can be repeated.
    fs.makedirs(root, exist_ok=True)
    until_then = {"kind": record["kind"], "unfinished": True, "files": old["files"] | record["files"]}
    fs.pipe_file(f"{root}/{PROVENANCE}", json.dumps(until_then).encode())
    own = own_files(record)
    for name in sorted(own - {PROVENANCE}):
        fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        fs.put_file(str(folder / name), f"{root}/{name}")
    if gone := [f"{root}/{name}" for name in sorted(old["files"].keys() - own) if fs.exists(f"{root}/{name}")]:
        fs.rm(gone)
    fs.put_file(str(folder / PROVENANCE), f"{root}/{PROVENANCE}")
