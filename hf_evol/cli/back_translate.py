"""``hf-evol back-translate``: constraints that responses meet, added to their instructions."""

from __future__ import annotations

from typing import Annotated

import typer

from hf_evol.cli.options import OPTIONS_OF, recipe_options, run_stage
from hf_evol.errors import ConfigError
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["back-translate"])
def command(
    recipe: Recipe,
    given: frozenset[str],
    max_constraints: Annotated[
        int | None,
        typer.Option(help="How many constraints a row gets at most. \\[default: the recipe's back_translate, or 3]"),
    ] = None,
) -> None:
    """Add constraints that the response meets already to each instruction, with the functions that check them. A model is asked
    only with --constrainer; rows that no constraint suits stay as they are."""
    from hf_evol.columns import BACK_TRANSLATE_STATUS
    from hf_evol.run.stages import constraining

    max_constraints = (recipe.back_translate or 3) if max_constraints is None else max_constraints
    recipe = recipe.with_settings({"back_translate": max_constraints})
    if "judge" in given and not recipe.constrainer:
        raise ConfigError("--judge verifies the constraints that a model names: give --constrainer, too.")
    transform, options = constraining(recipe), {"max_constraints": max_constraints}
    needed = transform.input_columns
    run_stage("back-translate", recipe, transform, BACK_TRANSLATE_STATUS, "Constraints", needed=needed, **options)
