"""Command-line options made from the recipe's fields, so that every setting has one definition."""

from __future__ import annotations

import inspect
import json
import logging
import sys
import types
import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_evol import progress
from hf_evol.errors import HfEvolError
from hf_evol.progress import Time, visible
from hf_evol.run.recipe import Recipe, help_of

if TYPE_CHECKING:
    from hf_evol.cluster import Execution
    from hf_evol.hub.target import Target

ROW_OPTIONS = ("dataset", "config", "split", "revision", "limit")  # of rows that have our columns already
SEED_OPTIONS = (*ROW_OPTIONS, "format", "columns")
ENGINE_OPTIONS = ("engine", "base_url", "api_key_env")
MODEL_OPTIONS = ("dtype", "device", "chat_template", "trust_remote_code")
OUTPUT_OPTIONS = ("output", "file_format", "overwrite")
RESPONSE_OPTIONS = ("response_system", "response_temperature", "response_top_p", "response_max_new_tokens")
EVOLVING_OPTIONS = ("methods", "rounds", "tries", "best_of", "by_example", "temperature", "top_p", "max_new_tokens")
_OF_BEST_OF = ("responder", "scorer", "response_max_new_tokens")
OPTIONS_OF = {
    "evolve": (
        *SEED_OPTIONS, "model", *ENGINE_OPTIONS, *MODEL_OPTIONS, "methods", "rounds", "tries", "best_of", "by_example", *_OF_BEST_OF,
        "seed", "temperature", "top_p", "max_new_tokens", "batch_size", "num_proc", "journal", *OUTPUT_OPTIONS,
    ),
    "eliminate": (
        *ROW_OPTIONS, "judge", *ENGINE_OPTIONS, *MODEL_OPTIONS, "batch_size", "num_proc", "journal", *OUTPUT_OPTIONS,
    ),
    "respond": (
        *ROW_OPTIONS, "model", *ENGINE_OPTIONS, *MODEL_OPTIONS, "seed", *RESPONSE_OPTIONS, "batch_size", "num_proc", "journal",
        *OUTPUT_OPTIONS,
    ),
    "back-translate": (
        *SEED_OPTIONS, "constrainer", "judge", *ENGINE_OPTIONS, *MODEL_OPTIONS, "seed", "batch_size", "num_proc", "journal",
        *OUTPUT_OPTIONS,
    ),
    "score": (
        *ROW_OPTIONS, "model", "dtype", "device", "trust_remote_code", "convention", "max_length", "truncate", "num_proc", "journal",
        *OUTPUT_OPTIONS,
    ),
    "select": (*ROW_OPTIONS, "select", "select_by", *OUTPUT_OPTIONS),
    "self-instruct": (
        *SEED_OPTIONS, "model", "responder", *ENGINE_OPTIONS, *MODEL_OPTIONS, "seed", "temperature", "top_p", "max_new_tokens",
        "batch_size", "num_proc", "journal", *OUTPUT_OPTIONS,
    ),
    "optimize": (
        *SEED_OPTIONS, "model", *ENGINE_OPTIONS, *MODEL_OPTIONS, "seed", "temperature", "top_p", "max_new_tokens", "batch_size",
        "journal", "output", "overwrite",
    ),
    "autoif": (
        "model", "responder", *ENGINE_OPTIONS, *MODEL_OPTIONS, "seed", "temperature", "top_p", "max_new_tokens", "response_max_new_tokens",
        "batch_size", "num_proc", "journal", "license", "push_to", "private", *OUTPUT_OPTIONS,
    ),
    "study": (
        *SEED_OPTIONS, "scorer", *RESPONSE_OPTIONS, *ENGINE_OPTIONS, *MODEL_OPTIONS, *EVOLVING_OPTIONS, "seed", "batch_size", "num_proc", "convention", "max_length", "truncate", "journal",
        "license", "push_to", "private", *OUTPUT_OPTIONS,
    ),
}  # fmt: skip
_STEPS_OF_RUN = ("self_instruct", "back_translate")  # as the modules of their own commands are called, too
EXECUTOR_OPTIONS = {
    "executor": (str, "Run as tasks of datatrove (extra cluster): local, slurm, ray or jobs."),
    "tasks": (int, "Into how many shards to cut the rows. \\[default: the workers]"),
    "workers": (int, "Tasks that run at once. \\[default: one for each GPU]"),
    "executor_option": (list[str], "KEY=VALUE, as often as needed: an argument of datatrove's executor."),
    "work_folder": (str, "For shards and logs, where all workers reach it. \\[default: the output + .work]"),
}
TERMINATED = "SIGTERM"


