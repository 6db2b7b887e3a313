"""``hf-evol eliminate``: failed and repeated evolutions, dropped or flagged."""

from __future__ import annotations

from typing import Annotated

import typer

from hf_evol.cli.options import OPTIONS_OF, exit_if_failed, listed, recipe_options, save, stage_rows
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["eliminate"])
def command(
    recipe: Recipe,
    keep: Annotated[bool, typer.Option("--keep", help="Flag rows in the column elimination; drop none.")] = False,
    max_growth: Annotated[
        float, typer.Option(help="Most words, as a multiple of the parent's; 0 for any number.")
    ] = 5.0,
    sorry_max_words: Annotated[int, typer.Option(help="Responses below this length must not say sorry.")] = 80,
) -> None:
    """Leave out evolved rows that failed, grew too long, say what another row says or, with --judge, gained nothing."""
    from dataclasses import replace

    from hf_evol.columns import KEPT
    from hf_evol.run.stages import Stages
    from hf_evol.run.tables import NOT_JUDGED, not_judged
    from hf_evol.transform import failed_requests

    rules = Stages.of(recipe).eliminate
    rules = replace(rules, keep=keep, max_growth=max_growth or None, sorry_max_words=sorry_max_words)
    rows, target = stage_rows(recipe)
    flagged, reasons = rules.flag(rows, num_proc=recipe.num_proc)
    kept = rules.kept(flagged)
    n = not_judged(kept) if rules.judge else 0
    counts = {KEPT: len(kept) - n} | ({NOT_JUDGED: n} if n else {}) | dict(reasons.most_common())
    rows = flagged if keep else kept
    save("eliminate", recipe, target, rows, counts, keep=keep, max_growth=max_growth, sorry_max_words=sorry_max_words)
    print(f"{'Flagged' if keep else 'Left out'}: {listed(reasons)}")
    if n:
        print(f"Kept without the judge's answer: {n}")
    exit_if_failed(failed_requests(flagged.data, rules))
