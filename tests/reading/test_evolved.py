import string
from copy import deepcopy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hf_evol
from hf_evol.prompts.evol_instruct import METHODS
from hf_evol.reading.evolved import read_evolved
from hf_evol.reading.faults import is_refusal
from hf_evol.reading.forms import is_instruction

STATUSES = {
    "ok", "empty", "refusal", "cut_off", "unchanged", "broken", "leak", "chatter", "answered", "not_instruction",
    "off_topic", "near_copy",
}  # fmt: skip

PARENT = "Describe a lighthouse."
BETTER = "Describe a lighthouse on the coast of Norway as its last keeper sees it during a winter storm."
STORY = "Write a letter to a neighbour."
SUM = "A baker bakes 24 loaves in the morning and 15 loaves in the afternoon. How many loaves does she bake in a week?"
SOLD = SUM.replace(" How", " On Sundays she sleeps, and no bread is baked. How")
CODE = "Write a Python function that counts the vowels in a string."


def read(reply, parent=PARENT, method="constraint", **options):
    prompt = METHODS[method].prompt(parent)
    return read_evolved(reply, parent=parent, prompt=prompt, method=method, **options)


def status(reply, parent=PARENT, method="constraint", **options):
    return read(reply, parent, method, **options)[1]


def test_the_name_is_public():
    assert hf_evol.read_evolved is read_evolved


# What is taken off.


@pytest.mark.parametrize(
    "lead",
    [
        "Prompt: ", "Prompt:\n", "Task: ", "Instruction:\n\n", "Rewritten prompt: ", "Revised prompt: ", "New task:\n",
        "#Rewritten Prompt#:\n", "### Rewritten prompt\n", "## Harder Task\n\n", "**Rewritten Prompt:** ",
        "**Rewritten Prompt**\n", "__Revised task__: ", "Created Prompt:\n\n", "> Rewritten task: ", "A harder version:\n",
        "Sure, here is the rewritten prompt: ", "Sure, here's the rewritten prompt:\n\n", "Here’s a harder version of the task:\n",
        "Certainly! Here is a more difficult version of your prompt:\n\n", "Sure! I can help with that.\n\n",
        "Here is the rewritten task with one more condition that the answer has to meet:\n",
        "Sure!\n\nHere is the rewritten prompt:\n\n", "Of course.\n\n**Rewritten prompt:**\n", "Sure, here it is.\n\nPrompt: ",
        "Okay, here is one:\n\n### Prompt\n\nTask: ",
    ],
)  # fmt: skip
def test_leads_labels_and_headings_are_taken_off(lead):
    assert read(lead + BETTER) == (BETTER, "ok")


@pytest.mark.parametrize(
    ("before", "after"),
    [('"', '"'), ("'", "'"), ("“", "”"), ("«", "»"), ("`", "`"), ("‘", "’"), ("„", "“"), ("「", "」"), ("**", "**"), ("__", "__"),
     ("```\n", "\n```"), ("```text\n", "\n```"), ("```markdown\n", "\n```"), ('Rewritten prompt: "', '"'),
     ('**Rewritten prompt:** "', '"'), ('Sure, here it is:\n\n```\nPrompt: "', '"\n```'), ("  \n", "\n\n ")],
)  # fmt: skip
def test_quotes_and_fences_around_the_whole_are_taken_off(before, after):
    assert read(before + BETTER + after) == (BETTER, "ok")


