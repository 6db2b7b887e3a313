"""Evol-Instruct: the five evolving methods and their prompts.

The facts come from WizardLM (arXiv:2304.12244) and the paper's Scenario 1 (arXiv:2412.11231); the wording is ours: a short system
turn, worked examples of the instruction's own domain as turns, and the instruction last, which small models can follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import dropwhile, groupby, islice
from pathlib import Path
from typing import Any
from zlib import crc32

import yaml

from hf_evol.errors import ConfigError
from hf_evol.prompts.examples import EXAMPLES, Pairs, form_of, in_common
from hf_evol.prompts.languages import language_of, languages, require_identifier
from hf_evol.prompts.tables import table_of
from hf_evol.prompts.template import Turns, chat, in_context, slots_of
from hf_evol.prompts.words import content, domain_of

_Turns = tuple[tuple[str, str], ...]  # the turns in hashable form: role and text

_SCIENCE = "science question"
_SAME_LANGUAGE = " What you reply with is in the language of the task."
_SHOTS = 3  # examples shown at once

_SAID = table_of(__file__)
THING, _HOW = _SAID["thing"], _SAID["how"]


@dataclass(frozen=True)
class Method:
    """One way to evolve an instruction.

    Args:
        name: recorded in the ``method`` column.
        template: the words sent. A text is one user turn; a list of turns (``role`` and ``content``) may hold a system turn
            and worked examples; a mapping gives one or the other for some of the domains ``general``, ``writing``, ``code``
            and ``math``, of which the instruction's words choose one; what is not there is ``general``, or without that the first
            of them that is. The last turn is the user's, and the only slot, ``{instruction}``, stands in one of the turns.
        kind: ``"in_depth"`` (a harder version of the same prompt), ``"in_breadth"`` (a new prompt), or ``"auto"`` (its
            replies go through the steps of Auto Evol-Instruct).
        shots: how many of the template's worked examples (pairs of a user's and an assistant's turn) are shown at once: those
            most like the instruction in form, and others at each try; None for all. With a number, nothing but these stands
            between the system turn and the last one, which has the slot.
        same_language: for instructions in any language: examples in the instruction's own are shown first, and a text in another
            is ``other_language``. Needs the extra ``multilingual``.

    Raises:
        ConfigError: at construction, what is wrong.
        MissingExtraError: at construction, the identifier of languages is not installed.
    """

    name: str
    template: Any = field(repr=False)
    kind: str = "in_depth"
    shots: int | None = None
    same_language: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("in_depth", "in_breadth", "auto"):
            raise ConfigError(f"kind must be 'in_depth', 'in_breadth' or 'auto'; got {self.kind!r}.")
        if not self.name or not isinstance(self.name, str):
            raise ConfigError(f"A method needs a name that is a non-empty string, not {self.name!r}.")
        if self.shots is not None and (not isinstance(self.shots, int) or self.shots < 1):
            raise ConfigError(f"shots must be 1 or more, or None for all examples; got {self.shots!r}.")
        if not isinstance(self.same_language, bool):
            raise ConfigError(f"same_language must be true or false; got {self.same_language!r}.")
        if self.same_language:
            require_identifier()
        object.__setattr__(self, "template", _by_domain(self.name, self.template))
        if self.shots is not None and not all(map(_has_examples, dict(self.template).values())):
            raise ConfigError(
                f"With shots, the template of method {self.name!r} must hold system turns, then pairs of a user's and an assistant's "
                "turn, and last a user's turn with {instruction}."
            )

    def prompt(self, instruction: str, attempt: int = 1) -> Turns:
        """The turns that ask for an instruction to be evolved, for the n-th time by this method, counted from 1. Prompts share the
        turns of worked examples, so copy what you change."""
        by_domain = dict(self.template)
        turns = by_domain.get(domain_of(instruction) if len(by_domain) > 1 else "", self.template[0][1])
        if self.shots is None:
            return _filled(turns, instruction)
        first, examples = _examples(turns)
        chosen = _fitting(examples, self.shots, instruction, attempt, self.same_language)
        shown = [turn for example in chosen for turn in example.turns]
        return [*_filled(turns[:first], instruction), *shown, *_filled(turns[-1:], instruction)]

    def of_domain(self, domain: str) -> Method:
        """The same method, in the words for one domain whatever the instruction."""
        own = {name: turns for name, turns in self.template if name == domain}
        return replace(self, template=own) if own else self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a YAML file of methods holds them."""
        by_domain = {
            domain: [{"role": role, "content": text} for role, text in turns] for domain, turns in self.template
        }
        template = by_domain if len(by_domain) > 1 else next(iter(by_domain.values()))
        shots = {} if self.shots is None else {"shots": self.shots}
        language = {"same_language": True} if self.same_language else {}
        return {"name": self.name, "template": template, "kind": self.kind} | shots | language


