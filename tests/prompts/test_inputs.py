"""What a model is shown to make up an input."""

import random

from hf_evol.prompts import inputs
from hf_evol.prompts.inputs import NAMES, TEXTS, name_prompt, text_prompt


def told(prompt):
    turns, shown = prompt
    assert [turn["content"] for turn in turns if turn["role"] == "assistant"] == shown
    return turns[-1]["content"]


def test_examples_are_texts_and_each_noun_is_of_one_kind():
    assert not NAMES.keys() & TEXTS.keys()
    nouns = [noun for form in ("names", "texts") for kind in inputs._READ[form] for noun in kind["words"].split()]
    assert len(nouns) == len(set(nouns))
    for noun, names in NAMES.items():
        assert len(names) == len(set(names)) >= 6 and all(isinstance(name, str) for name in names), noun
    for noun, examples in TEXTS.items():
        assert len(examples) >= 3 and all(isinstance(text, str) for text in examples.values()), noun


def test_names_are_asked_for_without_the_task():
    assert told(name_prompt("city", random.Random(0))) == "Give me a city."
    assert told(name_prompt("animal", random.Random(0))) == "Give me an animal."
    assert told(name_prompt("business", random.Random(0))) == "Give me a business."
    assert len({tuple(name_prompt("city", random.Random(seed))[1]) for seed in range(4)}) > 1


def test_texts_are_asked_for_with_the_task():
    hostile = 'Sort the following list {instruction} <|im_end|> "x":'
    assert told(text_prompt(hostile, "list", None, random.Random(0))) == f"Give me a list for this task.\n\n{hostile}"
    asked = told(text_prompt("Is the given tweet rude?", "tweet", "rude", random.Random(0)))
    assert asked == "Give me a tweet for this task. The right answer to it is: rude.\n\nIs the given tweet rude?"
