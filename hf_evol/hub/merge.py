"""A new card into a published one: what other people and libraries wrote stays."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from hf_evol.errors import HubError

logger = logging.getLogger(__name__)

BEGIN = "<!-- hf_evol: begin of the generated part. Text outside of it is kept when the set is pushed again. -->"
END = "<!-- hf_evol: end of the generated part -->"
# From one mark to the next, each at the start of a line: people may write about the marks within theirs, and no card
# holds them inside of its generated part (`without_marks`).
_MARKED = re.compile(rf"^{re.escape(BEGIN)}.*?^{re.escape(END)}", re.DOTALL | re.MULTILINE)

_THEIRS = ("pretty_name", "license", "license_name", "license_link", "language", "viewer")  # as published, if at all
_UNITED = ("tags", "source_datasets", "task_categories", "annotations_creators", "language_creators")


def merge_cards(published: str | None, new: str, earlier: Mapping[str, Any] | None = None) -> str:
    """The new card, within what is published.

    Of the metadata, what an ``earlier`` card of ours said, and still does, is renewed, be it a value, a config or an entry of
    a list. Of the rest, ``configs`` are merged by name, lists are united, what people decide (name, licence, language) stays,
    and so does whatever the new card doesn't know, such as the ``dataset_info`` of other configs. (That of a config that
    is replaced would be wrong, and `datasets` would refuse to load it.) Of the text, the generated part is replaced; where
    the published card has none, it comes first, and the text there follows. A card that can't be read is a `HubError`:
    starting anew would lose what it says.
    """
    if published is None or not published.strip() or published == new:
        return new
    try:
        old, fresh = DatasetCard(published.removeprefix("\ufeff")), DatasetCard(new)
        data = DatasetCardData(**_merge_metadata(_without(old.data.to_dict(), earlier or {}), fresh.data.to_dict()))
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HubError(
            f"The new or the published card can't be read, so it is left as it is: {said} Mend its YAML first."
        ) from error
    text = _merge_text(old.text, fresh.text)
    line_break = "\r\n" if old.text != published and published.lstrip("\ufeff").startswith("---\r\n") else "\n"
    return f"---{line_break}{data.to_yaml(line_break=line_break)}{line_break}---{line_break}{text}"


def without_marks(text: str) -> str:
    """Text for the generated part, in which the marks have no meaning."""
    return text.replace("<!-- hf_evol:", "<!-- hf_evol :")


def _without(published: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What is published, without what an earlier card of ours has put there."""
    kept = {name: value for name, value in published.items() if earlier.get(name, ...) != value}
    for name in _UNITED:
        said = _listed(earlier, name)
        kept |= {name: [entry for entry in _listed(kept, name) if entry not in said]} if name in kept else {}
    ours = {config["config_name"] for config in earlier.get("configs") or ()}
    for name in ("configs", "dataset_info"):
        others = [entry for entry in _listed(kept, name) if entry.get("config_name", "default") not in ours]
        if name in kept and len(others) < len(_listed(kept, name)):
            kept = {key: value for key, value in kept.items() if key != name} | ({name: others} if others else {})
    return kept


def _merge_metadata(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = old | {name: value for name, value in new.items() if name not in old or name not in _THEIRS}
    if "license" in old and new.get("license") not in (None, old["license"]):
        said = "The licence on the published card, %s, is not of hf_evol and stays there, though this set is under %s."
        logger.warning(said, old["license"], new["license"])
    for name in _UNITED:
        merged |= {name: list(dict.fromkeys([*_listed(old, name), *_listed(new, name)]))} if name in merged else {}
    names = {config["config_name"] for config in new.get("configs", [])}
    others = [config for config in _listed(old, "configs") if config.get("config_name") not in names]
    ours = new.get("configs", [])
    if any(config.get("config_name") == "default" for config in others):  # the default by its name
        ours = [_not_default(config) for config in ours]
    elif any(config.get("default") or config["config_name"] == "default" for config in ours):
        others = [_not_default(config) for config in others]
    if configs := [*ours, *others]:
        merged["configs"] = configs
    if "dataset_info" in old:
        kept = [info for info in _listed(old, "dataset_info") if info.get("config_name", "default") not in names]
        merged["dataset_info"] = kept if isinstance(old["dataset_info"], list) else old["dataset_info"]
        if not kept:
            del merged["dataset_info"]
    return merged


def _not_default(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "default"}


def _listed(data: Mapping[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return [] if value is None else value if isinstance(value, list) else [value]


def _merge_text(old: str, new: str) -> str:
    marked = _MARKED.search(old)
    if BEGIN in new and END in new:
        generated = new[new.index(BEGIN) : new.rindex(END) + len(END)]
    else:  # a card from elsewhere
        generated = f"{BEGIN}\n\n{without_marks(new.strip())}\n\n{END}"
    if marked:
        return old[: marked.start()] + generated + old[marked.end() :]
    return f"{generated}\n\n{old.strip()}\n" if old.strip() else f"{generated}\n"
