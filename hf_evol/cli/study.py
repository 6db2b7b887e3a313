"""``hf-evol study``: which of my models is the better evolver."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hf_evol.cli.options import (
    ENGINE_OPTIONS,
    MODEL_OPTIONS,
    OUTPUT_OPTIONS,
    SEED_OPTIONS,
    as_mapping,
    quiet,
    recipe_options,
)
from hf_evol.run.recipe import Recipe


@recipe_options(
    *SEED_OPTIONS, "responder", "scorer", *ENGINE_OPTIONS, *MODEL_OPTIONS, "methods", "rounds", "tries", "best_of", "by_example", "seed", "temperature", "top_p",
    "max_new_tokens", "response_max_new_tokens", "batch_size", "num_proc", "convention", "max_length", "truncate", "journal", "license", "push_to",
    "private", *OUTPUT_OPTIONS,
)  # fmt: skip
def command(
    recipe: Recipe,
    given: frozenset[str],
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
    quiet()
    from hf_evol.study.study import Study, run

    settings: dict[str, Any] = {"embedding": None if embedding == "none" else as_mapping(embedding)}
    if embedding is None:
        del settings["embedding"]
    models = {name: as_mapping(model) for name, model in (("judge", judge), ("reward", reward))}
    study = Study(_evolvers(evolver), positions=positions, **models, **settings)
    _show(run(study, recipe))


def _evolvers(given: list[str]) -> dict[str, Any]:
    evolvers: dict[str, Any] = {}
    for text in given:
        label, equals, model = text.partition("=")
        if not equals or not label.strip() or not model.strip():
            raise typer.BadParameter(f"{text!r} is not LABEL=MODEL, such as small=Qwen/Qwen2.5-0.5B-Instruct.")
        if label.strip() in evolvers:
            raise typer.BadParameter(f"The label {label.strip()!r} is there twice.")
        evolvers[label.strip()] = as_mapping(model.strip())
    return evolvers


def _show(result: Any) -> None:
    import shlex
    import sys
    from itertools import groupby

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    results = result.provenance["results"]
    labels = {entry["measure"]: entry["label"] for entry in results["measures"]}
    last = [entry for entry in results["comparisons"] if entry["round"] == results["rounds"]]
    pairs = [(entry["a"], entry["b"]) for entry in last]
    last.sort(key=lambda entry: pairs.index((entry["a"], entry["b"])))
    console = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 100)
    for (a, b), entries in groupby(last, key=lambda entry: (entry["a"], entry["b"])):
        title = f"{result.provenance['title']}: round {results['rounds']}"
        table = Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("Measure", Text(a), Text(b), "Difference", "95 % interval", "Rows"):
            table.add_column(name, justify="left" if name == "Measure" else "right", no_wrap=True)
        for entry in entries:
            interval = "–" if entry["low"] is None else f"{entry['low']:.3g} to {entry['high']:.3g}"
            figures = (_figure(entry[name]) for name in ("mean_a", "mean_b", "difference"))
            cells = (labels[entry["measure"]], *figures, interval, str(entry["n"]))
            table.add_row(*cells, style="bold" if _is_shown(entry) else None)
        console.print()
        console.print(table)
    for sentence in results["verdict"]:
        console.print(sentence)
    console.print()
    for sentence in results["stand_ins"]:
        console.print(sentence)
    for failure in results["failures"]:
        console.print(f"Not measured: {failure['stage']}. {failure['error']}")
    console.print(f"The report: {result.output}/report.html\nThe set:    {result.output}")
    for entry in result.provenance["configs"]:
        if entry["name"].startswith("set_"):
            folder = shlex.quote(result.output)
            console.print(
                f"To train:   hf-evol recipe trl {folder} --config-name {entry['name']} --model BASE --output …"
            )
    if result.url:
        console.print(f"On the Hub: {result.url}")


def _is_shown(entry: dict[str, Any]) -> bool:
    from hf_evol.study.statistics import NO_DIFFERENCE

    return entry["verdict"] not in (None, NO_DIFFERENCE)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