@pytest.mark.parametrize(
    "end",
    [
        "\n\n### Explanation\nThe storm makes it harder.", "\n\n**Explanation:** The keeper's view is new.", "\n\nExplanation:\nNew.",
        "\n\nNote: I added a country and a season.", "\n\n(Note: this one is harder.)", "\n(Note: this one is harder.)",
        "\n\n### Answer\nThe lighthouse stands on a rock.", "\nAnswer: The lighthouse stands on a rock.",
        "\n\n## Solution\n\nThe lighthouse stands.", "\n\nExpected output: a text.", "\n\nChanges made:\n- the country", "\n\n---\n\nHint: cold.",
        "\n\nI added a country and a season to make it harder.", "\n\nI hope that this helps!", "\n\nLet me know if it should be shorter.",
        "\n\nThis prompt requires the reader to picture a place.", "\n\nIn this version the task is harder.",
        "\n\nBy adding a country, the task becomes harder.", "\n\nFeel free to ask for more.",
        "\n\n### Rewritten prompt", "\n\n### Second prompt\nDescribe a mill.", "\n\n**Alternative version**\nDescribe a mill.",
        "\n\n### Explanation\nNew.\n\n### Answer\nIt stands.", "\n\n### Response:\nIt stands.",
    ],
)  # fmt: skip
def test_remarks_and_answers_behind_are_taken_off(end):
    assert read(BETTER + end) == (BETTER, "ok")


@pytest.mark.parametrize(
    "block",
    [
        "<think>What could be harder? {x}</think>\n\n", "<think>\nPrompt: not this.\n</think>", "<thinking>hm</thinking>\n",
        "<thought>\nhm\n</thought>\n", "<reasoning>hm</reasoning>", "<seed:think>hm</seed:think>", "<seed:thinking>hm</seed:thinking>\n",
        "[THINK]hm[/THINK]", "<|begin_of_thought|>hm<|end_of_thought|>\n", "The chat template opened this\n</think>\n",
        "hm\n[/THINK]\n", "hm\n</thought>\n", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|channel|>final<|message|>", "analysisThe user wants a harder one.assistantfinal",
        "<think>hm</think>\nSure, here is the rewritten prompt:\n\n",
    ],
)  # fmt: skip
def test_reasoning_is_taken_off(block):
    assert read(block + BETTER) == (BETTER, "ok")


@pytest.mark.parametrize("mark", ["- ", "* ", "• ", "1. ", "1) "])
def test_the_mark_of_a_list_of_one_is_taken_off(mark):
    assert read(mark + BETTER) == (BETTER, "ok")
    two = f"{mark}{BETTER}\n{mark}Name two of its keepers."
    assert read(two)[0] == two and read(f"{mark}{BETTER}", f"{mark}{PARENT}")[0] == f"{mark}{BETTER}"


def test_all_at_once():
    reply = f'<think>hm</think>Sure!\n\nHere is the rewritten prompt:\n\n### Prompt\n\n"{BETTER}"\n\n### Explanation\nNew.\n\n### Answer\nNo.'
    assert read(reply) == (BETTER, "ok")


@pytest.mark.parametrize(
    ("reply", "parent"),
    [
        ("Prompt: describe a robot that paints portraits of sailors in Lisbon.", "Prompt: describe a robot."),
        ("Question: Why do two of the three moons of a planet like Mars shine?", "Question: Why do moons shine?"),
        ('"Salt" or "brass": which word came from Norse sailors, and what did monks call it?', '"Salt" or "brass": which word is older?'),
        ("Here is the task: write a poem about trains in which a conductor loses a silver whistle.", "Here is the task: write a poem about trains."),
        ("Explain the word.\n\nNote: use German examples only, and compare two dialects.", "Explain the word.\n\nNote: use German."),
        ("Solve the riddle about clocks and candles in rhyme.\n\nAnswer:", "Solve the riddle about clocks.\n\nAnswer:"),
        ("# Title\nWrite a heading like this for a report about glaciers in Chile.", "# Title\nWrite a heading like this."),
        ("```python\nprint(1)\n```\nExplain the code above to a child who has never seen a computer.", "```python\nprint(1)\n```\nExplain the code above."),
        ("What does </think> mean in HTML, and which two browsers complain about it?", "What does </think> mean in HTML?"),
        ("Use <think> tags to mark the thinking in your answer about comets, and none for tides.", "Use <think> tags to mark the thinking in your answer."),
        ("*Emphasis* matters: explain why printers in Venice invented *italics*.", "*Emphasis* matters: explain why."),
        ("'s-Hertogenbosch is a city: name two of its painters and a canal.", "'s-Hertogenbosch is a city: name its painters."),
        ("Describe how the phrase 'given prompt' sounds to a sailor from Malta who dislikes paper.", "Describe how the phrase 'given prompt' sounds."),
        ("I'm sorry for my dog: write a card to the postman in Dublin whom it bit.", "I'm sorry for my dog: write a card."),
    ],
)  # fmt: skip
def test_what_the_parent_has_stays(reply, parent):
    assert read(reply, parent) == (reply, "ok")


