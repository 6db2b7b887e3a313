"""One labelled progress bar at a time, in rows and generated tokens per second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_current: _Bar | None = None


def _tqdm(**options: Any) -> Any:
    from huggingface_hub.utils import tqdm  # which HF_HUB_DISABLE_PROGRESS_BARS turns off

    return tqdm(**options)


class _Bar:
    def __init__(self, label: str, total: int | None, leave: bool) -> None:
        self.tokens, self.start = 0, time.monotonic()
        self.tqdm = _tqdm(total=total, desc=label, unit=" rows", dynamic_ncols=True, leave=leave)

    def advance(self, rows: int, tokens: int) -> None:
        self.tokens += tokens
        if self.tokens:
            rate = self.tokens / max(time.monotonic() - self.start, 1e-9)
            self.tqdm.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        self.tqdm.update(rows)

    def close(self) -> None:
        if not self.tqdm.n and self.tqdm.total:  # no batch was asked for: the map came from the cache
            self.tqdm.set_postfix_str("from the cache", refresh=False)
            self.tqdm.update(self.tqdm.total)
        self.tqdm.close()


@contextmanager
def bar(label: str, total: int | None, leave: bool = True) -> Iterator[None]:
    """Show a bar while the block runs; `advance` moves it. ``total`` is the number of rows, where known."""
    global _current
    outer, _current = _current, _Bar(label, total, leave)
    try:
        yield
        _current.close()
    finally:
        _current.tqdm.close()
        _current = outer


@contextmanager
def without_datasets_bars() -> Iterator[bool]:
    """Hide the bars of `datasets` while the block runs; gives whether they were on."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_on = not are_progress_bars_disabled()
    if were_on:
        disable_progress_bars()
    try:
        yield were_on
    finally:
        if were_on:
            enable_progress_bars()


def advance(rows: int, tokens: int = 0) -> None:
    """Move the current bar, if there is one, by finished rows and generated tokens."""
    if _current is not None:
        _current.advance(rows, tokens)