def recipe_options(*names: str, **usual: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these recipe fields (all, without names) and ``--recipe``.

    The command's function gets the `Recipe` as ``recipe`` and its own parameters as usual: options go before what a recipe file
    says, and that before ``usual``, the command's own defaults. One called ``given`` is the set of the names given on the command
    line, and ``dataset`` where there is a recipe; with one called ``execution``, the command also has the options of the
    executors, and the function gets the `Execution` that they name, or None.
    """
    hints = typing.get_type_hints(Recipe)
    chosen = names or tuple(Recipe.__dataclass_fields__)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = dict(inspect.signature(function, eval_str=True).parameters)
        wanted = [name for name in ("recipe", "given", "execution") if own.pop(name, None)]

        def command(**values: Any) -> None:
            source = values.pop("recipe")
            execution = _execution(*(values.pop(name, None) for name in EXECUTOR_OPTIONS))
            settings = {name: _parsed(name, values.pop(name)) for name in chosen}
            settings = {name: value for name, value in settings.items() if value is not None}
            loaded = Recipe.load(source, **usual) if source else Recipe(**usual)
            found = {
                "recipe": loaded.with_settings(settings),
                "given": frozenset(settings) | ({"dataset"} if source else frozenset()),
                "execution": execution,
            }
            quiet()
            _say_what_is_ignored(function.__module__.rpartition(".")[2], loaded, chosen)
            kept = "Finished requests are in the journal: the same command goes on from there."
            off = "The journal is off, so the same command starts anew."
            with interruptible(off if settings.get("journal") is False else kept):
                function(**{name: found[name] for name in wanted}, **values)

        recipe_file = typer.Option(
            "--recipe", help="A recipe: alpaca, gsm8k, code_alpaca, from_scratch, or a YAML file."
        )
        options = {"recipe": Annotated[str | None, recipe_file]}
        options |= {name: _option(name, hints[name], getattr(Recipe(**usual), name)) for name in chosen}
        if "execution" in wanted:
            options |= {name: _annotated(kind, said) for name, (kind, said) in EXECUTOR_OPTIONS.items()}
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=keyword) for parameter in own.values()]
        parameters += [inspect.Parameter(name, keyword, default=None, annotation=options[name]) for name in options]
        command.__signature__ = inspect.Signature(parameters)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__doc__ = function.__doc__
        return command

    return decorate


def _say_what_is_ignored(command: str, recipe: Recipe, names: Sequence[str]) -> None:
    """Warn of steps in a recipe that a command which begins with seeds does not take."""
    ignored = [name for name in _STEPS_OF_RUN if getattr(recipe, name) and name not in (command, *names)]
    if ignored and "format" in names:
        logging.getLogger("hf_evol").warning(
            "Ignored of the recipe: %s. Only hf-evol run takes all steps in one; here, each is a command of its own.",
            ", ".join(ignored),
        )


@contextmanager
def shown_anyway(show: Callable[[Any, Sequence[Time]], None]) -> Iterator[list[Time]]:
    """Gives what the stages in the block take. Where a push fails at the end, show what the run made, before the error."""
    with progress.times() as times:
        try:
            yield times
        except (HfEvolError, KeyboardInterrupt) as error:
            if (result := getattr(error, "result", None)) is not None:
                show(result, times)
            raise


def table(title: Any, names: Sequence[Any], left: Sequence[str] = (), **look: Any) -> Any:
    """A table of rich with columns of these names, none of which is broken into lines: numbers, but for those of words at the
    left."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", **look)
    for name in names:
        made.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return made


