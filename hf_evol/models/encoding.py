"""Texts and chats as token ids. Special tokens written inside a text from data count as ordinary characters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from hf_evol.errors import ConfigError, ModelError
from hf_evol.models import ModelSpec, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special_tokens: bool = True, as_characters: bool = True
) -> list[list[int]]:
    """Token ids of texts, as the tokenizer itself encodes, on all cores, and without offsets and masks, which nobody asked for.

    Args:
        special_tokens: whether the tokenizer adds its own.
        as_characters: whether special tokens written inside a text count as ordinary characters.
    """
    if not texts:
        return []
    if not tokenizer.is_fast:
        split = {"split_special_tokens": True} if as_characters else {}
        return tokenizer(list(texts), add_special_tokens=special_tokens, verbose=False, **split)["input_ids"]
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if backend.encode_special_tokens != as_characters:
        backend.encode_special_tokens = as_characters
    return [encoded.ids for encoded in backend.encode_batch_fast(list(texts), add_special_tokens=special_tokens)]


def render_chat(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], generation_prompt: bool = True
) -> list[int]:
    """Token ids of one chat, as `render_chats` has them.

    Raises:
        jinja2.TemplateError: the template refuses the chat.
    """
    found = render_chats(tokenizer, [chat], generation_prompt)[0]
    if isinstance(found, Exception):
        raise found
    return found


def render_chats(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[dict[str, str]]], generation_prompt: bool = True
) -> list[list[int] | TemplateError]:
    """Token ids of chats, with the generation prompt unless told otherwise, by the tokenizer's chat template; of those that the
    template refuses, the error.

    Where a turn's text holds a special token of the tokenizer, it is encoded apart, as ordinary characters
    (`chat_frame`): text from data can't end its turn or begin another. A template that refuses a system turn, such as
    Gemma's, gets its text at the head of the first user turn.
    """
    found = [_parts(tokenizer, chat, generation_prompt) for chat in chats]
    parts = [part for one in found if not isinstance(one, TemplateError) for part in one]
    frames, texts = (
        iter(encode_text(tokenizer, [text for text, of_frame in parts if of_frame == wanted], False, not wanted))
        for wanted in (True, False)
    )
    return [
        one if isinstance(one, TemplateError)
        else [token for _, of_frame in one for token in next(frames if of_frame else texts)]
        for one in found
    ]  # fmt: skip


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """What finds special tokens in a text. To list those of a large vocabulary takes longer than to render a chat."""
    special = [re.escape(str(token)) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(special) or "(?!)")  # which is nowhere


def _parts(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], generation_prompt: bool
) -> list[tuple[str, bool]] | TemplateError:
    """A rendered chat in parts, each with whether it is the template's, and not a turn's that is encoded apart."""
    special = _special_tokens(tokenizer)
    apart = [place for place, turn in enumerate(chat) if special.search(turn["content"])]
    try:
        frame = _frame(tokenizer, chat, apart, generation_prompt)
    except TemplateError as error:
        if [turn["role"] for turn in chat[:2]] != ["system", "user"]:
            return error
        first = {"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
        return _parts(tokenizer, [first, *chat[2:]], generation_prompt)
    parts = [(frame[0], True)]
    for place, after in zip(apart, frame[1:], strict=True):
        parts += [(chat[place]["content"], False), (after, True)]
    return parts


def count_prompt_tokens(spec: ModelSpec, chats: Sequence[Sequence[dict[str, str]]]) -> int:
    """Tokens of the rendered chats, without loading weights."""
    tokenizer, at_once = load_tokenizer(spec), 256
    return sum(
        len(ids)
        for start in range(0, len(chats), at_once)
        for ids in render_chats(tokenizer, chats[start : start + at_once])
        if not isinstance(ids, Exception)  # such a row gets a status
    )


def chat_frame(
    tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], generation_prompt: bool = True
) -> list[list[int]]:
    """Token ids of what the chat template puts before, between and after the texts of turns with these roles.

    Raises:
        ModelError: the template leaves out, changes or repeats a turn's text.
    """
    empty = [{"role": role, "content": ""} for role in roles]
    return encode_text(tokenizer, _frame(tokenizer, empty, range(len(roles)), generation_prompt), False, False)


def _frame(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], apart: Sequence[int], generation_prompt: bool
) -> list[str]:
    """What the rendered chat has before, between and after the texts of the turns at these places."""
    marks = {place: f"\ue000{place}\ue001" for place in apart}
    stand_ins = [turn | {"content": marks.get(place, turn["content"])} for place, turn in enumerate(chat)]
    rendered = tokenizer.apply_chat_template(stand_ins, add_generation_prompt=generation_prompt, tokenize=False)
    pieces = []
    for mark in marks.values():
        before, found, rendered = rendered.partition(mark)
        if not found:
            raise ModelError("The chat template leaves out, changes or moves a turn's text, which is encoded apart.")
        pieces.append(before)
    if any(mark in rendered for mark in marks.values()):
        raise ModelError("The chat template repeats a turn's text, which is encoded apart.")
    return [*pieces, rendered]


def check_chat_template(spec: ModelSpec) -> None:
    """Raise `ConfigError` unless the chat template renders a user turn."""
    try:
        render_chat(load_tokenizer(spec), [{"role": "user", "content": "A question?"}])
    except TemplateError as error:
        raise ConfigError(f"The chat template of {spec.name!r} can't render a user turn: {error}") from error
