"""Chats in the shapes that published sets have."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from hf_evol import to_instructions, to_training

SYSTEM, ASKED, ANSWERED = ("system", "Be brief."), ("user", "How warm is Oslo?"), ("assistant", "20 degrees.")
AGAIN, SO = ("user", "And in winter?"), ("assistant", "3 degrees.")


def chat(*turns, role="role", text="content"):
    return [{role: who, text: what} for who, what in turns]


def read(*rows):
    return to_instructions(Dataset.from_list(list(rows))).to_list()


SHAPES = {
    "messages": {"messages": chat(ASKED, ANSWERED)},
    "text parts": {"messages": [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in (ASKED, ANSWERED)]},
    "JSON text": {"messages": json.dumps(chat(ASKED, ANSWERED))},
    "text by repr": {"messages": repr(chat(ASKED, ANSWERED))},
    "parts of responses": {
        "messages": [
            {"role": r, "content": [{"type": f"{t}_text", "text": c}]}
            for r, t, c in (("user", "input", ASKED[1]), ("assistant", "output", ANSWERED[1]))
        ],
    },
    "struct of lists": {"messages": {"role": ["user", "assistant"], "content": [ASKED[1], ANSWERED[1]]}},
    "sharegpt": {"conversations": chat(("human", ASKED[1]), ("gpt", ANSWERED[1]), role="from", text="value")},
    "chatgpt": {"conversations": chat(("human", ASKED[1]), ("chatgpt", ANSWERED[1]), role="from", text="value")},
    "user and assistant": {"conversations": chat(ASKED, ANSWERED, role="from", text="value")},
    "role and content": {"conversations": chat(ASKED, ANSWERED)},
    "capitals": {"messages": chat(("User ", ASKED[1]), ("AI", ANSWERED[1]))},
    "prompt and completion": {"prompt": chat(ASKED), "completion": chat(ANSWERED)},
    "prompt and text": {"prompt": chat(ASKED), "completion": ANSWERED[1]},
    "empty system turn": {"messages": chat(("system", ""), ASKED, ANSWERED)},
    "no tools": {"messages": chat(ASKED, ANSWERED), "system": None, "tools": "[]"},
}


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES)
def test_each_shape_is_read(row):
    (found,) = read(row)
    del found["id"]
    assert found == {"instruction": "How warm is Oslo?", "input": "", "output": "20 degrees."}


WITH_CONTEXT = {
    "system turn": {"messages": chat(SYSTEM, ASKED, ANSWERED)},
    "developer turn": {"messages": chat(("developer", SYSTEM[1]), ASKED, ANSWERED)},
    "system column": {"conversations": chat(ASKED, ANSWERED), "system": SYSTEM[1]},
    "system_prompt column": {"system_prompt": SYSTEM[1], "question": ASKED[1], "response": ANSWERED[1]},
    "prompt": {"prompt": chat(SYSTEM, ASKED), "completion": chat(ANSWERED)},
    "alpaca": {"instruction": ASKED[1], "output": ANSWERED[1], "system": SYSTEM[1], "history": []},
}


@pytest.mark.parametrize("row", WITH_CONTEXT.values(), ids=WITH_CONTEXT)
def test_a_system_text_is_kept(row):
    (found,) = read(row)
    assert (found["instruction"], found["output"]) == ("How warm is Oslo?", "20 degrees.")
    assert found["context"] == chat(SYSTEM)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": chat(SYSTEM, ASKED, ANSWERED, AGAIN, SO)},
        {"instruction": AGAIN[1], "output": SO[1], "system": SYSTEM[1], "history": [[ASKED[1], ANSWERED[1]]]},
        {"instruction": AGAIN[1], "output": SO[1], "history": json.dumps(chat(SYSTEM, ASKED, ANSWERED))},
    ],
    ids=["messages", "history of pairs", "history of turns as JSON"],
)
def test_the_last_user_turn_is_asked_and_the_turns_before_are_its_context(row):
    (found,) = read(row)
    assert (found["instruction"], found["output"]) == ("And in winter?", "3 degrees.")
    assert found["context"] == chat(SYSTEM, ASKED, ANSWERED)


def test_rows_without_a_context_have_a_null_one_where_others_have_one():
    first, second = read({"messages": chat(ASKED)}, {"messages": chat(SYSTEM, ASKED)})
    assert (first["context"], first["output"]) == (None, None)
    assert second["context"] == chat(SYSTEM)


CALL = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
UNREADABLE = {
    "no_user_turn": chat(SYSTEM),
    "no_user_turn ": [],
    "no_user_turn  ": None,
    "odd_turns": chat(ASKED, ANSWERED, SO),
    "odd_turns ": chat(ASKED, ("narrator", "So it went.")),
    "odd_turns  ": chat(ASKED, ("assistant", None), AGAIN),
    "tool_call": [*chat(ASKED), {"role": "assistant", "content": None, "tool_calls": CALL}],
    "tool_call ": chat(ASKED, ("tool", "3 degrees"), ANSWERED),
    "not_text": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    "no_instruction": chat(("user", None)),
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_what_can_t_be_read_keeps_its_place_and_says_why(reason):
    row, good = {"messages": json.dumps(UNREADABLE[reason])}, {"messages": json.dumps(chat(ASKED, ANSWERED))}
    found, other = read(row, good)
    assert (found["instruction"], found["output"]) == (None, None)
    assert found["read_status"].partition(":")[0] == reason.strip()
    assert (other["instruction"], other["read_status"]) == ("How warm is Oslo?", "ok")


def test_rows_that_offer_tools_are_not_read_as_if_they_did_not():
    rows = read({"messages": chat(ASKED), "tools": json.dumps(CALL)}, {"messages": chat(ASKED), "tools": "[]"})
    assert [row.get("read_status") for row in rows] == ["tools", "ok"]


@pytest.mark.parametrize(
    "value", ["no JSON", '"text"', "5", '{"role": ["user"], "content": []}', "[5]", "[[1, 2]]", "{}"]
)
def test_other_values_in_place_of_a_chat_are_named(value):
    assert read({"messages": value})[0]["read_status"].startswith("odd_turns: ")


CONTEXT = [{"instruction": AGAIN[1], "input": "", "output": SO[1], "context": chat(SYSTEM, ASKED, ANSWERED)}]
PLAIN = [{"instruction": ASKED[1], "input": "in summer", "output": ANSWERED[1], "context": None}]


@pytest.mark.parametrize("format", ["alpaca", "messages", "prompt-completion", "sharegpt"])
def test_a_context_goes_to_trainers_and_comes_back(format):
    rows = Dataset.from_list(CONTEXT + PLAIN)
    for some in (rows, rows.select([1, 0])):
        back = to_instructions(to_training(some, format)).to_list()
        found = next(row for row in back if row["instruction"] == AGAIN[1])
        assert {name: found[name] for name in CONTEXT[0]} == CONTEXT[0]
        other = next(row for row in back if row is not found)
        assert other["context"] is None and other["instruction"].startswith(ASKED[1])


def test_our_own_rows_keep_their_context():
    rows = to_instructions(Dataset.from_list([{"messages": chat(SYSTEM, ASKED, ANSWERED)}]))
    assert to_instructions(rows).to_list() == rows.to_list()


def test_a_context_that_alpaca_can_t_hold_is_an_error():
    from hf_evol import ColumnError

    rows = Dataset.from_list([CONTEXT[0] | {"context": chat(ASKED, AGAIN)}])
    with pytest.raises(ColumnError, match=r"not pairs of question and answer.*messages"):
        to_training(rows, "alpaca")
