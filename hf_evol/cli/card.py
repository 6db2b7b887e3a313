"""``hf-evol card``: write the card of a finished set anew."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    folder: Annotated[str, typer.Argument(help="A folder or URL that hf-evol run or a stage has written.")],
    repo_id: Annotated[str | None, typer.Option(help="Where the set is on the Hub: user/name.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show what would change; write nothing.")] = False,
) -> None:
    """Write the README.md of a finished set anew, from its provenance.json; what is written outside its generated part
    stays."""
    import difflib

    import fsspec

    from hf_evol.data.files import placing
    from hf_evol.errors import OutputError
    from hf_evol.hub.card import card_text, within
    from hf_evol.hub.record import CARD, made, read_card, read_provenance
    from hf_evol.hub.target import hub_dataset
    from hf_evol.progress import visible
    from hf_evol.secrets import public_name

    provenance = read_provenance(folder)
    if made(provenance) != "set":
        raise OutputError(
            f"{folder!r} holds a {made(provenance)}, no set. A card needs what hf-evol run, or a stage such as score, has written."
        )
    path, old = f"{folder.rstrip('/')}/{CARD}", read_card(*fsspec.url_to_fs(folder.rstrip("/")))
    on_hub, revision = (repo_id, None) if repo_id else hub_dataset(folder)
    new = card_text(provenance, repo_id=on_hub, revision=revision, folder=public_name(folder))
    card = within(old, new, provenance).rstrip("\n") + "\n"
    if diff:
        lines = difflib.unified_diff((old or "").splitlines(), card.splitlines(), path, "new card", lineterm="")
        print(visible("\n".join(lines)) or "The card would not change.")
        return
    with placing(path) as new_file:
        new_file.write_bytes(card.encode("utf-8"))
    print(f"The card: {visible(path)}")
