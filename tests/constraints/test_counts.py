import ast
import inspect
import re

import pytest

from hf_evol.constraints import counts
from hf_evol.constraints.constraint import Constraint
from hf_evol.prompts import constraints as words_of
from hf_evol.sandbox import Sandbox

PYTHON = "import os\n\n\ndef total(items):\n    # add up\n    result = 0  # so far\n    for item in items:\n        result += item\n    return result // 1\n"
JAVA = (
    "public class Adder {\n  // the sum\n  public static int add(int a, int b) {\n    return a + b; // no loop\n  }\n}"
)
MATHS = "Ann has 2+3 = <<2+3=5>>5 cats.\nSo 5*2 = $<<5*2=10>>10.\n#### 10"
COUNTED = [
    ("words", "A well-known fact: it's 3.5", {}, 8),
    ("sentences", "Dr. Ray left at 5 p.m. on Monday. Was he late? Yes! He was, e.g. by an hour.", {}, 4),
    ("sentences", 'She asked, "Why?" He left.\n\nA title\n\nThe end', {}, 4),
    ("longest_sentence", "One two. One two three four. One.", {}, 4),
    ("paragraphs", "One.\n \nTwo\nlines.\n\n\nThree.", {}, 3),
    ("first_words", "One is.\n\n“Two” is.", {"paragraph": 2, "word": "two"}, 1),
    ("first_words", "One is.", {"paragraph": 2, "word": "two"}, 0),
    ("last_words", "It all comes to an end!", {"word": "End"}, 1),
    ("final_stops", "Yes. \n", {}, 1),
    ("lines", "One\n\n  \nTwo", {}, 2),
    ("longest_line", "One\nthree  \n", {}, 5),
    ("bullets", "- a\n* b\n  • c\n-d\n**bold**", {}, 3),
    ("numbered_items", "1. a\n2) b\n3.5 is no item\n1999 was a year", {}, 2),
    ("headings", "# One\ntext\n## Two\n#three", {}, 2),
    ("highlights", "**a** and *b c*, not 2 * 3 or ****", {}, 2),
    ("titles", "<<Title>>\n12 = <<3*4=12>>12", {}, 1),
    ("placeholders", "Dear [name], on [date] []", {}, 2),
    ("postscripts", "Bye.\nP.S. One\nP.P.S. Two\nPostscript", {}, 2),
    ("code_blocks", "```py\n1\n```\ntext\n```\n2\n```", {}, 2),
    ("table_rows", "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |", {}, 2),
    ("table_rows", "| a | b |\n| 1 | 2 |", {}, 0),
    ("json_values", '```json\n{"a": [1]}\n```', {}, 1),
    ("json_values", '"a text"', {}, 0),
    ("quotations", "“All of it.”", {}, 1),
    ("quotations", '"One" and "two"', {}, 0),
    ("choices", "yes.", {"options": ["Yes", "No"]}, 1),
    ("bare_numbers", " 1,200.5\n", {}, 1),
    ("occurrences", "Cat, cats, CAT; concat. A cat's", {"text": "cat"}, 3),
    ("commas", "a, b, c", {}, 2),
    ("questions", "Why? How?", {}, 2),
    ("capital_letters", "Ab Cd", {}, 2),
    ("small_letters", "Ab Cd", {}, 2),
    ("capital_words", "NASA is no A, and 3D", {}, 1),
    ("calculations", MATHS, {}, 2),
    ("answer_lines", MATHS, {}, 1),
    ("answer_lines", "#### 10\nSo it is 10.", {}, 0),
    ("comments", PYTHON, {}, 2),
    ("comments", JAVA, {}, 2),
    ("comments", "#Sum up\nx = 1 #the first one\ny = '#{x}'  # last", {}, 3),
    ("comments", "#include <map>\n#!/bin/sh\n//*[@id]\n#nav a { color: #fff; }\n<a href=\"http://a.b\">", {}, 0),
    ("constructs", PYTHON, {"pattern": r"\bfor\b"}, 1),
    ("constructs", JAVA + "\nString s = \"a loop for all\";", {"pattern": r"\bfor\b|\bloop\b"}, 0),
    ("functions", PYTHON + JAVA + "\nconst total = (a) => a;", {"name": "total"}, 2),
    ("functions", JAVA, {"name": "add"}, 1),
    ("functions", "class Box {\n  public Box(int size) {\n  }\n}", {"name": "Box"}, 0),
    ("classes", JAVA, {"name": "Adder"}, 1),
    ("uneven_indents", PYTHON, {"width": 4}, 0),
    ("uneven_indents", JAVA, {"width": 4}, 3),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "parameters", "count"), COUNTED)
