"""``hf-evol push``: upload a finished set to the Hub."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    folder: Annotated[str, typer.Argument(help="A folder that hf-evol run has written.")],
    repo_id: Annotated[str, typer.Argument(help="Where to put it on the Hub: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the dataset private when it is created.")] = False,
    message: Annotated[str | None, typer.Option(help="The commit message.")] = None,
    revision: Annotated[str | None, typer.Option(help="The branch to push to.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
) -> None:
    """Upload a finished set to the Hub. A push that broke off goes on when repeated."""
    from hf_evol.hub.publish import publish

    url = publish(folder, repo_id, private=private, message=message, revision=revision, create_pr=create_pr)
    print(f"On the Hub: {url}")
