"""Evol-Instruct as a transform (WizardLM, arXiv:2304.12244; the paper's Scenario 1, arXiv:2412.11231)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.compute as pc
from datasets import Features, Value

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.errors import ColumnError, ConfigError, check_counts
from hf_evol.generation.base import Chat, Completion
from hf_evol.generation.sampling import row_key
from hf_evol.models import is_small
from hf_evol.prompts.auto_evol import AUTO
from hf_evol.prompts.evol_instruct import Method, method_at, prompt_at, resolve_methods
from hf_evol.prompts.examples import share_of_example
from hf_evol.prompts.languages import language_of
from hf_evol.prompts.template import in_context
from hf_evol.reading.evolved import read_evolved
from hf_evol.transform import Batch, SampledTransform, Transform, rows_in

_STARTS_FROM = (
    col.ID, col.INSTRUCTION, col.PARENT_INSTRUCTION, col.ELIMINATION, col.SEED_INSTRUCTION, col.ROUND, col.HISTORY, col.INPUT,
    col.CONTEXT, col.READ_STATUS,
)  # fmt: skip
_OF_CONSTRAINTS = (col.CONSTRAINTS, col.CHECKS, col.FUNCTIONS)
_LEAST_OF_EXAMPLE = 0.5  # of what a text and a worked example add
_LEAST_IN_ANY_LANGUAGE = 0.9  # of what a text adds, where no rule knows the language

_POSITION = re.compile(r"\d+\Z")
_REJECTED = {"try": "int32", "method": "string", "instruction": "string", "status": "string"}
_ROUND_RECORD = {
    "round": "int32", "method": "string", "parent": "string", "instruction": "string", "status": "string", "try": "int32",
    "rejected": [_REJECTED], "n_prompt_tokens": "int32", "n_tokens": "int32",
}  # fmt: skip


def position(row_id: Any) -> int:
    """A row's position in its seed set, from the number at the end of its id."""
    match = _POSITION.search(row_id) if isinstance(row_id, str) else None
    if match is None:
        raise ColumnError(
            f"The id {row_id!r} does not end in the row's position, as in 'alpaca-17'. "
            "Make ids with hf_evol.to_instructions(dataset)."
        )
    return int(match.group())


