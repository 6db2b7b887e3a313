"""Command-line options made from the recipe's fields, so that every setting has one definition."""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_evol.run.recipe import Recipe, help_of

if TYPE_CHECKING:
    from hf_evol.cluster import Execution

SEED_OPTIONS = ("dataset", "config", "split", "revision", "format", "limit")
ROW_OPTIONS = tuple(name for name in SEED_OPTIONS if name != "format")  # of rows that have our columns already
ENGINE_OPTIONS = ("engine", "base_url", "api_key_env")
MODEL_OPTIONS = ("dtype", "device", "chat_template", "trust_remote_code")
OUTPUT_OPTIONS = ("output", "file_format", "overwrite")

EXECUTOR_OPTIONS = {
    "executor": (str, "Run as tasks of datatrove (extra cluster): local, slurm, ray or jobs."),
    "tasks": (int, "Into how many shards to cut the rows. \\[default: the workers]"),
    "workers": (int, "Tasks that run at once. \\[default: one for each GPU]"),
    "executor_option": (list[str], "KEY=VALUE, as often as needed: an argument of datatrove's executor."),
    "work_folder": (str, "For shards and logs, where all workers reach it. \\[default: the output + .work]"),
}

TERMINATED = "SIGTERM"


def recipe_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these recipe fields (all, without names) and ``--recipe``.

    The command's function gets the `Recipe` as ``recipe``, the set of the names given on the command line or
    in a recipe file as ``given``, and its own parameters as usual. If one of them is ``execution``, the command also
    has the options of the executors, and the function gets the `Execution` that they name, or None.
    """
    hints = typing.get_type_hints(Recipe)
    chosen = names or tuple(Recipe.__dataclass_fields__)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = dict(inspect.signature(function, eval_str=True).parameters)
        del own["recipe"], own["given"]
        executors = EXECUTOR_OPTIONS if own.pop("execution", None) else {}

        def command(**values: Any) -> None:
            source = values.pop("recipe")
            if executors:
                values["execution"] = _execution(*(values.pop(name) for name in executors))
            settings = {name: _parsed(name, values.pop(name)) for name in chosen}
            settings = {name: value for name, value in settings.items() if value is not None}
            base = Recipe.load(source) if source else Recipe()
            given = frozenset(settings) | ({"dataset"} if source else frozenset())
            try:
                function(recipe=base.with_settings(settings), given=given, **values)
            except KeyboardInterrupt as interrupt:
                kept = "Finished requests are in the journal: the same command goes on from there."
                off = "The journal is off, so the same command starts anew."
                print(f"\nInterrupted. {off if settings.get('journal') is False else kept}", file=sys.stderr)
                raise typer.Exit(143 if interrupt.args == (TERMINATED,) else 130) from None

        recipe_file = typer.Option("--recipe", help="A recipe: alpaca, gsm8k, code_alpaca, or a YAML file.")
        keyword = inspect.Parameter.KEYWORD_ONLY
        made = [inspect.Parameter("recipe", keyword, default=None, annotation=Annotated[str | None, recipe_file])]
        made += [
            inspect.Parameter(name, keyword, default=None, annotation=_option(name, hints[name])) for name in chosen
        ]
        made += [
            inspect.Parameter(name, keyword, default=None, annotation=_flag(name, kind, said))
            for name, (kind, said) in executors.items()
        ]
        command.__signature__ = inspect.Signature([*(p.replace(kind=keyword) for p in own.values()), *made])
        command.__annotations__ = {p.name: p.annotation for p in command.__signature__.parameters.values()}
        command.__doc__ = function.__doc__
        return command

    return decorate


def _execution(
    executor: str | None, tasks: Any, workers: Any, executor_option: Any, work_folder: Any
) -> Execution | None:
    """What the executor's options say; None without an executor."""
    options = _executor_options(executor_option)
    if executor is None:
        if tasks or workers or options or work_folder:
            raise typer.BadParameter("--tasks, --workers, --executor-option and --work-folder need --executor.")
        return None
    from hf_evol.cluster import Execution

    return Execution(executor, tasks, workers, options, work_folder)


def _executor_options(given: Iterable[str] | None) -> dict[str, Any]:
    options = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE, such as partition=gpu.")
        try:
            options[name.strip()] = json.loads(value)  # numbers, true and false, {"key": "value"}
        except ValueError:
            options[name.strip()] = value
    return options


