"""Where seed sets come from: bundled, files, fsspec URLs, folders and the Hub."""

from __future__ import annotations

import csv
import glob
import io
import json
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pandas as pd
import pyarrow as pa
from datasets import Dataset, Features, Json, Value, concatenate_datasets
from datasets.exceptions import DatasetGenerationCastError, DatasetGenerationError

from hf_evol.errors import SourceError
from hf_evol.progress import without_datasets_bars
from hf_evol.secrets import public_name

_LOADERS = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_BUNDLED = "demo/"
_CHUNK = 1 << 28  # bytes of a JSON file that are read at once, as the kinds of the columns are decided once for them
_ANSWERS = ("answer", "output", "response", "completion", "input")


def load_seeds(
    source: str,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    typed: bool = False,
) -> Dataset:
    """Load a seed set as it is; `to_instructions` brings it into shape.

    Args:
        source: a bundled set (``general``, ``gsm8k`` or ``code``, written ``demo/general`` and so on); a file
            or glob ending in .json, .jsonl, .ndjson, .csv, .tsv, .parquet or .arrow, also behind an fsspec URL such as
            ``s3://`` (compressed files too); a folder written by ``save_to_disk`` or holding such files; or
            the name of a dataset on the Hub. Of files whose columns differ, all columns are read.
        config: the dataset's configuration.
        split: the split to load.
        revision: branch, tag or commit on the Hub.
        typed: read numbers in CSV files as numbers; otherwise all is text, as it is written.

    Returns:
        The rows, with the set's name as ``info.dataset_name``.

    Raises:
        SourceError: nothing can be read there, or there are no rows.
    """
    try:
        rows = _load(source, config, split, revision, typed)
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


def _load(source: str, config: str | None, split: str, revision: str | None, typed: bool) -> Dataset:
    path, loader = Path(source).expanduser(), _loader(source)
    if source.startswith(_BUNDLED):
        path = Path(__file__).parent.parent / "demo" / "seeds" / f"{source.removeprefix(_BUNDLED)}.jsonl"
        loader = "json"
    if loader:
        if split != "train":
            raise ValueError(f"files have the split 'train' only, not {split!r}")
        remote = "://" in source
        files = source if remote else str(path)
        if not remote and not glob.glob(files, recursive=True):  # noqa: PTH207 - Path.glob takes no absolute patterns
            raise FileNotFoundError(f"no file matches {files!r}")
        with nullcontext() if remote else without_datasets_bars():
            rows = _read(loader, None, split, typed, data_files=files)
        rows.info.dataset_name = Path(public_name(source)).name.partition(".")[0].replace("*", "") or loader
        return rows
    if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
        loaded = datasets.load_from_disk(str(path))
        if isinstance(loaded, datasets.Dataset):
            return loaded
        if split not in loaded:
            raise ValueError(f"Unknown split {split!r}. Should be one of {sorted(loaded)}")
        return loaded[split]
    if not path.exists():
        return _read(source, config, split, typed, revision=revision)
    # A folder whose card names configs is cached under its name and card alone. Its files, which know when they
    # were written, tell it from others, and from what it held before.
    files = datasets.load_dataset_builder(str(path), config).config.data_files
    return _read(str(path), config, split, typed, data_files=files)


def _read(name: str, config: str | None, split: str, typed: bool, **options: Any) -> Dataset:
    """The rows of all files, with the columns of all, and with texts as they are written."""
    builder = datasets.load_dataset_builder(name, config, **options)
    found = (builder.config.data_files or {}).get(split, [])
    kind = builder.name if builder.name in ("json", "csv") else None
    if kind == "json":
        options["chunksize"] = _CHUNK
    if kind is not None and "data_files" in options and (len(found) > 1 or kind == "csv"):
        rows = _together([_read_alone(file, kind, typed) for file in found])
        rows.info.dataset_name, rows.info.builder_name = Path(name).name, None
    else:
        rows = datasets.load_dataset(name, config, split=split, **options)
    if kind != "json":
        return rows
    try:
        rows.data.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"its texts are not in UTF-8: {error}") from error
    return _as_written(rows, found, typed)


