"""``hf-evol select``: the best rows of a scored set."""

from __future__ import annotations

from typing import Annotated

import typer

from hf_evol.cli.options import OPTIONS_OF, recipe_options, save, stage_rows
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["select"])
def command(
    recipe: Recipe,
    given: frozenset[str],
    lowest: Annotated[bool, typer.Option("--lowest", help="The lowest scores are the best.")] = False,
    threshold: Annotated[float | None, typer.Option(help="Keep scores from here on, in place of --select.")] = None,
    per: Annotated[str | None, typer.Option(help="Select within each value of this column, such as round.")] = None,
) -> None:
    """Keep the rows with the best scores; rows without a score are never kept."""
    from hf_evol.data.selection import select

    top = recipe.select if threshold is None or "select" in given else None
    rows, target = stage_rows(recipe)
    selected = select(rows, recipe.select_by, top=top, threshold=threshold, lowest=lowest, per=per)
    scored = len(select(rows, recipe.select_by, threshold=float("-inf")))
    counts = {"selected": len(selected), "not_selected": scored - len(selected), "no_score": len(rows) - scored}
    save("select", recipe, target, selected, counts, select=top, lowest=lowest, threshold=threshold, per=per)
