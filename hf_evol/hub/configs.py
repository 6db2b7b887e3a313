"""Whether `datasets` will load every config of a dataset on the Hub, asked of `datasets` itself before the commit."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from huggingface_hub import DatasetCard

from hf_evol.data.files import FILE_FORMATS
from hf_evol.errors import HubError
from hf_evol.hub.record import CARD, is_inside

_BESIDE_ROWS = {"text", "harbor", "imagefolder", "pdffolder"}  # readers of notes, pictures and papers


class Found(NamedTuple):
    """A config as `datasets` finds it: its files, and the readers that they are for."""

    files: frozenset[str]
    readers: frozenset[str]


def configs_of(card: str | None, files: Collection[str]) -> tuple[dict[str, Found], str | None]:
    """The configs that `datasets` finds in a dataset with this card and files of these names, and the reader that it has
    for all of them. No file is read: it is shown empty ones."""
    import datasets
    from datasets.load import infer_module_for_data_files_list as infer

    found, reader = {}, None
    with TemporaryDirectory(prefix="hf_evol-") as name:
        folder = Path(name, "set").resolve()
        for path in filter(is_inside, {*files} - {CARD}):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
        folder.mkdir(exist_ok=True)
        if card is not None:
            (folder / CARD).write_bytes(card.encode("utf-8"))
        options = {"path": str(folder), "cache_dir": str(Path(name, "cache"))}
        try:
            names = datasets.get_dataset_config_names(str(folder))
        except (FileNotFoundError, ValueError):  # there is nothing to load
            return {}, None
        for config in names:
            try:
                builder = datasets.load_dataset_builder(name=config, **options)
            except (FileNotFoundError, ValueError):
                continue
            paths = [path for split in (builder.config.data_files or {}).values() for path in split]
            readers = frozenset(infer([path])[0] or "" for path in paths)
            found[config] = Found(frozenset(path.removeprefix(f"{folder}/") for path in paths), readers)
            reader = builder.name
    return found, reader


def check_configs(
    repo_id: str, before: tuple[str | None, Collection[str]], after: tuple[str, Collection[str]], earlier: Collection[str],
    new: Collection[str], own_files: Collection[str],
) -> None:  # fmt: skip
    """Raise `HubError` unless, after a commit, each config of others loads as before, and the set's load from its files alone.

    Args:
        before, after: the card and the files of the dataset.
        earlier, new: the names of the configs that an earlier set of ours has, and that this one has.
        own_files: of this set.
    """
    there, reader_before = configs_of(*before)
    will, reader = configs_of(*after)
    is_named = bool(before[0] and DatasetCard(before[0]).data.to_dict().get("configs"))
    for name, config in there.items():
        if name in earlier or config.readers != {reader_before} or (not is_named and config.readers <= _BESIDE_ROWS):
            continue
        file = min(config.files)
        if not is_named:
            raise HubError(
                f"{repo_id!r} holds rows that no config of its card names, such as {file!r}; the configs of this set would hide "
                "them. Name them in the card first (configs: with config_name and data_files), or choose another dataset."
            )
        if name in new:
            raise HubError(
                f"{repo_id!r} has a config {name!r} that hf_evol has not written, and so has this set. Rename it there, or "
                "choose another dataset."
            )
        if config.readers != {reader}:
            kind = min(config.readers)
            write = f"write this set with --file-format {kind}" if kind in FILE_FORMATS else "make those files parquet"
            raise HubError(
                f"{repo_id!r} has a config {name!r} of {kind} files, such as {file!r}. datasets reads all configs of a dataset "
                f"alike, so {reader} files beside it would make it unloadable: {write}, or choose another dataset."
            )
    for name in new:
        if name not in will:
            raise HubError(
                f"With its card as it is, datasets finds no config {name!r} in {repo_id!r}. Mend its configs first."
            )
        if strange := will[name].files - {*own_files}:
            raise HubError(
                f"{repo_id!r} holds {min(strange)!r}, which hf_evol has not written and which would be read as rows of this "
                f"set's config {name!r}. Move it there, or choose another dataset."
            )
