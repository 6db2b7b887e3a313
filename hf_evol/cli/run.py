"""``hf-evol run``: the main job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_evol.cli.options import failure_sentence, listed, recipe_options, shown_anyway, table, took
from hf_evol.progress import Time
from hf_evol.run.recipe import Recipe

if TYPE_CHECKING:
    from hf_evol.cluster import Execution
    from hf_evol.hub.writer import RunResult
    from hf_evol.run.pipeline import Plan

# The bundled seed sets that a model of 135M parameters can evolve, and the methods that the paper uses for their kind.
DEMO = {"general": "alpaca", "code": "code"}
_OF_DEMO = {"limit": 12, "rounds": 1, "tries": 4, "max_new_tokens": 96, "response_max_new_tokens": 512}


@recipe_options()
def command(
    recipe: Recipe,
    given: frozenset[str],
    execution: Any,  # hf_evol.cluster.Execution, or None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; load no model, write nothing.")] = False,
    measure: Annotated[
        int | None, typer.Option(help="With --dry-run: run so many rows, keep nothing, and say what all would take.")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="With --measure: what an hour of this machine costs, in any currency.")
    ] = None,
) -> None:
    """Evolve a seed set, answer it, score it, select, and write the result with its card.

    Without a seed set it tries itself out: some bundled seeds, evolved by SmolLM2-135M-Instruct on this machine in minutes.
    """
    from hf_evol.hub.target import check_output
    from hf_evol.run import pipeline
    from hf_evol.run.stages import Stages

    recipes = [recipe] if "dataset" in given else list(_demo_recipes(recipe, given))
    if (measure is not None and not dry_run) or (price_per_hour is not None and measure is None):
        raise typer.BadParameter("--measure is for --dry-run, and --price-per-hour for --measure.")
    if dry_run:
        for each in recipes:
            _show_plan(each, pipeline.plan(each))
            if measure is not None:
                _show_estimate(each, measure, price_per_hour)
        return
    for each in recipes:
        check_output(each.output, each.overwrite)
    failed = 0
    for each in recipes:
        evolver = Stages.of(each).evolve.model
        evolver.check()
        print(f"{each.dataset}: evolving with {evolver.name}", flush=True)
        failed += _run(each, execution)
    if failed:
        raise typer.Exit(1)


def _run(recipe: Recipe, execution: Execution | None) -> int:
    """How many rows' requests failed."""
    from hf_evol.run import pipeline

    with shown_anyway(_show_result) as times:
        if execution is None:
            result = pipeline.run(recipe)
        else:
            from hf_evol import cluster

            result = cluster.run(recipe, execution)
    if not isinstance(result, list):
        _show_result(result, times)
        return result.failed.total()
    if result:
        print(f"Submitted to Slurm: {', '.join(result)}. The last of them writes the set to {recipe.output}.")
    else:
        print(f"Nothing is left to submit: the set is in {recipe.output}.")
    return 0


def _demo_recipes(recipe: Recipe, given: frozenset[str]) -> Iterable[Recipe]:
    if "push_to" in given:
        raise typer.BadParameter("The bundled seeds are for trying the tool. Give --dataset or --recipe to push a set.")
    for name, methods in DEMO.items():
        fixed: dict[str, Any] = {"dataset": f"demo/{name}", "output": f"{recipe.output}/{name}"}
        usual = _OF_DEMO | {"methods": methods}
        yield recipe.with_settings(fixed | {key: value for key, value in usual.items() if key not in given})


def _show_plan(recipe: Recipe, plan: Plan) -> None:
    print(f"{recipe.dataset}: {plan.n_seeds} rows, {plan.rounds} rounds, methods {', '.join(plan.methods)}")
    for role, spec in plan.models.items():
        print(f"  {role}: {spec.name}" + (f" at {revision}" if (revision := getattr(spec, "revision", None)) else ""))
    requests = (recipe.tries + 1) * plan.n_seeds * plan.rounds
    print(
        f"  at most {requests:,} requests; round 1 has {plan.prompt_tokens:,} prompt tokens to evolve, and later rounds "
        f"somewhat more each\n  output: {recipe.output} ({recipe.file_format})"
        + (f", then the Hub dataset {recipe.push_to}" if recipe.push_to else "")
    )


def _show_estimate(recipe: Recipe, n: int, price_per_hour: float | None) -> None:
    from hf_evol.run.estimate import measure

    found = measure(recipe, n)
    print(f"  measured here, on {found.n_measured} of {found.n_rows:,} rows, for {recipe.rounds} rounds:")
    for step, seconds in found.seconds.items():
        if seconds >= 0.05 * sum(found.seconds.values()) or found.tokens[step]:
            each = seconds / found.n_measured
            generated = found.tokens[step] / found.n_measured
            print(f"    {step}: {_rough(each)} s and {_rough(generated)} generated tokens a row")
    amounts = (sum(found.tokens.values()), found.set_bytes, found.journal_bytes)
    tokens, rows, journal = (_rough(amount * found.times / 1e6) for amount in amounts)
    cost = "" if price_per_hour is None else f", {_rough(found.hours * price_per_hour)} at {price_per_hour:g} an hour"
    print(
        f"  so all rows take here about {_rough(found.hours)} hours{cost}; {tokens} million generated tokens; "
        f"{rows} MB for the set and {journal} MB for the journal"
    )


def _rough(number: float) -> str:
    """Two figures: what a few rows took says no more."""
    return f"{float(f'{number:.2g}'):,g}"


def _show_result(result: RunResult, times: Sequence[Time]) -> None:
    from rich.console import Console

    rounds = result.provenance["rounds"]
    names = ("Round", "Rows in", "Evolved", "Kept", "In the set", "Selected", "IFD", "IC-IFD")
    shown = table(result.provenance["title"], names)
    for entry in rounds:
        means = [f"{score['mean']:.3f}" if score["mean"] is not None else "–" for score in entry["scores"]]
        shown.add_row(*(str(entry[name]) for name in ("round", "rows_in", "ok", "kept", "in_set", "selected")), *means)
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(shown)
    if made := result.provenance.get("self_instruct"):
        console.print(f"Made up: {listed(made['counts'])}. {made['ended']}", markup=False)
    for entry in rounds:
        for number, counts in enumerate(entry["tries"], 1):
            console.print(f"Round {entry['round']}, try {number}: {listed(counts)}")
        if entry["dropped"]:
            console.print(f"Left out in round {entry['round']}: {listed(entry['dropped'])}")
        if entry["unscored"]:
            console.print(f"Without a score in round {entry['round']}: {listed(entry['unscored'])}")
    for line in took(times):
        console.print(line, markup=False)
    if result.failed:
        console.print(failure_sentence(result.failed), markup=False)
    for note in result.provenance["licence_notes"]:
        console.print(f"Licence: {note}", markup=False)
    if not any(entry["selected"] for entry in rounds):
        said = "Nothing was selected: no row has a score. The reasons are above and in the set."
        console.print(said, style="bold red")
    console.print(f"The set:     {result.output}")
    console.print(f"The card:    {result.output}/README.md")
    for figure in result.provenance["figures"]:
        console.print(f"The figures: {result.output}/{figure['path']}")
    if result.url:
        console.print(f"On the Hub:  {result.url}")
