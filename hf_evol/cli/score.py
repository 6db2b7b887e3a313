"""``hf-evol score``: IFD and IC-IFD of a set."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hf_evol.cli.options import OPTIONS_OF, recipe_options, run_stage
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["score"])
def command(
    recipe: Recipe,
    turns: Annotated[
        str | None,
        typer.Option(help="of a messages column, score the last turn (last) or each assistant turn, too (each)"),
    ] = None,
) -> None:
    """Score each row by IFD and IC-IFD. The model is the one that scores."""
    from dataclasses import replace

    from hf_evol.columns import IC_IFD, IC_IFD_STATUS, IFD
    from hf_evol.data.selection import column
    from hf_evol.errors import ConfigError
    from hf_evol.run.stages import Stages
    from hf_evol.scoring.summary import summarize

    if (scorer := Stages.of(recipe).score) is None:
        raise ConfigError("An endpoint gives no losses to score by. Name a model to load here with --model.")

    def show(rows: Any) -> None:
        for name in (IFD, IC_IFD):
            summary = summarize(name, column(rows, name))
            if summary["n"]:
                low, high = summary["ci95"] or (None, None)
                interval = "" if low is None else f" (95 % interval {low:.4f} to {high:.4f})"
                print(
                    f"{name}: mean {summary['mean']:.4f}{interval}, "
                    f"quartiles {summary['q1']:.4f}, {summary['median']:.4f}, {summary['q3']:.4f}, over {summary['n']} rows"
                )

    run_stage("score", recipe, replace(scorer, turns=turns), IC_IFD_STATUS, "Status", show=show, turns=turns)
