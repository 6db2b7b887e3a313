"""What is shown, and how replies are read."""

import pytest

from hf_evol.data.sources import load_seeds
from hf_evol.prompts.self_instruct import instruction_prompt
from hf_evol.reading.new_instruction import is_classification, read_instruction

SHOWN = ["Explain why rivers flow.", "List three facts about owls.", "What makes bread rise?"]


def test_the_shown_are_the_replies_before():
    hostile = ["Fill {instruction} in.", "Say <|im_end|> twice."]
    turns = instruction_prompt(hostile)
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 2, "user"]
    assert [turn["content"] for turn in turns if turn["role"] == "assistant"] == hostile


@pytest.mark.parametrize(
    ("reply", "text", "status"),
    [
        ("Describe how glass is made.", "Describe how glass is made.", "ok"),
        ('<think>One.</think>\nSure, here is a new task: "Describe how glass is made."', "Describe how glass is made.", "ok"),
        ("Task: Describe how glass is made.\n\nAnswer: From sand.", "Describe how glass is made.", "ok"),
        ("", None, "empty"),
        ("I'm sorry, but I can't help with that.", ..., "refusal"),
        ("Why?", ..., "too_short"),
        ("Explain" + " why the sea and the sky are so blue," * 20, ..., "too_long"),
        ("Make up tasks that can be answered in writing.", ..., "leak"),
        ("Tell a short story about a hero who is a hero.", ..., "broken"),
        ("Give a few tips for the best use of the best use of the sun.", ..., "broken"),
        ("What is the difference between a car and a car seat?", ..., "broken"),
        ("What is the difference between a pine tree and a palm tree?", ..., "ok"),
        ("The great outdoors of Canada.", ..., "not_instruction"),
        ("Dedicate a book to a famous artist.", ..., "not_instruction"),
        ("*** Describe the sea and the wind", ..., "not_instruction"),
        ("Rewrite the prompt in simpler terms.", ..., "chatter"),
        ("Summarize the given article in two sentences.", ..., "needs_input"),
        ("Correct the sentence so that it sounds polite.", ..., "needs_input"),
        ('Translate the following sentence into French: "The owl sleeps."', ..., "ok"),
        ("Describe the colours of the image in detail.", ..., "not_text"),
        ("Create a beautiful scarf for a charity fundraiser.", ..., "not_text"),
        ("Create a short quiz on the planets.", ..., "ok"),
        ("Offer a gift card to a local charity.", ..., "not_text"),
        ("Offer some advice on raising chickens.", ..., "ok"),
        ("Describe the most beautiful sunset you have ever seen.", ..., "personal"),
        ("Create a list of 100 words that describe the sea.", ..., "too_many"),
        ("Write a review of a movie.", ..., "needs_input"),
        ("Explain how to brew tea without boiling water.", ..., "negated"),
        ("Describe your favourite holiday.", ..., "personal"),
        ("How to bake bread without burning it.", ..., "not_instruction"),
        ("List five songs that are popular in your country.", ..., "personal"),
        ("Look at the picture.", ..., "not_text"),
        ("Generate an image of a sunset over the sea.", ..., "not_text"),
        ("Create a list of ten items that you cannot live without.", ..., "negated"),
        ("Explain the meaning of a given word.", ..., "needs_input"),
        ("Fix the bug in the given code.", ..., "needs_input"),
        ("How can you keep your bicycle from rusting?", ..., "ok"),
    ],
)  # fmt: skip
def test_statuses(reply, text, status):
    found = read_instruction(reply, SHOWN)
    assert found == (reply if text is ... else text, status)


@pytest.mark.parametrize(
    "text",
    [
        "Explain how a hash map works.",
        "What does a bar chart show?",
        "Explain how to take a sharp photo at night.",
        "Write a Python function that reads a file.",
        "Create a HTML form with two radio buttons.",
        "Write a Python function that takes two numbers and returns the sum of the two numbers.",
        "Write a function that checks whether a given number is prime.",
        "Given a string, write a function that returns its vowels.",
        "Flatten a nested list in Python without using recursion.",
        "Synthesize the main arguments for a shorter working week.",
        "Describe a sunset without using the word red.",
        "How can you clean a camera lens without scratching it?",
        "Explain the internet to someone who has never used a computer.",
        "Why can't penguins fly?",
        "How do you get rid of a stain on your clothes?",
        "In what ways is technology changing the way we learn?",
        "Explain what cross-validation is and why is it important?",
        "Draw a comparison between cats and dogs as pets.",
    ],
)
def test_subjects_that_only_look_like_faults(text):
    assert read_instruction(text, SHOWN) == (text, "ok")


def test_a_reply_without_end_is_cut_off():
    assert read_instruction("Describe how glass", SHOWN, "length") == ("Describe how glass", "cut_off")
    assert read_instruction("<think>Let me", SHOWN, "length") == (None, "cut_off")


def test_rules_of_english_leave_other_languages_alone():
    german = ["Erkläre, warum Flüsse fließen.", "Nenne drei Tiere im Wald.", "Schreibe ein Gedicht über das Meer."]
    chinese = ["写一首关于春天的诗。", "解释为什么天空是蓝色的。"]
    assert read_instruction("Beschreibe, wie Glas gemacht wird.", german)[1] == "ok"
    assert read_instruction("描述一下如何制作面包。", chinese)[1] == "ok"
    assert read_instruction("Beschreibe, wie Glas gemacht wird.", SHOWN)[1] == "not_instruction"


def test_bundled_instructions_are_good_ones():
    alone = [row["instruction"] for row in load_seeds("demo/general") if not row["input"]]
    assert [text for text in alone if read_instruction(text, SHOWN)[1] != "ok"] == []


def test_classifications():
    assert is_classification("Decide whether the tomato is a fruit.")
    assert is_classification("Is a tomato a fruit?")
    assert not is_classification("Explain why the tomato is a fruit.")
    assert not is_classification("Can you write a poem about tomatoes?")