def took(times: Sequence[Time]) -> Iterator[str]:
    """A line for each stage, whatever its rounds, such as ``Evolve: 2 min 05 s, 4,210 tokens, 34 tokens/s``."""
    stages: dict[str, list[Time]] = {}
    for time in times:
        stages.setdefault(time.label.partition(",")[0], []).append(time)
    for stage, parts in stages.items():
        seconds, tokens = (sum(getattr(part, name) for part in parts) for name in ("seconds", "tokens"))
        rate = f", {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s" if tokens else ""
        yield f"{stage}: {progress.duration(seconds)}{rate}"


@contextmanager
def interruptible(how_to_go_on: str) -> Iterator[None]:
    """End the command at Ctrl-C or SIGTERM with a word on what comes next."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted. {getattr(interrupt, 'then', how_to_go_on)}", file=sys.stderr)
        raise typer.Exit(143 if interrupt.args == (TERMINATED,) else 130) from None


def _execution(executor: str | None, tasks: Any, workers: Any, given: Any, work_folder: Any) -> Execution | None:
    """What the executor's options say; None without an executor."""
    options = {}
    for name, value in key_values(given or (), "KEY=VALUE, such as partition=gpu"):
        try:
            options[name] = json.loads(value)  # numbers, true and false, {"key": "value"}
        except ValueError:
            options[name] = value
    if executor is None:
        if tasks or workers or options or work_folder:
            raise typer.BadParameter("--tasks, --workers, --executor-option and --work-folder need --executor.")
        return None
    from hf_evol.cluster import Execution

    return Execution(executor, tasks, workers, options, work_folder)


def key_values(texts: Sequence[str], form: str) -> Iterator[tuple[str, str]]:
    """Texts such as ``a=b``, taken apart; ``form`` says in the error what they should be."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{text!r} is not {form}.")
        yield name.strip(), value.strip()


def _option(name: str, hint: Any, default: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if bool in kinds and str not in kinds:
        option = "--" + name.replace("_", "-")
        return _annotated(bool, help_of(name), f"{option}/--no-{option[2:]}" if default is None else option)
    shown = "" if default is None else f" \\[default: {default}]"
    numbers = [kind for kind in (int, float) if kind in kinds]
    return _annotated(numbers[0] if len(numbers) == 1 else str, help_of(name) + shown)


def _annotated(kind: Any, said: str, *names: str) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=said, show_default=False)]


def _parsed(name: str, value: Any) -> Any:
    """What the command line has as text: ``--journal false``, ``--model '{name: …}'``, ``--columns a=b,c=d``, ``--select 1``."""
    if name == "columns" and value is not None:
        return dict(key_values(value.split(","), "OLD=NEW, such as question=instruction"))
    if name == "select" and value is not None:
        try:
            return int(value) if value.isdecimal() else float(value)
        except ValueError:
            raise typer.BadParameter(f"--select takes a share or a number of rows; got {value!r}.") from None
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
    from huggingface_hub.utils.logging import set_verbosity_error

    transformers.utils.logging.set_verbosity_error()
    unwanted = are_progress_bars_disabled()
    transformers.utils.logging.disable_progress_bar()  # which takes those of the Hub, and ours, along
    if not unwanted:
        enable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    set_verbosity_error()
    if not (ours := logging.getLogger("hf_evol")).handlers:
        ours.addHandler(_Visible())


class _Visible(logging.Handler):
    """On standard error as it is now, without control characters, which texts of servers and files may hold."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(visible(self.format(record)), file=sys.stderr)
        except Exception:  # as of a closed pipe: what is said about a run must not end it
            self.handleError(record)