def _filled(turns: _Turns, instruction: str) -> Turns:
    return [{"role": role, "content": text.replace("{instruction}", instruction)} for role, text in turns]


def _fitting(
    examples: tuple[_Example, ...], shots: int, instruction: str, attempt: int, own_language: bool
) -> Iterator[_Example]:
    """The examples that fit the instruction best in form, the best last; a further try leaves out the best one and takes one more.
    With ``own_language``, examples in the instruction's language come before all others."""
    groups, form = _by_language(examples, instruction) if own_language else [examples], form_of(instruction)
    shift = (attempt - 1) % max(1, len(examples))
    ordered = (example for group in groups for example in _best(_by_likeness(group, form), instruction))
    best = list(islice(ordered, shift + shots))
    return reversed([*best[shift:], *best[:shift]][:shots])


def _best(alike: Sequence[Sequence[_Example]], instruction: str) -> Iterator[_Example]:
    """The examples in their order, equally good ones mixed; those that add what is said already come at the end."""
    said, letters = frozenset(content(instruction)), instruction.encode("utf-8", "surrogatepass")
    again: list[_Example] = []
    for examples in alike:
        for example in sorted(examples, key=lambda example: crc32(letters, example.checksum)):
            if example.added.isdisjoint(said) or 2 * len(example.added & said) < len(example.added):
                yield example
            else:
                again.append(example)
    yield from again


@dataclass(frozen=True, eq=False)
class _Example:
    turns: Turns  # which the prompts share
    form: frozenset[str]  # of what is given
    added: frozenset[str]  # the content words that the evolved text adds
    checksum: int


@lru_cache(maxsize=64)
def _examples(turns: _Turns) -> tuple[int, tuple[_Example, ...]]:
    """Where the worked examples of a template begin, and these."""
    first = next((place for place, (role, _) in enumerate(turns) if role == "user"), len(turns))
    found = []
    for place in range(first, len(turns) - 1, 2):
        (_, given), (_, evolved) = turns[place : place + 2]
        added = frozenset(content(evolved)) - frozenset(content(given))
        pair = [{"role": "user", "content": given}, {"role": "assistant", "content": evolved}]
        found.append(_Example(pair, form_of(given), added, crc32(evolved.encode("utf-8", "surrogatepass"))))
    return first, tuple(found)


@lru_cache(maxsize=4096)
def _by_likeness(examples: tuple[_Example, ...], form: frozenset[str]) -> tuple[tuple[_Example, ...], ...]:
    """Those together that fit a form equally well, the best first."""

    def likeness(example: _Example) -> float:
        return in_common(example.form, form)

    return tuple(tuple(same) for _, same in groupby(sorted(examples, key=likeness, reverse=True), likeness))


def _by_language(examples: Sequence[_Example], instruction: str) -> list[tuple[_Example, ...]]:
    """Those together whose languages are equally likely to be the instruction's, the likeliest first. Of these English comes last,
    as an English reply is what is to be feared."""
    likely = languages(instruction)

    def order(example: _Example) -> tuple[float, bool]:
        language = language_of(example.turns[1]["content"])
        return -round(likely.get(language or "", 0), 1), language == "en"

    return [tuple(same) for _, same in groupby(sorted(examples, key=order), order)]


def _by_domain(name: str, template: Any) -> tuple[tuple[str, _Turns], ...]:
    """The turns of each domain, in hashable form; what is no mapping counts for all."""
    if isinstance(template, tuple) and template and isinstance(template[0][1], tuple):  # made before
        return template
    given = template if isinstance(template, Mapping) else {"general": template}
    unknown = [domain for domain in given if domain not in THING]
    if unknown or not given:
        raise ConfigError(f"Method {name!r} has words for {unknown or 'no domain'}; domains are {', '.join(THING)}.")
    return tuple((domain, _turns(name, given[domain])) for domain in THING if domain in given)


