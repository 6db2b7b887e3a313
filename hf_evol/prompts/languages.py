"""Which language a text is in, by py3langid: naive Bayes over bytes (Lui & Baldwin 2012), with a model in its wheel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from heapq import nlargest
from types import MappingProxyType
from typing import Any

from hf_evol.errors import require_extra
from hf_evol.prompts.words import remembering

# Those with some millions of writers; dialects and small ones that resemble them only take their probability away.
_LANGUAGES = (
    "af ar az be bg bn bs ca cs da de el en es et eu fa fi fr gu he hi hr hu hy id is it ja ka kk kn ko lt lv mk ml mn mr ms ne nl no pa pl "
    "ps pt ro ru sk sl so sq sr sv sw ta te th tl tr uk ur uz vi zh"
)
_NONE = "zxx"  # numbers, markup and names of variables
_A_GUESS, _SURE = 0.2, 0.9  # probabilities
_AMONG = 5  # languages, between which the few words of a parent leave it open ...
_OPEN = 0.75  # ... if they have so much of the probability; of code, many have a little
_NEVER_ONE = 0.01
_SAME_START = 3  # words
# What may be in any language: code, quoted text and addresses.
_ASIDE = re.compile(
    r"(?s)```.*?```|`[^`\n]*`|\"[^\"\n]*\"|“[^“”\n]*”|„[^„“”\n]*[“”]|«[^«»\n]*»|「[^「」\n]*」|https?://\S+"
)


def require_identifier() -> None:
    """Raise `MissingExtraError` unless languages can be told apart."""
    require_extra("py3langid", "multilingual", "A method that keeps the language")


def language_of(text: str) -> str | None:
    """The language that a text is most likely in, as ISO 639-1 has it; None where nothing speaks for any."""
    likely = languages(text)
    best = max(likely, key=likely.__getitem__)
    return best if likely[best] >= _A_GUESS and best != _NONE else None


def is_other_language(text: str, parent: str) -> bool:
    """Whether a text is surely in another language than its parent: never where it begins as that does, or where one of them is too
    short, or holds too much code, to be sure of."""
    if text.split()[:_SAME_START] == parent.split()[:_SAME_START]:
        return False
    now, before = languages(text), languages(parent)
    sure = max(now.values()) >= _SURE and sum(nlargest(_AMONG, before.values())) >= _OPEN
    known = language_of(text) is not None and language_of(parent) is not None
    return sure and known and sum(now[name] * before[name] for name in now) < _NEVER_ONE


@remembering
def languages(text: str) -> Mapping[str, float]:
    """The probability of each language, of what a text says outside of code and quotations."""
    return MappingProxyType(dict(_identifier().rank(_ASIDE.sub(" ", text))))


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*_LANGUAGES.split(), _NONE])
    return identifier