@pytest.mark.parametrize(
    "reply",
    [
        'Describe a lighthouse with the words "salt" and "brass" in the voice of a sailor.',
        "Describe a lighthouse in this form:\n- name: {name}\n- height: metres\n- `lamp`: its colour",
        "Given a map of Norway, describe a lighthouse that no ship can see from the south.",
        "Describe a lighthouse: compare its foghorn with the bell of a church in Bergen.",
        "Describe a lighthouse.\n\nName its keeper, the oldest ship near it, and the rocks around it.",
    ],
)
def test_the_text_inside_is_not_changed(reply):
    assert read(reply) == (reply, "ok")


# What is wrong with it.


@pytest.mark.parametrize(
    ("parent", "reply", "text"),
    [
        ("List rivers.", "name three rivers of Asia.", "Name three rivers of Asia."),
        ("Why is it cold?", "what makes it so cold in May?", "What makes it so cold in May?"),
        ("list rivers", "name three rivers of Asia", "name three rivers of Asia"),  # as its parent does
        ("Print x.", "print(x) and explain it.", "print(x) and explain it."),
        ("List phones.", "iPhone models: list five.", "iPhone models: list five."),
    ],
)
def test_a_small_first_letter(parent, reply, text):
    assert read_evolved(reply, parent=parent, prompt=[{"role": "user", "content": parent}])[0] == text


@pytest.mark.parametrize(
    ("reply", "said"),
    [("", "empty"), ("  \n", "empty"), ("<think>hm</think>", "empty"), ("<think>never ends", "empty"), ("<thought>never ends", "empty"),
     ("<|channel|>analysis<|message|>hm", "empty")],
)  # fmt: skip
def test_no_text(reply, said):
    assert read(reply) == (None, said)


def test_cut_off():
    assert read("Describe a lighthouse on the coast of", finish_reason="length") == (
        "Describe a lighthouse on the coast of", "cut_off",
    )  # fmt: skip
    assert read("<think>never ends", finish_reason="length") == (None, "cut_off")
    assert read("", finish_reason="length") == (None, "empty")
    assert status(BETTER, finish_reason="length") == "cut_off"


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that.", "I’m very sorry, I won't do it.", "Sorry, I can't do that.", "I apologize, but no.",
        "As an AI language model, I have no lighthouse.", "I cannot assist with rewriting this.", "I can't help with that request.",
        "I am unable to provide a harder version.", "Unfortunately, I can not rewrite this.",
    ],
)  # fmt: skip
def test_refusals(reply):
    assert status(reply) == "refusal" and is_refusal(reply)


@pytest.mark.parametrize(
    "text", ["Describe how sorry people feel.", "Write 'I am sorry' in six languages.", "Can I help?", ""]
)
def test_texts_about_regret_are_no_refusals(text):
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "reply", [PARENT, "describe a  LIGHTHOUSE", "Describe a lighthouse!", f'Rewritten prompt: "{PARENT}"']
)
def test_unchanged(reply):
    assert status(reply) == "unchanged"


