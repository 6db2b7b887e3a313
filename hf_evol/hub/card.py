"""The dataset card: provenance in, Markdown out, through `huggingface_hub` and a template."""

from __future__ import annotations

import json
import keyword
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import TextWrapper
from typing import Any
from urllib.parse import quote

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, constants
from jinja2 import Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from hf_evol.errors import OutputError
from hf_evol.hub.licences import WRITERS
from hf_evol.hub.merge import BEGIN, END, merge_cards, without_marks
from hf_evol.hub.provenance import shareable
from hf_evol.models.record import human_number
from hf_evol.progress import visible

# The Hub's vocabulary for size_categories: upper bound, name.
_SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"), (10**12, "100B<n<1T"),
)  # fmt: skip

_TAG_OF_STAGE = {
    "self-instruct": "self-instruct", "evolve": "evol-instruct", "back-translate": "verifiable-rewards", "score": "ic-ifd",
}  # fmt: skip
_STAGE_OF_PART = {"self_instruct": "self-instruct", "constraints": "back-translate"}
_TAGS = {
    "evolved": ["evol-instruct", "ic-ifd"],
    "autoif": ["autoif", "verifiable-rewards"],
    "study": ["model-comparison"],
}
_WRAP = TextWrapper(88, expand_tabs=False, replace_whitespace=False, break_long_words=False, break_on_hyphens=False)
_REPO_ID, _COMMIT = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII), re.compile(r"[0-9a-f]{40}")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&])")
_AT_START = re.compile(r"^\s*(?:[-=]|\d+\.(?=\s|$))")  # what would make a line an item, a heading or a rule


def size_category(n: int) -> str:
    """The Hub's size category for a number of rows."""
    return next((name for bound, name in _SIZES if n < bound), "n>1T")


