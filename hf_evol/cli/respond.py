"""``hf-evol respond``: answer the instructions of a set."""

from __future__ import annotations

from hf_evol.cli.options import (
    ENGINE_OPTIONS,
    MODEL_OPTIONS,
    OUTPUT_OPTIONS,
    ROW_OPTIONS,
    quiet,
    recipe_options,
    run_stage,
    stage_rows,
)
from hf_evol.run.recipe import Recipe


@recipe_options(
    *ROW_OPTIONS, "model", *ENGINE_OPTIONS, *MODEL_OPTIONS, "seed", "response_system", "response_temperature", "response_top_p",
    "response_max_new_tokens", "batch_size", "num_proc", "journal", *OUTPUT_OPTIONS,
)  # fmt: skip
def command(recipe: Recipe, given: frozenset[str]) -> None:
    """Answer each instruction of a set, greedily unless told otherwise. The model is the one that answers; rows whose evolution
    failed are not answered."""
    quiet()
    from hf_evol.columns import RESPONSE_STATUS
    from hf_evol.run.stages import Stages

    run_stage("respond", recipe, Stages.of(recipe).respond, stage_rows(recipe), RESPONSE_STATUS, "Responses")
