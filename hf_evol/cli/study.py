"""``hf-evol study``: which of my models is the better evolver, or the better responder for a model to be tuned;
or which step of a run paid (``--steps``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from hf_evol.cli.options import (
    EVOLVING_OPTIONS,
    OPTIONS_OF,
    as_mapping,
    exit_if_failed,
    key_values,
    recipe_options,
    shown_anyway,
    table,
    took,
)
from hf_evol.progress import Time
from hf_evol.run.recipe import Recipe

_OF_A_SET = ("license", "push_to", "private", "file_format")  # which a report of steps is not


@recipe_options(*OPTIONS_OF["study"])
def command(
    recipe: Recipe,
    given: frozenset[str],
    steps: Annotated[
        str | None, typer.Option(help="What hf-evol run has written: report what each of its steps brought, and took.")
    ] = None,
    evolver: Annotated[list[str] | None, typer.Option(help="LABEL=MODEL, two or more times: what to compare.")] = None,
    responder: Annotated[
        list[str] | None,
        typer.Option(
            help="With --evolver, the model that answers for all. Without, LABEL=MODEL, two or more times: what to compare."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Of responders: the model that is to be tuned on the responses; loaded here.")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(help="Of responders: how much the loss under the base adjusts the reward. \\[default: 1]"),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="The model that rates difficulty and compares rewritings or responses.")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="A reward model: a sequence classifier with one output.")] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            help="Of evolvers: an embedding model, or none. \\[default: all-mpnet-base-v2, where it can be had]"
        ),
    ] = None,
    positions: Annotated[
        int | None,
        typer.Option(help="Of evolvers: first positions of which to take the top-1 probability. \\[default: 5]"),
    ] = None,
) -> None:
    """Let several models evolve one seed set, or answer it for a model to be tuned, and report which differences between them
    hold up; or report which step of a finished run paid (--steps).

    One judge and one scorer serve all, and one responder all evolvers. The report is a page of its own: report.html.
    """
    from hf_evol.study.by_step import compare_steps, recipe_of
    from hf_evol.study.study import Study, run

    settings = {} if embedding is None else {"embedding": None if embedding == "none" else as_mapping(embedding)}
    if steps is not None:
        others = {"evolver": evolver, "base": base, "beta": beta, "reward": reward, "positions": positions}
        unused = [name for name, value in others.items() if value is not None]
        unused += [name for name in (*EVOLVING_OPTIONS, *_OF_A_SET) if name in given]
        if unused := [f"--{name.replace('_', '-')}" for name in unused]:
            raise typer.BadParameter(f"With --steps, a finished run is measured: leave out {', '.join(unused)}.")
        if responder and len(responder) > 1:
            raise typer.BadParameter("With --steps, one --responder MODEL answers the seeds.")
        if responder:
            recipe, given = recipe.with_settings({"responder": as_mapping(responder[0])}), given | {"responder"}
        recipe = recipe_of(steps, recipe, given)
        with shown_anyway(_show_steps) as times:
            result = compare_steps(steps, recipe, judge=as_mapping(judge), **settings)
        _show_steps(result, times)
        exit_if_failed(result.failed)
        return
    evolvers, responders = _labelled(evolver or ()), None
    if evolvers and len(responder or ()) > 1:
        raise typer.BadParameter(
            "With --evolver, one --responder MODEL answers for all; leave out --evolver to compare responders."
        )
    if evolvers and responder:
        recipe = recipe.with_settings({"responder": as_mapping(responder[0])})
    elif responder:
        responders = _labelled(responder)
        if unused := [f"--{name.replace('_', '-')}" for name in EVOLVING_OPTIONS if name in given]:
            raise typer.BadParameter(f"Responders are compared, and nothing is evolved: leave out {', '.join(unused)}.")
    settings |= {name: value for name, value in (("beta", beta), ("positions", positions)) if value is not None}
    models = {name: as_mapping(model) for name, model in (("judge", judge), ("reward", reward), ("base", base))}
    study = Study(evolvers, responders=responders, **models, **settings)
    with shown_anyway(_show) as times:
        result = run(study, recipe)
    _show(result, times)
    exit_if_failed(result.failed)


def _show_steps(result: Any, times: Sequence[Time]) -> None:
    import sys

    from rich.box import SIMPLE_HEAD
    from rich.console import Console

    from hf_evol.hub.card import number

    results = result.provenance["results"]
    first, *others = results["measures"]
    names = ("Rows in", "Kept", first["label"], "Change", "p", *(of["label"] for of in others), "Tokens a row")
    shown = table(results["title"], ("Step", *names), left=("Step",), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for step in results["steps"]:
        change = step[first["name"]]["change"] or {"difference": None, "adjusted_p": None}
        found = [step[first["name"]]["mean"], change["difference"], change["adjusted_p"]]
        found += [step[of["name"]]["mean"] for of in others] + [step["tokens_per_row"]]
        shown.add_row(step["step"], str(step["rows_in"]), str(step["kept"]), *map(number, found))
    console = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 120)
    console.print()
    console.print(shown)
    for line in (*took(times), f"The report: {result.output}/report.html", f"The table:  {result.output}/steps.csv"):
        console.print(line)


def _labelled(given: Sequence[str]) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for label, model in key_values(given, "LABEL=MODEL, such as small=Qwen/Qwen2.5-0.5B-Instruct"):
        if label in models:
            raise typer.BadParameter(f"The label {label!r} is there twice.")
        models[label] = as_mapping(model)
    return models


def _show(result: Any, times: Sequence[Time]) -> None:
    import shlex
    import sys

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.text import Text

    from hf_evol.hub.card import interval, number
    from hf_evol.study.statistics import NO_DIFFERENCE

    results, folder = result.provenance["results"], shlex.quote(result.output)
    labels = {entry["measure"]: entry["label"] for entry in results["measures"]}
    last = [entry for entry in results["comparisons"] if entry["round"] == results["rounds"]]
    console = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 100)
    for pair in dict.fromkeys((entry["a"], entry["b"]) for entry in last):
        when = f": round {results['rounds']}" if results["rounds"] else ""
        title = Text(result.provenance["title"] + when, style="bold")
        names = ("Measure", *map(Text, pair), "Difference", "95 % interval", "Rows")
        shown = table(title, names, left=("Measure",), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for entry in last:
            if (entry["a"], entry["b"]) == pair:
                figures = (number(entry[name]) for name in ("mean_a", "mean_b", "difference"))
                bounds = interval(None if entry["low"] is None else (entry["low"], entry["high"]))
                style = None if entry["verdict"] in (None, NO_DIFFERENCE) else "bold"
                shown.add_row(labels[entry["measure"]], *figures, bounds, str(entry["n"]), style=style)
        console.print()
        console.print(shown)
    for sentence in (*results["verdict"], ""):
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