def line(text: Any) -> Markup:
    """Text within an HTML block, where Markdown is not read: one line, with nothing in it that HTML would read."""
    return Markup(_one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def cell(text: Any) -> Markup:
    """Text as a table cell or a running line: one line, with nothing in it that Markdown or HTML would read."""
    shown = _MARKDOWN.sub(lambda match: match[0] if match[0] == "&" else "\\" + match[0], str(line(text)))
    return Markup(_AT_START.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", shown))


def code(text: Any) -> Markup:
    """Text as a code span, also within a table."""
    shown = _one_line(text).replace("|", "\\|") or " "
    fence, space = _fence(shown, 1), " " if "`" in shown else ""
    return Markup(f"{fence}{space}{shown}{space}{fence}")


def _one_line(text: Any) -> str:
    return re.sub(r"\s+", " ", visible(text))


def _fence(text: str, shortest: int) -> str:
    """Backticks, more than there are in any run of them in the text."""
    return "`" * max(shortest, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))


def commit(name: str, revision: str) -> Markup:
    """A model's commit, as a short link where it is on the Hub: whole, it would push the table off the page."""
    if not _REPO_ID.fullmatch(name) or not _COMMIT.fullmatch(revision):
        return cell(revision)
    return Markup(f"[{revision[:7]}]({quote(f'{constants.ENDPOINT}/{name}/tree/{revision}', safe=':/')})")


def image(figure: Mapping[str, Any]) -> Markup:
    """A figure, which lies within the set."""
    return Markup(f"![{cell(figure['alt'])}]({quote(figure['path'].lstrip('/'))})")


def fenced(text: Any, language: str = "text") -> Markup:
    """Text as a fenced block whose fence is longer than any run of backticks in it."""
    body = without_marks(visible(text))
    fence = _fence(body, 3)
    return Markup(f"{fence}{language}\n{body}\n{fence}")


def quoted(text: str) -> Markup:
    """Text as a literal of Python, in one line."""
    shown = json.dumps(text, ensure_ascii=False)
    return Markup("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown))


def variable(name: str) -> Markup:
    """A name as Python's, where it can be one."""
    return Markup(name if name.isidentifier() and not keyword.iskeyword(name) else "rows")


def before(context: Sequence[Mapping[str, str]] | None) -> str:
    """A conversation's earlier turns."""
    return "\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in context or ())


def wrapped(text: Any) -> str:
    """Text with its long lines broken at spaces, as a fenced block shows no more of a line than fits on the page."""
    lines = visible(text).split("\n")
    return "\n".join(part for line in lines for part in (_WRAP.wrap(line) if len(line) > _WRAP.width else [line]))


def as_yaml(value: Any) -> str:
    """Settings as a YAML file holds them."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).strip()


def number(value: float | None) -> Markup:
    """Four significant figures, or a dash."""
    return Markup("–" if value is None else f"{value:.4g}")


def interval(bounds: Sequence[float] | None) -> Markup:
    """Both ends, or a dash."""
    return Markup("–" if bounds is None else " to ".join(map(number, bounds)))


# With jinja2's own settings otherwise, as `DatasetCard.from_template` has them, which can't find the base of a template.
# What an expression gives is a `cell`, unless it is a number or the Markup of a function or macro. The templates lie inside
# the package in an installation, and beside it in a checkout.
_PACKAGE = Path(__file__).parent.parent
_TEMPLATES = Environment(
    loader=FileSystemLoader([_PACKAGE / "dataset_cards", _PACKAGE.parent / "dataset_cards"]),
    autoescape=True,
    finalize=lambda value: value if isinstance(value, (Markup, int, float, Undefined)) else cell(value),
)
_TEMPLATES.globals.update(
    line=line, code=code, commit=commit, image=image, fenced=fenced, quoted=quoted, variable=variable, before=before,
    wrapped=wrapped, as_yaml=as_yaml, number=number, interval=interval, human=human_number, BEGIN=Markup(BEGIN), END=Markup(END),
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

    Raises:
        OutputError: the provenance, which may come from anywhere, holds something else than these write.
    """
    try:
        return _card_text(shareable(provenance), repo_id or folder, revision)
    except Exception as error:
        said = _one_line(f"{type(error).__name__}: {error}")[:300]
        raise OutputError(
            f"No card can be made of this provenance, which holds something else than hf_evol writes there ({said}). Make "
            "the set again, or mend its provenance.json."
        ) from error


def _card_text(provenance: Mapping[str, Any], place: str, revision: str | None) -> str:
    template = _TEMPLATES.get_template(f"{provenance['kind']}.md")
    stages = provenance.get("stages", [])
    rounds = [*provenance.get("rounds", []), *(table for stage in stages for table in stage.get("rounds", []))]
    statuses = (name for table in rounds for counts in table.get("tries", []) for name in counts)
    card = template.render(
        card_data=Markup(card_data(provenance).to_yaml()),
        p=provenance,
        place=place,
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
    stages = provenance.get("stages", []) if provenance["kind"] == "stages" else []
    names = {stage["stage"] for stage in stages} - {"back-translate"}
    names |= {"evolve", "score"} if "run" in names else set()
    names |= {stage for part, stage in _STAGE_OF_PART.items() for made in (provenance, *stages) if made.get(part)}
    tags = _TAGS.get(provenance["kind"], []) + [tag for name, tag in _TAG_OF_STAGE.items() if name in names]
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


def within(published: str | None, card: str, record: Mapping[str, Any]) -> str:
    """A new card within the one that is there, as `merge_cards` has it, by the provenance that this one was made of, if it was."""
    return merge_cards(published, card, card_data(record).to_dict() if "source" in record else None)


def _card_config(entry: Mapping[str, Any]) -> dict[str, Any]:
    path = entry.get("data_files", f"{entry['name']}/train-*.{entry['extension']}")
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
        parts = [f"hf-evol {shlex.quote(stage['stage'])}"]
        for name, value in (settings | {"output": output}).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts.append(
                shlex.quote(f"--{name.replace('_', '-')}") + ("" if value is True else f" {shlex.quote(text)}")
            )
        whole = " ".join(parts)
        lines.append(whole if len(whole) < _WRAP.width else " \\\n    ".join(parts))
    return "\n".join(lines)