@pytest.mark.parametrize(
    ("reply", "parent"),
    [
        ("Describe a lighthouse on on on on the coast.", PARENT),
        ("Describe a lighthouse near the cold sea of Norway and near the cold sea of Norway.", PARENT),
        ("Describe a lighthouse, a blue lighthouse, a red lighthouse and a green lighthouse with a lamp.", PARENT),
        (SUM.replace("24 loaves", "24 loaves and 24 rolls"), SUM),
        ("Describe a lighthouse that guards fog, wind, and wind near Bergen.", PARENT),
        ("Describe a lighthouse whose grey keeper near Bergen meets another grey keeper.", PARENT),
        (f"{CODE[:-1]} with a loop, and explain why it is quicker than a Python function that counts vowels.", CODE),
        ("Describe a lighthouse that is seen by gulls near Bergen, and that is seen by ships.", PARENT),
        ("Describe a lighthouse through its history, from the oldest lamp to the oldest lamp.", PARENT),
        ("Describe a lighthouse near Bergen and its keepers, and what they matter most.", PARENT),
        ("Describe a lighthouse and a lamp and a rock and a lamp and a gull and a rock and a wave and a gull.", PARENT),
    ],
)  # fmt: skip
def test_broken(reply, parent):
    assert status(reply, parent) == "broken"


HUNDRED = "Describe a lighthouse in 100 words."
PUPILS = "Describe a lighthouse to a class of young pupils."
TABLE = "Describe a lighthouse in a table."
EXAMPLES = "Describe a lighthouse with two examples."
VERSE = "Write a short verse about a lighthouse."


@pytest.mark.parametrize(
    ("reply", "parent", "right"),
    [
        ("Describe a lighthouse and its keeper, and explain which one of them is older.", PARENT, "broken"),
        ("Describe a lighthouse, and explain step by step which of the two is brighter.", PARENT, "broken"),
        ("Describe a lighthouse and a buoy, compare them, and explain which of the two is brighter.", PARENT, "ok"),
        ("Describe the parts of a lighthouse, and give a reason for each place.", PARENT, "broken"),
        ("Describe the parts of a lighthouse in at most 10 words, with one hint for each of them.", PARENT, "broken"),
        ("List three lamps in at most 9 words, with a hint for each.", "List three lamps in at most 9 words.", "broken"),
        ("Describe the parts of a lighthouse, rank them by their use, and give a reason for each place.", PARENT, "ok"),
        ("Describe a lighthouse near Bergen, and explain the change in one short sentence.", PARENT, "broken"),
        ("Change the lighthouse in the given text, and explain each change to its keeper.", "Change the lighthouse in the given text.", "ok"),
        (f"{HUNDRED} Use at most 150 words, and name its keeper.", HUNDRED, "broken"),
        (f"{HUNDRED} Name its keeper, and finish with a summary in ten words.", HUNDRED, "ok"),
        (f"{PUPILS} Write it for a group of old sailors near Bergen.", PUPILS, "broken"),
        (f"{PUPILS} Write it for a poster in a busy harbour near Bergen.", PUPILS, "broken"),
        (f"{TABLE} Name its keepers since 1900, and show their years in a table.", TABLE, "broken"),
        (f"{TABLE} Name its keepers since 1900, and say why it was built.", TABLE, "ok"),
        (f"{PUPILS} Name two of its keepers and a ship that it saved.", PUPILS, "ok"),
        (f"{EXAMPLES} Write it for old sailors, with one example from Bergen.", EXAMPLES, "broken"),
        ("Write a short verse about a lighthouse, in three verses that rhyme, for sailors.", VERSE, "broken"),
        ("Write a short verse about a lighthouse near Bergen, and let old sailors sing it.", VERSE, "ok"),
        ("What is it? Name the lighthouse that stands near Bergen.", PARENT, "broken"),
        ("Draw a map, and end with a conclusion about Bergen.", "Describe how to draw a map.", "off_topic"),
        ("Describe how to light a lamp on the coast near Bergen in a storm.", "Describe how to light a lamp.", "ok"),
    ],
)  # fmt: skip
def test_what_was_added_fits_what_is_there(reply, parent, right):
    assert status(reply, parent) == right


def test_repetition_of_the_parents_own_is_not_broken():
    parent = "Repeat the line 'row, row, row, row your boat' in French."
    reply = "Repeat the line 'row, row, row, row your boat' in French, and explain each verb to a sailor from Malta."
    assert status(reply, parent) == "ok"


