"""The dataset card: provenance in, Markdown out, through `huggingface_hub` and a template."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

import yaml
from huggingface_hub import DatasetCard, DatasetCardData
from jinja2 import Environment, FileSystemLoader

from hf_evol.hub.licences import WRITERS
from hf_evol.hub.merge import BEGIN, END, without_marks
from hf_evol.hub.provenance import human_number, shareable
from hf_evol.progress import visible

# The Hub's vocabulary for size_categories: upper bound, name.
_SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"), (10**12, "100B<n<1T"),
)  # fmt: skip

_TAG_OF_STAGE = {"evolve": "evol-instruct", "score": "ic-ifd"}
_TAGS = {
    "evolved": [*_TAG_OF_STAGE.values()],
    "autoif": ["autoif", "verifiable-rewards"],
    "study": ["model-comparison"],
}
_WRAP = TextWrapper(88, expand_tabs=False, replace_whitespace=False, break_long_words=False, break_on_hyphens=False)
_REPO_ID, _COMMIT = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII), re.compile(r"[0-9a-f]{40}")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&])")

# With jinja2's own settings, as `DatasetCard.from_template` has them, which can't find the base of a template. The
# templates lie inside the package in an installation, and beside it in a checkout.
_PACKAGE = Path(__file__).parent.parent
_TEMPLATES = Environment(loader=FileSystemLoader([_PACKAGE / "dataset_cards", _PACKAGE.parent / "dataset_cards"]))


def size_category(n: int) -> str:
    """The Hub's size category for a number of rows."""
    return next((name for bound, name in _SIZES if n < bound), "n>1T")


def line(text: Any) -> str:
    """Text within an HTML block, where Markdown is not read: one line, with nothing in it that HTML would read."""
    return " ".join(visible(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cell(text: Any) -> str:
    """Text as a table cell or a running line: one line, with nothing in it that Markdown or HTML would read."""
    return _MARKDOWN.sub(lambda match: match[0] if match[0] == "&" else "\\" + match[0], line(text))


def commit(name: str, revision: str) -> str:
    """A model's commit, as a short link where it is on the Hub: whole, it would push the table off the page."""
    if not _REPO_ID.fullmatch(name) or not _COMMIT.fullmatch(revision):
        return cell(revision)
    return f"[{revision[:7]}](https://huggingface.co/{name}/tree/{revision})"


def fenced(text: Any, language: str = "text") -> str:
    """Text as a fenced block whose fence is longer than any run of backticks in it."""
    body = without_marks(visible(text))
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def wrapped(text: Any) -> str:
    """Text with its long lines broken at spaces, as a fenced block shows no more of a line than fits on the page."""
    lines = visible(text).split("\n")
    return "\n".join(part for line in lines for part in (_WRAP.wrap(line) if len(line) > _WRAP.width else [line]))


def as_yaml(value: Any) -> str:
    """Settings as a YAML file holds them."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).strip()


def number(value: float | None) -> str:
    """Four significant figures, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def interval(bounds: Sequence[float] | None) -> str:
    """Both ends, or a dash."""
    return "–" if bounds is None else " to ".join(map(number, bounds))


_TEMPLATES.globals.update(
    cell=cell, line=line, commit=commit, fenced=fenced, wrapped=wrapped, as_yaml=as_yaml, number=number, interval=interval,
    human=human_number, BEGIN=BEGIN, END=END,
)  # fmt: skip


def card_text(
    provenance: Mapping[str, Any], *, repo_id: str | None = None, revision: str | None = None,
    folder: str = "path/to/this/folder",
) -> str:  # fmt: skip
    """The card of a set, by the template of its kind, as the text of its file.

    Args:
        provenance: what `hf_evol.run`, `hf_evol.autoif.run` and the commands of the stages write as ``provenance.json``.
        repo_id: where the set is, or will be, on the Hub; shown in the loading example.
        revision: its branch there, if not the main one.
        folder: shown instead, where there is no ``repo_id``.
    """
    provenance = shareable(provenance)
    template = _TEMPLATES.get_template(f"{provenance['kind']}.md")
    stages = provenance.get("stages", [])
    rounds = [*provenance.get("rounds", []), *(table for stage in stages for table in stage.get("rounds", []))]
    statuses = (name for table in rounds for counts in table.get("tries", []) for name in counts)
    card = template.render(
        card_data=card_data(provenance).to_yaml(),
        p=provenance,
        repo=repo_id or folder,
        revision=revision,
        rounds=rounds,
        reasons=list(dict.fromkeys(name for table in provenance.get("rounds", []) for name in table["dropped"])),
        statuses=list(dict.fromkeys(statuses)),
        commands=commands(stages) if provenance["kind"] == "stages" else "",
        labels={entry["measure"]: entry["label"] for entry in provenance.get("results", {}).get("measures", [])},
    )
    return str(DatasetCard(card)).rstrip("\n") + "\n"


def card_data(provenance: Mapping[str, Any]) -> DatasetCardData:
    """The card's YAML metadata, in the Hub's vocabulary."""
    source, n_rows = provenance["source"], sum(entry["rows"] for entry in provenance["configs"])
    counts = [model["n_parameters"] for model in provenance["models"] if model["role"] == "evolver"]
    sizes = list(dict.fromkeys(f"evolver-size-{human_number(count)}" for count in counts if count))
    if provenance["kind"] == "stages":
        names = {stage["stage"] for stage in provenance["stages"]}
        tags = [tag for name, tag in _TAG_OF_STAGE.items() if name in names or "run" in names]
    else:
        tags = _TAGS[provenance["kind"]]
    written = any(model["role"] in WRITERS for model in provenance["models"])
    return DatasetCardData(
        pretty_name=provenance["title"],
        license=provenance["license"],
        language=source["language"] or None,
        size_categories=[size_category(n_rows)],
        task_categories=["text-generation"],
        annotations_creators=["machine-generated"] if provenance["models"] else None,
        language_creators=["machine-generated"] if written else None,
        source_datasets=[source["name"]] if source["on_hub"] else None,
        tags=[*(["synthetic"] if written else []), "instruction-tuning", *tags, "hf_evol", *sizes],
        configs=[_card_config(entry) for entry in provenance["configs"]],
    )


def _card_config(entry: Mapping[str, Any]) -> dict[str, Any]:
    path = entry.get("data_files", f"{entry['name']}/*.{entry['extension']}")
    config = {"config_name": entry["name"], "data_files": [{"split": "train", "path": path}]}
    return config | ({"default": True} if entry["name"] in ("selected", "rows") else {})


def commands(stages: Sequence[Mapping[str, Any]]) -> str:
    """The commands that make the stages again, each from what the one before it leaves; lists of methods are files."""
    lines, output = [], None
    for number, stage in enumerate(stages, 1):
        settings = dict(stage["settings"]) | ({"dataset": output} if output else {})
        if isinstance(settings.get("methods"), list):  # with their words, perhaps, which no option takes
            settings["methods"] = f"{number}-methods.yaml"
        output = f"{number}-{stage['stage']}"
        parts = [f"hf-evol {stage['stage']}"]
        for name, value in (settings | {"output": output}).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(text)}"))
        whole = " ".join(parts)
        lines.append(whole if len(whole) < _WRAP.width else " \\\n    ".join(parts))
    return "\n".join(lines)
