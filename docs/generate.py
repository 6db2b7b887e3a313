"""Writes ``reference.md`` from the code: columns, transforms with their statuses, and recipe settings.

    python docs/generate.py

A test compares the file with what this gives.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import hf_evol
import hf_evol.autoif
from hf_evol.run.recipe import Recipe, help_of
from hf_evol.transform import Transform

REFERENCE = Path(__file__).parent / "reference.md"
ORDER = (
    "EvolInstruct", "AutoEvolInstruct", "Eliminate", "Respond", "BackTranslate", "IcIfd", "Difficulty", "Judge", "Reward",
    "Compatibility", "Confidence", "Embed", "TrajectoryKeywords",
)  # fmt: skip
AUTOIF = ("Augment", "Verify", "CrossValidate", "AnswerUnderConstraint", "CheckResponses")
SECTION = re.compile(r"^(Input columns|Output columns|Args|Raises|Example|Returns):$", re.MULTILINE)
ARGUMENT = re.compile(r"^(\w[\w, ]*): ", re.MULTILINE)


def main() -> None:
    REFERENCE.write_text(reference(), encoding="utf-8")


def reference() -> str:
    """The whole page."""
    transforms = [getattr(hf_evol, name) for name in ORDER]
    of_autoif = [getattr(__import__("hf_evol.autoif", fromlist=[name]), name) for name in AUTOIF]
    parts = [
        "# Reference",
        "Made from the code by `python docs/generate.py`.",
        "## Columns",
        columns([*transforms, *of_autoif]),
    ]
    parts += ["## How replies are read", transform(hf_evol.read_evolved, "hf_evol.read_evolved")]
    parts += [
        "## Transforms",
        "Pass an instance to `hf_evol.map(dataset, transform)` or `dataset.map(transform, batched=True)`. Each raises "
        "`ConfigError` for a wrong argument, at construction, `ColumnError` for a missing column, and `ModelError` where its "
        "model can't be found.",
    ]
    parts += [transform(kind, f"hf_evol.{kind.__name__}") for kind in transforms]
    parts += ["## Self-Instruct", transform(hf_evol.self_instruct, "hf_evol.self_instruct")]
    parts += ["## Transforms of AutoIF", *(transform(kind, f"hf_evol.autoif.{kind.__name__}") for kind in of_autoif)]
    parts += [
        "## Recipe settings",
        "Fields of `hf_evol.Recipe`, keys of a recipe file, options of `hf-evol run`.",
        settings(),
    ]
    return "\n\n".join(parts) + "\n"


def columns(transforms: list[type[Transform]]) -> str:
    """A table: each column that is written, its type, and by which transforms."""
    kinds: dict[str, tuple[str, list[str]]] = {}
    for kind in transforms:
        written = kind.output_columns
        if isinstance(written, property):  # depends on the settings
            written = kind(
                **{name: "model" for name in ("model", "judge") if name in kind.__dataclass_fields__}
            ).output_columns
        for name, feature in written.items():
            kinds.setdefault(name, (type_name(feature), []))[1].append(kind.__name__)
    rows = [f"| `{name}` | {feature} | {', '.join(writers)} |" for name, (feature, writers) in kinds.items()]
    return "\n".join(["| Column | Type | Written by |", "| --- | --- | --- |", *rows])


def type_name(feature: Any) -> str:
    if isinstance(feature, str):
        return feature
    return f"list of {type_name(feature[0])}" if isinstance(feature, list) else ", ".join(feature)


def transform(kind: Any, name: str) -> str:
    """A docstring as Markdown, without its example."""
    text = inspect.cleandoc(kind.__doc__ or "")
    found = list(SECTION.finditer(text))
    parts = [f"### `{name}`", prose(text[: found[0].start()] if found else text)]
    for place, match in enumerate(found):
        end = found[place + 1].start() if place + 1 < len(found) else len(text)
        body = inspect.cleandoc(text[match.end() : end])
        if match[1] == "Args":
            parts.append(listed(body + inherited(kind, body)))
        elif match[1] != "Example":
            parts.append(f"**{match[1]}.** {prose(body)}")
    return "\n\n".join(parts)


def inherited(kind: Any, body: str) -> str:
    """The arguments that only the classes above explain."""
    known, found = set(re.findall(r"\w+", " ".join(ARGUMENT.findall(body)))), ""
    for base in getattr(kind, "__mro__", ())[1:]:
        _, _, told = inspect.cleandoc(base.__doc__ or "").partition("\nArgs:\n")
        told = inspect.cleandoc(SECTION.split(told)[0])
        starts = [match.start() for match in ARGUMENT.finditer(told)] + [len(told)]
        for start, end in pairwise(starts):
            name = ARGUMENT.match(told, start)[1]
            if name not in known and name in getattr(kind, "__dataclass_fields__", {}):
                known.add(name)
                found += f"\n{told[start:end].strip()}"
    return found


def listed(body: str) -> str:
    """Arguments as a list, one an item."""
    starts = [match.start() for match in ARGUMENT.finditer(body)] + [len(body)]
    items = (" ".join(body[start:end].split()) for start, end in pairwise(starts))
    return "\n".join(prose(re.sub(r"^([\w, ]+): ", r"- `\1`: ", item)) for item in items)


def prose(text: str) -> str:
    """reStructuredText's double backticks as single ones; a block after ``::`` as code."""
    text = re.sub(r"::\n\n((?:    .*\n?)+)", lambda match: f":\n\n```text\n{inspect.cleandoc(match[1])}\n```\n", text)
    return re.sub("(?<!`)``(?!`)", "`", text).strip()


def settings() -> str:
    rows = [f"| `{entry.name}` | {default(entry.default)} | {help_of(entry.name)} |" for entry in fields(Recipe)]
    return "\n".join(["| Setting | Default | What it means |", "| --- | --- | --- |", *rows])


def default(value: Any) -> str:
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    main()