@pytest.mark.parametrize("name", METHODS)
def test_an_example_of_the_prompt_is_found_out(name):
    turns = METHODS[name].prompt(PARENT)
    shown = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert shown
    for text in shown:
        assert status(text, method=name) in ("leak", "off_topic")


@pytest.mark.parametrize(
    "reply",
    [
        "Describe a lighthouse, with one more condition that the answer has to meet.",
        "Describe a lighthouse. It stays reasonable, and people can understand and answer it.",
        "Describe a lighthouse in 10 to 20 more words, and with nothing else.",
        "The original task was simple, so the storm near Bergen came in.",
        "Describe a lighthouse that meets one more condition.",
    ],
)
def test_words_of_the_prompt_are_a_leak(reply):
    assert status(reply) == "leak"


def test_what_fits_any_instruction_is_no_leak():
    """A small model adds what it has just seen added; only words of the example's own subject give that away."""
    turns = [
        {"role": "user", "content": "Explain how a loom works."},
        {
            "role": "assistant",
            "content": "Explain how a loom works in at most 90 words, and give two examples from everyday life of weavers.",
        },
        {"role": "user", "content": PARENT},
    ]
    fits = "Describe a lighthouse in at most 90 words, and give two examples from everyday life."
    assert read_evolved(fits, parent=PARENT, prompt=turns) == (fits, "ok")
    for subject in ("of weavers.", "at a loom."):
        assert read_evolved(f"{fits[:-1]} {subject}", parent=PARENT, prompt=turns)[1] == "leak"


def test_words_of_ones_own_prompt_are_a_leak():
    turns = [
        {"role": "system", "content": "Add purple elephants."},
        {"role": "user", "content": "Sing a song."},
        {"role": "assistant", "content": "Sing a song about old violins."},
        {"role": "user", "content": f"Now this: {PARENT}"},
    ]
    for reply in (
        "Describe a lighthouse with purple elephants.",
        "Describe a lighthouse in a song for gulls near Bergen.",
    ):
        assert read_evolved(reply, parent=PARENT, prompt=turns)[1] == "leak"
    assert read_evolved(BETTER, parent=PARENT, prompt=turns)[1] == "ok"
    own = "Describe purple elephants and old violins."
    asked = [*turns[:-1], {"role": "user", "content": f"Now this: {own}"}]
    reply = "Describe purple elephants and old violins as a museum guard in Vienna hears and sees them at night."
    assert read_evolved(reply, parent=own, prompt=asked)[1] == "ok"


@pytest.mark.parametrize(
    "reply",
    [
        "This problem is about a lighthouse and its keeper in a winter storm.",
        "Please provide the text about the lighthouse that I should work on.",
        "I think a lighthouse near Bergen with an old keeper is more interesting.",
        "Let's look at a lighthouse near Bergen in the winter storm.",
        "In this task, we'll describe a lighthouse near Bergen in the winter storm.",
        "How can I help with the lighthouse near Bergen and its storm?",
        "I'll make it harder with a storm near Bergen and an old keeper.",
        "Ask for a lighthouse near Bergen, and ask for two of its keepers.",
        "- ask for a lighthouse near Bergen, and for a short summary at the end.",
    ],
)
def test_chatter(reply):
    assert status(reply) == "chatter"