def test_what_is_counted(kind, text, parameters, count):
    assert getattr(counts, kind)(text, **parameters) == count
    assert Constraint(kind, count, count, parameters).holds(text)
    assert not Constraint(kind, count + 1, None, parameters).holds(text)
    assert count == 0 or not Constraint(kind, None, count - 1, parameters).holds(text)


def test_every_kind_is_counted_here_and_has_its_words():
    kinds = {
        name for name, one in vars(counts).items() if inspect.isfunction(one) and one.__annotations__["return"] is int
    }
    assert kinds == {kind for kind, *_ in COUNTED} == words_of._LISTS["wordings"].keys() - {"opening"}


def test_published_functions_say_the_same_where_only_the_standard_library_is():
    with Sandbox() as sandbox:
        for kind, text, parameters, count in COUNTED:
            for least, most in ((count, count), (count + 1, None)):
                one = Constraint(kind, least, most, parameters)
                (result,) = sandbox.call(one.function(), [text])
                assert result.value is one.holds(text), (kind, result)


def test_published_functions_end_in_time_on_texts_that_almost_match():
    texts = ["key: value for key ", "for x in ", "for;", "?a:", "\n", '\\"']
    texts = [opening + (text * 20_000)[:20_000] for text in texts for opening in "{["]
    with Sandbox() as sandbox:
        for one in words_of.CONSTRUCTS:
            if "[^" not in one.pattern and one.what != "imports":
                continue  # it matches within a few words
            results = sandbox.call(Constraint("constructs", None, 10**6, {"pattern": one.pattern}).function(), texts)
            assert [result.value for result in results] == [True] * len(texts), one.what


@pytest.mark.parametrize(
    ("what", "found", "not_found"),
    [
        ("a list comprehension", ["[x for x in y]", "[[a for a in b] for b in c]"], ["[a for b]", "[x] for x in [y]"]),
        (
            "a dictionary comprehension",
            ["{a: b for a in c}", "{a: b[1:2] for a, b in c}"],
            ["{a: b}", "{a for a in b}"],
        ),
        ("a `for` loop", ["for x in y:", "  for (;;)", "for i = 1 to 3"], ["before in", "for"]),
        ("imports", ["import os", "x\n  from a import b"], ["important", "take it from a import"]),
    ],
)
def test_constructs_are_found(what, found, not_found):
    (pattern,) = (one.pattern for one in words_of.CONSTRUCTS if one.what == what)
    assert [counts.constructs(text, pattern) > 0 for text in (*found, *not_found)] == [True] * len(found) + [False] * 2


def test_a_constraint_is_data():
    one = Constraint("occurrences", None, 0, {"text": 'a "b" {c}'})
    assert Constraint.of(one.data()) == one
    assert one.data() == {"kind": "occurrences", "parameters": '{"text": "a \\"b\\" {c}", "at_most": 0}'}


def test_wordings_have_no_slot_that_nothing_fills():
    known = {"n", "least", "most", "what", "options"} | {name for _, _, given, _ in COUNTED for name in given}
    for of_kind in words_of._LISTS["wordings"].values():
        for sentence in (sentence for several in of_kind.values() for sentence in several):
            assert set(re.findall(r"\{(\w+)\}", sentence)) <= known, sentence
    assert ast.parse(Constraint("words", 1, 2).function())
