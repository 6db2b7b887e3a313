import json
from dataclasses import dataclass

import pytest

from hf_evol import map
from hf_evol.autoif.augment import Augment, augment_requests, new_constraints, read_list
from hf_evol.errors import ConfigError
from hf_evol.generation.base import Completion
from hf_evol.prompts.autoif import RULES_SHOWN, augment_prompt

TWO = ["Use no commas", 'Write "STOP" after each sentence']


@pytest.mark.parametrize(
    "reply",
    [
        "\n".join(style.format(text, n=n) for n, text in enumerate(TWO, 1))
        for style in (
            "- {}", "* {}", "+ {}", "– {}", "— {}", "• {}", "•{}", "● {}", "▪ {}", "·{}", "  - {}", "\t* {}", "•\u00a0{}",
            "{n}. {}", "{n}) {}", "({n}) {}", "{n}: {}", "{n}.{}", "{n}\\. {}", "{n}、{}", "#{n} {}", "#{n}: {}", "  {n}.  {}  ",
            "**{n}.** {}", "**{n}**. {}", "**{n}. {}**", "{n}. **{}**", "- **{}**", "* __{}__", "- “{}”", "- `{}`", "- **“{}”**",
            "- “**{}**”", "{}", "**{}**",
        )
    ],
)  # fmt: skip
def test_every_style_gives_the_same_items(reply):
    for text in (
        reply,
        reply.replace("\n", "\n\n"),
        f"```\n{reply}\n```",
        f"```text\n{reply}\n```",
        reply.replace("\n", "\r\n"),
    ):
        assert read_list(text) == TWO


@pytest.mark.parametrize("style", ["- {}", "{n}. {}", "**{n}.** {}", "•{}"])
def test_what_stands_around_a_marked_list_is_no_item(style):
    listed = "\n".join(style.format(text, n=n) for n, text in enumerate(TWO, 1))
    assert read_list(f"Sure - here are 2. Enjoy:\n\n---\n{listed}\n***\nI hope that they help!\n") == TWO


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("1. **Length**: at most 5 words", ["Length: at most 5 words"]),
        ("**1. Length**: at most 5 words", ["Length: at most 5 words"]),
        ("- **Length:** at most 5 words", ["Length: at most 5 words"]),
        ("- Put **two** key words in bold, **like this**", ["Put **two** key words in bold, **like this**"]),
        ("- Use __init__ and *one* star", ["Use __init__ and *one* star"]),
        ('- "Yes" or "No" comes first', ['"Yes" or "No" comes first']),
        ("- 3.5 and 10,000 are in it", ["3.5 and 10,000 are in it"]),
        ("- Use {braces}, {{more}} - and 1. dashes - too", ["Use {braces}, {{more}} - and 1. dashes - too"]),
        ("- 全部使用大写字母\n- 🎉 Begin with 🎉", ["全部使用大写字母", "🎉 Begin with 🎉"]),
        ("1. Length\n   - Use 5 words\n   * Use 6 words", ["Length", "Use 5 words", "Use 6 words"]),
        ("- Use five words\n  and no more\n- Use six", ["Use five words", "Use six"]),
        ("- \n-\n- Use six", ["Use six"]),
        ("", []), ("\n---\n```\n***\n", []),
    ],
)  # fmt: skip
def test_items(reply, items):
    assert read_list(reply) == items


def test_marks_inside_plain_lines_are_text():
    lines = ["Use a - dash - twice", "End with 1. and 2. in it", "3.5 is said * once"]
    assert read_list("\n".join(lines)) == lines


def kept(*texts, seeds=()):
    made, reasons = new_constraints([list(texts)], seeds)
    assert len(made) + reasons.total() == len(texts)
    assert made["id"][:] == [f"constraint-{place}" for place in range(len(made))]
    return made["instruction"][:], dict(reasons)


def test_reasons_add_up():
    long = " ".join(f"word{n}" for n in range(61))
    texts = [
        "Write all of it in capital letters", "  write ALL of it in capital letters. ", "Use no commas", "Use no commas!",
        "Use no commas in your answer", "Write all of the text in lower case", "write all of the whole text in lower case",
        "## New ones", "Here they are:", "这里有三个约束：", "| 1 | Use no commas |", "I'm sorry, but I can't help.", "Be good", long,
    ]  # fmt: skip
    assert kept(*texts, seeds=["Write all of it in capital letters", "Write the whole of it in capital letters."]) == (
        ["Use no commas", "Use no commas in your answer", "Write all of the text in lower case"],
        {"seed": 2, "repeated": 1, "near_repeated": 1, "heading": 4, "refusal": 1, "too_short": 1, "too_long": 1},
    )
    assert kept("Write all of your answers in large letters", seeds=["Write all of your answers in very large letters"]) == (
        [], {"near_seed": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3", "4"), ("3", "3.5"), ("three", "four"), ("at least 3", "at most 3"), ("the first", "the last"), ("odd", "even"),
        ('"yes"', '"no"'), ("“yes”", "“no”"), ("'yes'", "'no'"), ("‘yes’", "‘no’"), ("`yes`", "`no`"), ("«yes»", "«no»"),
        ("the letter e", "the letter o"), ("the letter", "not the letter"), ("uppercase", "lowercase"),
    ],
)  # fmt: skip
def test_numbers_quoted_texts_letters_and_opposites_make_constraints_differ(one, other):
    long = "Write {} in every one of the paragraphs and sentences that make up your whole answer"
    texts = [long.replace("{}", one), long.replace("{}", other)]
    assert kept(*texts) == (texts, {})
    assert kept(texts[0], texts[0].replace("whole", "entire")) == (texts[:1], {"near_repeated": 1})


