"""Where seed sets come from: bundled, files, fsspec URLs, folders and the Hub."""

from __future__ import annotations

import glob
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hf_evol.errors import SourceError
from hf_evol.progress import without_datasets_bars

if TYPE_CHECKING:
    from datasets import Dataset

_LOADERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}


def load_seeds(source: str, *, config: str | None = None, split: str = "train", revision: str | None = None) -> Dataset:
    """Load a seed set as it is; `to_instructions` brings it into shape.

    Args:
        source: a bundled set (``general``, ``gsm8k`` or ``code``, written ``demo/general`` and so on); a file
            or glob ending in .json, .jsonl, .csv, .parquet or .arrow, also behind an fsspec URL such as
            ``s3://`` (compressed files too); a folder written by ``save_to_disk`` or holding such files; or
            the name of a dataset on the Hub.
        config: the dataset's configuration.
        split: the split to load.
        revision: branch, tag or commit on the Hub.

    Raises:
        SourceError: nothing can be read there.
    """
    import datasets

    path = Path(source).expanduser()
    try:
        if split != "train" and (source.startswith("demo/") or _loader(source)):
            raise ValueError(f"Files have the split 'train' only, not {split!r}.")
        if source.startswith("demo/"):
            path = Path(__file__).parent.parent / "demo" / "seeds" / f"{source.removeprefix('demo/')}.jsonl"
            with without_datasets_bars():
                return datasets.load_dataset("json", data_files=str(path), split="train")
        if loader := _loader(source):
            files = source if "://" in source else str(path)
            if "://" not in source and not glob.glob(files, recursive=True):  # noqa: PTH207 - Path.glob takes no absolute patterns
                raise FileNotFoundError(f"no file matches {files!r}")
            options = {"keep_default_na": False} if loader == "csv" else {}
            with nullcontext() if "://" in source else without_datasets_bars():
                return datasets.load_dataset(loader, data_files=files, split="train", **options)
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            loaded = datasets.load_from_disk(str(path))
            if isinstance(loaded, datasets.Dataset):
                return loaded
            if split not in loaded:
                raise ValueError(f"Unknown split {split!r}. Should be one of {sorted(loaded)}.")
            return loaded[split]
        if path.is_dir():
            # A folder whose card names configs is cached under its name and card alone. Its files, which know when they
            # were written, tell it from others, and from what it held before.
            files = datasets.load_dataset_builder(str(path), config).config.data_files
            return datasets.load_dataset(str(path), config, data_files=files, split=split)
        return datasets.load_dataset(str(path) if path.exists() else source, config, split=split, revision=revision)
    except Exception as error:
        known = (OSError, ValueError, KeyError, StopIteration, datasets.exceptions.DatasetGenerationError)
        if "://" not in source and not isinstance(error, known):
            raise  # but stores raise errors of their own, such as S3's without credentials
        lines = str(error.__cause__ or error).strip().splitlines()
        raise SourceError(
            f"Cannot load the seed set {source!r} (config {config!r}, split {split!r}): {(lines or [type(error).__name__])[0].rstrip('.')}. "
            "Give a Hub name, a .json, .jsonl, .csv, .parquet or .arrow file or glob, a folder, or demo/general, "
            "demo/gsm8k, demo/code."
        ) from error


def _loader(source: str) -> str | None:
    name = source.removesuffix(".gz").removesuffix(".zst").removesuffix(".bz2").removesuffix(".xz")
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