def _read_alone(file: str, kind: str, typed: bool) -> Dataset:
    try:
        options = {"chunksize": _CHUNK} if kind == "json" else _csv_options(file, typed)
        return datasets.load_dataset(kind, split="train", data_files=file, **options)
    except Exception as error:
        raise ValueError(f"{file}: {_reason(error)}") from error


def _csv_options(file: str, typed: bool) -> dict[str, Any]:
    """How to read a file of comma- or tab-separated values: as text unless ``typed``, and rows that end in a further
    separator without a shift."""
    sep = "\t" if ".tsv" in file.casefold() else ","
    options: dict[str, Any] = {"sep": sep, "keep_default_na": False, "index_col": False}
    with fsspec.open(file, "rt", encoding="utf-8-sig", compression="infer", newline="") as stream:
        lines = [line for line in stream.read().splitlines() if line]
    if not lines:
        raise ValueError("it has no rows")
    csv.field_size_limit(1 << 30)  # longer texts are refused otherwise
    names = list(pd.read_csv(io.StringIO(lines[0]), nrows=0, sep=sep, index_col=False).columns)
    if any(sum(1 for field in row[len(names) :] if field) for row in csv.reader(lines, delimiter=sep)):
        raise ValueError(f"a row has more fields than the {len(names)} columns")
    plain = {line.count(sep) for line in lines} == {len(names) - 1}
    if sep == "\t" and plain and sum(1 for _ in csv.reader(lines, delimiter=sep)) < len(lines):
        options["quoting"] = csv.QUOTE_NONE  # each line is a row: a field begins with a mark that quotes nothing
    return options if typed else options | {"features": Features({name: Value("string") for name in names})}


def _together(parts: list[Dataset]) -> Dataset:
    """The rows of all parts; a column of which parts hold different kinds is read as JSON values."""
    kinds: dict[str, set[str]] = {}
    for part in parts:
        for name, kind in part.features.items():
            kinds.setdefault(name, set()).update({repr(kind)} - {"Value('null')"})
    mixed = [name for name, found in kinds.items() if len(found) > 1]
    for place, part in enumerate(parts):
        for name in (name for name in mixed if name in part.column_names):
            parts[place] = part = _with_column(part, name, part[name][:], as_json=True)
    return concatenate_datasets(parts)


def _as_written(rows: Dataset, files: list[str], typed: bool) -> Dataset:
    """JSON rows whose texts are as in the file: `datasets` makes times of texts that look like dates and, where it meets
    both, floats of whole numbers."""

    def is_changed(name: str, kind: str) -> bool:
        return "timestamp" in kind or (not typed and kind == "Value('float64')" and name in _ANSWERS)

    changed = [name for name, kind in rows.features.items() if is_changed(name, repr(kind))]
    if not changed:
        return rows
    written = [row for file in files for row in _parsed(file)]
    for name in changed:
        rows = _with_column(rows, name, [row.get(name) for row in written])
    return rows


def _with_column(rows: Dataset, name: str, values: list[Any], as_json: bool = False) -> Dataset:
    """The rows with other values in a column: text, or else JSON values."""
    is_text = not as_json and all(value is None or isinstance(value, str) for value in values)
    kind = Value("string") if is_text else Json()
    column = Dataset.from_dict({name: values}, features=Features({name: kind}))
    return concatenate_datasets([rows.remove_columns(name), column], axis=1)


def _parsed(file: str) -> list[dict[str, Any]]:
    with fsspec.open(file, "rt", encoding="utf-8-sig", compression="infer") as stream:
        text = stream.read()
    texts = [text] if text.lstrip().startswith("[") else [line for line in text.split("\n") if line.strip()]
    rows = [json.loads(text, parse_int=str, parse_float=str) for text in texts]
    return rows[0] if isinstance(rows[0], list) else rows


def _reason(error: BaseException) -> str:
    """What the library or the server said, on one line."""
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
