"""Write a recipe's files, and never over what was trained with an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_evol.errors import ConfigError, OutputError
from hf_evol.hub.target import PROVENANCE, check_output, is_remote, read_provenance, write_provenance, writing


@contextmanager
def recipe_folder(output: str, overwrite: bool, record: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write a recipe's files into; it becomes ``output`` when the block ends without an error.

    Raises:
        ConfigError: ``output`` is no local folder.
        OutputError: something is there; with ``overwrite``, something other than the files of an earlier recipe.
    """
    if is_remote(output):
        raise ConfigError(f"Trainers read local folders; got --output {output!r}.")
    check_output(output, overwrite)
    target = Path(output).expanduser()
    if (target / PROVENANCE).exists():
        others = sorted(_files(target) - set(read_provenance(str(target)).get("recipe_files", ())) - {PROVENANCE})
        if others:
            raise OutputError(
                f"The output {output!r} holds more than an earlier recipe, such as {others[0]!r}. It is left alone, as it "
                "may be a set, a trained model or results; choose another with --output."
            )
    with writing(output) as folder:
        yield folder
        write_provenance({**record, "recipe_files": sorted(_files(folder))}, folder)


def write_yaml(path: Path, settings: Mapping[str, Any], *comment: str) -> None:
    """Write settings in their order, below a comment."""
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    path.write_text("".join(f"# {line}\n" for line in comment) + text, encoding="utf-8")


def local_or_name(source: str) -> str:
    """A model's folder as an absolute path, as the commands run elsewhere; a name on the Hub as it is.

    Raises:
        ConfigError: a relative path to nothing.
    """
    path = Path(source).expanduser()
    if path.exists():
        return str(path.resolve())
    if len(path.parts) > 2 and not path.is_absolute():  # a name on the Hub has two parts at most
        raise ConfigError(f"There is no folder {source!r}. Give a model's folder, or its name on the Hub (user/name).")
    return source


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
