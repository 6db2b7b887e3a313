"""Evol-Instruct as a transform (WizardLM, arXiv:2304.12244; the paper's Scenario 1, arXiv:2412.11231)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.evolve.clean import clean_evolved, evolved_status
from hf_evol.generation.base import Completion, Engine, SamplingParams, generate
from hf_evol.generation.journal import open_journal
from hf_evol.generation.models import ModelSpec
from hf_evol.generation.sampling import row_key
from hf_evol.generation.transformers_engine import as_engine
from hf_evol.prompts.evol_instruct import Method, resolve_methods
from hf_evol.prompts.template import chat
from hf_evol.transform import Batch, Transform

if TYPE_CHECKING:
    from datasets import Features

_POSITION = re.compile(r"(\d+)\Z")

_ROUND_RECORD = {
    "round": "int32", "method": "string", "parent": "string", "instruction": "string", "status": "string",
    "n_prompt_tokens": "int32", "n_tokens": "int32",
}  # fmt: skip


def position(row_id: Any) -> int:
    """A row's position in its seed set, from the number at the end of its id.

    Raises:
        ColumnError: the id does not end in a number.
    """
    match = _POSITION.search(row_id) if isinstance(row_id, str) else None
    if match is None:
        raise ColumnError(
            f"The id {row_id!r} does not end in the row's position, as in 'alpaca-17'. "
            "Make ids with hf_evol.to_instructions(dataset)."
        )
    return int(match.group(1))


@dataclass(frozen=True)
class EvolInstruct(Transform):
    """Rewrite each instruction into a harder or rarer one, for one or more rounds.

    Row *i* in round *r*, both from 0, gets method ``(i + r) mod M`` of *M* (paper, Scenario 1); *i* is the
    number at the end of the row's id. In float32 a row's text is the same in any arrangement of rows; in half
    precision, rounding may differ with the batch. A row that is already evolved goes on from its ``round``, so three maps
    with ``rounds=1`` give what one map with ``rounds=3`` gives. A row that fails a round keeps its last good
    instruction, and the next round starts from that one; so does a row that `Eliminate` has flagged.

    Input columns:
        ``id``, ``instruction``; and, if there, ``round``, ``seed_instruction``, ``history``, ``elimination``,
        ``output``. Only ``instruction`` is shown to the model; ``input`` is carried through.

    Output columns:
        ``instruction`` (the last good one), ``parent_instruction`` (what the last round started from),
        ``seed_instruction``, ``round`` (rounds done), ``method`` and ``evol_status`` (of the last round),
        ``evolver`` (the model's name), ``history`` (a list with round, method, parent, instruction, status
        and the numbers of prompt and generated tokens of every round). Where there is an ``output``, it becomes null, as it answers the seed, and
        is kept as ``seed_output``.

        ``evol_status`` is ``ok``, ``empty``, ``unchanged``, ``leak`` (words of the evolving prompt),
        ``refusal``, ``cut_off`` (by the token limit), ``invalid_input`` (no text to evolve), ``too_long: …``
        (the prompt does not fit the model's context) or ``engine_error: …``.

    Args:
        model: the evolver: a Hub id, a folder, a `ModelSpec` or an engine.
        methods: a preset (``alpaca``, ``gsm8k``, ``code``), names, `Method` objects, or a YAML file.
        rounds: how many rounds to add.
        seed: of the sampling noise, which depends on seed, id, round and position in the text alone.
        temperature: 0.7 in the paper; 0 is greedy.
        top_p: 0.95 in the paper.
        max_new_tokens: 2,048 in the paper.
        journal: True for the journal in the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column, or an id without a position.

    Example:
        >>> evolver = EvolInstruct("embedded", methods="gsm8k", rounds=3)
        >>> evolved = seeds.map(evolver, batched=True, batch_size=512)  # doctest: +SKIP
    """

    model: str | ModelSpec | Engine
    methods: str | Path | Sequence[str | Method] = "alpaca"
    rounds: int = 1
    seed: int = 0
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 2048
    journal: bool | str | Path = True

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.INSTRUCTION)
    output_columns: ClassVar[dict[str, Any]] = {
        col.INSTRUCTION: "string",
        col.PARENT_INSTRUCTION: "string",
        col.SEED_INSTRUCTION: "string",
        col.ROUND: "int32",
        col.METHOD: "string",
        col.EVOL_STATUS: "string",
        col.EVOLVER: "string",
        col.HISTORY: [_ROUND_RECORD],
    }
    label: ClassVar[str] = "Evolve"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds must be 1 or more; got {self.rounds!r}.")
        object.__setattr__(self, "model", as_engine(self.model))
        object.__setattr__(self, "methods", resolve_methods(self.methods))
        self.sampling  # noqa: B018 - checks temperature, top_p and max_new_tokens now

    @property
    def sampling(self) -> SamplingParams:
        return SamplingParams(self.temperature, self.top_p, self.max_new_tokens)

    @property
    def passes(self) -> int:
        return self.rounds

    def check(self) -> None:
        self.model.check()

    def identity(self) -> Any:
        return self.model.identity()

    def method(self, row_id: str, round: int) -> Method:
        """The method of the row with this id in a round, counted from 0."""
        return self.methods[(position(row_id) + round) % len(self.methods)]

    def features(self, features: Features) -> Features:
        from datasets import Features, Value

        added = {col.SEED_OUTPUT: Value("string")} if col.OUTPUT in features else {}
        return Features(dict(super().features(features)) | added)

    def apply(self, batch: Batch) -> Batch:
        rows = _initial_rows(batch)
        for row in rows:
            position(row[col.ID])
        for _ in range(self.rounds):
            self._one_round(rows)
        out: Batch = {name: [row.get(name) for row in rows] for name in self.output_columns}
        if col.OUTPUT in batch:
            out[col.SEED_OUTPUT] = batch.get(col.SEED_OUTPUT, batch[col.OUTPUT])
            out[col.OUTPUT] = [None] * len(rows)
        if col.ELIMINATION in batch:
            out[col.ELIMINATION] = [col.KEPT] * len(rows)
        return out

    def prompt(self, row_id: str, instruction: str, round: int) -> list[dict[str, str]]:
        """The chat that evolves an instruction in a round, counted from 0."""
        return chat(self.method(row_id, round).prompt(instruction))

    def _one_round(self, rows: list[dict[str, Any]]) -> None:
        usable = [row for row in rows if isinstance(row[col.INSTRUCTION], str) and row[col.INSTRUCTION].strip()]
        chats = [self.prompt(row[col.ID], row[col.INSTRUCTION], row[col.ROUND]) for row in usable]
        keys = [row_key(self.seed, row[col.ID], row[col.ROUND], "evolve") for row in usable]
        completions = generate(self.model, chats, self.sampling, keys, open_journal(self.journal))
        progress.advance(len(rows) - len(usable))
        by_row = {id(row): completion for row, completion in zip(usable, completions, strict=True)}
        for row in rows:
            self._record(row, by_row.get(id(row)))

    def read(self, row: dict[str, Any], text: str) -> tuple[str | None, str]:
        """The evolved instruction in a reply, and its status."""
        text = clean_evolved(text)
        return text, evolved_status(text, row[col.INSTRUCTION])

    def _record(self, row: dict[str, Any], completion: Completion | None) -> None:
        parent, method = row[col.INSTRUCTION], self.method(row[col.ID], row[col.ROUND]).name
        if completion is None:
            text, status = None, "invalid_input"
        elif completion.error is not None:
            text, status = None, completion.error
        else:
            text, status = self.read(row, completion.text)
            if completion.finish_reason == "length":
                status = "cut_off"
        row[col.ROUND] += 1
        entry = {"round": row[col.ROUND], "method": method, "parent": parent, "instruction": text, "status": status}
        for count in ("n_prompt_tokens", "n_tokens"):
            entry[count] = getattr(completion, count) if completion is not None else 0
        row[col.HISTORY] = [*row[col.HISTORY], entry]
        row |= {
            col.PARENT_INSTRUCTION: parent,
            col.METHOD: method,
            col.EVOL_STATUS: status,
            col.EVOLVER: self.model.name,
            col.INSTRUCTION: text if status == col.OK else parent,
        }


def _initial_rows(batch: Batch) -> list[dict[str, Any]]:
    """One mutable record a row: where the next round starts from."""
    nothing = [None] * len(batch[col.ID])
    instructions = list(batch[col.INSTRUCTION])
    if col.PARENT_INSTRUCTION in batch:
        for place, flag in enumerate(batch.get(col.ELIMINATION, ())):
            if flag not in (None, col.KEPT):
                instructions[place] = batch[col.PARENT_INSTRUCTION][place]
    seeds, rounds, histories = (batch.get(name, nothing) for name in (col.SEED_INSTRUCTION, col.ROUND, col.HISTORY))
    for name, values, kind in ((col.ROUND, rounds, int), (col.HISTORY, histories, list)):
        wrong = [value for value in values if value is not None and not isinstance(value, kind)]
        if wrong:
            raise ColumnError(
                f"Column {name!r} holds {wrong[0]!r}, which EvolInstruct did not write. Rename that column."
            )
    return [
        {
            col.ID: row_id,
            col.INSTRUCTION: text,
            col.SEED_INSTRUCTION: text if seed is None else seed,
            col.ROUND: done or 0,
            col.HISTORY: list(history or []),
        }
        for row_id, text, seed, done, history in zip(batch[col.ID], instructions, seeds, rounds, histories, strict=True)
    ]