@dataclass(frozen=True, kw_only=True)
class EvolInstruct(SampledTransform):
    """Rewrite each instruction into a harder or rarer one, for one or more rounds.

    Row *i* in round *r*, both from 0, gets method ``(i + r) mod M`` of *M* (paper, Scenario 1); *i* is the number at the end
    of the row's id. A row whose reply is not ``ok`` (`hf_evol.read_evolved`) is asked again, up to ``tries`` times: by the
    methods that follow and keep the task, and when all have been tried, with other worked examples. In float32 a row's text is
    the same in any arrangement of rows; in half precision, rounding may differ with the batch. A row that is already evolved
    goes on from its ``round``, so three maps with ``rounds=1`` give what one map with ``rounds=3`` gives. A row that fails a
    round, or that `Eliminate` has flagged, goes on from its last good instruction, with worked examples not shown before.

    Input columns:
        ``id``, ``instruction``; and, if there, ``round``, ``seed_instruction``, ``history``, ``elimination``,
        ``output``, ``read_status``. ``instruction`` and, if there, ``context`` are shown to the model; ``input`` is carried
        through.

    Output columns:
        ``instruction`` (the last good one), ``parent_instruction`` (what the last round started from),
        ``seed_instruction``, ``round`` (rounds done), ``method`` and ``evol_status`` (of the last round),
        ``evolver`` (the model's name), ``try`` (which try of the last round gave the text, from 1; the last one where none
        did), ``rejected`` (a list with try, method, instruction and status of the last round's other texts), ``history`` (a list
        with round, method, parent, instruction, status, try, rejected and the numbers of prompt and generated tokens, over
        all tries, of every round). An ``output`` answers the seed: it becomes null and is kept as ``seed_output``. The
        constraints of `BackTranslate`, which such an answer met, are cleared with their status.

        ``evol_status`` is ``ok``, one of the reasons of `hf_evol.read_evolved`, ``off_example`` (adds other things than the
        worked examples, see ``by_example``), ``invalid_input`` (no text to evolve), ``too_long: …`` (the prompt does not fit
        the model's context), ``template_error: …``, ``engine_error: …``, or the ``read_status`` of a row that can't be read.

    Args:
        model: the evolver: a Hub id, a folder, a `ModelSpec` or an engine.
        methods: a preset (``alpaca``, ``gsm8k``, ``code``, ``writing``, ``science``, ``multilingual``), names, `Method` objects, or a
            YAML file. ``multilingual`` needs the extra of that name, and each text has to be in its row's language.
        rounds: how many rounds to add.
        tries: how often a row may be asked in a round; at temperature 0 no prompt is sent twice.
        best_of: of so many ``ok`` texts, found within ``tries``, take the one that ``prefer`` likes best.
        prefer: transforms that are applied to the texts in turn, such as ``(Respond(…), IcIfd(…))``, the last of which gives a
            number in its first output column. They see ``id``, ``instruction``, ``input``, ``parent_instruction``, ``method``
            and ``round``. The highest number wins, and among equals the first; null is the lowest. Needed where ``best_of`` is
            over 1.
        by_example: whether, by methods that choose examples by form (``shots``), an in-depth text is ``ok`` only if it keeps its
            parent's words in some form (save the first verb, and small words such as "of"), and adds much the same as a worked
            example in its prompt, of a form like its own: of the words that one of them adds, at least half are added by both. In
            code, words may be lost, and at least half of the words that the text adds are the example's; in another language than
            English (``same_language``), nine tenths, and no new task by ``breadth`` is ``ok``. None for models of fewer than 300 million parameters: what
            SmolLM2-135M adds by itself is right in half of the cases (``benchmarks/results/small-models.md``).
        seed: of the sampling noise, which depends on seed, id, round, try and position in the text alone.
        temperature: 0.7 in the paper. At 0, the default, models of some hundred million parameters write by far the best texts
            (``benchmarks/results/small-models.md``); each try shows other worked examples, which the template must have.
        top_p: 0.95 in the paper.
        max_new_tokens: 2,048 in the paper.
        journal: True for the journal in the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
        MissingExtraError: methods that keep the language, without the extra ``multilingual``; at construction.
        ColumnError: a missing column, or an id without a position.

    Example:
        >>> evolver = EvolInstruct("HuggingFaceTB/SmolLM2-360M-Instruct", methods="code", rounds=3)
        >>> evolved = seeds.map(evolver, batched=True, batch_size=512)  # doctest: +SKIP
    """

    methods: str | Path | Sequence[str | Method] = "alpaca"
    rounds: int = 1
    tries: int = 8
    best_of: int = 1
    prefer: Sequence[Transform] | None = None
    by_example: bool | None = None
    temperature: float = 0.0

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.INSTRUCTION)
    output_columns: ClassVar[dict[str, Any]] = {
        col.INSTRUCTION: "string", col.PARENT_INSTRUCTION: "string", col.SEED_INSTRUCTION: "string", col.ROUND: "int32",
        col.METHOD: "string", col.EVOL_STATUS: "string", col.EVOLVER: "string", col.TRY: "int32", col.REJECTED: [_REJECTED],
        col.HISTORY: [_ROUND_RECORD],
    }  # fmt: skip
    rewritten_columns: ClassVar[tuple[str, ...]] = (
        col.OUTPUT, col.SEED_OUTPUT, col.ELIMINATION, *_OF_CONSTRAINTS, col.BACK_TRANSLATE_STATUS,
    )  # fmt: skip
    keyed_by: ClassVar[tuple[str, ...]] = (col.ID, col.ROUND)
    label: ClassVar[str] = "Evolve"

    def __post_init__(self) -> None:
        check_counts(self, "rounds")
        if not 1 <= self.best_of <= self.tries:
            raise ConfigError(f"best_of must be from 1 to tries; got best_of={self.best_of!r}, tries={self.tries!r}.")
        preferring = self.prefer if isinstance(self.prefer, Sequence) else (self.prefer,)
        if self.prefer is not None and not all(isinstance(one, Transform) for one in preferring):
            raise ConfigError(f"prefer must be transforms, of which the last gives a number; got {self.prefer!r}.")
        if self.best_of > 1 and not self.prefer:
            raise ConfigError("best_of needs prefer=, transforms of which the last gives a number.")
        object.__setattr__(self, "methods", self._resolved_methods())
        super().__post_init__()

    def _resolved_methods(self) -> tuple[Method, ...]:
        methods = () if self.methods == AUTO.name else resolve_methods(self.methods)
        if not methods or any(method.kind == "auto" for method in methods):
            raise ConfigError(
                "Methods of kind 'auto' are for hf_evol.AutoEvolInstruct(model); they can't be mixed with others."
            )
        return methods

    @property
    def passes(self) -> int:
        return self.rounds

    def check(self) -> None:
        super().check()
        for one in self._preferring:
            one.check()

    def identity(self) -> Any:
        others = [one.identity() for one in self._preferring]
        return self.model.identity() | {"by_example": self._stays_by_example} | ({"prefer": others} if others else {})

    @property
    def _stays_by_example(self) -> bool:
        return is_small(self.model) if self.by_example is None else self.by_example

    @property
    def _preferring(self) -> tuple[Transform, ...]:
        return tuple(self.prefer) if self.prefer and self.best_of > 1 else ()

    def method(self, row_id: str, round: int, attempt: int = 1) -> Method:
        """The method of the row with this id in a round, counted from 0, at a try, counted from 1."""
        return method_at(self.methods, (position(row_id) + round) % len(self.methods), attempt)

    def features(self, features: Features) -> Features:
        added = {col.SEED_OUTPUT: Value("string")} if col.OUTPUT in features else {}
        return Features(dict(super().features(features)) | added)

    def statuses(self, table: Any) -> Iterator[Any]:
        """Those of each round of this call, of which the last one's is ``evol_status``."""
        yield pc.struct_field(new_history(table[col.HISTORY], table[col.ROUND], self.rounds), "status")

    def apply(self, batch: Batch) -> Batch:
        rows = _initial_rows(batch)
        for _ in range(self.rounds):
            self._one_round(rows)
        out: Batch = {name: [row.get(name) for row in rows] for name in self.output_columns}
        if col.OUTPUT in batch:
            out[col.SEED_OUTPUT] = batch.get(col.SEED_OUTPUT, batch[col.OUTPUT])
            out[col.OUTPUT] = [None] * len(rows)
        if col.ELIMINATION in batch:
            out[col.ELIMINATION] = [col.KEPT] * len(rows)
        if col.BACK_TRANSLATE_STATUS in batch:  # of responses that are there no more
            out |= {name: [[] for _ in rows] for name in _OF_CONSTRAINTS if name in batch}
            out[col.BACK_TRANSLATE_STATUS] = [None] * len(rows)
        return out

    def prompt(self, row_id: str, instruction: str, round: int, attempt: int = 1, context: Chat | None = None) -> Chat:
        """The chat that evolves an instruction in a round, counted from 0, at a try, counted from 1."""
        return prompt_at(self.methods, self.method(row_id, round, attempt), instruction, attempt, context)

    def _one_round(self, rows: list[dict[str, Any]]) -> None:
        asked = [Asked(row, self.method(row[col.ID], row[col.ROUND])) for row in rows]
        waiting = [one for one in asked if isinstance(text := one.row[col.INSTRUCTION], str) and text.strip()]
        for attempt in range(1, self.tries + 1):
            asking = []
            for one in waiting:
                method = self.method(one.row[col.ID], one.row[col.ROUND], attempt)
                prompt = prompt_at(self.methods, method, one.row[col.INSTRUCTION], attempt + self.tries * one.earlier)
                if self.temperature or prompt not in one.prompts:  # greedily, it would give the same text
                    one.method, one.prompts = method, [*one.prompts, prompt]
                    asking.append(one)
            keys = [row_key(self.seed, one.row[col.ID], one.row[col.ROUND], "evolve", attempt) for one in asking]
            chats = [in_context(one.prompt, one.row[col.CONTEXT]) for one in asking]
            with progress.attempt(attempt, self.tries, len(asking)):
                self.complete(chats, keys, is_through=partial(self._take, asking, attempt))
            waiting = [one for one in waiting if not one.is_through]
        progress.advance(sum(not one.is_through for one in asked))
        self._prefer([one for one in asked if len(one.good) > 1])
        for one in asked:
            self._record(one)

    def _take(self, waiting: list[Asked], attempt: int, place: int, completion: Completion) -> bool:
        """Note what a try gave; says whether it was the row's last."""
        one = waiting[place]
        one.completions.append(completion)
        text, status = (None, completion.error) if completion.error else self.read(one, completion)
        one.tried.append({"try": attempt, "method": one.method.name, "instruction": text, "status": status})
        one.is_through = attempt == self.tries or one.error is not None or len(one.good) >= self.best_of
        return one.is_through

    def read(self, one: Asked, completion: Completion) -> tuple[str | None, str]:
        """The evolved instruction in a reply, and its status."""
        return self._read(completion.text, completion.finish_reason, one.prompt, one)

    def _read(self, reply: str, finish_reason: str, prompt: Chat, one: Asked) -> tuple[str | None, str]:
        """As `read`, of a reply whose worked examples in the prompt are evolved texts alone."""
        parent, method = one.row[col.INSTRUCTION], one.method
        in_breadth, language = method.kind == "in_breadth", method.same_language
        text, status = read_evolved(
            reply,
            parent=parent,
            prompt=prompt,
            method="breadth" if in_breadth else method.name,
            finish_reason=finish_reason,
            context=one.row[col.CONTEXT],
            same_language=language,
        )
        foreign = language and language_of(parent) != "en"
        if status == col.OK and (foreign or not in_breadth) and method.shots is not None and self._stays_by_example:
            share = 0.0 if in_breadth else share_of_example(text, parent, prompt, any_form=foreign)
            least = _LEAST_IN_ANY_LANGUAGE if foreign else _LEAST_OF_EXAMPLE
            status = "off_example" if share is not None and share < least else status
        return text, status

    def _prefer(self, several: list[Asked]) -> None:
        """Choose among the good texts of rows that have several."""
        if not several:
            return
        texts = [(one, text) for one in several for text in one.good]
        batch: Batch = {
            col.ID: [one.row[col.ID] for one, _ in texts],
            col.INSTRUCTION: [text["instruction"] for _, text in texts],
            col.INPUT: [one.row[col.INPUT] for one, _ in texts],
            col.PARENT_INSTRUCTION: [one.row[col.INSTRUCTION] for one, _ in texts],
            col.METHOD: [text["method"] for _, text in texts],
            col.ROUND: [one.row[col.ROUND] + 1 for one, _ in texts],
        }
        if any(one.row[col.CONTEXT] for one in several):
            batch[col.CONTEXT] = [one.row[col.CONTEXT] for one, _ in texts]
        with progress.still():
            for transform in self._preferring:
                batch |= transform(batch)
        numbers = iter(batch[next(iter(self._preferring[-1].output_columns))])
        for one in several:
            numbered = [(text, next(numbers)) for text in one.good]
            one.preferred = max(numbered, key=lambda pair: float("-inf") if pair[1] is None else pair[1])[0]

    def _record(self, one: Asked) -> None:
        row, parent = one.row, one.row[col.INSTRUCTION]
        why = row[col.READ_STATUS] if row[col.READ_STATUS] not in (None, col.OK) else "invalid_input"
        untried = {"try": None, "method": one.method.name, "instruction": None, "status": why}
        taken = one.preferred or [*one.good, *one.tried[-1:], untried][0]
        status, rejected = taken["status"], [other for other in one.tried if other is not taken]
        if one.tried and one.error is None and status != col.OK:
            rejected.append(taken)  # its place is not the instruction column
        row[col.ROUND] += 1
        counts = {
            name: sum(getattr(each, name) for each in one.completions) for name in ("n_prompt_tokens", "n_tokens")
        }
        entry = {"round": row[col.ROUND], "parent": parent, "rejected": rejected} | taken | counts
        row |= {
            col.HISTORY: [*row[col.HISTORY], entry],
            col.PARENT_INSTRUCTION: parent,
            col.METHOD: taken["method"],
            col.EVOL_STATUS: status,
            col.EVOLVER: self.model.name,
            col.TRY: taken["try"],
            col.REJECTED: rejected,
            col.INSTRUCTION: taken["instruction"] if status == col.OK else parent,
        }


