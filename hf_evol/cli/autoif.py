"""``hf-evol autoif``: rows with constraints that Python functions check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from hf_evol.cli.options import OPTIONS_OF, exit_if_failed, quiet, recipe_options, shown_anyway, table, took
from hf_evol.progress import Time
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["autoif"], temperature=0.7)  # many different functions are wanted, unlike in evolving
def command(
    recipe: Recipe,
    seeds: Annotated[str, typer.Option(help="Seed constraints: a text file with one a line, or a dataset.")],
    queries: Annotated[str, typer.Option(help="User queries: a Hub name, file, URL or folder; chats or texts.")],
    queries_config: Annotated[str | None, typer.Option(help="Configuration of the queries.")] = None,
    queries_split: Annotated[str, typer.Option(help="Split of the queries.")] = "train",
    requests: Annotated[int, typer.Option(help="How often to ask for new constraints.")] = 100,
    per_request: Annotated[int, typer.Option(help="How many to ask for at a time.")] = 50,
    include_seeds: Annotated[bool, typer.Option(help="Verify and use the seed constraints, too.")] = True,
    completions: Annotated[int, typer.Option(help="Replies with a function and cases for each constraint.")] = 8,
    thresholds: Annotated[str, typer.Option(help="When a constraint is kept: paper or autoif.")] = "paper",
    per_constraint: Annotated[int, typer.Option(help="Queries for each constraint.")] = 16,
    require_pass: Annotated[
        float | None, typer.Option(help="Keep only responses that pass at least this share of their functions.")
    ] = None,
) -> None:
    """Write new constraints on answers and functions that check them; answer queries under them; check the answers.

    Generated functions run in a sandbox only.
    """
    quiet()
    from hf_evol.autoif.scenario import AutoIf, run

    settings = AutoIf(
        seeds, queries, queries_config, queries_split, requests, per_request, include_seeds, completions, thresholds,
        per_constraint, require_pass,
    )  # fmt: skip
    with shown_anyway(_show) as times:
        result = run(settings, recipe)
    _show(result, times)
    exit_if_failed(result.failed)


def _show(result: object, times: Sequence[Time]) -> None:
    from rich.console import Console

    names = ("Stage", "Of", "Given", "Left", "Lost to")
    shown = table(result.provenance["title"], names, left=("Stage", "Of", "Lost to"))
    shown.columns[-1].no_wrap = False
    for stage in result.provenance["stages"]:
        lost = ", ".join(f"{reason} {count}" for reason, count in stage["lost"].items())
        shown.add_row(stage["stage"], stage["what"], str(stage["given"]), str(stage["left"]), lost)
    Console(highlight=False).print("", shown)
    print(*took(times), sep="\n")
    print(f"The set:  {result.output}\nThe card: {result.output}/README.md")
    if result.url:
        print(f"On the Hub: {result.url}")
