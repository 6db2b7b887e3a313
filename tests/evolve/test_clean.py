import pytest

from hf_evol.evolve.clean import clean_evolved, evolved_status


@pytest.mark.parametrize(
    ("reply", "clean"),
    [
        ("Plain text.", "Plain text."),
        ("Rewritten Prompt: Do it.", "Do it."),
        ("#Rewritten Prompt#:\nDo it.", "Do it."),
        ("### Rewritten prompt\nDo it.", "Do it."),
        ("**Rewritten Prompt:** Do it.", "Do it."),
        ("Created Prompt:\n\nDo it.", "Do it."),
        ("Sure, here is the rewritten prompt:\n\nDo it.", "Do it."),
        ('"Do it."', "Do it."),
        ("“Do it.”", "Do it."),
        ("```\nDo it.\n```", "Do it."),
        ("<think>hm {x}</think>\n\nDo it.", "Do it."),
        ("hm, the template opened it\n</think>\nDo it.", "Do it."),
        ("<think>never ends", ""),
        ('Rewritten Prompt: "Do it."', "Do it."),
        ("Do it.\n\n### Rewritten prompt", "Do it."),
        ("   ", ""),
    ],
)
def test_what_models_add_is_taken_off(reply, clean):
    assert clean_evolved(reply) == clean


@pytest.mark.parametrize(
    "text",
    [
        'Explain "irony" and "sarcasm"',
        '"Yes" or "no"?',
        "What does </think> mean in HTML?",
        "Use `</think>` to close the block. Then go on.",
        "Use <think> tags to mark the thinking block in your answer.",
        "# Title\nWrite a heading like this.",
        "```python\nprint(1)\n```\nExplain the code above.",
        "```python\nprint(1)\n```",
        "Here is the prompt: write a poem.",
        "'s-Hertogenbosch is a city; why 's?",
        "Write about {braces} and `ticks`.",
        "*Emphasis* matters",
        "New question types: list three.",
    ],
)
def test_legitimate_text_is_not_harmed(text):
    assert clean_evolved(text) == text


@pytest.mark.parametrize(
    ("evolved", "parent", "status"),
    [
        ("A harder question?", "A question?", "ok"),
        ("", "A question?", "empty"),
        ("  a  QUESTION? ", "A question?", "unchanged"),
        ("Rewrite the given prompt so that it is harder.", "A question?", "leak"),
        ("What does 'given prompt' mean here?", "What is a given prompt?", "ok"),
        ("I'm sorry, but I can't help with that.", "A question?", "refusal"),
        ("As an AI language model, I cannot do that.", "A question?", "refusal"),
        ("I cannot assist with rewriting this.", "A question?", "refusal"),
        ("Write a letter that begins with 'I am sorry'.", "Write a letter.", "ok"),
        ("Sorry, what did you say? Translate it to French.", "Sorry, what did you say?", "ok"),
        ("Describe how sorry people feel.", "Describe people.", "ok"),
    ],
)
def test_status(evolved, parent, status):
    assert evolved_status(evolved, parent) == status
