"""``hf-evol plan``: what a run of many rows would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_evol.cli.options import OUTPUT_OPTIONS, quiet, recipe_options
from hf_evol.run.recipe import Recipe

_NAMES = tuple(
    name
    for name in Recipe.__dataclass_fields__
    if name not in (*OUTPUT_OPTIONS, "limit", "num_proc", "push_to", "private", "license", "journal")
)


@recipe_options(*_NAMES)
def command(
    recipe: Recipe,
    given: frozenset[str],
    rows: Annotated[list[int], typer.Option(help="Seed rows to plan for; may be repeated.")],
    measure: Annotated[int | None, typer.Option(help="Run the recipe on so many seed rows here, and count.")] = None,
    measurement: Annotated[
        Path | None, typer.Option(help="The measurement to plan from; with --measure, where to keep it.")
    ] = None,
    tokens_per_second: Annotated[
        list[str] | None,
        typer.Option(help="Of one GPU: a number for all stages, or such as score=20000; by default as measured."),
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs that work at a time.")] = 1,
    price_per_gpu_hour: Annotated[float | None, typer.Option(help="In any currency.")] = None,
    longer: Annotated[float, typer.Option(help="How many times as long as the measured texts those to come are.")] = 1,
    task_hours: Annotated[float, typer.Option(help="About how long a task takes.")] = 1,
    output: Annotated[Path | None, typer.Option(help="Also write the plan there, as Markdown.")] = None,
) -> None:
    """Plan a large run: GPU hours, cost, storage and tasks, from what a few rows took.

    The rows are measured now with --measure, or were before (--measurement FILE). The throughput of a GPU is an input.
    """
    from hf_evol.run.plan import Resources, assumptions, estimate, markdown, table
    from hf_evol.run.workload import Workload
    from hf_evol.run.workload import measure as measure_rows

    if measure is None and measurement is None:
        raise typer.BadParameter("Give --measure N to run N rows now, or --measurement FILE of an earlier one.")
    resources = Resources(
        _rates(tokens_per_second or []),
        gpus=gpus,
        price_per_gpu_hour=price_per_gpu_hour,
        longer=longer,
        task_hours=task_hours,
    )
    if measure is None:
        workload = Workload.load(measurement)
    else:
        quiet()
        workload = measure_rows(recipe, measure)
        if measurement is not None:
            workload.save(measurement)
    estimates = [estimate(workload, resources, count) for count in rows]
    _show(table(estimates, resources))
    for entry in estimates:
        for limit in entry.limits:
            print(f"{entry.rows:,} rows: {limit}")
    print("\nWhat the numbers rest on:")
    for line in assumptions(workload, resources):
        print(f"- {line}")
    if output is not None:
        output.write_text(markdown(workload, resources, estimates), encoding="utf-8")


def _rates(options: list[str]) -> dict[str, float]:
    """``["2500", "score=20000"]`` by stage; a stage's own figure comes before that for all."""
    from hf_evol.run.workload import STAGES

    named: dict[str, float] = {}
    for option in options:
        stage, _, value = option.rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            raise typer.BadParameter(f"--tokens-per-second takes 2500 or score=20000; got {option!r}.") from None
        named |= {stage: rate}
    if "" in named:
        general = named.pop("")
        named = dict.fromkeys(STAGES, general) | named
    return named


def _show(lines: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    head, *body = lines
    made = Table()
    for place, name in enumerate(head):
        made.add_column(name, justify="right" if place else "left", no_wrap=True)
    for line in body:
        made.add_row(*line)
    Console(highlight=False, width=1000).print(made)  # in a narrow window, lines break; cells are never cut off
