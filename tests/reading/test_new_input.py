"""What an instruction needs as its input, and how replies that hold one are read."""

import time

import pytest

from hf_evol.prompts import inputs
from hf_evol.prompts.inputs import NAMES, TEXTS
from hf_evol.reading.new_input import Wanted, labels, read_input, wanted

TASK, SHOWN = (
    "Write a slogan for the given product.",
    ["A solar lamp for the garden", "A folding desk", "A quiet hair dryer"],
)
PRODUCT = Wanted("product", True, [])


def test_examples_are_what_their_tasks_want_and_good_inputs():
    for noun, examples in TEXTS.items():
        for task, text in examples.items():
            found = wanted(task)
            assert found is not None and not found.answers and TEXTS[found.noun] is examples, (noun, task)
            others = [other for other in examples.values() if other != text]
            assert read_input(text, task, found, None, others) == (text, "ok")
    for noun, task, label, text in inputs._READ["labelled"]:
        assert wanted(task).noun == noun and label in labels(task)
        assert (
            read_input(text, task, wanted(task), label, ["Something else, of as many words as it takes to be long."])[1]
            == "ok"
        )
    for noun, names in NAMES.items():
        task = f"Tell me more about the given {noun}."
        assert wanted(task) == Wanted(noun, True, [])
        for name in names:
            assert read_input(name, "Tell me more.", wanted(task), None, ["A few words that are not in it at all"]) == (
                name,
                "ok",
            )


@pytest.mark.parametrize(
    ("instruction", "noun", "is_name"),
    [
        ("Compose a short speech for the given business:", "business", True),
        ("List the top 5 benefits of using a certain product.", "product", True),
        ("Describe the following animal in three sentences.", "animal", True),
        ("Explain this concept to a child.", "concept", True),
        ("Write a story using the provided information as guidance.", "information", False),
        ("Correct the sentence so that it sounds polite.", "sentence", False),
        ("Find the mistake in the code below.", "code", False),
        ("Summarize the article.", "article", False),
        ("Check whether the following sentence contains adjectives.", "sentence", False),
        ("Describe the given scene using adjectives.", "scene", False),
        ("Explain the given short news article.", "article", False),
    ],
)  # fmt: skip
def test_what_is_wanted(instruction, noun, is_name):
    assert wanted(instruction) == Wanted(noun, is_name, [])


@pytest.mark.parametrize(
    "instruction",
    [
        "Compare the given two cities.",
        "Advertise the two given products.",
        "Explain how the given topics are connected.",
        "Write a story with the given character and setting.",
        "Given a product and an audience, write an advertisement.",
        "Count how often a certain word appears in the given text.",
        "Find the given word in the following paragraph.",
        "Describe the given painting.",
        "List the adjectives used for the following painting.",
        "Describe a certain product that cleans itself.",
        "Write a travel guide to the given city in Germany.",
        "Write a plan for the given business idea.",
        "Write a plan for the given software company.",
        "Convert the given binary number to decimal.",
        "Translate the given French word into English.",
        "Beschreibe das folgende Tier.",
        "",
    ],
)
def test_what_no_example_is_for(instruction):
    assert wanted(instruction) is None


@pytest.mark.parametrize(
    ("instruction", "answers"),
    [
        ("Classify the review as good, fair or bad.", ["good", "fair", "bad"]),
        ("Decide whether it is a fruit or a vegetable?", ["fruit", "vegetable"]),
        ("Classify the given review as either positive or negative.", ["positive", "negative"]),
        ("Classify the given text as spam or not.", ["spam", "not spam"]),
        ("Decide whether the text is about sports, politics, or music.", ["sports", "politics", "music"]),
        ("Write about cats or dogs in one page.", []),
        ("Turn the given text into a poem or song.", []),
        ("Rewrite the given text so that it is shorter or clearer.", []),
        ("Classify it as one that nobody would ever read or as another one.", []),
    ],
)
def test_labels(instruction, answers):
    assert labels(instruction) == answers


def test_long_lists_take_no_longer():
    began = time.process_time()
    labels("Classify the given animal as " + "a dog, a cat, " * 2000 + "and give a reason or two for it.")
    wanted("Describe the given " * 2000 + "thing.")
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("reply", "text", "status"),
    [
        ("An umbrella with two handles", "An umbrella with two handles", "ok"),
        ('<think>Hm.</think>\n"An umbrella with two handles"', "An umbrella with two handles", "ok"),
        ("The product is: An umbrella", "An umbrella", "ok"),
        ("**Product:** An umbrella", "An umbrella", "ok"),
        ("Input: An umbrella", "An umbrella", "ok"),
        ('Product: "An umbrella"', "An umbrella", "ok"),
        ("Sure, here is one: An umbrella", "An umbrella", "ok"),
        ("Ein Regenschirm", "Ein Regenschirm", "ok"),
        ("", None, "empty"),
        ("I'm sorry, but I can't help with that.", ..., "refusal"),
        ("An umbrella that opens by itself as soon as it hears the rain", ..., "too_long"),
        ("x" * 5000, ..., "too_long"),
        ("[Insert product name]", ..., "placeholder"),
        ("An umbrella (insert brand)", ..., "placeholder"),
        ("<link>", ..., "placeholder"),
        ("no input", ..., "placeholder"),
        ("___", ..., "not_name"),
        ("An umbrella\n\nSlogan: Stay dry!", ..., "not_name"),
        ("A chair, a chair, a chair", ..., "broken"),
        ("A slogan", ..., "repeats"),
        ("A folding desk", ..., "copied"),
        ("A solar lamp", ..., "copied"),
    ],
)  # fmt: skip
def test_names(reply, text, status):
    assert read_input(reply, TASK, PRODUCT, None, SHOWN) == (reply if text is ... else text, status)


@pytest.mark.parametrize(
    ("task", "reply", "status"),
    [
        ("Explain the given function.", "def my_func(x, y):\n    return x * y\n\nmy_func(2, 3)", "ok"),
        ("Explain the given code.", "vector<int> v;\nif (a < 3 and b > 4) {}", "ok"),
        ("Explain the given code.", "print(sum([1, 2]))\n# Output\n# 3", "ok"),
        (
            "Summarize the given message.",
            "Sorry, I can't make it to the meeting on Friday.\n\nNote: bring your laptop.",
            "ok",
        ),
        ("Continue the dialogue below.", "Ann: I lost my key.\nBen: Where?\nAnn: At home.", "ok"),
        ("Summarize the given text.", "The text is not given. Please share it.", "placeholder"),
        ("Summarize the given text.", "Summarize the given text. It is short.", "repeats"),
        ("Summarize the given text.", "As an AI, I have no text.", "refusal"),
    ],
)
def test_texts_keep_what_is_theirs(task, reply, status):
    shown = [
        "One text of many words, which stands here as an example so that others may have as many words as they like, or more."
    ]
    assert read_input(reply, task, wanted(task), None, shown) == (reply, status)


def test_the_answer_is_not_given_away():
    task = "Classify the given review as positive or negative."
    shown = ["The soup was cold, and we waited an hour for it, so we went home hungry."]
    assert read_input("I like it. (positive)", task, wanted(task), "positive", shown)[1] == "answered"
    assert read_input("I like it.", task, wanted(task), "positive", shown)[1] == "ok"


def test_a_reply_without_end_is_cut_off():
    assert read_input("An umbrella", TASK, PRODUCT, None, SHOWN, "length") == ("An umbrella", "cut_off")
    assert read_input("<think>An", TASK, PRODUCT, None, SHOWN, "length") == (None, "cut_off")
