"""``hf-evol score``: IFD and IC-IFD of a set."""

from __future__ import annotations

from hf_evol.cli.options import MODEL_OPTIONS, OUTPUT_OPTIONS, SEED_OPTIONS, print_counts, quiet, recipe_options, save
from hf_evol.recipe import Recipe


@recipe_options(
    *(name for name in SEED_OPTIONS if name != "format"), "model",
    *(name for name in MODEL_OPTIONS if name != "chat_template"), "num_proc", *OUTPUT_OPTIONS,
)  # fmt: skip
def command(recipe: Recipe, given: frozenset[str]) -> None:
    """Score each row by IFD and IC-IFD. The model is the one that scores."""
    quiet()
    from collections import Counter

    from hf_evol.cli.options import stage_rows
    from hf_evol.columns import IC_IFD, IC_IFD_STATUS, IFD
    from hf_evol.pipeline import MAP_ROWS, Stages
    from hf_evol.scoring.summary import summarize
    from hf_evol.transform import map

    scorer = Stages.of(recipe).score
    rows = map(stage_rows(recipe), scorer, batch_size=MAP_ROWS, num_proc=recipe.num_proc)
    save("score", recipe, rows)
    for name in (IFD, IC_IFD):
        summary = summarize(name, rows[name])
        if summary["n"]:
            print(f"{name}: mean {summary['mean']:.4f}, median {summary['median']:.4f} over {summary['n']} rows")
    print_counts("Status", Counter(rows[IC_IFD_STATUS]))
