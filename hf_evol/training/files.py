"""Write a recipe's files, and never over what was trained with an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hf_evol.errors import ConfigError
from hf_evol.hub.record import write_provenance
from hf_evol.hub.target import check_output, writing


@contextmanager
def recipe_folder(output: str, overwrite: bool, record: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write a recipe's files into; it becomes ``output`` when the block ends without an error.

    Raises:
        ConfigError: ``output`` is no local folder.
        OutputError: something is there; with ``overwrite``, something other than an earlier recipe, as it was written.
    """
    if "://" in output:
        raise ConfigError(f"Trainers read local folders; got --output {output!r}.")
    with writing(check_output(output, overwrite, "recipe")) as folder:
        yield folder
        write_provenance({"kind": "recipe", **record}, folder)


def write_yaml(path: Path, settings: Mapping[str, Any], *comment: str) -> None:
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
