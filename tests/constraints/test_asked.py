"""What code sees of a response's faults."""

import time

import pytest

from hf_evol.constraints.asked import breaks_condition, repeats_itself

WORDS = "word " * 40
SENTENCES = "The sea is wide. The sky is high. The sun is hot."
PARAGRAPHS = f"{SENTENCES}\n\n{SENTENCES}"
ITEMS = "1. A pear\n2. A plum\n3. A fig"


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("Describe the sea in at most 20 words.", WORDS),
        ("Describe the sea. Answer in no more than 20 words, and say which part is uncertain.", WORDS),
        ("Describe the sea. Keep it to twenty words or fewer.", WORDS),
        ("Describe the sea in at least 100 words.", WORDS),
        ("Describe the sea in 100 words.", WORDS),
        ("Write a 100-word story about the sea.", WORDS),
        ("Compose a poem of eight lines about the sea.", "The sea\nis wide"),
        ("Create a song with 10-15 lines.", "The sea\nis wide"),
        ("Describe the sea in two sentences.", SENTENCES),
        ("Describe the sea in three paragraphs of equal length, and put the most important point first.", PARAGRAPHS),
        ("Write a three-paragraph essay about the sea.", PARAGRAPHS),
        ("List five fruits.", ITEMS),
        ("Give me the top 5 fruits of Asia.", ITEMS),
        ("Provide a list of five fruits in simple words, and give a reason for each.", ITEMS),
        ("What should I eat? Answer in two numbered points.", ITEMS),
        ("List three fruits, and finish with a question for the reader.", ITEMS),
        ("List three fruits, and show them in a table with two columns.", ITEMS),
    ],
)
def test_conditions_that_are_broken(instruction, response):
    assert breaks_condition(instruction, response)


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("Describe the sea in at most 40 words.", WORDS),
        ("Describe the sea in about 50 words.", WORDS),
        ("Describe the sea in three sentences.", SENTENCES),
        ("Describe the sea in two paragraphs.", f"# The sea\n\n{PARAGRAPHS}"),
        ("Write a poem of two lines.", "**The sea**\n\nThe sea is wide,\nthe sky is high."),
        ("List three fruits.", ITEMS),
        ("List three fruits and three nuts.", ITEMS),
        ("List three pros and cons.", f"{ITEMS}\n{ITEMS}"),
        ("List three fruits.", "Pears, plums and figs."),  # whose items code can't count
        ("Describe the sea, with one sentence for each season.", SENTENCES),
        ("Describe the sea, and finish with a conclusion of one sentence.", SENTENCES),
        ("Describe the sea in one sentence, and explain why it is salty.", SENTENCES),
        ("Describe the sea in one sentence and the sky in two sentences.", SENTENCES),
        ("Describe the sea. Use no more than 20 words in any sentence.", WORDS),
        ("Write a story with a title of five words.", WORDS),
        ("Generate a list of ten words.", "1. sea\n2. sky"),
        ("Use five words from the list in a story.", WORDS),
        ("Write a Python function that prints the first 5 words of a line.", WORDS),
        ("Tom wrote an essay of 500 words. How long did he need at 20 words a minute?", "25 minutes."),
        ("Name one fruit.", ITEMS),
        ("Describe the sea, and finish with a question.", "It is wide. Have you seen it?"),
        ("Beschreibe das Meer in zwei Sätzen.", SENTENCES),
        ("List three fruits in a table.", "| Fruit |\n| --- |\n| A pear |"),
        ("Write a table of contents for a book about the sea.", ITEMS),
        ("", ""),
    ],
)
def test_what_is_met_or_left_in_doubt(instruction, response):
    assert not breaks_condition(instruction, response)


@pytest.mark.parametrize(
    ("instruction", "response", "expected"),
    [
        ("List five habits.", "1. Sleep well\n2. Eat well\n3. Sleep well.", True),
        ("List five habits.", "- Sleep well\n  - long\n- Eat well\n  - long", False),
        ("Plan my week.", "- Rest\n- Run\n- Rest", False),
        ("Describe the sea.", "The sea is very wide. " * 3, True),
        ("Describe the sea.", "The sea is very wide. " * 2, False),
        ("Write a song about the sea.", "The sea is very wide. " * 3, False),
        ("Write a list of numbers.", "1. 7\n2. 7", False),
        ("Write a loop in Python code.", "```\nprint(1)\nprint(1)\n```", False),
        ("Describe the sea.", "", False),
    ],
)
def test_repetition(instruction, response, expected):
    assert repeats_itself(instruction, response) is expected


def test_long_texts_take_no_longer():
    began = time.process_time()
    for text in (
        "in at most " * 3000,
        "write a " * 3000,
        "1. " * 9000,
        "- a\n" * 9000,
        "list five " * 3000,
        "a, " * 5000,
    ):
        breaks_condition(text, text)
        repeats_itself(text, text)
    assert time.process_time() - began < 10