def _option(name: str, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    default = Recipe.__dataclass_fields__[name].default
    if bool in kinds and str not in kinds:
        return _flag(name, bool, help_of(name), either=default is None)
    shown = "" if default is None or default is False else f" \\[default: {default}]"
    return _flag(name, next((kind for kind in (int, float) if kind in kinds), str), help_of(name) + shown)


def _flag(name: str, kind: Any, said: str, either: bool = False) -> Any:
    option = "--" + name.replace("_", "-")
    names = f"{option}/--no-{option[2:]}" if either else option
    return Annotated[kind | None, typer.Option(names, help=said, show_default=False)]


def _parsed(name: str, value: Any) -> Any:
    """Booleans and mappings in options that also take text: ``--journal false``, ``--model '{name: …}'``."""
    if name == "journal" and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    return value if name == "chat_template" else as_mapping(value)


def as_mapping(value: Any) -> Any:
    """A model's settings where they are written as a mapping, else the value as it is."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"{value!r} is not a mapping such as {{name: x, revision: y}}: {error}") from error


def quiet() -> None:
    """Keep the libraries' own bars and notes out of the way of ours."""
    import datasets
    import transformers
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    transformers.utils.logging.set_verbosity_error()
    unwanted = are_progress_bars_disabled()
    transformers.utils.logging.disable_progress_bar()  # which takes those of the Hub, and ours, along
    if not unwanted:
        enable_progress_bars()
    datasets.utils.logging.set_verbosity_error()


# What decides the result of each stage's command.
_DECISIVE = {
    "evolve": ("format", "model", "engine", "dtype", "chat_template", "trust_remote_code", "methods", "rounds", "tries",
               "best_of", "by_example", "responder", "scorer", "seed", "temperature", "top_p", "max_new_tokens", "response_max_new_tokens"),
    "eliminate": ("judge", "engine", "dtype", "chat_template", "trust_remote_code"),
    "respond": (
        "model", "engine", "dtype", "chat_template", "trust_remote_code", "seed", "response_system", "response_temperature",
        "response_top_p", "response_max_new_tokens",
    ),
    "score": ("model", "dtype", "trust_remote_code", "convention", "max_length", "truncate"),
    "select": ("select", "select_by"),
}  # fmt: skip
_OF_BEST_OF = ("responder", "scorer", "response_max_new_tokens")


def save(stage: str, recipe: Recipe, rows: Any, counts: Mapping[str, int], **options: Any) -> None:
    """Write one stage's rows to the recipe's output folder, with the card and the record of this stage and those before.

    Args:
        stage: the command's name.
        recipe: its settings.
        rows: what the stage leaves.
        counts: of the rows that came in, how many got which status.
        options: settings that only this command has; None for what does not count.
    """
    from hf_evol.hub.writer import Config, set_folder
    from hf_evol.run.stage_record import record_of

    own = {"respond": recipe.responder, "score": recipe.scorer}.get(stage)  # of a recipe file: no option says so
    shown = (recipe.with_settings({"model": own}) if own else recipe).for_card()
    used = {"dataset", "config", "split", "revision", "limit", *_DECISIVE[stage]}
    if stage == "evolve" and recipe.best_of == 1:
        used -= set(_OF_BEST_OF)
    settings = {name: value for name, value in shown.items() if name in used} | options
    settings = {name: value for name, value in settings.items() if value is not None and value is not False}
    record = record_of(stage, recipe, settings, rows, counts)
    config = Config("default", rows, f"the rows after the stage {stage}", folder="")
    with set_folder(recipe.output, record, [config], file_format=recipe.file_format):
        pass
    print(f"{len(rows)} rows in {recipe.output}")


def run_stage(stage: str, recipe: Recipe, transform: Any, rows: Any, status: str, label: str, **options: Any) -> Any:
    """Apply a stage's transform, save what it leaves, and print how many rows have which status. Gives the rows."""
    from hf_evol.data.selection import column
    from hf_evol.run.steps import mapper
    from hf_evol.run.tables import status_counts

    rows = mapper(recipe)(rows, transform, transform.label)
    counts = status_counts(column(rows, status))
    save(stage, recipe, rows, counts, **options)
    print_counts(label, counts)
    return rows


def stage_rows(recipe: Recipe) -> Any:
    """The rows that a stage command works on, with our columns; checks the output first."""
    from hf_evol.data.sources import load_seeds
    from hf_evol.hub.target import check_output

    check_output(recipe.output, recipe.overwrite)
    rows = load_seeds(recipe.dataset, config=recipe.config, split=recipe.split, revision=recipe.revision)
    return rows if recipe.limit is None else rows.select(range(min(recipe.limit, len(rows))))


def print_counts(label: str, counts: Mapping[str, int]) -> None:
    print(f"{label}: " + (", ".join(f"{name} {count}" for name, count in counts.items()) or "none"))
