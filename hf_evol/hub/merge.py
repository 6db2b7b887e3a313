"""A new card into a published one: what other people and libraries wrote stays."""

from __future__ import annotations

import logging
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hf_evol.errors import HubError

logger = logging.getLogger(__name__)

BEGIN = "<!-- hf_evol: begin of the generated part. Text outside of it is kept when the set is pushed again. -->"
END = "<!-- hf_evol: end of the generated part -->"
# From one mark to the next, each at the start of a line: people may write about the marks within theirs, and no card
# holds them inside of its generated part (`without_marks`).
_MARKED = re.compile(rf"^{re.escape(BEGIN)}.*?^{re.escape(END)}", re.DOTALL | re.MULTILINE)

_THEIRS = ("pretty_name", "license", "license_name", "license_link", "language", "viewer")  # as published, if at all
_UNITED = ("tags", "source_datasets", "task_categories", "annotations_creators", "language_creators")
_COMMENTS = re.compile(r"(?:^[ \t]*(?:#.*)?\n)*\Z", re.MULTILINE)  # and empty lines, at the end
_HEAD = re.compile(r"(.*\n)((?:[ \t]*(?:#.*)?\n)*)")  # the line of a key, and the comments before its first item


def merge_cards(published: str | None, new: str, earlier: Mapping[str, Any] | None = None) -> str:
    """The new card, within what is published.

    Of the metadata, what an ``earlier`` card of ours said, and still does, is renewed, be it a value, an entry of a list, or a
    split of a config. Of the rest, ``configs`` are merged by name and split, lists are united, what people decide (name,
    licence, language, the default config) stays, and so does whatever the new card doesn't know, such as the ``dataset_info``
    of other configs. (That of a config that is replaced would be wrong, and `datasets` would refuse to load it.) What stays is
    not written anew: its text is kept, comments included. Of the text, the generated part is replaced; where the published
    card has none, it comes first, and the text there follows.

    Raises:
        HubError: a card can't be read, and starting anew would lose what it says; or this set and others each have a default
            config.
    """
    if published is None or not published.strip() or published == new:
        return new
    try:
        (old, end, old_text), (fresh, _, fresh_text) = _parsed(published.removeprefix("\ufeff")), _parsed(new)
        metadata = "".join(map(str, _merge_metadata(old, fresh, earlier or {}))) + end
        merged = f"---\n{metadata}---\n" if metadata else "---\n{}\n---\n"
        _parsed(merged)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, yaml.YAMLError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HubError(
            f"The new or the published card can't be read, so it is left as it is: {said} Mend its YAML first."
        ) from error
    if old_text != published and published.lstrip("\ufeff").startswith("---\r\n"):
        merged = merged.replace("\n", "\r\n")
    return merged + _merge_text(old_text, fresh_text)


def without_marks(text: str) -> str:
    """Text for the generated part, in which the marks have no meaning."""
    return text.replace("<!-- hf_evol:", "<!-- hf_evol :")


class _Constructor(yaml.constructor.SafeConstructor):
    """Takes no merge keys, which grow without bound."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass


@dataclass(frozen=True)
class _Part:
    """A key with its value, or an item of a list, as it is written (``text``), after comments and empty lines (``lead``)."""

    block: str
    node: yaml.Node  # of the value
    name: str | None = None
    lead: str = ""
    text: str = ""

    def __str__(self) -> str:
        return self.lead + self.text

    @property
    def value(self) -> Any:
        """As the Hub's library and `datasets` read it."""
        return _Constructor().construct_document(self.node)

    @property
    def _is_list(self) -> bool:
        """Whether this is a key with an item a line."""
        return bool(self.text) and isinstance(self.node, yaml.SequenceNode) and not self.node.flow_style

    def parts(self) -> list[_Part]:
        """The keys of a mapping, the items of a list, or a single value as the only item, from the margin on."""
        node, block = self.node, self.block
        if isinstance(node, yaml.ScalarNode):
            text = f"- {block[node.start_mark.index : node.end_mark.index].strip()}\n"
            return [] if node.tag == "tag:yaml.org,2002:null" else [_Part(block, node, text=text)]
        is_mapping = isinstance(node, yaml.MappingNode)
        pairs = node.value if is_mapping else [(item, item) for item in node.value]
        first, column = node.start_mark.index, node.start_mark.column
        starts = [key.start_mark.index for key, _ in pairs]
        places = [mark.index for pair in pairs for mark in (pair[0].start_mark, pair[1].end_mark)]
        if block[first] in "&!" or (node.flow_style and places != sorted(places)) or starts != sorted(set(starts)):
            raise ValueError("An anchor, alias or tag is in the way.")
        if node.flow_style:
            dash = "" if is_mapping else "- "
            chunks = [f"{dash}{block[key.start_mark.index : value.end_mark.index]}\n" for key, value in pairs]
        else:
            if is_mapping:
                starts = [block.rfind("\n", 0, start) + 1 for start in starts]
            else:  # an item may begin lines after its dash
                starts = [block.rfind(f"\n{' ' * column}-", 0, start) + 1 for start in starts]
            cuts = [first, *starts[1:], node.end_mark.index - node.end_mark.column]
            chunks = [re.sub(rf"^ {{,{column}}}", "", block[start:end], flags=re.M) for start, end in pairwise(cuts)]
        found, lead = [], textwrap.dedent(_HEAD.match(self.text)[2]) if self._is_list else ""
        for (key, value), chunk in zip(pairs, chunks, strict=True):
            end = _COMMENTS.search(chunk).start()
            name = key.value if is_mapping and isinstance(key, yaml.ScalarNode) else None
            found.append(_Part(block, value, name, lead, chunk[:end]))
            lead = chunk[end:]
        return found

    def holding(self, *pieces: object) -> _Part:
        """A key whose value is a list of these, or an item of them as its keys; without text, where there are none."""
        body = "".join(map(str, pieces))
        if not body:
            return replace(self, text="")
        if self.name is None:
            return replace(self, text=f"- {textwrap.indent(body, '  ')[2:]}")
        return replace(self, text=(_HEAD.match(self.text)[1] if self._is_list else f"{self.name}:\n") + body)


