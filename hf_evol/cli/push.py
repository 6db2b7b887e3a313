"""``hf-evol push``: upload a finished set to the Hub, or add a round to one."""

from __future__ import annotations

from typing import Annotated

import typer

from hf_evol.cli.options import interruptible, quiet


def command(
    folder: Annotated[
        str, typer.Argument(help="A folder that hf-evol run or a stage has written; with --append, hf-evol score.")
    ],
    repo_id: Annotated[str, typer.Argument(help="Where to put it on the Hub: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the dataset private when it is created.")] = False,
    message: Annotated[str | None, typer.Option(help="The commit message.")] = None,
    revision: Annotated[str | None, typer.Option(help="The branch to push to.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add the folder's rows, evolved, answered and scored, as a further round.")
    ] = False,
) -> None:
    """Upload a finished set to the Hub. A push that broke off goes on when repeated."""
    options = {"message": message, "revision": revision, "create_pr": create_pr}
    quiet()
    with interruptible("The same command goes on: files that the Hub has are not sent again."):
        if append:
            from hf_evol.data.sources import load_seeds
            from hf_evol.run.append import append as add

            url = add(load_seeds(folder), repo_id, **options)
        else:
            from hf_evol.hub.publish import publish

            url = publish(folder, repo_id, private=private, **options)
    print(f"On the Hub: {url}")
