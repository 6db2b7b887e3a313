"""``hf-evol cache``: the journals of finished requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The journals of finished requests: what they hold, and making room.", no_args_is_help=True)
Folder = Annotated[Path | None, typer.Option(help="folder of the journals; by default the cache folder")]


@app.command("list")
def list_(folder: Folder = None) -> None:
    """List the journals with their size, finished requests, and when they were first and last written."""
    from hf_evol.models.journal import cache_folder, journals

    where = folder or cache_folder()
    found, others = journals(where)
    if not found:
        print(f"No journals in {where}.")
    for journal in found:
        stats = journal.stats()
        print(
            f"{journal.path}: {stats.requests:,} finished requests, {stats.bytes / 2**20:,.1f} MiB"
            + (f", written {stats.first:%Y-%m-%d %H:%M} to {stats.last:%Y-%m-%d %H:%M}" if stats.requests else "")
        )
    _name(others)


@app.command("prune")
def prune(
    older_than: Annotated[float | None, typer.Option(min=0, help="remove requests finished more days ago")] = None,
    max_size: Annotated[float | None, typer.Option(min=0, help="keep the newest requests, up to so many MiB")] = None,
    folder: Folder = None,
) -> None:
    """Remove finished requests by age or size, the oldest first. They are then generated anew when asked for."""
    from hf_evol.models.journal import cache_folder, journals

    if older_than is None and max_size is None:
        raise typer.BadParameter("Give --older-than DAYS or --max-size MIB.")
    found, others = journals(folder or cache_folder())
    for journal in found:
        before = journal.stats()
        removed = journal.prune(
            older_than_days=older_than, max_bytes=None if max_size is None else int(max_size * 2**20)
        )
        freed = max(0, before.bytes - journal.stats().bytes) / 2**20  # a run may write meanwhile
        print(f"{journal.path}: removed {removed:,} of {before.requests:,} requests, {freed:,.1f} MiB freed")
    _name(others)


def _name(others: Sequence[Path]) -> None:
    if others:
        print(f"Left alone, as no journals: {', '.join(repr(path.name) for path in others)}")
