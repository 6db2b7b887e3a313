"""Scores of a reward model (paper, "Reward")."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ConfigError, ModelError, check_counts
from hf_evol.generation.base import Chat, Record
from hf_evol.models import encoding
from hf_evol.prompts.evol_instruct import Method, resolve_methods
from hf_evol.scoring.local import ScoringTransform
from hf_evol.scoring.losses import OUT_OF_MEMORY, run_batches
from hf_evol.scoring.pairs import Pair, answered, evolving_prompts, is_text
from hf_evol.transform import Batch, rows_in

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Reward(ScoringTransform):
    """Score rows with a reward model: a sequence classifier of `transformers` with one output.

    The model reads a chat of two turns, by its own chat template, and its output is the reward, on a scale of its own.

    Input columns:
        With ``of="response"``: those of `IcIfd`; the user's turn is the instruction and, on a new line, the input.
        With ``of="evolution"``: ``instruction``, which is the assistant's turn, ``parent_instruction``, ``method`` and,
        if there, ``try``, ``context`` and ``evol_status``; the user's turn is the prompt that evolved the row in its last
        round.

    Output columns:
        ``reward`` and ``reward_status``: ``ok``, or why the reward is null: as in `IcIfd` ``invalid_input``,
        ``not_evolved``, ``eliminated``, ``not_answered``, ``too_long``, ``out_of_memory`` or ``not_finite``; or
        ``template_error: …`` (the chat template refuses the turns) or ``unknown_method`` (none of ``methods`` has the row's
        name).

    Args:
        model: a Hub id, a folder or a `ModelSpec`, such as ``"Skywork/Skywork-Reward-V2-Qwen3-0.6B"``.
        of: what to score: ``"response"`` or ``"evolution"``.
        methods: for evolutions: the methods that `EvolInstruct` was given.
        batch_tokens: as in `IcIfd`.

    Raises:
        ConfigError: the model has no chat template.
        ModelError: it isn't a reward model with one output.
    """

    of: Literal["response", "evolution"] = "response"
    methods: str | Path | Sequence[str | Method] = "alpaca"
    batch_tokens: int | None = None

    output_columns = {col.REWARD: "float64", col.REWARD_STATUS: "string"}
    label = "Reward"

    def __post_init__(self) -> None:
        if self.of not in ("response", "evolution"):
            raise ConfigError(f"of must be 'response' or 'evolution'; got {self.of!r}.")
        check_counts(self, "batch_tokens")
        super().__post_init__()
        object.__setattr__(self, "methods", resolve_methods(self.methods))

    @property
    def input_columns(self) -> tuple[str, ...]:
        if self.of == "response":
            return (col.INSTRUCTION, col.OUTPUT)
        return (col.INSTRUCTION, col.PARENT_INSTRUCTION, col.METHOD)

    def check(self) -> None:
        super().check()
        outputs = models.load_config(self.model).num_labels
        if outputs != 1:
            raise ModelError(
                f"The model {self.model.name!r} is no reward model: it has {outputs} outputs (labels), not one. Choose a "
                "sequence classifier with num_labels 1, such as Skywork/Skywork-Reward-V2-Qwen3-0.6B."
            )
        try:
            encoding.chat_frame(models.load_tokenizer(self.model), ("user", "assistant"), generation_prompt=False)
        except TemplateError as error:
            raise ConfigError(f"The chat template of {self.model.name!r} can't render two turns: {error}") from error

    def apply(self, batch: Batch) -> Batch:
        pairs = answered(batch) if self.of == "response" else _evolutions(batch, self.methods)
        chats = [_failed(p) if isinstance(p, str) else [*p[0], {"role": "assistant", "content": p[1]}] for p in pairs]
        fine = {col.REWARD_STATUS: col.OK}  # earlier versions remembered the reward alone
        records = [fine | record for record in self.remembered(chats, "reward", {})]
        return {name: [record[name] for record in records] for name in self.output_columns}

    def stream(self, requests: list[Chat]) -> Iterator[dict[int, Record]]:
        model, tokenizer = self.load(models.CLASSIFIER)
        rendered = encoding.render_chats(tokenizer, requests, generation_prompt=False)
        refused = {place: ids for place, ids in enumerate(rendered) if isinstance(ids, Exception)}
        yield {place: _failed(f"template_error: {error}") for place, error in refused.items()}
        fine = [place for place in range(len(requests)) if place not in refused]
        for records in rewards(model, [rendered[place] for place in fine], self.batch_tokens):
            yield {fine[number]: record for number, record in records.items()}


def _evolutions(batch: Batch, methods: Sequence[Method]) -> list[Pair | str]:
    """Of each row the prompt of its last round, and what it led to; or why they are not scored."""
    found: list[Pair | str] = []
    rows = rows_in(batch, col.INSTRUCTION, col.EVOL_STATUS)
    for prompt, (text, status) in zip(evolving_prompts(batch, methods), rows, strict=True):
        if (status or col.OK) != col.OK:
            found.append("not_evolved")
        elif not is_text(text):
            found.append("invalid_input")
        else:
            found.append(prompt if isinstance(prompt, str) else (prompt, text))
    return found


def rewards(model: Any, sequences: Sequence[list[int]], batch_tokens: int | None = None) -> Iterator[dict[int, Record]]:
    """Yield records by the sequence's place, batch by batch.

    Sequences are padded on the right. Decoders give the output of the last token that isn't their configuration's padding
    token, whatever the tokenizer's is. Where it names none, any token will do that ends no sequence.
    """
    import torch

    context, config = models.context_length(model.config), model.config.get_text_config()
    yield {place: _failed("too_long") for place, sequence in enumerate(sequences) if len(sequence) > context}
    fitting = [place for place, sequence in enumerate(sequences) if len(sequence) <= context]
    named, last = config.pad_token_id, {sequences[place][-1] for place in fitting}
    pad = named if named is not None and 0 <= named < config.vocab_size else min(set(range(len(last) + 1)) - last)

    def forward(batch: list[int], width: int) -> torch.Tensor:
        ids = torch.full((len(batch), width), pad)
        mask = torch.zeros_like(ids)
        for row, place in enumerate(batch):
            sequence = sequences[fitting[place]]
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        with torch.inference_mode():
            return model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits[:, 0]

    # One more than the sequence has: with a mask that hides nothing, transformers takes other kernels.
    lengths = [min(len(sequences[place]) + 1, context) for place in fitting]
    config.pad_token_id = pad
    try:
        for batch, outputs in run_batches(model, lengths, forward, batch_tokens):
            found = [None] if outputs is None else outputs.cpu().double().tolist()
            yield {fitting[number]: _scored(reward) for number, reward in zip(batch, found, strict=True)}
    finally:
        config.pad_token_id = named


def _scored(reward: float | None) -> Record:
    if reward is None:
        return _failed(OUT_OF_MEMORY)
    return {col.REWARD: reward, col.REWARD_STATUS: col.OK} if math.isfinite(reward) else _failed("not_finite")


def _failed(status: str) -> Record:
    return {col.REWARD: None, col.REWARD_STATUS: status}
