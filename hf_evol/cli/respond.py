"""``hf-evol respond``: answer the instructions of a set."""

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
    *(name for name in SEED_OPTIONS if name != "format"), "model", *ENGINE_OPTIONS, *MODEL_OPTIONS, "seed",
    "response_system", "response_temperature", "response_top_p", "response_max_new_tokens", "batch_size", "num_proc", "journal", *OUTPUT_OPTIONS,
)  # fmt: skip
def command(recipe: Recipe, given: frozenset[str]) -> None:
    """Answer each instruction of a set, greedily unless told otherwise. The model is the one that answers; rows whose evolution
    failed are not answered."""
    quiet()
    from hf_evol.cli.options import stage_rows
    from hf_evol.columns import RESPONSE_STATUS
    from hf_evol.data.selection import column
    from hf_evol.run.stages import Stages
    from hf_evol.run.steps import MAP_ROWS
    from hf_evol.run.tables import status_counts
    from hf_evol.transform import map

    responder = Stages.of(recipe).respond
    rows = map(stage_rows(recipe), responder, batch_size=MAP_ROWS, num_proc=recipe.num_proc)
    counts = status_counts(column(rows, RESPONSE_STATUS))
    save("respond", recipe, rows, counts)
    print_counts("Responses", counts)
