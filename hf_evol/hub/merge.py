"""A new card into a published one: what other people and libraries wrote stays."""

from __future__ import annotations

from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from hf_evol.errors import HubError

BEGIN = "<!-- hf_evol: begin of the generated part. Text outside of it is kept when the set is pushed again. -->"
END = "<!-- hf_evol: end of the generated part -->"

_THEIRS = ("pretty_name", "license", "license_name", "license_link", "language", "viewer")  # as published, if at all
_UNITED = ("tags", "source_datasets", "task_categories", "annotations_creators", "language_creators")


def merge_cards(published: str | None, new: str) -> str:
    """The new card, within what is published.

    Of the metadata, ``configs`` are merged by name, lists are united, what people decide (name, licence, language) stays,
    and so does whatever the new card doesn't know, such as the ``dataset_info`` of other configs. (That of a config that
    is replaced would be wrong, and `datasets` would refuse to load it.) Of the text, the generated part is replaced; where
    the published card has none, it comes first, and the text there follows.

    Args:
        published: the card on the Hub, or None if there is none.
        new: the card to publish.

    Raises:
        HubError: the published card can't be read. Starting anew would lose what it says.
    """
    if published is None or not published.strip() or published == new:
        return new
    old, fresh = _read(published, "published"), _read(new, "new")
    data = _merge_metadata(old.data.to_dict(), fresh.data.to_dict())
    old.data, old.text = DatasetCardData(**data), _merge_text(old.text, fresh.text)
    return str(old)


def _read(content: str, which: str) -> DatasetCard:
    try:
        return DatasetCard(content)
    except (ValueError, TypeError) as error:
        line = str(error).strip().splitlines()[0]
        raise HubError(
            f"The {which} card can't be read, so it is left as it is: {line} Mend its YAML first."
        ) from error


def _merge_metadata(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = old | {name: value for name, value in new.items() if name not in old or name not in _THEIRS}
    for name in _UNITED:
        merged |= {name: list(dict.fromkeys([*_listed(old, name), *_listed(new, name)]))} if name in merged else {}
    names = {config["config_name"] for config in new.get("configs", [])}
    others = [config for config in _listed(old, "configs") if config.get("config_name") not in names]
    if any(config.get("default") for config in new.get("configs", [])):
        others = [{name: value for name, value in config.items() if name != "default"} for config in others]
    if configs := [*new.get("configs", []), *others]:
        merged["configs"] = configs
    if "dataset_info" in old:
        kept = [info for info in _listed(old, "dataset_info") if info.get("config_name", "default") not in names]
        merged["dataset_info"] = kept
        if not kept:
            del merged["dataset_info"]
    return merged


def _listed(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return [] if value is None else value if isinstance(value, list) else [value]


def _merge_text(old: str, new: str) -> str:
    before, begun, rest = old.partition(BEGIN)
    _, ended, after = rest.rpartition(END)  # an example row may hold the mark
    if BEGIN in new and END in new:
        generated = new[new.index(BEGIN) : new.rindex(END) + len(END)]
    else:  # a card from elsewhere
        generated = f"{BEGIN}\n\n{new.strip()}\n\n{END}"
    if begun and ended:
        return before + generated + after
    return f"{generated}\n\n{old.strip()}\n" if old.strip() else f"{generated}\n"