@pytest.mark.parametrize(
    ("reply", "parent"),
    [
        ("A lighthouse is a tall tower with a lamp. Describe is what sailors do.", PARENT),
        ("The vowels in a string are counted with a loop over its characters.", CODE),
        ("```python\ndef vowels(text):\n    return sum(c in 'aeiou' for c in text)\n```", CODE),
        (CODE + "\n\n```python\ndef vowels(text):\n    return sum(c in 'aeiou' for c in text)\n```", CODE),
        (SUM + " She bakes 39 * 7 = 273 loaves.", SUM),
        (SUM + " The answer is 273.", SUM),
        ("Name three gulls of Norway: Herring gull, kittiwake and great skua.", "Name three gulls of Norway."),
        ("Describe a lighthouse near Bergen, which is a tall tower with a bright lamp.", PARENT),
        ("List the benefits of sailing, including fresh air, strong arms, and calm nights.", "List the benefits of sailing."),
        ("Three ways to save water: 1. Use a bucket, 2. Fix the taps, 3. Reduce baths.", "List three ways to save water."),
        ("Three ways to save water:\n1. Use a bucket.\n2. Fix the taps.", "List three ways to save water."),
        ("How a lighthouse works: a lamp behind a lens turns above the coast.", "How does the lamp of a lighthouse work?"),
        ("The lighthouse is a tower with a lamp. Describe a lighthouse near Bergen.", PARENT),
        (
            "The old lighthouse that stands on the rocks near Bergen is called Marstein. Describe it in three sentences.",
            "Describe the old lighthouse that stands on the rocks near Bergen.",
        ),
        ("Dear keeper, your lamp has been dark since the storm. I need your help.", "Write a letter about a dark lamp to its keeper."),
        ("To count the loaves of a week, you add the numbers of each day.", "How do I count the loaves of a week?"),
        (PARENT + " Its white walls rise over black rocks. A lamp turns in the fog above them.", PARENT),
    ],
)  # fmt: skip
def test_answered(reply, parent):
    assert status(reply, parent) == "answered"


@pytest.mark.parametrize("reply", ["Waves beat against black rocks.", "A quiet evening near Bergen."])
def test_not_an_instruction(reply):
    assert status(reply) == "not_instruction"


@pytest.mark.parametrize(
    ("reply", "parent"),
    [
        ("Explain how volcanoes in Iceland warm the greenhouses near Selfoss.", PARENT),
        ("Write a Python function that sorts a list of numbers by their last digit.", CODE),
        (SOLD.replace("15", "18"), SUM),
        (SOLD.replace("15 loaves", "some loaves"), SUM),
        (SOLD.replace("15 loaves", "15 cakes"), SUM),
        (SOLD.partition(" How")[0] + " Write down the loaves of a week.", SUM),
    ],
)  # fmt: skip
def test_off_topic(reply, parent):
    assert status(reply, parent) == "off_topic"


@pytest.mark.parametrize(
    ("parent", "kept", "lost"),
    [
        ("How long does a stone take to fall from 20 m?", "How long does a stone take to fall from a tower of 20 metres on the moon of Mars?", "How long does a stone take to fall from a tower of 45 m in Pisa?"),
        ("Heat water to 80 °C and describe it.", "Heat water in a steel pot to 80 degrees Celsius, and describe it as a cook in Bergen sees it.", "Heat water in a steel pot to 90 °C, and describe it as a cook in Bergen sees it."),
        ("Explain why light of 500 nm is green.", "Explain why light of 500 nm is green to a class of nine-year-old children in Oslo.", "Explain why light of 500 Hz is green to a class of nine-year-old children in Oslo."),
    ],
)  # fmt: skip
def test_quantities_with_units_are_kept_even_where_words_are_made_concrete(parent, kept, lost):
    assert status(kept, parent, "concretize") == "ok" and status(lost, parent, "concretize") == "off_topic"
    text = "Give 7 tips for sailors who cross the cold sea near Bergen in winter."
    assert status(text, "Give 5 tips for sailors.", "concretize") == "ok"


def test_a_new_prompt_need_not_keep_the_topic():
    reply = "Explain how volcanoes in Iceland warm the greenhouses near Selfoss."
    assert status(reply, method="constraint") == "off_topic"
    assert status(reply, method="breadth") == "ok"
    assert status("A quiet evening near Bergen.", method="breadth") == "not_instruction"
    assert status("How to sail near Bergen is a skill that takes years.", method="breadth") == "not_instruction"
    assert status("How to find out which boat is the best for a trip near Bergen.", method="breadth") == "ok"
    assert status("How is a small boat sailed near Bergen, and what is a good first trip?", method="breadth") == "ok"


