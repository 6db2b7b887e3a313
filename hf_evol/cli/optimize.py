"""``hf-evol optimize``: revise the evolving method of Auto Evol-Instruct."""

from __future__ import annotations

from typing import Annotated

import typer

from hf_evol.cli.options import OPTIONS_OF, recipe_options
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["optimize"], temperature=0.7)  # so that candidates differ
def command(
    recipe: Recipe,
    optimizer: Annotated[
        str | None, typer.Option(help="The model that names failures, revises and judges; by default the evolver.")
    ] = None,
    steps: Annotated[int, typer.Option(help="How many mini-batches to learn from.")] = 5,
    candidates: Annotated[int, typer.Option(help="Revisions in each step.")] = 3,
    mini_batch: Annotated[int, typer.Option(help="Rows of a mini-batch.")] = 10,
    held_out: Annotated[int, typer.Option(help="Rows on which failure rates are measured.")] = 50,
    max_calls: Annotated[int, typer.Option(help="The most requests to models.")] = 5000,
) -> None:
    """Let a model revise the method of Auto Evol-Instruct by what goes wrong with it, and keep what fails least.

    The output folder gets method.yaml, for --methods, and provenance.json with every step.
    """
    from hf_evol.evolve.optimize import MethodOptimizer
    from hf_evol.hub.record import write_provenance
    from hf_evol.hub.target import check_output, writing
    from hf_evol.run.pipeline import read_seeds
    from hf_evol.run.stages import engine_of

    target = check_output(recipe.output, recipe.overwrite, "method")
    search = MethodOptimizer(
        engine_of(recipe, recipe.model),
        engine_of(recipe, optimizer or recipe.model),
        steps=steps,
        candidates=candidates,
        batch_size=mini_batch,
        held_out=held_out,
        max_calls=max_calls,
        **recipe.sampling,
    )
    found = search.optimize(read_seeds(recipe))
    with writing(target) as folder:
        found.save(folder)
        write_provenance(
            {"kind": "method", "failure_rate": found.failure_rate, "calls": found.calls, "steps": found.record}, folder
        )
    first = found.record[0]["failure_rate"]
    print(
        f"Failure rate on {held_out} held-out rows: {first:.3f} at first, {found.failure_rate:.3f} with {found.method.name}"
    )
    print(f"{found.calls:,} requests. Use it: hf-evol run --methods {recipe.output}/method.yaml")
