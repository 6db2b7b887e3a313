"""Write a finished set, whole or not at all, to a folder, a dataset on the Hub or any other fsspec URL."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from hf_evol.errors import OutputError
from hf_evol.hub.provenance import shareable
from hf_evol.hub.publish import MESSAGE, commit_folder, why

PROVENANCE = "provenance.json"


def is_remote(output: str) -> bool:
    return "://" in output


def check_output(output: str, overwrite: bool) -> None:
    """Raise `OutputError` unless a result may be written there.

    A place that holds something is refused; with ``overwrite``, unless what it holds is the result of an
    earlier run. A dataset on the Hub must be there, and may hold a card.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        repo_id, _ = hub_dataset(output)
        if repo_id:
            HfApi().auth_check(repo_id, repo_type="dataset", write=True)
        fs, root = fsspec.url_to_fs(output if is_remote(output) else str(Path(output).expanduser().absolute()))
        fs.invalidate_cache()
        if repo_id and not fs.exists(root):
            raise OutputError(f"The output {output!r} names a branch that is not there.")
        is_folder = fs.isdir(root)
        names = {path.rstrip("/").rpartition("/")[2] for path in (fs.ls(root, detail=False) if is_folder else ())}
        if names - ({".gitattributes", "README.md"} if repo_id else set()) or (fs.exists(root) and not is_folder):
            if not overwrite:
                raise OutputError(
                    f"The output {output!r} exists. Choose another with --output, or replace it with --overwrite."
                )
            if PROVENANCE not in names:
                raise OutputError(
                    f"The output {output!r} exists and is not the result of an earlier run: {PROVENANCE} is missing "
                    "there. It is left alone; choose another with --output."
                )
        if not is_remote(output):
            with _staging(Path(root)):
                pass
    except OutputError:
        raise
    except RepositoryNotFoundError as error:
        raise OutputError(
            f"There is no dataset {repo_id!r} on the Hub that you may write to. Create it: hf repos create {repo_id} --type "
            f"dataset, with --private if so. {why(error)}"
        ) from error
    except Exception as error:  # stores raise errors of their own, such as S3's without credentials
        raise OutputError(f"The output {output!r} can't be written: {why(error)}") from error


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
def writing(output: str) -> Iterator[Path]:
    """A local folder to write into, which becomes ``output`` when the block ends without an error. After an `OutputError`,
    what was at ``output`` is still there."""
    target = Path(tempfile.gettempdir(), "hf_evol") if is_remote(output) else Path(output).expanduser().resolve()
    try:
        with _staging(target) as folder:
            yield folder
            if is_remote(output):
                try:
                    _upload(folder, output)
                except Exception as error:  # a store's own, such as credentials that have expired
                    raise OSError(why(error).rstrip(".")) from error
            else:
                _put_in_place(folder, target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"The result could not be written to {output!r}: {error}. Finished requests are in the journal; make room "
            "or choose another --output, and run the same command again."
        ) from error


def _put_in_place(folder: Path, target: Path) -> None:
    old = folder.with_name(folder.name + "-old")
    if target.exists():
        target.replace(old)
    try:
        folder.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _upload(folder: Path, output: str) -> None:
    repo_id, revision = hub_dataset(output)
    if repo_id:
        from huggingface_hub import HfApi

        commit_folder(HfApi(), folder, repo_id, revision=revision, commit_message=MESSAGE)
        return
    fs, root = fsspec.url_to_fs(output)
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.name == PROVENANCE)
    old = set(fs.find(root)) if fs.exists(root) else set()
    for file in files:  # the provenance last: it marks a finished set
        path = f"{root}/{file.relative_to(folder).as_posix()}"
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        fs.put_file(str(file), path)
        old.discard(fs._strip_protocol(path))
    if old:
        fs.rm(sorted(old))


def write_provenance(provenance: Mapping[str, Any], folder: Path) -> None:
    text = json.dumps(shareable(provenance), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / PROVENANCE).write_text(text + "\n", encoding="utf-8")


def read_provenance(folder: str) -> dict[str, Any]:
    """What an earlier run wrote about itself; an `OutputError` where there is no finished set."""
    try:
        with fsspec.open(f"{folder.rstrip('/')}/{PROVENANCE}", "r", encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder!r} holds no finished set: {PROVENANCE} can't be read there ({error}).") from error
