"""Regular expressions that ignore case, found fast in most texts."""

from __future__ import annotations

import re
from typing import Any

_parser = re._parser  # type: ignore[attr-defined]


class AnyCase:
    """A regular expression, written in small letters, that ignores case.

    It finds what ``re.compile(pattern, re.IGNORECASE)`` finds, but in ASCII texts several times as fast: there it looks for one of the
    literals that each match has, and only then for the pattern, in small letters. What a match says is in small letters then.
    """

    def __init__(self, pattern: str) -> None:
        if re.search(r"(?<!\\)[A-Z]", pattern):
            raise ValueError(f"Write {pattern!r} in small letters.")
        self.pattern = pattern
        self._any_case, self._small = re.compile(pattern, re.IGNORECASE), re.compile(pattern)
        self._literals = _literals(_parser.parse(pattern)) or [""]

    def search(self, text: str) -> re.Match[str] | None:
        if not text.isascii():
            return self._any_case.search(text)
        small = text.lower()
        for literal in self._literals:
            if literal in small:
                return self._small.search(small)
        return None

    def findall(self, text: str) -> list[Any]:
        if not text.isascii():
            return self._any_case.findall(text)
        return self._small.findall(text.lower()) if self.search(text) else []

    def remove_from(self, text: str) -> str:
        return self._any_case.sub("", text) if self.search(text) else text


def _literals(parts: Any) -> list[str]:
    """Texts of which each match of a parsed pattern has at least one: the longest, and of these the fewest, that it shows."""
    found, run = [], ""
    for kind, of in [*parts, (None, None)]:
        if kind is _parser.LITERAL:
            run += chr(of)
            continue
        found.append([run] if run else [])
        run = ""
        if kind is _parser.SUBPATTERN:
            found.append(_literals(of[-1]))
        elif kind is _parser.BRANCH:
            options = [_literals(option) for option in of[1]]
            found.append([text for texts in options for text in texts] if all(options) else [])
        elif kind in (_parser.MAX_REPEAT, _parser.MIN_REPEAT) and of[0]:
            found.append(_literals(of[2]))
    best = max(found, key=lambda texts: (min(4, *map(len, texts)), -len(texts)) if texts else (0, 0))
    return [text for text in dict.fromkeys(best) if not any(other in text for other in best if other != text)]
