"""What nothing may show or record: passwords, tokens and keys, told by their value, their name or their form."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

HIDDEN = "***"
_SHORTEST = 6  # a shorter value may stand in any text
_LONGER_THAN_NAMES = 16
_VARIABLE = re.compile(
    r"SECRET|PASS(?![A-VX-Z])|PASSPHRASE|_PWD|CREDENTIAL|JWT|TOKEN(?!S|IZ)|KEY(?![A-Z])|(?<![A-Z])PAT(?![A-Z])"
)
_NAME = r"(?:[\w.-]{0,40}[_.-])?(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key(?:[_-]?id)?|credentials?|signature|jwt)"
_NAMED = re.compile(_NAME, re.IGNORECASE)
_VALUE = rf"[^\s\"',;&<>(){{}}\[\]|\\]{{{_SHORTEST},}}"
# What comes before a secret, and the secret.
_FORMS = [
    re.compile(f"{before}(?:{secret})", re.IGNORECASE * ignore_case)
    for ignore_case, before, secret in (
        (True, r"(://)", r"[^\s/?#\"'<>]+(?=@)"),  # of a URL: user and password
        (True, rf"([?&#](?:{_NAME}|key|sig|auth|code|password|pw|pass)=)", r"[^\s\"'&#<>]+"),
        (True, rf"((?<![a-z0-9])(?:{_NAME})[\"']?\s*[=:]\s*[\"']?)", _VALUE),
        (True, r"(authorization[\"']?\s*[=:]\s*[\"']?(?:basic |bearer )?)", _VALUE),
        (True, r"(bearer )", r"[\w.~+/=-]{12,}"),
        # Hugging Face, OpenAI and others, GitHub, GitLab, Slack, AWS, Google; JSON web tokens
        (False, r"((?<![A-Za-z0-9]))", r"hf_(?:oauth_)?[A-Za-z0-9]{16,}|g?sk[-_][\w-]{16,}"),
        (False, r"((?<![A-Za-z0-9]))", r"gh[a-z]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"),
        (False, r"((?<![A-Za-z0-9]))", r"(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"),
    )
]  # fmt: skip

_in_use: set[str] = set()


def keep_secret(value: str) -> None:
    """Have this value hidden in this process, whatever it looks like."""
    _in_use.add(value)


def without_secrets(value: Any) -> Any:
    """Text with ``***`` in place of all secrets in it; or a plain value with such texts.

    Secrets are the keys that this process uses, tokens stored by ``hf auth login``, the values of environment variables
    whose names say so, passwords in URLs, values that a name such as ``token=`` stands before, and what has the form of a
    well-known kind of token.

    Example:
        >>> without_secrets("GET https://me:hunter2@host/rows?token=abc&page=2")
        'GET https://***@host/rows?token=***&page=2'
    """
    known = sorted({*_known()}, key=len, reverse=True)
    return _without(value, re.compile("|".join(map(re.escape, known)) or "(?!)"))


def _without(value: Any, known: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        value = known.sub(HIDDEN, value)
        for form in _FORMS:
            value = form.sub(rf"\1{HIDDEN}", value)
        return value
    if isinstance(value, Mapping):
        return {
            _without(name, known): HIDDEN
            if isinstance(part, str) and _NAMED.fullmatch(str(name))
            else _without(part, known)
            for name, part in value.items()
        }
    return type(value)(_without(part, known) for part in value) if type(value) in (list, tuple) else value


def _known() -> Iterator[str]:
    """The values that are secrets, line by line, and as URLs hold them."""
    from huggingface_hub import constants

    values = [*_in_use]
    for name, value in os.environ.items():
        if _VARIABLE.search(name.upper()) and not os.path.exists(value):  # noqa: PTH110 - Path refuses long texts
            values.append(value)
    for file in (constants.HF_TOKEN_PATH, constants.HF_STORED_TOKENS_PATH):
        with suppress(OSError, ValueError):
            values += (word for word in Path(file).read_text("utf-8").split() if len(word) >= _LONGER_THAN_NAMES)
    for line in (line.strip() for value in values for line in value.splitlines()):
        if len(line) >= _SHORTEST:
            yield from (line, quote(line, safe=""))


class Shown:
    """A text stream that shows no secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._stream.write(without_secrets(text))


def public_name(source: str) -> str:
    """A source's name without what is private: the last part of an absolute path, a URL without credentials.

    Example:
        >>> public_name("/home/me/rows.jsonl"), public_name("https://me:secret@host/rows.json?token=1")
        ('rows.jsonl', 'https://host/rows.json')
    """
    if "{{" in source or "{%" in source:  # an inline template
        return source
    if "::" in source and "://" in source:
        return "::".join(map(public_name, source.split("::")))
    if source.startswith(("file://", "local://")):
        return Path(source).name
    if "://" in source:
        scheme, _, rest = source.partition("://")
        host, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return Path(source).name if Path(source).expanduser().is_absolute() else source
