"""Evol-Instruct: the five evolving methods and their prompts.

The facts come from WizardLM (arXiv:2304.12244) and from the paper's Scenario 1 (arXiv:2412.11231); the
wording is ours. Every template has the slot ``{instruction}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hf_evol.errors import ConfigError
from hf_evol.prompts.template import Template

# "add only 10 to 20 words" is the paper's limit for each rewriting.
_IN_DEPTH = """\
You are a prompt rewriter. Turn the given prompt into a somewhat harder one, so that even well-known AI \
assistants find it more difficult. It must stay reasonable, and people must be able to understand and answer it. \
Keep the language, the facts, and any table or code of the given prompt.
{how}
Do not be wordy: add only 10 to 20 words to the given prompt. Reply with the rewritten prompt and nothing else.

### Given prompt
{instruction}

### Rewritten prompt"""

_IN_BREADTH = """\
You are a prompt creator. Take inspiration from the given prompt and create a brand-new prompt. It must belong to \
the same domain but be rarer, with about the same length and complexity. It must be reasonable, and people must be \
able to understand and answer it. Reply with the created prompt and nothing else.

### Given prompt
{instruction}

### Created prompt"""

_HOW = {
    "constraint": "How to rewrite it: add one more constraint or requirement.",
    "deepen": "How to rewrite it: if it asks about certain issues, make the inquiry deeper and broader.",
    "concretize": "How to rewrite it: replace general concepts with more specific ones.",
    "reasoning": "How to rewrite it: if a few thinking steps would solve it, explicitly ask for several reasoning steps.",
}


@dataclass(frozen=True)
class Method:
    """One way to evolve an instruction.

    Args:
        name: recorded in the ``method`` column.
        template: the prompt; its only slot is ``{instruction}``.
        kind: ``"in_depth"`` (a harder version of the same prompt), ``"in_breadth"`` (a new prompt), or ``"auto"`` (its
            replies go through the steps of Auto Evol-Instruct).
    """

    name: str
    template: str
    kind: str = "in_depth"

    def __post_init__(self) -> None:
        if self.kind not in ("in_depth", "in_breadth", "auto"):
            raise ConfigError(
                f"Method {self.name!r} has kind {self.kind!r}; allowed: 'in_depth', 'in_breadth', 'auto'."
            )
        for field in (self.name, self.template):
            if not field or not isinstance(field, str):
                raise ConfigError(f"A method needs a name and a template that are non-empty strings, not {field!r}.")
        Template(self.template)

    def prompt(self, instruction: str) -> str:
        """The evolving prompt for one instruction."""
        return Template(self.template).fill(instruction=instruction)


METHODS: dict[str, Method] = {
    name: Method(name, Template(_IN_DEPTH, ("how", "instruction")).fill(how=how, instruction="{instruction}"))
    for name, how in _HOW.items()
} | {"breadth": Method("breadth", _IN_BREADTH, kind="in_breadth")}

IN_DEPTH = tuple(_HOW)

# Which methods the paper uses on which seed set (Scenario 1).
PRESETS: dict[str, tuple[str, ...]] = {
    "alpaca": (*IN_DEPTH, "breadth"),
    "gsm8k": IN_DEPTH,
    "code": IN_DEPTH,
}


def resolve_methods(methods: str | Path | Sequence[str | Method]) -> tuple[Method, ...]:
    """Turn what a user wrote into methods, in rotation order.

    Args:
        methods: a preset (``"alpaca"``, ``"gsm8k"``, ``"code"``), the path of a YAML file that holds a list, or a
            sequence. Items are names of built-in methods, `Method` objects, or mappings with ``name``,
            ``template`` and, optionally, ``kind``.

    Raises:
        ConfigError: unknown names, a malformed file, no methods, or two methods of one name.
    """
    if isinstance(methods, (str, Path)):
        if str(methods) in PRESETS:
            methods = PRESETS[str(methods)]
        elif str(methods).endswith((".yaml", ".yml")):
            methods = _read_yaml(Path(methods))
        else:
            methods = [part.strip() for part in str(methods).split(",")]
    resolved = tuple(_one_method(method) for method in methods)
    names = [method.name for method in resolved]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"Methods must be one or more with different names; got {names}.")
    return resolved


def _one_method(method: str | dict[str, str] | Method) -> Method:
    if isinstance(method, Method):
        return method
    if isinstance(method, dict) and {"name", "template"} <= method.keys() <= {"name", "template", "kind"}:
        return Method(**method)
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]
    raise ConfigError(
        f"Unknown method {method!r}. Built-in methods: {', '.join(METHODS)}. Presets: {', '.join(PRESETS)}. "
        "Own methods: hf_evol.Method(name, template), a mapping with name, template and optionally kind, or a file of "
        "those ending in .yaml."
    )


def _read_yaml(path: Path) -> list[str | dict[str, str]]:
    try:
        items = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the methods file {str(path)!r}: {error}") from error
    if not isinstance(items, list):
        raise ConfigError(f"The methods file {str(path)!r} must hold a list of names or of name/template mappings.")
    return items
