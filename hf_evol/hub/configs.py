"""Whether `datasets` will load every config of a dataset on the Hub, asked of `datasets` itself before the commit."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from huggingface_hub import DatasetCard

from hf_evol.data import FILE_FORMATS
from hf_evol.errors import HubError
from hf_evol.hub.record import CARD, is_inside

_SPLIT = "train"  # the only one that a set has
_NOTES, _MOST_NOTES = {"text", "harbor", "imagefolder", "pdffolder"}, 5  # readers of texts, pictures and papers
_ENOUGH = 10 * _MOST_NOTES  # files of a kind, where no config names them


class Seen(NamedTuple):
    """A dataset as `datasets` finds it: the files of each split of each config, whether the card names the configs, which of
    them is the default, and the reader of all."""

    splits: dict[tuple[str, str], frozenset[str]] = {}
    is_named: bool = False
    default: str | None = None
    reader: str | None = None


def seen(repo_id: str, card: str | None, files: Collection[str]) -> Seen:
    """What `datasets` finds in a dataset with this card and files of these names. No file is read: it is shown others, which
    are empty. A `HubError` if it can't read that."""
    from datasets import DownloadConfig
    from datasets.load import dataset_module_factory

    with TemporaryDirectory(prefix="hf_evol-") as name:
        folder = Path(name, repo_id.partition("/")[2]).resolve()
        folder.mkdir()
        found = {}
        try:
            is_named = bool(card and DatasetCard(card).data.to_dict().get("configs"))
            _stand_in(folder, files if is_named else _some(files))
            if card is not None:
                (folder / CARD).write_bytes(card.encode("utf-8"))
            module = dataset_module_factory(str(folder))
            for config in module.builder_configs_parameters.builder_configs:
                with suppress(FileNotFoundError):  # without one of its files, a config does not load
                    config._resolve_data_files(str(folder), DownloadConfig())
                    for split, paths in config.data_files.items():
                        found[config.name, split] = frozenset(path.removeprefix(f"{folder}/") for path in paths)
        except FileNotFoundError:  # there is nothing to load
            return Seen()
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise HubError(
                f"datasets can't read {repo_id!r} with its files and card as they are, or would be: {said} Mend that first, or "
                "choose another dataset."
            ) from error
    first = next(iter(found.values()), ())
    reader = "zip" if "zip" in _readers(first) else module.module_path.rpartition(".")[2]
    return Seen(found, is_named, module.builder_configs_parameters.default_config_name, reader)


def _stand_in(folder: Path, files: Iterable[str]) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("rows.txt", "")
    paths = [folder / path for path in files if is_inside(path) and path != CARD]
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        empty = {".zip": archive.getvalue(), ".json": b"{}"}  # which `datasets` opens
        path.write_bytes(empty.get(path.suffix, b""))


def _some(files: Collection[str]) -> list[str]:
    """As many files of each kind as it takes to tell rows from notes."""
    counts: Counter[str] = Counter()
    kept = []
    for path in sorted(files):
        counts[PurePosixPath(path).suffix] += 1
        kept += [path] if counts[PurePosixPath(path).suffix] <= _ENOUGH else []
    return kept


def _readers(files: Iterable[str]) -> set[str]:
    from datasets.load import infer_module_for_data_files_list as infer

    return {"zip" if file.endswith(".zip") else infer([file])[0] or "" for file in files}


def _are_notes(files: Collection[str]) -> bool:
    """Whether these are but notes or pictures beside a card: few, and none named by a split."""
    from datasets.data_files import NON_WORDS_CHARS, SPLIT_KEYWORDS

    names = "|".join(name for names in SPLIT_KEYWORDS.values() for name in names)
    of_split = re.compile(rf"(?:^|[{NON_WORDS_CHARS}/])(?:{names})[{NON_WORDS_CHARS}/]|-\d{{5}}-of-\d{{5}}")
    return len(files) <= _MOST_NOTES and _readers(files) <= _NOTES and not any(map(of_split.search, files))


def check_configs(
    repo_id: str, before: tuple[str | None, Collection[str]], after: tuple[str, Collection[str]], earlier: Collection[str],
    new: Collection[str], former_files: Collection[str], own_files: Collection[str],
) -> None:  # fmt: skip
    """Raise `HubError` unless, after a commit, what others have loads as before, and the set's configs from its files alone.

    Of others are the configs that the earlier set of ours had not, and the splits that they have added to its configs. Each
    has the same files as before; if files of the earlier set were among them, files of the new one may be.

    Args:
        before, after: the card and the files of the dataset.
        earlier, new: the names of the configs that an earlier set of ours has, and that this one has.
        former_files, own_files: the files of the one and of the other.
    """
    there, will = seen(repo_id, *before), seen(repo_id, *after)
    theirs = {unit: files for unit, files in there.splits.items() if unit not in {(name, _SPLIT) for name in earlier}}
    names = {name for name, _ in theirs}
    if not there.is_named:
        rows = frozenset().union(*theirs.values()) - {*former_files}
        if rows and not _are_notes(rows):
            raise HubError(
                f"{repo_id!r} holds rows that no config of its card names, such as {min(rows)!r}; the configs of this set would "
                "hide them. Name them in the card first (configs: with config_name and data_files), or choose another dataset."
            )
        theirs, names = {}, set()
    added = [unit for unit in will.splits if unit[0] in names and unit not in {(name, _SPLIT) for name in new}]
    theirs = dict.fromkeys(added, frozenset()) | theirs
    for (name, split), files in theirs.items():
        if name in new and name not in earlier:
            raise HubError(
                f"{repo_id!r} has a config {name!r} that hf_evol has not written, and so has this set. Rename it there, or "
                "choose another dataset."
            )
        readers = _readers(files)
        if readers != {will.reader} and (readers == {there.reader} or "zip" in readers):
            kind = min(readers)
            write = f"write this set with --file-format {kind}" if kind in FILE_FORMATS else "make those files parquet"
            raise HubError(
                f"{repo_id!r} has a config {name!r} of {kind} files, such as {min(files)!r}. datasets reads all configs of a dataset "
                f"alike, so {will.reader} files beside it would make it unloadable: {write}, or choose another dataset."
            )
        now = will.splits.get((name, split), frozenset())
        known = {*former_files, *own_files} if files & {*former_files} else set()
        if changed := (files ^ now) - known if now else files:
            what = "would take in" if changed & now else "reads"
            raise HubError(
                f"{repo_id!r} has a config {name!r} that hf_evol has not written and that {what} {min(changed)!r}, which comes or goes "
                "with this set. Name its own files in the card first, or choose another dataset."
            )
    for name in new:
        if (name, _SPLIT) not in will.splits:
            raise HubError(
                f"With its card as it is, datasets finds no config {name!r} in {repo_id!r}. Mend its configs first."
            )
        if strange := will.splits[name, _SPLIT] - {*own_files}:
            raise HubError(
                f"{repo_id!r} holds {min(strange)!r}, which hf_evol has not written and which would be read as rows of this "
                f"set's config {name!r}. Move it there, or choose another dataset."
            )
    if there.default in names - {*earlier} and will.default != there.default:
        raise HubError(
            f"Without a config's name, {repo_id!r} loads {there.default!r}, and would not any more. Mark that config in the card "
            "first (default: true), or choose another dataset."
        )