@pytest.mark.parametrize(
    "reply", ["Describe a tall lighthouse.", "Please describe the lighthouse.", "Can you describe a lighthouse for me?",
              "Describe a lighthouse in detail.", "Explain a lighthouse."]
)  # fmt: skip
def test_near_copies(reply):
    assert status(reply) == "near_copy"


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        ("Write a Python function that adds two numbers.", "Write a function that adds two numbers, and explain how it works for large input."),
        ("Explain the tone of the story \"The Raven\".", "Explain the tone of the story, give two examples of it, and say what the author wants to achieve."),
        ("Write a poem of 10 words about autumn.", "Write a poem about autumn that begins in a sad mood and closes with a hopeful thought."),
        ("Discuss the reign of Queen Victoria.", "Discuss the reign of a queen, how it changed the country, and what people get wrong about it."),
        ("Compare trains, ferries and buses for commuters.", "Compare trains in a table with three rows, and finish with a conclusion of one sentence."),
    ],
)  # fmt: skip
def test_what_the_parent_names_stays(parent, text):
    assert status(text, parent) == "off_topic"


def test_another_language_is_none_of_the_task():
    parent = "Write a Ruby function that reverses a string."
    assert status(f"{parent[:-1]}, and explain how the process works in Python.", parent) == "broken"
    page = "Create an HTML page with a contact form."
    assert status(f"{page[:-1]}, style it with CSS, and check each field with JavaScript.", page) == "ok"


def test_a_new_task_has_most_of_its_words_of_its_own():
    parent = "Write a song about a peaceful day in a city park."
    assert (
        status("Write a song about a day in a park with a group of old friends, in a city.", parent, method="breadth")
        == "near_copy"
    )
    assert (
        status("Write a song about a day on a lighthouse island with a group of old friends.", parent, method="breadth")
        == "ok"
    )


def test_another_name_makes_no_other_problem():
    sold = "Ida sells 12 cakes at $2.50 each in Northtown. How much does Ida earn?"
    assert status(sold.replace("Northtown", "Norhtown"), sold) == "off_topic"
    assert status(sold.replace("Ida sells", "Ida now sells"), sold) == "near_copy"
    assert status(f"{sold} She pays $2.50 for a stall.", sold) == "broken"


@pytest.mark.parametrize(
    ("reply", "parent"),
    [
        (BETTER, PARENT),
        ("What would the keeper of a lighthouse write in a diary after a winter storm, described for children?", PARENT),
        ("Write a letter to a neighbour whose dog barks at night, and offer two ways to settle it.", STORY),
        (SOLD, SUM),
        (f"{CODE[:-1]} using recursion.", CODE),
        ("Describe a lighthouse without any adjectives.", PARENT),
        ("List the benefits of sailing, including why they matter, how they differ, and who gains the most.", "List the benefits of sailing."),
        ("Describe a lighthouse near Bergen in a table with three rows, and end with a question to the reader.", PARENT),
        ("Write a Python function that counts the vowels in a string, ignoring quoted passages and French accents.", CODE),
        ("Write a Python function that counts the vowels in a string and treats accents like this:\n\n```python\nvowels('Aha 3')\n```\nQuote no rule.", CODE),
    ],
)  # fmt: skip
def test_good_ones(reply, parent):
    assert read(reply, parent) == (reply, "ok")