def _parsed(content: str) -> tuple[list[_Part], str, str]:
    """The metadata of a card, the comments at their end, and the text."""
    match = REGEX_YAML_BLOCK.search(content)
    if not match:
        return [], "", content
    block = match[2].replace("\r\n", "\n") + "\n"
    root, parts = yaml.compose(block, yaml.SafeLoader), []
    if root is not None:
        if not isinstance(_Part(block, root).value, dict):
            raise ValueError("The metadata are no mapping.")
        parts = _Part(block, root).parts()
        parts[:1] = [replace(part, lead=block[: root.start_mark.index]) for part in parts[:1]]
    if twice := [name for name, count in Counter(part.name for part in parts).items() if count > 1]:
        raise ValueError(f"The key {twice[0]!r} is there twice.")
    return parts, block[_COMMENTS.search(block).start() :], content[match.end() :]


def _merge_metadata(old: list[_Part], new: list[_Part], earlier: Mapping[str, Any]) -> list[_Part]:
    fresh, merged = {part.name: part for part in new}, []
    ours = {config.value["config_name"]: config for config in (fresh["configs"].parts() if "configs" in fresh else ())}
    said = {config["config_name"]: config for config in earlier.get("configs") or ()}
    for part in old:
        name, renewed = part.name, fresh.pop(part.name, None)
        if name == "configs":
            part = part.holding(*_merge_configs(part.parts(), ours, said))
        elif name == "dataset_info":
            infos = part.parts() if isinstance(part.node, yaml.SequenceNode) else [part]
            kept = [info for info in infos if info.value.get("config_name", "default") not in {*ours, *said}]
            part = part if len(kept) == len(infos) else part.holding(*kept)
        elif name in _UNITED:
            part = _united(part, renewed.parts() if renewed else [], earlier.get(name) or ())
        elif name in earlier and part.value == earlier[name]:
            part = replace(part, text=renewed.text if renewed else "")
        elif renewed and name not in _THEIRS:
            part = replace(part, text=renewed.text)
        elif renewed and name == "license" and part.value != renewed.value:
            told = (
                "The licence on the published card, %s, is not of hf_evol and stays there, though this set is under %s."
            )
            logger.warning(told, part.value, renewed.value)
        merged.append(part)
    return [*merged, *fresh.values()]


def _united(part: _Part, added: list[_Part], said: Collection[str]) -> _Part:
    """A list with what is new, and without what an earlier card said and the new one doesn't."""
    new, items = [item.value for item in added], {item.value: item for item in part.parts()}
    kept = [item for value, item in items.items() if value not in said or value in new]
    added = [item for item in added if item.value not in items]
    return part if len(kept) == len(part.parts()) and not added else part.holding(*kept, *added)


def _merge_configs(old: list[_Part], ours: dict[str, _Part], said: Mapping[str, Mapping[str, Any]]) -> list[_Part]:
    ours, others, left = dict(ours), {}, []
    for config in old:
        name = config.value["config_name"]
        if name not in ours and name not in said:
            others[name] = config
            continue
        own = _splits(ours[name]) if name in ours else []
        not_theirs = {split["split"] for split in said.get(name, {}).get("data_files", ())}
        not_theirs |= {split.value["split"] for split in own}
        theirs = [split for split in _splits(config) if split.value["split"] not in not_theirs]
        if name in ours and theirs:
            ours[name] = _changed(ours[name], data_files=[*own, *theirs])
        elif theirs:
            left.append(_changed(config, data_files=theirs, default=[]))
    default = [name for name, config in others.items() if name == "default" or config.value.get("default")]
    if not default and len(others) == len(old) == 1 and ours:  # the only one is the default, unmarked
        default = [*others]
        others = {name: config.holding(*config.parts(), "default: true\n") for name, config in others.items()}
    if default and "default" in ours:
        raise HubError(
            f"The config {default[0]!r} of others is the default one there, and so would be that of this set, by its name "
            "'default'. Unmark it in the card first, or choose another dataset."
        )
    if default:
        ours = {name: _changed(config, default=[]) for name, config in ours.items()}
    return [*ours.values(), *left, *others.values()]


def _changed(config: _Part, **lists: list[_Part]) -> _Part:
    """A config with other values of these keys; without a key whose list is empty."""
    return config.holding(*(part.holding(*lists[part.name]) if part.name in lists else part for part in config.parts()))


def _splits(config: _Part) -> list[_Part]:
    files = [part for part in config.parts() if part.name == "data_files"]
    return [split for part in files for split in part.parts() if isinstance(split.value, dict)]


def _merge_text(old: str, new: str) -> str:
    marked = _MARKED.search(old)
    if BEGIN in new and END in new:
        generated = new[new.index(BEGIN) : new.rindex(END) + len(END)]
    else:  # a card from elsewhere
        generated = f"{BEGIN}\n\n{without_marks(new.strip())}\n\n{END}"
    if marked:
        return old[: marked.start()] + generated + old[marked.end() :]
    return f"{generated}\n\n{old.strip()}\n" if old.strip() else f"{generated}\n"
