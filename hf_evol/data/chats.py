"""Chats and texts in the shapes in which people store them."""

from __future__ import annotations

import ast
import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hf_evol import columns as col

Turns = list[dict[str, Any]]  # with role and content

_NAMES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "ai"),
    "tool": (
        "tool", "tool_call", "tool_calls", "tool_response", "function", "function_call", "function_response",
        "function-call", "function-response", "observation", "ipython",
    ),
}  # fmt: skip
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_REASONING = ("thinking", "reasoning", "redacted_thinking")  # parts that go before an answer
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_CALLS = ("tool_calls", "function_call")


class Unreadable(ValueError):
    """A row that can't be read. Its text is what the column ``read_status`` says of it."""


class Seed(NamedTuple):
    """What a row asks and how it is answered, what was said before, and what could not be read."""

    instruction: str | None
    input: str
    output: str | None
    context: Turns = []
    status: str = col.OK


def read_chat(value: Any, *following: Any) -> Seed:
    """The last user turn of a chat, its answer if there is one, and all turns before.

    Args:
        value: as in `read_turns`.
        following: further turns, or the answer as a text.

    Raises:
        Unreadable: there is no user turn, something else than one answer follows it, or a turn holds something else than text.
    """
    turns = read_turns(value)
    for more in following:
        turns += [{"role": "assistant", "content": more}] if isinstance(more, str) else read_turns(more)
    roles = [turn["role"] for turn in turns]
    if "user" not in roles:
        raise Unreadable(f"no_user_turn: {', '.join(roles) or 'no turns'}")
    last = len(roles) - 1 - roles[::-1].index("user")
    context, asked, answer = turns[:last], turns[last]["content"], turns[last + 1 :]
    if roles[last + 1 :] not in ([], ["assistant"]):
        raise Unreadable(f"odd_turns: {', '.join(roles[last + 1 :])} after the last user turn")
    if not all(turn["content"] for turn in context):
        raise Unreadable("odd_turns: an earlier turn without a text")
    return Seed(asked, "", answer[0]["content"] if answer else None, context)


def read_turns(value: Any) -> Turns:
    """A chat's turns, with the roles ``system``, ``user`` and ``assistant``; system turns without a text are left out.

    Args:
        value: a list of turns, with ``role`` and ``content`` or ``from`` and ``value``; a mapping of such lists; a list of
            pairs of a question and its answer; or one of these as JSON text. A content is a text or a list of text parts.

    Raises:
        Unreadable: it is something else, or tools are called.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = _literal(value)
    if isinstance(value, Mapping):
        lists = {name: parts for name, parts in value.items() if isinstance(parts, list)}
        if len({len(parts) for parts in lists.values()}) != 1:
            raise Unreadable("odd_turns: a mapping that is not one of lists of equal length")
        value = [dict(zip(lists, parts, strict=True)) for parts in zip(*lists.values(), strict=True)]
    if not isinstance(value or [], (list, tuple)):
        raise Unreadable(f"odd_turns: {_kind(value)} in place of turns")
    turns: Turns = []
    for turn in value or []:
        turns += _pair(turn) if isinstance(turn, (list, tuple)) else [_turn(turn)]
    return [turn for turn in turns if turn["content"] or turn["role"] != "system"]


def _literal(text: str) -> Any:
    """The value of a text that `repr` has written."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise Unreadable("odd_turns: a text that is no JSON, in place of turns") from None


def _pair(pair: Sequence[Any]) -> Turns:
    if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise Unreadable("odd_turns: a list that is no pair of question and answer")
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


def _turn(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise Unreadable(f"odd_turns: {_kind(turn)} in place of a turn")
    name = turn.get("role") or turn.get("from")
    role = _ROLES.get(name.strip().casefold()) if isinstance(name, str) else None
    if role is None:
        raise Unreadable(f"odd_turns: the unknown role {reprlib.repr(name)}")
    if role == "tool" or any(turn.get(call) for call in _CALLS):
        raise Unreadable("tool_call")
    content = turn.get("content")
    return {"role": role, "content": _content(turn.get("value") if content is None else content)}


def _content(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise Unreadable(f"not_text: the content of a turn is {_kind(content)}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _REASONING:
            continue
        text = part.get("text") if isinstance(part, Mapping) and kind in _TEXT_PARTS else part
        if not isinstance(text, str):
            raise Unreadable(f"not_text: a part of a turn is {reprlib.repr(kind) if kind else _kind(part)}")
        texts.append(text)
    return "\n".join(texts)


def read_text(value: Any, column: str, *, plain: bool = False) -> str | None:
    """A value as a text.

    Args:
        value: a text; a number, as it is printed; or a list of these, one line each.
        column: where it stands.
        plain: take texts only.

    Raises:
        Unreadable: it is something else.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not plain:
        return str(value) if value == value else None
    if isinstance(value, (list, tuple)) and all(isinstance(part, (str, int, float)) for part in value) and not plain:
        return "\n".join(map(str, value))
    raise Unreadable(f"not_text: the column {column!r} holds {_kind(value)}")


def _kind(value: Any) -> str:
    return {"dict": "a mapping", "list": "a list", "NoneType": "nothing"}.get(
        type(value).__name__, type(value).__name__
    )
