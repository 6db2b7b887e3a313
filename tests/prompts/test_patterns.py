import random
import re

import pytest

from hf_evol.prompts import examples, words
from hf_evol.prompts.patterns import AnyCase
from hf_evol.reading import faults, fit, forms, replies

PATTERNS = {
    f"{module.__name__.rsplit('.', 1)[1]}.{name}": pattern
    for module in (faults, fit, forms, replies, words)
    for name, pattern in (vars(module) | vars(getattr(module, "_RE", module))).items()
    if isinstance(pattern, AnyCase)
} | {f"examples.{name}": pattern for name, pattern in examples._PARTS.items() if isinstance(pattern, AnyCase)}


def made_of(parts, noise, groups):
    """A text that a parsed pattern may well match."""
    text = ""
    for kind, of in parts:
        match str(kind):
            case "LITERAL":
                text += chr(of)
            case "IN":
                letters = [chr(value) for member, value in of if str(member) == "LITERAL"]
                text += noise.choice("x7" if str(of[0][0]) == "NEGATE" else [*letters, *"x7 "])
            case "ANY" | "NOT_LITERAL":
                text += noise.choice("x7 ")
            case "BRANCH":
                text += made_of(noise.choice(of[1]), noise, groups)
            case "SUBPATTERN":
                groups[of[0]] = made_of(of[-1], noise, groups)
                text += groups[of[0]]
            case "MAX_REPEAT" | "MIN_REPEAT":
                text += "".join(
                    made_of(of[2], noise, groups) for _ in range(noise.randint(of[0], min(of[1], of[0] + 2)))
                )
            case "GROUPREF":
                text += groups[of]
    return text


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_find_what_the_flag_for_any_case_finds(name):
    pattern, noise = PATTERNS[name], random.Random(0)
    by_flag, parts = re.compile(pattern.pattern, re.IGNORECASE), re._parser.parse(pattern.pattern)
    found = 0
    for _ in range(100):
        said = made_of(parts, noise, {})
        around = noise.choices(("", " ", "the ", ", ", "\n", "7", "ſ’é ", said[: len(said) // 2]), k=2)
        text = noise.choice((str, str.upper, str.title))(said.join(around))
        match, expected = pattern.search(text), by_flag.search(text)
        assert (match and match.span()) == (expected and expected.span()), text
        assert str(pattern.findall(text)).lower() == str(by_flag.findall(text)).lower(), text
        assert pattern.remove_from(text) == by_flag.sub("", text)
        found += expected is not None
    assert found > 2


def test_patterns_are_written_in_small_letters():
    with pytest.raises(ValueError, match="small letters"):
        AnyCase(r"\bA\b")
