"""``hf-evol respond``: answer the instructions of a set."""

from __future__ import annotations

from hf_evol.cli.options import OPTIONS_OF, recipe_options, run_stage
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["respond"])
def command(recipe: Recipe) -> None:
    """Answer each instruction of a set, greedily unless told otherwise. The model is the one that answers; rows whose evolution
    failed are not answered."""
    from hf_evol.columns import RESPONSE_STATUS
    from hf_evol.run.stages import Stages

    run_stage("respond", recipe, Stages.of(recipe).respond, RESPONSE_STATUS, "Responses")
