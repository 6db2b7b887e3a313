"""How replies that hold an input are read."""

import pytest

from hf_evol.reading.new_input import read_input

TASK, SHOWN = (
    "Write a slogan for the given product.",
    ["A solar lamp for the garden", "A folding desk", "A quiet hair dryer"],
)


@pytest.mark.parametrize(
    ("reply", "text", "status"),
    [
        ("An umbrella with two handles", "An umbrella with two handles", "ok"),
        ("<think>Hm.</think>\n\"An umbrella with two handles\"", "An umbrella with two handles", "ok"),
        ("The product is: An umbrella", "An umbrella", "ok"),
        ("The product is small.", "The product is small.", "repeats"),
        ("Input: An umbrella", "An umbrella", "ok"),
        ("Product: \"An umbrella\"", "An umbrella", "ok"),
        ("", None, "empty"),
        ("I'm sorry, but I can't help with that.", ..., "refusal"),
        ("An umbrella that opens by itself as soon as it hears the rain", ..., "too_long"),
        ("[Insert product name]", ..., "placeholder"),
        ("<LINK>", ..., "placeholder"),
        ("no input", ..., "placeholder"),
        ("A chair, a chair, a chair", ..., "broken"),
        ("A slogan", ..., "repeats"),
        ("A folding desk", ..., "copied"),
        ("A solar lamp", ..., "copied"),
        ("Ein Regenschirm", ..., "ok"),
    ],
)  # fmt: skip
def test_statuses(reply, text, status):
    assert read_input(reply, TASK, "product", SHOWN) == (reply if text is ... else text, status)


def test_a_reply_without_end_is_cut_off():
    assert read_input("An umbrella", TASK, "product", SHOWN, "length") == ("An umbrella", "cut_off")
    assert read_input("<think>An", TASK, "product", SHOWN, "length") == (None, "cut_off")


def test_code_keeps_its_lines():
    code = "def double(x):\n    total = x + x\n    print(total)\n    return total"
    shown = ["def half(x):\n    y = x / 2\n    return y if y > 1 else 0"]
    assert read_input(f"```python\n{code}\n```", "Explain the given function.", "function", shown)[1] == "ok"