def new_history(history: Any, rounds: Any, n: int) -> Any:
    """The entries of the last ``n`` rounds, of the pyarrow columns ``history`` and ``round``."""
    entries, before = pc.list_flatten(history), pc.subtract(rounds, n)
    return entries.filter(pc.greater(pc.struct_field(entries, "round"), before.take(pc.list_parent_indices(history))))


@dataclass
class Asked:
    """A row that is being evolved in a round, the method last asked for, the turns sent (without the row's context), and what
    each try gave."""

    row: dict[str, Any]
    method: Method
    prompts: list[Chat] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)
    preferred: dict[str, Any] | None = None
    is_through: bool = False

    @property
    def prompt(self) -> Chat:
        return self.prompts[-1]

    @property
    def earlier(self) -> int:
        """In how many rounds just before this one the same text was to be evolved, in vain."""
        same = takewhile(lambda entry: entry["parent"] == self.row[col.INSTRUCTION], reversed(self.row[col.HISTORY]))
        return sum(1 for _ in same)

    @property
    def error(self) -> str | None:
        return self.completions[-1].error if self.completions else None

    @property
    def good(self) -> list[dict[str, Any]]:
        return [entry for entry in self.tried if entry["status"] == col.OK]


def _initial_rows(batch: Batch) -> list[dict[str, Any]]:
    """One mutable record a row: where the next round starts from."""
    rows = [dict(zip(_STARTS_FROM, row, strict=True)) for row in rows_in(batch, *_STARTS_FROM)]
    for row in rows:
        for name, kind in ((col.ROUND, int), (col.HISTORY, list)):
            if not isinstance(row[name], kind | None):
                raise ColumnError(f"Column {name!r} holds {row[name]!r}, which EvolInstruct did not write. Rename it.")
        if col.PARENT_INSTRUCTION in batch and row[col.ELIMINATION] not in (None, col.KEPT):
            row[col.INSTRUCTION] = row[col.PARENT_INSTRUCTION]
        if row[col.SEED_INSTRUCTION] is None:
            row[col.SEED_INSTRUCTION] = row[col.INSTRUCTION]
        row[col.ROUND], row[col.HISTORY] = row[col.ROUND] or 0, list(row[col.HISTORY] or ())
    return rows
