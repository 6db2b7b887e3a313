"""One labelled progress bar at a time: rows, generated tokens per second, failures; lines where no one watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_EVERY_S = 60.0

_current: _Bar | None = None


def _tqdm(**options: Any) -> Any:
    from huggingface_hub.utils import are_progress_bars_disabled, tqdm

    quiet = are_progress_bars_disabled()  # by HF_HUB_DISABLE_PROGRESS_BARS
    in_log = not sys.stderr.isatty() and "ipykernel" not in sys.modules
    return _Lines(**options) if in_log and not quiet else tqdm(**options)


class _Lines:
    """In a log file, a line a minute in place of a bar; the part of tqdm's interface that `_Bar` uses."""

    def __init__(self, total: int | None, desc: str, **_: Any) -> None:
        self.total, self.desc, self.n, self.note = total, desc, 0, ""
        self.start = self.last = time.monotonic()

    def set_postfix_str(self, note: str, refresh: bool) -> None:
        self.note = note

    def update(self, rows: float) -> None:
        self.n += rows
        if time.monotonic() - self.last >= LINE_EVERY_S and (self.total is None or self.n < self.total):
            self._print()

    def _print(self) -> None:
        self.last = time.monotonic()
        seconds = self.last - self.start
        parts = [f"{self.n:,} of {self.total:,} rows" if self.total else f"{self.n:,} rows", self.note]
        if self.total and 0 < self.n < self.total:
            parts.append(f"{_duration(seconds / self.n * (self.total - self.n))} left")
        print(f"{self.desc}: " + ", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.n and time.monotonic() - self.start >= LINE_EVERY_S:  # quick work needs no line
            self._print()
        self.n = 0


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"


class _Bar:
    def __init__(self, label: str, total: int | None, leave: bool) -> None:
        self.tokens, self.failures, self.start = 0, 0, time.monotonic()
        self.tqdm = _tqdm(total=total, desc=label, unit=" rows", dynamic_ncols=True, leave=leave)

    def advance(self, rows: int, tokens: int, failures: int) -> None:
        self.tokens += tokens
        self.failures += failures
        rate = self.tokens / max(time.monotonic() - self.start, 1e-9)
        notes = [f"{rate:,.0f} tokens/s"] if self.tokens else []
        notes += [f"{self.failures:,} failed"] if self.failures else []
        if notes:
            self.tqdm.set_postfix_str(", ".join(notes), refresh=False)
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


def advance(rows: int, tokens: int = 0, failures: int = 0) -> None:
    """Move the current bar, if there is one, by finished rows, generated tokens, and how many rows failed."""
    if _current is not None:
        _current.advance(rows, tokens, failures)
