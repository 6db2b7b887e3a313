"""``hf-evol study``: which of my models is the better evolver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from hf_evol.cli.options import OPTIONS_OF, as_mapping, key_values, recipe_options, shown_anyway, took
from hf_evol.progress import Time
from hf_evol.run.recipe import Recipe


@recipe_options(*OPTIONS_OF["study"])
def command(
    recipe: Recipe,
    evolver: Annotated[list[str], typer.Option(help="LABEL=MODEL, two or more times: what to compare.")],
    judge: Annotated[str | None, typer.Option(help="The model that rates difficulty and compares rewritings.")] = None,
    reward: Annotated[str | None, typer.Option(help="A reward model: a sequence classifier with one output.")] = None,
    embedding: Annotated[
        str | None,
        typer.Option(help="An embedding model, or none. \\[default: all-mpnet-base-v2, where it can be had]"),
    ] = None,
    positions: Annotated[int, typer.Option(help="First positions of which to take the top-1 probability.")] = 5,
) -> None:
    """Let several models evolve one seed set, and report which differences between them hold up.

    One responder, one judge and one scorer serve all. The report is a page of its own: report.html.
    """
    from hf_evol.study.study import Study, run

    settings = {} if embedding is None else {"embedding": None if embedding == "none" else as_mapping(embedding)}
    models = {name: as_mapping(model) for name, model in (("judge", judge), ("reward", reward))}
    study = Study(_evolvers(evolver), positions=positions, **models, **settings)
    with shown_anyway(_show) as times:
        result = run(study, recipe)
    _show(result, times)


def _evolvers(given: list[str]) -> dict[str, Any]:
    evolvers: dict[str, Any] = {}
    for label, model in key_values(given, "LABEL=MODEL, such as small=Qwen/Qwen2.5-0.5B-Instruct"):
        if label in evolvers:
            raise typer.BadParameter(f"The label {label!r} is there twice.")
        evolvers[label] = as_mapping(model)
    return evolvers


def _show(result: Any, times: Sequence[Time]) -> None:
    import shlex
    import sys

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hf_evol.hub.card import interval, number
    from hf_evol.study.statistics import NO_DIFFERENCE

    results, folder = result.provenance["results"], shlex.quote(result.output)
    labels = {entry["measure"]: entry["label"] for entry in results["measures"]}
    last = [entry for entry in results["comparisons"] if entry["round"] == results["rounds"]]
    console = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 100)
    for pair in dict.fromkeys((entry["a"], entry["b"]) for entry in last):
        title = Text(f"{result.provenance['title']}: round {results['rounds']}", style="bold")
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("Measure", *map(Text, pair), "Difference", "95 % interval", "Rows"):
            table.add_column(name, justify="left" if name == "Measure" else "right", no_wrap=True)
        for entry in last:
            if (entry["a"], entry["b"]) == pair:
                figures = (number(entry[name]) for name in ("mean_a", "mean_b", "difference"))
                bounds = interval(None if entry["low"] is None else (entry["low"], entry["high"]))
                style = None if entry["verdict"] in (None, NO_DIFFERENCE) else "bold"
                table.add_row(labels[entry["measure"]], *figures, bounds, str(entry["n"]), style=style)
        console.print()
        console.print(table)
    for sentence in (*results["verdict"], "", *results["stand_ins"]):
        console.print(sentence)
    for line in took(times):
        console.print(line)
    for failure in results["failures"]:
        console.print(f"Not measured: {failure['stage']}. {failure['error']}")
    console.print(f"The report: {result.output}/report.html\nThe set:    {result.output}")
    for entry in result.provenance["configs"]:
        if entry["name"].startswith("set_"):
            console.print(
                f"To train:   hf-evol recipe trl {folder} --config-name {entry['name']} --model BASE --output …"
            )
    if result.url:
        console.print(f"On the Hub: {result.url}")
    if results["failures"] and not any(entry["ok"] for entry in results["yields"]):
        raise typer.Exit(1)  # no request gave anything
