"""The words that the embedded model was trained on; its chat template says the package's prompts in them."""

from __future__ import annotations

from hf_evol.prompts.template import Template

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

TRAINED_ON: dict[str, Template] = {
    name: Template(Template(_IN_DEPTH, ("how", "instruction")).fill(how=how, instruction="{instruction}"))
    for name, how in _HOW.items()
} | {"breadth": Template(_IN_BREADTH)}

RESPOND_WITH_INPUT = Template(
    "Give a comprehensive and accurate response to the instruction.\n\nInstruction: {instruction}\n\nInput: {input}",
    ("instruction", "input"),
)