def save(
    stage: str, recipe: Recipe, target: Target, rows: Any, counts: Mapping[str, int], made: Any = None, **options: Any
) -> None:
    """Write one stage's rows to the recipe's output folder, with the card and the record of this stage and those before.

    Args:
        stage: the command's name.
        recipe: its settings.
        target: where the rows go.
        rows: what the stage leaves.
        counts: of the rows that came in, how many got which status.
        made: the `SelfInstructed` that they are of, whose rejected rows are written, too.
        options: settings that only this command has; None for what does not count.
    """
    from hf_evol.hub.writer import Config, set_folder
    from hf_evol.run.stage_record import record_of

    own = {"respond": recipe.responder, "score": recipe.scorer}.get(stage)  # of a recipe file: no option says so
    used = {*OPTIONS_OF[stage]} - {"file_format"}
    if stage == "evolve" and recipe.best_of == 1:
        used -= {*_OF_BEST_OF}
    shown = (recipe.with_settings({"model": own}) if own else recipe).for_card()
    settings = {name: value for name, value in shown.items() if name in used} | options
    settings = {name: value for name, value in settings.items() if value is not None and value is not False}
    record = record_of(stage, recipe, settings, rows, counts, made)
    configs = [Config("default", rows, f"the rows after the stage {stage}", folder="")]
    if made is not None:
        rejected = Config("rejected", made.rejected, "replies that are not in the set, with the reason")
        configs = [Config("rows", rows, "new instructions; the default config"), rejected]
    with set_folder(target, record, configs, file_format=recipe.file_format):
        pass
    print(f"{len(rows)} rows in {recipe.output}")


def run_stage(
    stage: str, recipe: Recipe, transform: Any, status: str, label: str, needed: Collection[str] = (),
    show: Callable[[Any], None] = lambda rows: None, **options: Any,
) -> None:  # fmt: skip
    """Apply a stage's transform, save what it leaves, and print how many rows have which status, what it took, and what else is
    to be shown of the rows. Rows without the needed columns are read as seeds. Exits with 1 if requests failed."""
    from hf_evol.data.selection import column
    from hf_evol.run.pipeline import read_seeds
    from hf_evol.run.steps import mapper
    from hf_evol.run.tables import status_counts
    from hf_evol.transform import failed_requests

    rows, target = stage_rows(recipe)
    if not {*needed} <= {*rows.column_names}:
        rows = read_seeds(recipe)
    with progress.times() as times:
        rows = mapper(recipe)(rows, transform, transform.label)
    counts = status_counts(column(rows, status))
    save(stage, recipe, target, rows, counts, **options)
    print(f"{label}: {listed(counts)}", *took(times), sep="\n")
    show(rows)
    exit_if_failed(failed_requests(rows.data, transform))


def exit_if_failed(failed: Counter[str]) -> None:
    """Exit with 1, and a word on it, if requests failed: so many rows', by what was said of them."""
    if failed:
        print(failure_sentence(failed))
        raise typer.Exit(1)


def failure_sentence(failed: Counter[str]) -> str:
    """How many rows' requests failed, mostly why, and what to do."""
    return (
        f"Requests failed for {failed.total()} rows. Most often: {visible(failed.most_common(1)[0][0])}. "
        "The same command with --overwrite asks for those again, and for what depends on them, and no others."
    )


def stage_rows(recipe: Recipe) -> tuple[Any, Target]:
    """The rows that a stage command works on, with our columns; and the place for what it leaves, which is checked first."""
    from hf_evol.hub.target import check_output
    from hf_evol.run.pipeline import load_rows

    target = check_output(recipe.output, recipe.overwrite, reads=recipe.dataset, file_format=recipe.file_format)
    return load_rows(recipe, typed=True), target


def listed(counts: Mapping[str, int]) -> str:
    """Such as ``ok 7, leak 3``."""
    return ", ".join(f"{visible(name)} {count}" for name, count in counts.items()) or "none"
