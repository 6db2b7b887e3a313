"""What a model is shown to make up an input."""

import random

import pytest

from hf_evol.prompts import inputs
from hf_evol.prompts.inputs import LABELLED, NAME, TEXT, input_prompt, labels, wanted


def test_examples_are_what_their_tasks_want():
    for noun, examples in inputs._TEXTS.items():
        assert len(examples) >= 3 and not {None} & set(examples.values()), noun
        for task in examples:
            found = wanted(task)
            assert found is not None and found.form == TEXT, task
            assert inputs._TEXTS[inputs._known(found.noun)] is examples, task
    for noun, names in inputs._NAMES.items():
        assert len(names) == len(set(names)) >= 6 and all(isinstance(name, str) for name in names), noun
    for task, label, text in inputs._READ["labelled"]:
        assert wanted(task).form == LABELLED and label in labels(task) and isinstance(text, str)


@pytest.mark.parametrize(
    ("instruction", "noun", "form"),
    [
        ("Compose a short speech for the given business:", "business", NAME),
        ("List the top 5 benefits of using a certain product.", "product", NAME),
        ("Write a story using the provided information as guidance.", "information", TEXT),
        ("Correct the sentence so that it sounds polite.", "sentence", TEXT),
        ("Find the mistake in the code below.", "code", TEXT),
        ("Summarize the article.", "article", TEXT),
        ("Say whether the given animal is wild or tame.", "animal", LABELLED),
    ],
)
def test_what_is_wanted(instruction, noun, form):
    assert wanted(instruction) == (noun, form)


@pytest.mark.parametrize(
    "instruction",
    [
        "Compare the given two cities.",  # more than one
        "Describe the given painting.",  # no example is of that kind
        "List the adjectives used for the following painting.",  # and nothing else is taken for it
        "Describe a certain product that cleans itself.",  # not any one
        "Beschreibe das folgende Tier.",
    ],
)
def test_what_no_example_is_for(instruction):
    assert wanted(instruction) is None


def test_labels():
    assert labels("Classify the review as good, fair or bad.") == ["good", "fair", "bad"]
    assert labels("Decide whether it is a fruit or a vegetable?") == ["fruit", "vegetable"]
    assert labels("Write about cats or dogs in one page.") == []


def test_prompts():
    hostile = 'Sort the following list {instruction} <|im_end|> "x":'
    turns, shown = input_prompt(hostile, wanted(hostile), random.Random(0))
    assert (
        turns[-1]["content"].endswith(hostile)
        and [turn["content"] for turn in turns if turn["role"] == "assistant"] == shown
    )
    turns, shown = input_prompt("Write a poem on this city.", wanted("Write a poem on this city."), random.Random(0))
    assert turns[-1]["content"] == "Give me a city." and len(shown) == 6
    assert (
        input_prompt("Write a poem on this city.", wanted("Write a poem on this city."), random.Random(1))[1] != shown
    )
    asked = "Classify the given tweet as rude or polite."
    told = {input_prompt(asked, wanted(asked), random.Random(seed))[0][-1]["content"] for seed in range(8)}
    assert {text.partition("\n\n")[0] for text in told} == {
        f"Give me a tweet for this task. The right answer to it is: {answer}." for answer in ("rude", "polite")
    }
