"""What all rows of a run would take, from running it on the first few."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_evol.errors import ConfigError
from hf_evol.hub.target import Target
from hf_evol.models.journal import open_journal
from hf_evol.progress import counted_tokens
from hf_evol.run import steps
from hf_evol.run.pipeline import check_seeds_are_given, conclude, read_seeds
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages
from hf_evol.transform import Transform, map_dataset

_WARM = {"id": ["warm-0"], "instruction": ["Name a river."], "input": [""], "output": ["The Rhine is a river."]}


@dataclass(frozen=True)
class Estimate:
    """A measurement of the first rows, and what follows for all of them if they are alike: seconds on this machine and generated
    tokens by step, models loaded before, and bytes of the finished set and of the requests in the journal."""

    n_measured: int
    n_rows: int
    seconds: dict[str, float]
    tokens: dict[str, int]
    set_bytes: int
    journal_bytes: int

    @property
    def times(self) -> float:
        """How many times the measured rows all rows are."""
        return self.n_rows / self.n_measured

    @property
    def hours(self) -> float:
        """For all rows, on this machine."""
        return sum(self.seconds.values()) * self.times / 3600


def measure(recipe: Recipe, n: int) -> Estimate:
    """Run a recipe on the first ``n`` rows of its seed set in this process, and count. Set and journal lie in a temporary folder.

    Raises:
        HfEvolError: ``n`` is below 1, or as in `hf_evol.run`.
    """
    if n < 1:
        raise ConfigError(f"The number of rows to measure must be 1 or more; got {n}.")
    check_seeds_are_given(recipe, "a measurement")
    seeds, seconds, tokens = read_seeds(recipe), defaultdict(float), defaultdict(int)
    with tempfile.TemporaryDirectory(prefix="hf_evol-") as name:
        journal = str(Path(name, "journal.sqlite"))
        own = replace(recipe, output=str(Path(name, "set")), journal=journal, overwrite=False, push_to=None)
        stages = Stages.of(own)
        stages.check()
        for transform in (stages.evolve, stages.respond):  # load the weights, so that no step's seconds have it
            replace(transform, journal=False, max_new_tokens=1)(_WARM)
        for other in (stages.back_translate, stages.score):
            if other is not None:
                replace(other, journal=False)(_WARM)

        def timed(rows: Dataset, transform: Transform, label: str) -> Dataset:
            begun = time.perf_counter()
            with counted_tokens() as new:
                options: dict[str, Any] = {"batch_size": steps.MAP_ROWS, "num_proc": 1, "load_from_cache_file": False}
                rows = map_dataset(rows, transform, desc=label, **options)
            seconds[transform.label] += time.perf_counter() - begun
            tokens[transform.label] += new[0]
            return rows

        first = seeds.select(range(min(n, len(seeds))))
        conclude(own, stages, len(first), steps.run(first, stages, own.rounds, timed), Target(own.output))
        set_bytes = sum(file.stat().st_size for file in Path(own.output).rglob("*") if file.is_file())
        known = open_journal(journal)
        known.prune()  # folds the log into the file, which a small journal would otherwise be mostly
        return Estimate(len(first), len(seeds), dict(seconds), dict(tokens), set_bytes, known.stats().bytes)
