"""The entry point: subcommands, exit codes, and errors as short messages."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from hf_evol import __version__
from hf_evol.cli.options import TERMINATED
from hf_evol.errors import ConfigError, FormatError, HfEvolError
from hf_evol.progress import visible
from hf_evol.secrets import Shown

COMMANDS = (
    "run", "study", "autoif", "self-instruct", "evolve", "eliminate", "optimize", "respond", "back-translate", "score", "select",
    "card", "push",
)  # fmt: skip
GROUPS = ("recipe", "metric", "cache")

_UsageError = typer.BadParameter.__base__

app = typer.Typer(
    name="hf-evol",
    help="Evolve, answer, score, select and publish instruction-tuning sets with small language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name in COMMANDS:
    app.command(name)(import_module(f"hf_evol.cli.{name.replace('-', '_')}").command)
for name in GROUPS:
    app.add_typer(import_module(f"hf_evol.cli.{name}").app, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-evol {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when everything asked for was done, 2 for wrong usage or settings, 1 for failure."""
    try:
        return app(args=None if argv is None else list(argv), standalone_mode=False) or 0
    except _UsageError as error:
        error.show()  # not in a box, which would break the lines of values
        return error.exit_code
    except HfEvolError as error:
        print(f"Error: {visible(error)}", file=sys.stderr)
        return 2 if isinstance(error, (ConfigError, FormatError)) else 1


def entry_point() -> None:
    if sys.__stderr__:
        faulthandler.enable(sys.__stderr__)  # a crash in a library's native code says where
    sys.stdout, sys.stderr = Shown(sys.stdout), Shown(sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)  # as Slurm and Docker send it; ends like Ctrl-C
    sys.exit(main())


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt(TERMINATED)


if __name__ == "__main__":
    entry_point()