@pytest.mark.parametrize(
    "text",
    [
        "The function returns True if the answer is in capitals", "The evaluate function should count the words",
        "Check whether the answer has three lines", "Check that there are no commas", "Verify if the response ends with a dot",
        "Write a Python function that counts the words", "Create a short Python script for the answer", "Add a test case for the empty answer",
        "`evaluate` function with one argument", "evaluate(response) is True for short answers", "def evaluate(response): return True",
        "Returns True if there are three sentences, False otherwise", "It will return False when a comma is found", "This program counts letters",
        "Test the response for commas", "Determine if each sentence is short", "Unit tests must pass", "Functions must return True",
    ],
)  # fmt: skip
def test_lines_about_the_check(text):
    assert kept(text) == ([], {"about_the_check": 1})


@pytest.mark.parametrize(
    "text",
    [
        "Put the answer in a Python code block", "Write the answer as a Python function", "Answer with Python code only",
        "Use function words only", "Return the answer as JSON", "Return nothing but True or False", "Check marks begin each line",
        "Make sure that every line ends with a dot", "Ensure the answer has three lines", "Use test as the first word",
    ],
)  # fmt: skip
def test_lines_about_the_answer_that_speak_of_code_or_checks(text):
    assert kept(text) == ([text], {})


def test_statements_without_a_word_about_the_form_are_no_rules():
    no_rules = [
        "A song about a little lamb", "I am a robot that helps people", "The only thing we have to fear is fear",
        "It is not possible to do anything about that", "What does it mean to you?", "I\u2019ve been there before you",
    ]  # fmt: skip
    rules = [
        "A poem about nothing at all in it", "The reader must not be able to see an x", "The tone is that of a letter to her",
        "There are no commas in it", "It is written in the third person", "Use only palindromes", "Sound like a pirate would on the sea",
        "In the style of a fairy tale", "A resposta deve conter doze frases", "Each of them is in capitals",
    ]  # fmt: skip
    assert kept(*no_rules, *rules) == (rules, {"not_a_rule": len(no_rules)})


def test_the_prompt_s_own_rules_are_left_out():
    given, made = RULES_SHOWN
    changed = [
        made[0].upper() + ".",
        "Write the answer as a numbered list of five points, please",
        'Use the word "lantern" five times',
        "End it with “So much for today”",
    ]
    assert kept(*given, *made, *changed) == ([], {"example": 14})
    others = ["Write exactly four paragraphs", 'Use the word "table" twice', "Use the word lanterns at will"]
    assert kept(*others) == (others, {})
    seeds = ['Use the word "lantern" in each line', made[0]]
    assert kept(made[0], given[0], 'End with "lantern"', seeds=seeds) == (
        ['End with "lantern"'],
        {"seed": 1, "example": 1},
    )


def test_languages_without_spaces():
    texts = ["回答必须全部使用大写字母", "请用三个段落回答问题", "すべて大文字で書いてください"]
    assert kept(*texts, "回答必须全部使用大写字母。") == (texts, {"near_repeated": 1})
    assert kept("好的", "字" * 61) == ([], {"too_short": 1, "too_long": 1})


def test_nothing_at_all():
    made, reasons = new_constraints([], [])
    assert len(made) == 0 and made.column_names == ["id", "instruction"] and not reasons
    assert kept(seeds=["Use no commas"]) == ([], {})


@dataclass(frozen=True)
class Scripted:
    """Gives the replies in turn, by the number in the row's key."""

    replies: tuple[tuple[str, str], ...]
    name = "scripted"

    def check(self, params=None):
        pass

    def identity(self):
        return {"replies": json.dumps(self.replies)}

    def stream(self, chats, params, keys):
        for place, (chat, key) in enumerate(zip(chats, keys, strict=True)):
            assert chat == augment_prompt(["a {seed} of\ntwo lines"], 7)
            text, finish = self.replies[int(key.rsplit("-", 1)[1])]
            error = {"error": "engine_error: told to"} if finish == "error" else {}
            yield [(place, Completion(text, finish, **error))]


def test_replies_and_their_statuses():
    cases = [
        ("- Use one word\n- Use two wo", "length", ["Use one word"], "ok"),
        ("- Use one word\n- Use two words", "stop", ["Use one word", "Use two words"], "ok"),
        ("<think>\n- Use no words\n</think>\n- Use one word", "stop", ["Use one word"], "ok"),
        ("<think>\n- Use no words\n- and", "length", [], "empty"),
        ("- Use one wo", "length", [], "empty"),
        ("I'm sorry, but I can't help with that.\nAsk me about something else.", "stop", [], "refusal"),
        ("I'm sorry, but I can only think of one:\n- Use one word", "stop", ["Use one word"], "ok"),
        (" \n", "stop", [], "empty"),
        ("", "error", [], "engine_error: told to"),
    ]  # fmt: skip
    engine = Scripted(tuple((text, finish) for text, finish, _, _ in cases))
    augment = Augment(engine, seeds=["a {seed} of\ntwo lines"], count=7, journal=False)
    for size in (1, 100):
        rows = map(augment_requests(len(cases)), augment, batch_size=size)
        assert rows["constraints"][:] == [lines for _, _, lines, _ in cases]
        assert rows["augment_status"][:] == [status for *_, status in cases]


@pytest.mark.parametrize(
    "wrong", [{"seeds": ()}, {"seeds": "one"}, {"seeds": ("x", " ")}, {"seeds": (None,)}, {"count": 0}]
)
def test_wrong_settings(wrong):
    with pytest.raises(ConfigError):
        Augment(Scripted(()), **{"seeds": ("x",)} | wrong)
