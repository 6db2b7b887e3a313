"""What stands in YAML files beside the modules that use it: lists of words, texts for models and regular expressions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hf_evol.prompts.patterns import AnyCase
from hf_evol.prompts.template import fill


def table_of(module: str) -> dict[str, Any]:
    """What the file beside a module, which is named by its ``__file__``, holds."""
    return yaml.safe_load(Path(module).with_suffix(".yaml").read_text(encoding="utf-8"))


class _Patterns:
    """Regular expressions as attributes. Python finds those of a plain class as fast as globals."""


def patterns_of(module: str) -> Any:
    """The regular expressions beside a module, by name: those under ``any_case`` as `AnyCase`, those under ``as_written`` with
    the flags that they name. ``{name}`` stands for one of the ``parts``, also in a further one."""
    table, found, parts = table_of(module), _Patterns(), dict[str, str]()
    for name, text in table.get("parts", {}).items():
        parts[name] = fill(text, **parts)
    for kind, made in (("any_case", AnyCase), ("as_written", re.compile)):
        for name, text in table.get(kind, {}).items():
            setattr(found, name, made(unbroken(fill(text, **parts))))
    return found


def unbroken(pattern: str) -> str:
    """A regular expression without line breaks, which are for the eye alone."""
    return pattern.replace("\n", "")
