"""``hf-evol push``: upload a finished set to the Hub."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    folder: Annotated[str, typer.Argument(help="A folder that hf-evol run has written.")],
    repo_id: Annotated[str, typer.Argument(help="Where to put it on the Hub: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the dataset private when it is created.")] = False,
    message: Annotated[str | None, typer.Option(help="The commit message.")] = None,
) -> None:
    """Upload a finished set to the Hub. A push that broke off goes on when repeated."""
    from hf_evol.hub.publish import publish

    print(f"On the Hub: {publish(folder, repo_id, private=private, message=message)}")
