"""Where seed sets come from: bundled, files, fsspec URLs, folders and the Hub."""

from __future__ import annotations

import glob
import json
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from hf_evol.errors import SourceError
from hf_evol.progress import without_datasets_bars

if TYPE_CHECKING:
    from datasets import Dataset

_LOADERS = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_BUNDLED = "demo/"


def load_seeds(source: str, *, config: str | None = None, split: str = "train", revision: str | None = None) -> Dataset:
    """Load a seed set as it is; `to_instructions` brings it into shape.

    Args:
        source: a bundled set (``general``, ``gsm8k`` or ``code``, written ``demo/general`` and so on); a file
            or glob ending in .json, .jsonl, .ndjson, .csv, .tsv, .parquet or .arrow, also behind an fsspec URL such as
            ``s3://`` (compressed files too); a folder written by ``save_to_disk`` or holding such files; or
            the name of a dataset on the Hub. Of files whose columns differ, all columns are read.
        config: the dataset's configuration.
        split: the split to load.
        revision: branch, tag or commit on the Hub.

    Returns:
        The rows, with the set's name as ``info.dataset_name``.

    Raises:
        SourceError: nothing can be read there, or there are no rows.
    """
    import datasets

    try:
        rows = _load(source, config, split, revision)
        if not len(rows):
            raise ValueError("it has no rows")
        return rows
    except Exception as error:
        known = (OSError, ValueError, KeyError, StopIteration, datasets.exceptions.DatasetGenerationError)
        if "://" not in source and not isinstance(error, known):
            raise  # but stores raise errors of their own, such as S3's without credentials
        advice = (
            " Give a Hub name, a .json, .jsonl, .csv, .tsv, .parquet or .arrow file or glob, a folder, or demo/general, "
            "demo/gsm8k, demo/code."
        )
        raise SourceError(
            f"Cannot load the seed set {public_name(source) if '://' in source else source!r} (config {config!r}, split "
            f"{split!r}): {_reason(error)}.{advice if isinstance(error, FileNotFoundError) else ''}"
        ) from error


def _load(source: str, config: str | None, split: str, revision: str | None) -> Dataset:
    import datasets

    path, loader = Path(source).expanduser(), _loader(source)
    if source.startswith(_BUNDLED):
        path, loader = (
            Path(__file__).parent.parent / "demo" / "seeds" / f"{source.removeprefix(_BUNDLED)}.jsonl",
            "json",
        )
    if loader:
        if split != "train":
            raise ValueError(f"files have the split 'train' only, not {split!r}")
        remote = "://" in source
        files = source if remote else str(path)
        if not remote and not glob.glob(files, recursive=True):  # noqa: PTH207 - Path.glob takes no absolute patterns
            raise FileNotFoundError(f"no file matches {files!r}")
        options = {"keep_default_na": False, "sep": "\t" if ".tsv" in source.casefold() else ","}
        with nullcontext() if remote else without_datasets_bars():
            rows = _read(loader, None, split, data_files=files, **(options if loader == "csv" else {}))
        rows.info.dataset_name = path.name.partition(".")[0].replace("*", "") or loader
        return rows
    if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
        loaded = datasets.load_from_disk(str(path))
        if isinstance(loaded, datasets.Dataset):
            return loaded
        if split not in loaded:
            raise ValueError(f"Unknown split {split!r}. Should be one of {sorted(loaded)}")
        return loaded[split]
    if not path.exists():
        return _read(source, config, split, revision=revision)
    # A folder whose card names configs is cached under its name and card alone. Its files, which know when they
    # were written, tell it from others, and from what it held before.
    files = datasets.load_dataset_builder(str(path), config).config.data_files
    return _read(str(path), config, split, data_files=files)


def _read(name: str, config: str | None, split: str, **options: Any) -> Dataset:
    """The rows, with the columns of all files, and with texts that look like dates as they are written."""
    import datasets

    def files() -> list[str]:
        return datasets.load_dataset_builder(name, config, **options).config.data_files[split]

    try:
        rows = datasets.load_dataset(name, config, split=split, **options)
    except datasets.exceptions.DatasetGenerationError:
        if "data_files" not in options or len(files()) == 1:
            raise
        rows = datasets.concatenate_datasets([_read_alone(file, name, options) for file in files()])
        rows.info.dataset_name, rows.info.builder_name = Path(name).name, None
    times = [column for column, kind in rows.features.items() if "timestamp" in str(kind)]
    if not times or not all(_loader(file) == "json" for file in files()):
        return rows
    written = [row for file in files() for row in _parsed(file)]
    rows = rows.remove_columns(times)
    for column in times:
        rows = rows.add_column(column, [row.get(column) for row in written])
    return rows


def _read_alone(file: str, name: str, options: dict[str, Any]) -> Dataset:
    import datasets

    try:
        return datasets.load_dataset(name, split="train", **options | {"data_files": file})
    except Exception as error:
        raise ValueError(f"{file}: {_reason(error)}") from error


def _parsed(file: str) -> list[dict[str, Any]]:
    with fsspec.open(file, "rt", encoding="utf-8", compression="infer") as stream:
        text = stream.read()
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _reason(error: BaseException) -> str:
    """What the library or the server said, on one line."""
    from datasets.exceptions import DatasetGenerationCastError, DatasetGenerationError

    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return "it has no rows"
    if isinstance(error, DatasetGenerationError) and not isinstance(error, DatasetGenerationCastError):
        error = error.__cause__ or error
    said = " ".join(str(error).partition("\nExample of usage")[0].split()) or type(error).__name__
    return textwrap.shorten(said, 600, placeholder=" …").rstrip(".")


def _loader(source: str) -> str | None:
    name = source.casefold()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return next((loader for suffix, loader in _LOADERS.items() if name.endswith(suffix)), None)


def public_name(source: str) -> str:
    """A source's name without what is private: the last part of an absolute path, a URL without credentials.

    Example:
        >>> public_name("/home/me/rows.jsonl"), public_name("https://me:secret@host/rows.json?token=1")
        ('rows.jsonl', 'https://host/rows.json')
    """
    if "{{" in source or "{%" in source:  # an inline template
        return source
    if "::" in source and "://" in source:
        return "::".join(map(public_name, source.split("::")))
    if source.startswith(("file://", "local://")):
        return Path(source).name
    if "://" in source:
        scheme, _, rest = source.partition("://")
        host, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return Path(source).name if Path(source).expanduser().is_absolute() else source
