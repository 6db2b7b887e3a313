"""``hf-evol score``: IFD and IC-IFD of a set."""

from __future__ import annotations

from typing import Annotated

import typer

from hf_evol.cli.options import MODEL_OPTIONS, OUTPUT_OPTIONS, SEED_OPTIONS, print_counts, quiet, recipe_options, save
from hf_evol.run.recipe import Recipe


@recipe_options(
    *(name for name in SEED_OPTIONS if name != "format"), "model",
    *(name for name in MODEL_OPTIONS if name != "chat_template"), "convention", "max_length", "truncate",
    "num_proc", "journal", *OUTPUT_OPTIONS,
)  # fmt: skip
def command(
    recipe: Recipe,
    given: frozenset[str],
    turns: Annotated[
        str | None,
        typer.Option(help="of a messages column, score the last turn (last) or each assistant turn, too (each)"),
    ] = None,
) -> None:
    """Score each row by IFD and IC-IFD. The model is the one that scores."""
    quiet()
    from dataclasses import replace

    from hf_evol.cli.options import stage_rows
    from hf_evol.columns import IC_IFD, IC_IFD_STATUS, IFD
    from hf_evol.data.selection import column
    from hf_evol.run.stages import Stages
    from hf_evol.run.steps import MAP_ROWS
    from hf_evol.run.tables import status_counts
    from hf_evol.scoring.summary import summarize
    from hf_evol.transform import map

    scorer = replace(Stages.of(recipe).score, turns=turns)
    rows = map(stage_rows(recipe), scorer, batch_size=MAP_ROWS, num_proc=recipe.num_proc)
    counts = status_counts(column(rows, IC_IFD_STATUS))
    save("score", recipe, rows, counts, turns=turns)
    for name in (IFD, IC_IFD):
        summary = summarize(name, column(rows, name))
        if summary["n"]:
            low, high = summary["ci95"]
            print(
                f"{name}: mean {summary['mean']:.4f} (95 % interval {low:.4f} to {high:.4f}), "
                f"quartiles {summary['q1']:.4f}, {summary['median']:.4f}, {summary['q3']:.4f}, over {summary['n']} rows"
            )
    print_counts("Status", counts)
