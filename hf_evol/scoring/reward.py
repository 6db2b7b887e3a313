"""Scores of a reward model (paper, "Reward")."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

from hf_evol import columns as col
from hf_evol import models, progress
from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation.base import Chat
from hf_evol.models import encoding
from hf_evol.models.journal import Journal, open_journal
from hf_evol.prompts.evol_instruct import Method, prompt_at, resolve_methods
from hf_evol.scoring.local import ScoringTransform
from hf_evol.scoring.losses import OUT_OF_MEMORY, padded_length, token_budget
from hf_evol.scoring.pairs import make_pair
from hf_evol.transform import Batch, failures

Result = tuple[float | None, str]  # a reward and its status

_budgets: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # what worked, once memory has run out


@dataclass(frozen=True, kw_only=True)
class Reward(ScoringTransform):
    """Score rows with a reward model: a sequence classifier of `transformers` with one output.

    The model reads a chat of two turns, by its own chat template, and its output is the reward, on the model's own
    scale: compare rewards of one model alone. As with `IcIfd`, no row's reward depends on the others (on a
    CPU: with as many threads).

    Input columns:
        With ``of="response"``: ``instruction``, ``output``; and, if there, ``input`` and the status columns of earlier stages:
        rows that failed one are not scored. The user's turn is the instruction
        and, on a new line, the input; the assistant's is the output.
        With ``of="evolution"``: ``instruction``, ``parent_instruction``, ``method``; and, if there, ``try`` and ``evol_status``. The
        user's turn is the prompt that evolved the row in its last round; the assistant's is the instruction.

    Output columns:
        ``reward`` (null where there is none), and ``reward_status``: ``ok``, ``invalid_input`` (a text is missing),
        ``not_evolved``, ``eliminated`` or ``not_answered`` (an earlier stage failed), ``unknown_method`` (none of ``methods`` has the row's name),
        ``too_long`` (for the model's context), ``out_of_memory`` (even alone) or ``not_finite``.

    Args:
        model: a Hub id, a folder or a `ModelSpec`, such as ``"Skywork/Skywork-Reward-V2-Qwen3-0.6B"``.
        of: what to score: ``"response"`` or ``"evolution"``.
        methods: for evolutions: the methods that `EvolInstruct` was given.
        batch_tokens: as in `IcIfd`.
        journal: True to remember finished rows in the cache folder, False, or a file.

    Raises:
        ConfigError: a wrong argument, at construction; no chat template.
        ColumnError: a missing column.
        ModelError: the model can't be found, or isn't a reward model with one output.
    """

    of: Literal["response", "evolution"] = "response"
    methods: str | Path | Sequence[str | Method] = "alpaca"
    batch_tokens: int | None = None

    output_columns: ClassVar[dict[str, Any]] = {col.REWARD: "float64", col.REWARD_STATUS: "string"}
    label: ClassVar[str] = "Reward"

    def __post_init__(self) -> None:
        if self.of not in ("response", "evolution"):
            raise ConfigError(f"of must be 'response' or 'evolution'; got {self.of!r}.")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens must be 1 or more; got {self.batch_tokens!r}.")
        super().__post_init__()
        object.__setattr__(self, "methods", resolve_methods(self.methods))

    @property
    def input_columns(self) -> tuple[str, ...]:
        if self.of == "response":
            return (col.INSTRUCTION, col.OUTPUT)
        return (col.INSTRUCTION, col.PARENT_INSTRUCTION, col.METHOD)

    def check(self) -> None:
        from jinja2 import TemplateError

        super().check()
        outputs = models.load_config(self.model).num_labels
        if outputs != 1:
            raise ModelError(
                f"The model {self.model.name!r} is no reward model: it has {outputs} outputs (labels), and a reward model "
                "has one. Choose a sequence classifier with num_labels 1, such as Skywork/Skywork-Reward-V2-Qwen3-0.6B."
            )
        tokenizer = models.load_tokenizer(self.model)
        if not tokenizer.chat_template:
            raise ConfigError(
                f"The model {self.model.name!r} has no chat template. Supply the one that it was trained with: "
                "chat_template= in hf_evol.ModelSpec."
            )
        try:
            encoding.chat_frame(tokenizer, ("user", "assistant"), generation_prompt=False)
        except TemplateError as error:
            raise ConfigError(f"The chat template of {self.model.name!r} can't render two turns: {error}") from error

    def apply(self, batch: Batch) -> Batch:
        chats = self._chats(batch)
        results: list[Result] = [(None, chat) if isinstance(chat, str) else (None, "") for chat in chats]
        asked = [place for place, chat in enumerate(chats) if not isinstance(chat, str)]
        progress.advance(len(chats) - len(asked))
        for place, result in zip(asked, self._rewards([chats[place] for place in asked]), strict=True):
            results[place] = result
        return {col.REWARD: [reward for reward, _ in results], col.REWARD_STATUS: [status for _, status in results]}

    def _chats(self, batch: Batch) -> list[Chat | str]:
        """Each row's turns, or why there are none."""
        instructions = batch[col.INSTRUCTION]
        nothing = [None] * len(instructions)
        if self.of == "response":
            rows = zip(instructions, batch[col.OUTPUT], batch.get(col.INPUT, nothing), strict=True)
            return [why or _chat(*row) for row, why in zip(rows, failures(batch), strict=True)]
        methods = {method.name: method for method in self.methods}
        statuses = [status or col.OK for status in batch.get(col.EVOL_STATUS, nothing)]
        tries = batch.get(col.TRY, nothing)
        rows = zip(instructions, batch[col.PARENT_INSTRUCTION], batch[col.METHOD], tries, statuses, strict=True)
        return [_evolution(methods, *row) for row in rows]

    def _rewards(self, chats: list[Chat]) -> list[Result]:
        """The chats' rewards, those that the journal knows among them; new ones are durable as they finish."""
        journal = open_journal(self.journal)
        results: dict[int, Result] = {}
        hashes: list[str] = []
        if journal is not None:
            identity = self.identity()
            hashes = [Journal.key(identity, chat, "reward") for chat in chats]
            known = journal.get(hashes)
            results = {place: (known[key][col.REWARD], col.OK) for place, key in enumerate(hashes) if key in known}
            progress.advance(len(results))
        missing = [place for place in range(len(chats)) if place not in results]
        if missing:
            self.check()
            model, tokenizer = models.load_model(self.model, models.CLASSIFIER), models.load_tokenizer(self.model)
            sequences = [encoding.render_chat(tokenizer, chats[place], generation_prompt=False) for place in missing]
            for finished in _outputs(model, sequences, self.batch_tokens):
                results.update({missing[number]: result for number, result in finished.items()})
                if journal is not None:
                    lasting = {number: reward for number, (reward, status) in finished.items() if status == col.OK}
                    journal.put({hashes[missing[number]]: {col.REWARD: reward} for number, reward in lasting.items()})
                progress.advance(len(finished))
        return [results[place] for place in range(len(chats))]


def _chat(instruction: Any, output: Any, input: Any = None) -> Chat | str:
    pair = make_pair(instruction, output, input)
    return "invalid_input" if pair is None else [*pair[0], {"role": "assistant", "content": pair[1]}]


def _evolution(
    methods: dict[str, Method], evolved: Any, parent: Any, method: Any, attempt: Any, status: str
) -> Chat | str:
    if status != col.OK:
        return "not_evolved"
    if not isinstance(parent, str) or not parent.strip() or not isinstance(method, str):
        return "invalid_input"
    if method not in methods:
        return "unknown_method"
    return (
        [
            *prompt_at(tuple(methods.values()), methods[method], parent, attempt or 1),
            {"role": "assistant", "content": evolved},
        ]
        if isinstance(evolved, str) and evolved.strip()
        else "invalid_input"
    )


def _outputs(model: Any, sequences: Sequence[Sequence[int]], batch_tokens: int | None) -> Iterator[dict[int, Result]]:
    """Yield results by the sequence's place, batch by batch, the longest first."""
    context = models.context_length(model.config)
    waiting = sorted(range(len(sequences)), key=lambda place: (-len(sequences[place]), place))
    unfit = [place for place in waiting if len(sequences[place]) > context]
    yield dict.fromkeys(unfit, (None, "too_long"))
    waiting = waiting[len(unfit) :]
    # One more than the sequence has: with a mask that hides nothing, transformers takes other kernels.
    widths = [padded_length(min(len(sequence) + 1, context), context) for sequence in sequences]
    while waiting:
        wanted, width = batch_tokens or token_budget(model), widths[waiting[0]]
        count = max(1, min(wanted, _budgets.get(model, wanted)) // width)
        batch = [place for place in waiting[:count] if widths[place] == width]
        try:
            values = _forward(model, [sequences[place] for place in batch], (count, width))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not models.is_out_of_memory(error):
                raise
            values = None
        if values is None and count > 1:
            _budgets[model] = count // 2 * width
            continue
        waiting = waiting[len(batch) :]
        results = [(None, OUT_OF_MEMORY)] if values is None else [_result(value) for value in values]
        yield dict(zip(batch, results, strict=True))


def _result(value: float) -> Result:
    return (value, col.OK) if math.isfinite(value) else (None, "not_finite")


def _forward(model: Any, sequences: Sequence[Sequence[int]], shape: tuple[int, int]) -> list[float]:
    """The model's outputs for sequences padded on the right, and filled up to the shape as in `scoring.losses`.

    Decoders give the output of the last token that isn't their configuration's padding token, whatever the tokenizer's
    is. Where it names none, any token will do that ends no sequence of the batch.
    """
    import torch

    config = model.config.get_text_config()
    named = config.pad_token_id
    last = {sequence[-1] for sequence in sequences}
    pad = named if named is not None and 0 <= named < config.vocab_size else min(set(range(len(last) + 1)) - last)
    (count, width), given = shape, len(sequences)
    sequences = [*sequences, *[sequences[-1]] * (count - given)]
    ids = torch.tensor([[*sequence, *[pad] * (width - len(sequence))] for sequence in sequences], device=model.device)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=model.device)
    mask = (torch.arange(width, device=model.device) < lengths[:, None]).long()
    try:
        config.pad_token_id = pad
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=mask).logits[:given, 0].double().tolist()
    finally:
        config.pad_token_id = named
