"""Texts that patterns could take very long to read, or that could fill the memory."""

import time
import tracemalloc

import pytest

from hf_evol.prompts.examples import likeness, share_of_example
from hf_evol.prompts.template import chat
from hf_evol.prompts.words import content, domain_of
from hf_evol.reading.any_language import without_lead
from hf_evol.reading.evolved import read_evolved

PARENT = "List three rivers of Asia."


@pytest.mark.parametrize(
    "text",
    ["Create a SQL query:\n+----+---------------+----------+\n" * 9, "Write a title for this:\n" + "-" * 9000,
     "Write a" + " a-b" * 2000, "Write a b" + "-c" * 5000, "Write a" + "-'" * 5000, "Write" + " " * 9000, "x\n" + " " * 9000 + "y",
     "x\nNote" + " " * 9000 + "y", "é" + " " * 9000 + "y", "Name " + "like " * 2000 + ". x", "name " * 2000, "“" * 9000, "’" * 9000,
     " " * 9000 + "frage", "Frage" + " " * 9000 + "y"],
)  # fmt: skip
def test_no_text_takes_long(text):
    start = time.process_time()
    read_evolved(text, parent=PARENT, prompt=chat(PARENT))
    read_evolved(PARENT, parent=text, prompt=chat(text))
    domain_of(text), likeness(text, PARENT), without_lead(text, PARENT)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text", ["Write a hyphen-ated short-story.", "Write a well-written, 'modern' poem.", "Create an email:"]
)
def test_forms_of_texts_are_found(text):
    assert domain_of(text) == "writing"


def test_long_texts_are_not_kept():
    shown = chat(PARENT, examples=[("Name a lake.", "Name a lake in Europe.")])
    tracemalloc.start()
    for number in range(40):
        text = f"{PARENT} {'x' * 50_000}{chr(97 + number % 26) * 9} {number}"
        content(text), likeness(text, PARENT), share_of_example(text, PARENT, shown)
        read_evolved(text, parent=PARENT, prompt=shown)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000
