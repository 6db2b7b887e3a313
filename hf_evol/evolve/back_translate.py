"""Add constraints that the response already meets (constraint back-translation, arXiv:2410.24175)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.constraints.constraint import Constraint
from hf_evol.constraints.named import Named, group_of, is_countable, is_telling, measurable
from hf_evol.constraints.offers import is_suited, offers
from hf_evol.errors import ConfigError, check_counts
from hf_evol.generation.base import GREEDY, Chat, Completion, Engine, generate
from hf_evol.generation.sampling import row_key, uniforms
from hf_evol.generation.transformers_engine import as_engine
from hf_evol.models import ModelSpec, is_small
from hf_evol.models.journal import open_journal
from hf_evol.prompts.constraints import GROUPS, Pick, asks_for, joined, naming_prompt, verifying_prompts, worded
from hf_evol.prompts.judge import task
from hf_evol.reading.conditions import conditions, says_yes
from hf_evol.transform import Batch, Transform, failures, processes_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BackTranslate(Transform):
    """Add to each instruction a few constraints that its response meets already, so that nothing is answered anew.

    Code measures the response, in the kinds of IFEval (arXiv:2311.07911) and some of code and of worked calculations, and every
    such constraint comes with the function that checks it, run on the response before the row is given back. Bounds are those that
    a person would state, and what the instruction asks for itself is not asked for again. With ``model``, constraints are drawn
    from those, too, that this model names for the response: those about its form if code finds them met, the others if the judge,
    asked whether the response meets a constraint and whether it breaks it, says yes and no.

    Input columns:
        ``id``, ``instruction``, ``output``; and, if there, ``input``, ``round``, ``constraints``,
        ``checks`` and ``functions``, which are added to, and the
        status columns of earlier stages: rows that failed one stay as they are.

    Output columns:
        ``instruction`` (with its constraints), ``parent_instruction`` (without them; as it was, unless ok), ``constraints`` (as they are
        worded), ``checks`` (the same as data: ``kind``, the name of a count in ``hf_evol.constraints.counts``, and its
        ``parameters`` with the bounds ``at_least`` and ``at_most``, as JSON; or the kind ``judged`` with the judge's name),
        ``functions`` (those that code checks as Python, which ``CheckResponses`` and ``pass_rates`` of `hf_evol.autoif` run),
        ``back_translate_status``: ``ok``, ``invalid_input`` (no text in either), ``no_constraint`` (none would be
        sensible, as where the instruction is not English, the answer has over 20,000 characters or, unless a model names one, where
        it is prose and code or not English), ``engine_error: …`` or ``out_of_memory`` (of a request to a model; the row stays as it
        is), ``not_evolved``, ``eliminated`` or ``not_answered``.

    Args:
        model: a model that names constraints: a Hub id, a folder, a `ModelSpec` or an engine; None asks no model.
        judge: the model that verifies them; by default the same. One of fewer than 300 million parameters is not believed, so that
            what code can't check is left out.
        max_constraints: how many a row gets at most; how many it gets is drawn from 1 on.
        seed: of the drawing, which depends on seed, id and round alone.
        journal: for the models: True for the journal in the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column.

    Example:
        >>> constrained = hf_evol.map(rows, BackTranslate(max_constraints=2))  # doctest: +SKIP
    """

    model: str | ModelSpec | Engine | None = None
    judge: str | ModelSpec | Engine | None = None
    max_constraints: int = 3
    seed: int = 0
    journal: bool | str | Path = True

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.INSTRUCTION, col.OUTPUT)
    output_columns: ClassVar[dict[str, Any]] = {
        col.INSTRUCTION: "string", col.PARENT_INSTRUCTION: "string", col.CONSTRAINTS: ["string"],
        col.CHECKS: [{"kind": "string", "parameters": "string"}], col.FUNCTIONS: ["string"], col.BACK_TRANSLATE_STATUS: "string",
    }  # fmt: skip
    keyed_by: ClassVar[tuple[str, ...]] = (col.ID, col.ROUND)
    label: ClassVar[str] = "Back-translate"

    def __post_init__(self) -> None:
        check_counts(self, "max_constraints")
        if self.judge is not None and self.model is None:
            raise ConfigError("A judge verifies the constraints that a model names: give model=, too.")
        for name in ("model", "judge"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_engine(getattr(self, name)))
                open_journal(self.journal)  # whether what it names is one

    @property
    def uses_model(self) -> bool:
        return self.model is not None

    @property
    def processes(self) -> int:
        return processes_of(self.model)

    @property
    def _models(self) -> list[Engine]:
        return [engine for engine in (self.model, self.judge) if engine is not None]

    def identity(self) -> Any:
        models = [engine.identity() for engine in self._models]
        return {"models": models, "believes_judge": self._believes_judge} if models else None

    @property
    def _believes_judge(self) -> bool:
        return not is_small(self.judge or self.model)

    def check(self) -> None:
        for engine in self._models:
            engine.check()

    def apply(self, batch: Batch) -> Batch:
        columns: Batch = {name: [] for name in self.output_columns}
        rows = [{name: values[place] for name, values in batch.items()} for place in range(len(batch[col.ID]))]
        why = [failure or _invalid(row) for failure, row in zip(failures(batch), rows, strict=True)]
        named = self._named(rows, why) if self.model is not None else [{} for _ in rows]
        for row, failure, found in zip(rows, why, named, strict=True):
            for name, value in self._added(row, failure, found).items():
                columns[name].append(value)
            progress.advance(1)
        return columns

    def _named(self, rows: list[dict[str, Any]], why: list[str | None]) -> list[dict[str, list[Named]]]:
        """What the model names for each row and is found to be met, by group; requests that failed are added to the reasons."""
        found: list[dict[str, list[Named]]] = [{} for _ in rows]
        asked = [
            place
            for place, row in enumerate(rows)
            if why[place] is None and is_suited(row[col.INSTRUCTION], row[col.OUTPUT])
        ]
        prompts = [naming_prompt(_task(rows[place]), rows[place][col.OUTPUT]) for place in asked]
        to_judge, lost = list[tuple[int, str]](), Counter[str]()
        for place, reply in zip(asked, self._replies(self.model, prompts), strict=True):
            if reply.error:
                why[place] = next(iter(col.failed([reply.error])), None)
                lost[col.reason(reply.error)] += why[place] is None
                continue
            asked_for, response = _task(rows[place]), rows[place][col.OUTPUT]
            for text in conditions(reply.text, asked_for, response, reply.finish_reason):
                constraint = measurable(text)
                if constraint is None and not is_countable(text):
                    to_judge.append((place, text))
                elif constraint is not None and constraint.holds(response) and is_telling(constraint, response):
                    group = group_of(constraint)
                    if not asks_for(group, asked_for):
                        found[place].setdefault(group, []).append(Named(text, constraint))
        if lost := +lost:
            logger.warning("%s could not be asked for constraints: %s", self.model.name, col.counted(lost))
        if self._believes_judge:
            self._judge(rows, to_judge, why, found)
        return found

    def _judge(
        self, rows: list[dict[str, Any]], named: list[tuple[int, str]], why: list[str | None], found: list[dict[str, list[Named]]]
    ) -> None:  # fmt: skip
        """Add the named constraints (a row's place, and a text) that the judge finds met to what was found."""
        judge = self.judge or self.model
        prompts = [prompt for place, text in named for prompt in verifying_prompts(rows[place][col.OUTPUT], text)]
        replies = self._replies(judge, prompts)
        for (place, text), meets, breaks in zip(named, replies[::2], replies[1::2], strict=True):
            why[place] = why[place] or next(iter(col.failed([meets.error, breaks.error])), None)
            group = next((group for group in GROUPS if asks_for(group, text)), f"named {len(found[place])}")
            if not (says_yes(meets.text) is True and says_yes(breaks.text) is False):
                continue
            if group not in GROUPS or not asks_for(group, _task(rows[place])):
                found[place].setdefault(group, []).append(Named(text, judge.name))

    def _replies(self, engine: Engine, chats: list[Chat]) -> list[Completion]:
        with progress.still():
            return generate(engine, chats, GREEDY, ["greedy"] * len(chats), open_journal(self.journal))

    def _added(self, row: dict[str, Any], failure: str | None, named: dict[str, list[Named]]) -> dict[str, Any]:
        instruction, response, given = row[col.INSTRUCTION], row[col.OUTPUT], row.get(col.INPUT)
        known = {name: list(row.get(name) or ()) for name in (col.CONSTRAINTS, col.CHECKS, col.FUNCTIONS)}
        result = {col.INSTRUCTION: instruction, col.PARENT_INSTRUCTION: row.get(col.PARENT_INSTRUCTION)} | known
        if failure:
            return result | {col.BACK_TRANSLATE_STATUS: failure}
        key = row_key(self.seed, str(row[col.ID]), row.get(col.ROUND) or 0, "back_translate")
        noise = iter(uniforms(key, 3 + 3 * self.max_constraints))

        def pick(options: Sequence[Any]) -> Any:
            return options[int(next(noise) * len(options))]

        found: dict[str, list[Constraint | Named]] = {
            group: list(constraints)
            for group, constraints in offers(instruction, response, given if isinstance(given, str) else "").items()
        }
        for group, texts in named.items():
            found.setdefault(group, []).extend(texts)
        chosen = self._chosen(found, pick)
        if not chosen:
            return result | {col.BACK_TRANSLATE_STATUS: "no_constraint"}
        said = [one.text if isinstance(one, Named) else worded(one, pick) for one in chosen]
        checked = [one.verified if isinstance(one, Named) else one for one in chosen]
        functions = [one.function() for one in checked if isinstance(one, Constraint)]
        return {
            col.INSTRUCTION: joined(instruction, said, pick),
            col.PARENT_INSTRUCTION: instruction,
            col.CONSTRAINTS: known[col.CONSTRAINTS] + said,
            col.CHECKS: known[col.CHECKS] + [one.data() for one in chosen],
            col.FUNCTIONS: known[col.FUNCTIONS] + functions,
            col.BACK_TRANSLATE_STATUS: col.OK,
        }

    def _chosen(self, found: dict[str, list[Any]], pick: Pick) -> list[Any]:
        """Constraints of different groups, in the order of the groups."""
        n = min(pick(range(1, self.max_constraints + 1)), len(found))
        left, drawn = list(found), {}
        while len(drawn) < n:
            group = pick(left)
            left.remove(group)
            drawn[group] = pick(found[group])
        return [drawn[group] for group in found if group in drawn]


def _invalid(row: dict[str, Any]) -> str | None:
    texts = (row[col.INSTRUCTION], row[col.OUTPUT])
    return None if all(isinstance(text, str) and text.strip() for text in texts) else "invalid_input"


def _task(row: dict[str, Any]) -> str:
    given = row.get(col.INPUT)
    return task(row[col.INSTRUCTION], given if isinstance(given, str) else None)
