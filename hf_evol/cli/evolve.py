"""``hf-evol evolve``: the first stage alone."""

from __future__ import annotations

from hf_evol.cli.options import OPTIONS_OF, recipe_options, run_stage
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["evolve"])
def command(recipe: Recipe) -> None:
    """Evolve a seed set, and write all its rows with their status and the text of every round."""
    from dataclasses import replace

    from hf_evol.columns import EVOL_STATUS, ROUND, SEED_INSTRUCTION
    from hf_evol.run.stages import Stages

    evolver = replace(Stages.of(recipe).evolve, rounds=recipe.rounds)
    evolved = (ROUND, SEED_INSTRUCTION)  # columns of rows that go on from their round
    run_stage("evolve", recipe, evolver, EVOL_STATUS, "Last round", needed=evolved)
