"""``hf-evol self-instruct``: new instructions from those of a seed set."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from hf_evol.cli.options import OPTIONS_OF, exit_if_failed, listed, recipe_options, save, took
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["self-instruct"], temperature=0.7, top_p=0.5, max_new_tokens=256)
def command(
    recipe: Recipe,
    seeds: Annotated[str | None, typer.Argument(help="The seed set, as --dataset.")] = None,
    n: Annotated[
        int | None,
        typer.Option("-n", "--n", help="How many rows to make. \\[default: the recipe's self_instruct, or 200]"),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="The most requests to make; by default ten for each row.")
    ] = None,
    per_round: Annotated[int, typer.Option(help="The most requests of a round, which see the same pool.")] = 64,
) -> None:
    """Make up new instructions like those of a seed set (Self-Instruct): shown some, the model adds one; what is similar to
    another one, or is none, goes to the config 'rejected' with its reason.

    With --responder, that model makes up the inputs that instructions need; without it, such instructions are rejected. The rows have
    no answers yet: hf-evol respond writes them. Needs the extra self-instruct.
    """
    from hf_evol import progress
    from hf_evol.columns import INSTRUCTION_STATUS, failed
    from hf_evol.evolve.self_instruct import self_instruct
    from hf_evol.hub.target import check_output
    from hf_evol.run.pipeline import read_seeds
    from hf_evol.run.stages import engine_of

    n = (recipe.self_instruct or 200) if n is None else n
    recipe = replace(recipe, dataset=seeds or recipe.dataset)
    target = check_output(recipe.output, recipe.overwrite, reads=recipe.dataset, file_format=recipe.file_format)
    with progress.times() as times:
        made = self_instruct(
            read_seeds(recipe), engine_of(recipe, recipe.model), n, requests=requests, per_round=per_round,
            responder=engine_of(recipe, recipe.responder) if recipe.responder else None, num_proc=recipe.num_proc,
            **recipe.sampling,
        )  # fmt: skip
    counts = made.counts
    save("self-instruct", recipe, target, made.rows, counts, made, n=n, requests=requests, per_round=per_round)
    print(f"Replies: {listed(counts)}", f"It ended: {made.ended}", *took(times), sep="\n")
    exit_if_failed(failed(made.rejected[INSTRUCTION_STATUS]))
    if len(made.rows) < n:
        raise typer.Exit(1)
