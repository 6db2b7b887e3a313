"""What code sees of a response's faults."""

import time

import pytest

from hf_evol.constraints.asked import breaks_condition, repeats_itself


def of_words(n):
    return " ".join(["word"] * n) + "."


def of_sentences(n):
    return " ".join(f"The sea of this part is {'very ' * place}wide." for place in range(n))


def of_paragraphs(n):
    return "\n\n".join([of_sentences(2)] * n)


def of_items(n):
    return "\n".join(f"{place}. A thing that is {place}" for place in range(1, n + 1))


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("Describe the sea in at most 20 words.", of_words(40)),
        ("What is the sea? Answer in at most 10 words, and put the most important point first.", of_words(25)),
        ("Describe the sea. Keep your answer to twenty words.", of_words(40)),
        ("Describe the sea. Use at most 20 words.", of_words(40)),
        ("Explain relativity in 100 words.", of_words(160)),
        ("Explain relativity in at least 100 words.", of_words(50)),
        ("Write a 100-word story about the sea.", of_words(40)),
        ("Write a poem of eight lines about the sea.", "The sea\nis wide."),
        ("Create a song with 10-15 lines.", "The sea\nis wide."),
        ("Describe the sea in two sentences.", of_sentences(5)),
        (
            "Describe the sea in three paragraphs of equal length, and put the most important point first.",
            of_paragraphs(7),
        ),
        ("List five fruits.", of_items(3)),
        ("Give me the top 5 fruits.", of_items(8)),
        ("List five fruits in simple words, and give a reason for each one.", of_items(3)),
        ("List three fruits, and finish with a question for the reader.", of_items(3)),
        ("Recommend three places. Show the result in a table with two columns.", of_items(3)),
    ],
)
def test_conditions_that_are_broken(instruction, response):
    assert breaks_condition(instruction, response)


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("Describe the sea in 40 words.", of_words(50)),  # near enough
        ("Describe the sea in two sentences.", of_sentences(3)),
        ("Describe the sea in two sentences.", "Dr. A. B. Lee saw it. " * 4),
        ("Describe the sea in two to three sentences.", of_sentences(4)),
        ("Describe the sea in one sentence, then explain each word.", of_sentences(5)),
        ("Is a whale a fish? Answer in one word, then explain why.", of_words(60)),
        ("Write an essay. Keep the introduction to two sentences.", of_sentences(9)),
        ("Describe the sea in two paragraphs.", f"# The sea\n\nA note\n\n{of_paragraphs(2)}\n\nYours\n\nTom"),
        ("Write a story with a title of five words.", of_words(90)),
        ("Summarize the following article of 250 words.", of_words(30)),
        ("Explain how to write an essay in five paragraphs.", of_words(300)),
        ("Give feedback on my essay of 300 words.", of_words(30)),
        ("Translate into French: Answer in two words.", of_words(30)),
        ('Improve the prompt "Answer in two words."', of_words(30)),
        ("Tom wrote an essay of 500 words. How long did he need at 20 words a minute?", "25 minutes."),
        ("Write a Python function that prints the first 5 words of a line.", of_words(40)),
        ("List three fruits.", of_items(3)),
        ("List three fruits and three nuts.", of_items(6)),
        ("List three pros and cons.", of_items(6)),
        ("List three fruits. Then describe your garden.", f"{of_items(3)}\n{of_items(4)}"),
        ("List three fruits.", "Pears, plums and figs."),
        ("List three fruits.", "**Pears**\n- sweet\n- green\n\n**Figs**\n- soft"),
        ("List three fruits.", f"{of_items(3)}\n\nSources:\n1. My garden"),
        ("List five letter words.", of_items(3)),
        ("Suggest 5 star hotels.", of_items(3)),
        ("List four or more fruits.", of_items(6)),
        ("Do not end with a question.", "Fine."),
        ("Explain why essays should not finish with a question.", "It is weak."),
        ("Describe the sea, and finish with a question.", "It is wide. Have you seen it?"),
        ("List three fruits. Show them in a table.", "| Fruit |\n| --- |\n| A pear |"),
        ("Explain how to present results in a table.", "Use rows."),
        ("Describe the sea in two sentences in Chinese.", "海很宽。天很高。很美。很大。很深。"),
        ("Beschreibe das Meer in zwei Sätzen.", of_sentences(9)),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_met_or_left_in_doubt(instruction, response):
    assert not breaks_condition(instruction, response)


@pytest.mark.parametrize(
    ("instruction", "response", "expected"),
    [
        ("List five habits.", "1. Sleep\n2. Eat well\n3. Sleep\n4. Sleep\n5. Sleep.", True),
        ("List five habits, with one hint for each of them.", "\n".join(["- Sleep well"] * 5), True),
        ("Describe the sea.", "The sea is very wide. " * 4, True),
        ("List five habits.", "1. Sleep\n2. Eat\n3. Sleep\n4. Eat\n5. Run", False),
        ("Describe the sea.", "The sea is very wide. " * 3, False),
        ("List five habits.", "\n".join(f"- Habit {n}\n  - good" for n in range(5)), False),
        ("Compare two phones.", "A:\n- 8 GB\n- cheap\n- new\n- red\n\nB:\n- 8 GB\n- cheap\n- new\n- red", False),
        ("List blood types.", "- A+\n- A-\n- B+\n- B-\n- AB+\n- AB-", False),
        ("Plan my week.", "\n".join(["- Rest", "- Run"] * 4), False),
        ("Classify these reviews.", "\n".join(["- good", "- bad"] * 4), False),
        ("Write a song about the sea.", "The sea is very wide. " * 9, False),
        ("Write a loop in Python code.", "```\nprint(1)\n```\n" + "It prints the number one. " * 5, False),
        ("List numbers.", "\n".join(["- 7"] * 9), False),
        ("Describe the sea.", "", False),
    ],
)  # fmt: skip
def test_repetition(instruction, response, expected):
    assert repeats_itself(instruction, response) is expected


def test_long_texts_take_no_longer():
    began = time.process_time()
    for text in (
        "in at most ",
        "write a ",
        "1. ",
        "- a\n",
        "list five ",
        "a, ",
        "\n",
        "\t",
        " ",
        "show a ",
        "list \xa0",
    ):
        long = text * (30_000 // len(text))
        breaks_condition("List five fruits in at most 10 words.", long)
        repeats_itself("Describe the sea.", long)
        breaks_condition(long[:5_000], long)
        repeats_itself(long[:5_000], long)
    assert time.process_time() - began < 10
