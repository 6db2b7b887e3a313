"""Worked examples for the evolving methods, by domain and method: ``examples.jsonl``, all written for this package.

An evolved text in depth adds 10 to 20 words (the paper's limit). What it adds fits nearly any instruction of its form,
as a model of a hundred million parameters adds to the next instruction what it has just seen added to another; what does
not fit has words of the example's own subject, by which it can be noticed.
"""

from __future__ import annotations

import json
from pathlib import Path

Pairs = tuple[tuple[str, str], ...]  # (given, evolved)

_FILE = Path(__file__).with_suffix(".jsonl")


def _read() -> dict[str, dict[str, Pairs]]:
    found: dict[str, dict[str, Pairs]] = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        of_domain = found.setdefault(row["domain"], {})
        of_domain[row["method"]] = (*of_domain.get(row["method"], ()), (row["given"], row["evolved"]))
    return found


EXAMPLES: dict[str, dict[str, Pairs]] = _read()