@pytest.mark.parametrize(
    ("parent", "good", "copy"),
    [
        ("Nenne drei Flüsse für Kinder über acht.", "Nenne drei Flüsse für Kinder über acht, die durch mehrere Länder fließen, mit ihren größten Städten.", "Nenne drei Flüsse für Kinder über acht!"),
        ("Назови три реки Азии.", "Назови три реки Азии, которые текут на север, и объясни причину каждого разлива весной.", "назови  три реки Азии"),
        ("请列出欧洲的三条河流", "请列出欧洲的三条河流，并说明它们的长度和流经的国家", "请列出欧洲的三条河流"),
        ("اذكر ثلاثة أنهار في آسيا", "اذكر ثلاثة أنهار في آسيا تجري نحو الشمال مع ذكر طول كل نهر وأهم مدينة عليه", "اذكر ثلاثة أنهار في آسيا."),
    ],
    ids=["German", "Russian", "Chinese", "Arabic"],
)  # fmt: skip
def test_other_languages(parent, good, copy):
    assert read(good, parent) == (good, "ok")
    assert read(f'Rewritten prompt: "{good}"', parent) == (good, "ok")
    assert status(copy, parent) == "unchanged"
    assert status("I'm sorry, but I can't help with that.", parent) == "refusal"
    assert status(good, parent, finish_reason="length") == "cut_off"


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Name a river.", True), ("Please, name a river.", True), ("1. Name a river.", True), ("Which river is it", True),
        ("Is it a river?", True), ("I need a river.", True), ("Given a map, name a river.", True), ("Could you name a river", True),
        ("A river is long.", False), ("When it comes to rivers, length counts.", False), ("What a river", False), ("", False), ("...", False),
    ],
)  # fmt: skip
def test_what_asks_for_something(text, asks):
    assert is_instruction(text) == asks


# Whatever is said.

MARKS = ["Prompt:", "###", "```", '"', "“", "**", "<think>", "</think>", "[THINK]", "<|channel|>final<|message|>", "Answer:", "\n\n",
         "Note: ", "sorry", "1.2.3", "٣", "²", "?", "describe", "a b c d", "\x00", "\ud800", "{instruction}", ":", "when", "what is"]  # fmt: skip
TEXTS = st.text() | st.lists(st.sampled_from(MARKS) | st.text(string.printable, max_size=9), max_size=9).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(reply=TEXTS, parent=TEXTS, name=st.sampled_from(sorted(METHODS)), reason=st.sampled_from(["stop", "length"]))
@example(reply="²", parent="²", name="constraint", reason="stop")
@example(reply="Describe a lighthouse.", parent="", name="breadth", reason="stop")
def test_any_texts_give_a_status(reply, parent, name, reason):
    prompt = METHODS[name].prompt(parent)
    before = deepcopy(prompt)
    found = text, said = read_evolved(reply, parent=parent, prompt=prompt, method=name, finish_reason=reason)
    assert said in STATUSES and prompt == before
    assert (text is None) == (said == "empty" or (said == "cut_off" and text is None))
    rest = iter(reply.lower())  # a first letter may have become a capital one
    assert text is None or (
        text and text == text.strip() and all(char in rest for char in text.lower())
    )  # nothing is added
    assert found == read_evolved(reply, parent=parent, prompt=prompt, method=name, finish_reason=reason)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_a_text_is_not_evolved_from_itself(text):
    assert status(text, text) != "ok"


@pytest.mark.parametrize(
    "unit", ['"', "```\n", "Note: ", "\n", "** ", "Prompt:\n", "<think>", "a ", "1,", "(", "### task\n", "to "]
)
def test_long_texts_take_no_time(unit):
    import time

    start = time.process_time()
    read(unit * (3000 // len(unit)))
    assert time.process_time() - start < 2


BEFORE = [
    {"role": "user", "content": "How can you set a cookie in PHP?"},
    {"role": "assistant", "content": "With setcookie."},
]


@pytest.mark.parametrize(
    ("parent", "text", "status"),
    [
        ("Write a test for it.", "Write a test for it that also covers an empty name, and explain each step.", "ok"),
        ("Write a test for it.", "Write a test for a new product, explain it in simple words, and use no technical terms.", "off_topic"),
        ("How would you explain that to my grandmother?", "How would you explain that to my grandmother, who never used a computer?", "ok"),
        ("Name a programming language that has closures.", "Name a programming language with closures, and explain when it is the best choice.", "ok"),
        ("More, please.", "How can you set a cookie in PHP?", "leak"),
    ],
)  # fmt: skip
def test_what_points_to_the_conversation_still_has_to(parent, text, status):
    found = read_evolved(text, parent=parent, prompt=[{"role": "user", "content": parent}], context=BEFORE)
    assert found == (text, status)
    if status == "off_topic":
        assert read_evolved(text, parent=parent, prompt=[{"role": "user", "content": parent}])[1] == "ok"