def _turns(name: str, words: Any) -> _Turns:
    if isinstance(words, str) and words:
        words = [{"role": "user", "content": words}]
    try:
        turns = tuple((turn["role"], turn["content"]) if isinstance(turn, Mapping) else tuple(turn) for turn in words)
        fits = turns[-1][0] == "user" and all(isinstance(role, str) and isinstance(text, str) for role, text in turns)
    except (TypeError, KeyError, IndexError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(
            f"The template of method {name!r} must be a text, or a list of turns with role and content, the last of them the "
            f"user's; got {words!r}."
        )
    text = "\n".join(text for _, text in turns)
    if slots_of(text) != {"instruction"} or sum("{instruction}" in text for _, text in turns) != 1:
        raise ConfigError(
            f"The template of method {name!r} must hold {{instruction}} in one turn alone, and no other slot; it begins: {text[:80]!r}"
        )
    return turns


def _has_examples(turns: _Turns) -> bool:
    """Whether only worked examples stand between the system turns and the last one, which has the slot."""
    between = [role for role, _ in dropwhile(lambda turn: turn[0] == "system", turns[:-1])]
    return between == ["user", "assistant"] * (len(between) // 2) and "{instruction}" in turns[-1][1]


def _words(name: str, thing: str, examples: Pairs, more: str = "") -> Turns:
    system = _SAID["in_depth" if name in _HOW else "in_breadth"]
    return chat("{instruction}", system.format(thing=thing, how=_HOW.get(name)) + more, examples)


def _built_in(name: str, template: Any, **settings: Any) -> Method:
    return Method(name, template, "in_depth" if name in _HOW else "in_breadth", _SHOTS, **settings)


IN_DEPTH = tuple(_HOW)
METHODS: dict[str, Method] = {
    name: _built_in(name, {domain: _words(name, thing, EXAMPLES[domain][name]) for domain, thing in THING.items()})
    for name in (*IN_DEPTH, "breadth")
}

# Which methods the paper uses on which seed set (Scenario 1), and all of them in the words of a domain of ours.
PRESETS = {"alpaca": tuple(METHODS), "gsm8k": IN_DEPTH, "code": IN_DEPTH}
PRESETS |= dict.fromkeys(("writing", "science", "multilingual"), tuple(METHODS))
_DOMAIN_OF_PRESET = {"gsm8k": "math", "code": "code", "writing": "writing"}


def _of_preset(preset: str, name: str) -> Method:
    """A method as a preset has it. Only ``multilingual`` needs an extra, so its methods are made when they are asked for."""
    if preset == "science":
        return _built_in(name, _words(name, _SCIENCE, EXAMPLES["science"][name]))
    if preset == "multilingual":
        examples = (*EXAMPLES["general"][name], *EXAMPLES["multilingual"][name])
        return _built_in(name, _words(name, THING["general"], examples, _SAME_LANGUAGE), same_language=True)
    domain = _DOMAIN_OF_PRESET.get(preset)
    return METHODS[name].of_domain(domain) if domain else METHODS[name]


def resolve_methods(methods: str | Path | Sequence[str | Method]) -> tuple[Method, ...]:
    """Turn what a user wrote into methods, in rotation order.

    Args:
        methods: a preset (one of `PRESETS`), the path of a YAML file that holds a list, or a sequence. Items are names of
            built-in methods, `Method` objects, or mappings of a method's arguments.
    """
    if isinstance(methods, (str, Path)):
        if str(methods) in PRESETS:
            methods = [_of_preset(str(methods), name) for name in PRESETS[str(methods)]]
        elif str(methods).endswith((".yaml", ".yml")):
            methods = _read_yaml(Path(methods))
        else:
            methods = [part.strip() for part in str(methods).split(",")]
    resolved = tuple(_one_method(method) for method in methods)
    names = [method.name for method in resolved]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"Methods must be one or more with different names; got {names}.")
    return resolved


def method_at(methods: Sequence[Method], place: int, attempt: int) -> Method:
    """The method of a try, counted from 1: first the one at ``place``, then those that follow in rotation and keep the task."""
    if attempt == 1:
        return methods[place]
    others = [method for method in (*methods[place + 1 :], *methods[: place + 1]) if method.kind != "in_breadth"]
    return others[(attempt - 2) % len(others)] if others else methods[(place + attempt - 1) % len(methods)]


def prompt_at(
    methods: Sequence[Method],
    method: Method,
    instruction: str,
    attempt: int,
    context: Sequence[Mapping[str, str]] | None = None,
) -> Turns:
    """The turns that one of these methods sends at a try, counted from 1; with other examples where it was tried before."""
    in_depth = sum(method.kind != "in_breadth" for method in methods) or len(methods)
    return in_context(method.prompt(instruction, 1 + (attempt - 1) // in_depth), context)


def version_of(methods: Sequence[Method]) -> str:
    """A short digest of all words that the methods send: what tells two wordings apart in a provenance."""
    sent = [
        (method.name, method.template, method.shots, *["same_language"] * method.same_language) for method in methods
    ]
    return blake2b(repr(sent).encode(), digest_size=6).hexdigest()


def _one_method(method: str | dict[str, Any] | Method) -> Method:
    if isinstance(method, Method):
        return method
    if isinstance(method, dict) and {"name", "template"} <= method.keys() <= Method.__dataclass_fields__.keys():
        return Method(**method)
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]
    shown = f"with {', '.join(map(str, method))}" if isinstance(method, dict) else repr(method)
    raise ConfigError(
        f"Unknown method {shown}. Built-in methods: {', '.join(METHODS)}. Presets: {', '.join(PRESETS)}. "
        "Own methods: hf_evol.Method(name, template), a mapping of its arguments, or a file of those ending in .yaml."
    )


def _read_yaml(path: Path) -> list[str | dict[str, Any]]:
    try:
        items = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the methods file {str(path)!r}: {error}") from error
    return items if isinstance(items, list) else [items]
