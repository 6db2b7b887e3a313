"""The sets to train on: found, checked, and named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets import Dataset

from hf_evol.data.sources import load_seeds
from hf_evol.errors import ConfigError, SourceError

SELECTED = "selected"  # the default config of what hf-evol run writes
PLAIN = "default"  # what `datasets` calls the config of a set without named ones, and the single stages call theirs


@dataclass(frozen=True)
class TrainingSet:
    """A set to train on."""

    name: str  # what its files and its model are called; unlike that of any other set of the comparison
    source: str  # a folder, or a dataset on the Hub
    config: str
    rows: Dataset  # with ``instruction``, ``output`` and, if there, ``input`` and ``context``


def load_training_sets(sources: Sequence[str], config: str | None = None) -> list[TrainingSet]:
    """Load the sets to train on: folders that ``hf-evol run`` has written, or datasets on the Hub.

    Args:
        config: the configuration of each; by default ``selected``, or a set's rows if it has no named configurations.

    Raises:
        SourceError: a set can't be read, or has no rows.
        ConfigError: a set has no such configuration, or the same set is given twice.
    """
    sets = []
    for name, source in zip(names_of(sources), sources, strict=True):
        chosen = _config_of(source, config)
        sets.append(TrainingSet(name, source, chosen, load_seeds(source, config=chosen)))
    return sets


def names_of(sources: Sequence[str]) -> list[str]:
    """A name for each folder or Hub name, fit for a file: its last part, or as many as it takes to tell them apart.

    Example:
        >>> names_of(["me/alpaca-8b", "me/alpaca-70b"]), names_of(["small/evolved", "large/evolved"])
        (['alpaca-8b', 'alpaca-70b'], ['small-evolved', 'large-evolved'])

    Raises:
        ConfigError: two are the same, or nothing tells them apart.
    """
    parts = []
    for source in sources:
        path = Path(source).expanduser()
        whole = path.resolve() if source and path.exists() else path
        plain = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip(".-") for part in whole.parts]
        parts.append([part for part in plain if part])
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["-".join(part[-count:]) for part in parts]
        if all(names) and len({name.lower() for name in names}) == len(names):
            return names
    raise ConfigError(f"Give sets or models that differ, each by its own name; got {', '.join(map(repr, sources))}.")


def _config_of(source: str, wanted: str | None) -> str:
    path = Path(source).expanduser()
    try:
        configs = datasets.get_dataset_config_names(str(path) if path.exists() else source)
    except (OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(
            f"Cannot read the set {source!r}: {lines[0].rstrip('.')}. Give a folder that hf-evol run has written, or the "
            "name of a dataset on the Hub."
        ) from error
    chosen = wanted or (PLAIN if configs == [PLAIN] else SELECTED)
    if chosen not in configs:
        raise ConfigError(
            f"The set {source!r} has no config {chosen!r}. Configs: {', '.join(configs)}. Choose one with --config-name."
        )
    return chosen
