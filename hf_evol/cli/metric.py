"""``hf-evol metric``: the IC-IFD module for `evaluate`."""

from __future__ import annotations

import typer

app = typer.Typer(help="The IC-IFD module for evaluate.", no_args_is_help=True)


@app.command("install")
def install() -> None:
    """Make evaluate.load("ic_ifd") work in every folder, online and offline."""
    from hf_evol.metric import install as install_metric

    print(f'evaluate.load("ic_ifd") now loads {install_metric()}')


@app.command("path")
def path() -> None:
    """Print the folder of the module, for evaluate.load(path)."""
    from hf_evol.metric import metric_path

    print(metric_path())
