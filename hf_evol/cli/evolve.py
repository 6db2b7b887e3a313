"""``hf-evol evolve``: the first stage alone."""

from __future__ import annotations

from hf_evol.cli.options import (
    ENGINE_OPTIONS,
    MODEL_OPTIONS,
    OUTPUT_OPTIONS,
    SEED_OPTIONS,
    print_counts,
    quiet,
    recipe_options,
    save,
)
from hf_evol.run.recipe import Recipe


@recipe_options(
    *SEED_OPTIONS, "model", *ENGINE_OPTIONS, *MODEL_OPTIONS, "methods", "rounds", "tries", "best_of", "by_example", "responder", "scorer",
    "seed", "temperature", "top_p", "max_new_tokens", "response_max_new_tokens", "batch_size", "num_proc", "journal", *OUTPUT_OPTIONS,
)  # fmt: skip
def command(recipe: Recipe, given: frozenset[str]) -> None:
    """Evolve a seed set, and write all its rows with their status and the text of every round."""
    quiet()
    from dataclasses import replace

    from hf_evol.cli.options import stage_rows
    from hf_evol.columns import EVOL_STATUS, ROUND, SEED_INSTRUCTION
    from hf_evol.data.selection import column
    from hf_evol.run.pipeline import read_seeds
    from hf_evol.run.stages import Stages
    from hf_evol.run.steps import MAP_ROWS
    from hf_evol.run.tables import status_counts
    from hf_evol.transform import map

    evolver = replace(Stages.of(recipe).evolve, rounds=recipe.rounds)
    seeds = stage_rows(recipe)
    if not {ROUND, SEED_INSTRUCTION} <= set(
        seeds.column_names
    ):  # otherwise the rows are evolved already, and go on from their round
        seeds = read_seeds(recipe)
    rows = map(seeds, evolver, batch_size=MAP_ROWS, num_proc=recipe.num_proc)
    counts = status_counts(column(rows, EVOL_STATUS))
    save("evolve", recipe, rows, counts)
    print_counts("Last round", counts)
