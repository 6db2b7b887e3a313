"""``hf-evol metric``: the IC-IFD module for `evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="The IC-IFD module for evaluate.", no_args_is_help=True)


@app.command("install")
def install() -> None:
    """Make evaluate.load("ic_ifd") work in every folder, online and offline."""
    from hf_evol.hub.metric import install as install_metric

    print(f'evaluate.load("ic_ifd") now loads {install_metric()}')


@app.command("push")
def push(
    repo_id: Annotated[str, typer.Argument(help="The Space to publish it as: user/ic_ifd.")],
    private: Annotated[bool, typer.Option("--private", help="Make the Space private when it is created.")] = False,
) -> None:
    """Publish the module as a Space, for evaluate.load("user/ic_ifd")."""
    from hf_evol.hub.metric import push as push_metric

    print(f"On the Hub: {push_metric(repo_id, private)}")
