"""Texts and chats as token ids. Special tokens written inside a text from data count as ordinary characters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from hf_evol.errors import ConfigError, ModelError
from hf_evol.models import ModelSpec, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special_tokens: bool = True
) -> list[list[int]]:
    """Token ids of plain texts; special tokens written inside a text count as ordinary characters."""
    if not texts:
        return []
    if not tokenizer.is_fast:
        encoded = tokenizer(list(texts), add_special_tokens=special_tokens, split_special_tokens=True, verbose=False)
        return encoded["input_ids"]
    # The same, without offsets and masks, which nobody asked for.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if not backend.encode_special_tokens:
        backend.encode_special_tokens = True
    return [encoded.ids for encoded in backend.encode_batch_fast(list(texts), add_special_tokens=special_tokens)]


def render_chat(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], generation_prompt: bool = True
) -> list[int]:
    """Token ids of a chat, with the generation prompt unless told otherwise, by the tokenizer's chat template.

    Where a turn's text holds a special token of the tokenizer, it is encoded apart, as ordinary characters
    (`chat_frame`): text from data can't end its turn or begin another. A template that refuses a system turn, such as
    Gemma's, gets its text at the head of the first user turn.

    Raises:
        jinja2.TemplateError: the template refuses the chat.
    """
    import jinja2

    try:
        return _rendered(tokenizer, chat, generation_prompt)
    except jinja2.TemplateError:
        if [turn["role"] for turn in chat[:2]] != ["system", "user"]:
            raise
    first = {"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
    return _rendered(tokenizer, [first, *chat[2:]], generation_prompt)


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """What finds special tokens in a text. To list those of a large vocabulary takes longer than to render a chat."""
    special = [re.escape(str(token)) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(special) or "(?!)")  # which is nowhere


def _rendered(tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], generation_prompt: bool) -> list[int]:
    special = _special_tokens(tokenizer)
    apart = [place for place, turn in enumerate(chat) if special.search(turn["content"])]
    if not apart:
        return tokenizer.apply_chat_template(list(chat), add_generation_prompt=generation_prompt, return_dict=False)
    frame = _frame(tokenizer, chat, apart, generation_prompt)
    ids = frame[0]
    for place, after in zip(apart, frame[1:], strict=True):
        ids = ids + encode_text(tokenizer, [chat[place]["content"]], special_tokens=False)[0] + after
    return ids


def count_prompt_tokens(spec: ModelSpec, chats: Sequence[Sequence[dict[str, str]]]) -> int:
    """Tokens of the rendered chats, without loading weights."""
    import jinja2

    tokenizer, count = load_tokenizer(spec), 0
    for chat in chats:
        with suppress(jinja2.TemplateError):  # such a row gets a status
            count += len(render_chat(tokenizer, chat))
    return count


def chat_frame(
    tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], generation_prompt: bool = True
) -> list[list[int]]:
    """Token ids of what the chat template puts before, between and after the texts of turns with these roles.

    Raises:
        ModelError: the template leaves out, changes or repeats a turn's text.
    """
    return _frame(tokenizer, [{"role": role, "content": ""} for role in roles], range(len(roles)), generation_prompt)


def _frame(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], apart: Sequence[int], generation_prompt: bool
) -> list[list[int]]:
    """Token ids of the rendered chat before, between and after the texts of the turns at these places."""
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
    return [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in (*pieces, rendered)]


def check_chat_template(spec: ModelSpec) -> None:
    """Raise `ConfigError` unless the chat template renders a user turn."""
    import jinja2

    try:
        render_chat(load_tokenizer(spec), [{"role": "user", "content": "A question?"}])
    except jinja2.TemplateError as error:
        raise ConfigError(f"The chat template of {spec.name!r} can't render a user turn: {error}") from error
