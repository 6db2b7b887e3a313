"""Add constraints that the response already meets (constraint back-translation, arXiv:2410.24175)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.constraints.constraint import Constraint
from hf_evol.constraints.offers import offers
from hf_evol.errors import ConfigError
from hf_evol.generation.sampling import row_key, uniforms
from hf_evol.prompts.constraints import Pick, joined, worded
from hf_evol.transform import Batch, Transform, failures


@dataclass(frozen=True, kw_only=True)
class BackTranslate(Transform):
    """Add to each instruction a few constraints that its response meets already, so that nothing is answered anew.

    No model is asked: code measures the response, in the kinds of IFEval (arXiv:2311.07911) and some of code and of worked
    calculations, and every constraint comes with the function that checks it, run on the response before the row is given back.
    Bounds are those that a person would state, and what the instruction asks for itself is not asked for again.

    Input columns:
        ``id``, ``instruction``, ``output``; and, if there, ``input``, ``round``, ``constraints``,
        ``checks`` and ``functions``, which are added to, and the
        status columns of earlier stages: rows that failed one stay as they are.

    Output columns:
        ``instruction`` (with its constraints), ``parent_instruction`` (without them; as it was, unless ok), ``constraints`` (as they are
        worded), ``checks`` (the same as data: ``kind``, the name of a count in ``hf_evol.constraints.counts``, and its
        ``parameters`` with the bounds ``at_least`` and ``at_most``, as JSON), ``functions`` (the same as Python, which
        ``CheckResponses`` and ``pass_rates`` of `hf_evol.autoif` run), ``back_translate_status``: ``ok``,
        ``invalid_input`` (no text in either), ``no_constraint`` (none would be sensible, as where the answer is prose and code, is
        not English, or has over 20,000 characters), ``not_evolved``, ``eliminated`` or ``not_answered``.

    Args:
        max_constraints: how many a row gets at most; how many it gets is drawn from 1 on.
        seed: of the drawing, which depends on seed, id and round alone.

    Raises:
        ConfigError: a wrong argument, at construction.
        ColumnError: a missing column.

    Example:
        >>> constrained = hf_evol.map(rows, BackTranslate(max_constraints=2))  # doctest: +SKIP
    """

    max_constraints: int = 3
    seed: int = 0

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.INSTRUCTION, col.OUTPUT)
    output_columns: ClassVar[dict[str, Any]] = {
        col.INSTRUCTION: "string", col.PARENT_INSTRUCTION: "string", col.CONSTRAINTS: ["string"],
        col.CHECKS: [{"kind": "string", "parameters": "string"}], col.FUNCTIONS: ["string"], col.BACK_TRANSLATE_STATUS: "string",
    }  # fmt: skip
    keyed_by: ClassVar[tuple[str, ...]] = (col.ID, col.ROUND)
    label: ClassVar[str] = "Back-translate"

    def __post_init__(self) -> None:
        if self.max_constraints < 1:
            raise ConfigError(f"max_constraints must be 1 or more; got {self.max_constraints!r}.")

    @property
    def uses_model(self) -> bool:
        return False

    def apply(self, batch: Batch) -> Batch:
        columns: Batch = {name: [] for name in self.output_columns}
        for place, why in enumerate(failures(batch)):
            row = {name: values[place] for name, values in batch.items()}
            for name, value in self._added(row, why).items():
                columns[name].append(value)
            progress.advance(1)
        return columns

    def _added(self, row: dict[str, Any], failure: str | None) -> dict[str, Any]:
        instruction, response, given = row[col.INSTRUCTION], row[col.OUTPUT], row.get(col.INPUT)
        known = {name: list(row.get(name) or ()) for name in (col.CONSTRAINTS, col.CHECKS, col.FUNCTIONS)}
        result = {col.INSTRUCTION: instruction, col.PARENT_INSTRUCTION: row.get(col.PARENT_INSTRUCTION)} | known
        if failure or not all(isinstance(text, str) and text.strip() for text in (instruction, response)):
            return result | {col.BACK_TRANSLATE_STATUS: failure or "invalid_input"}
        key = row_key(self.seed, str(row[col.ID]), row.get(col.ROUND) or 0, "back_translate")
        noise = iter(uniforms([key], 3 + 3 * self.max_constraints)[0])

        def pick(options: Sequence[Any]) -> Any:
            return options[int(next(noise) * len(options))]

        chosen = self._chosen(offers(instruction, response, given if isinstance(given, str) else ""), pick)
        if not chosen:
            return result | {col.BACK_TRANSLATE_STATUS: "no_constraint"}
        said = [worded(one.kind, one.bound, one.parameters, one.at_least, one.at_most, pick) for one in chosen]
        return {
            col.INSTRUCTION: joined(instruction, said, pick),
            col.PARENT_INSTRUCTION: instruction,
            col.CONSTRAINTS: known[col.CONSTRAINTS] + said,
            col.CHECKS: known[col.CHECKS] + [one.data() for one in chosen],
            col.FUNCTIONS: known[col.FUNCTIONS] + [one.function() for one in chosen],
            col.BACK_TRANSLATE_STATUS: col.OK,
        }

    def _chosen(self, found: dict[str, list[Constraint]], pick: Pick) -> list[Constraint]:
        """Constraints of different groups, in the order of the groups."""
        n = min(pick(range(1, self.max_constraints + 1)), len(found))
        left, drawn = list(found), {}
        while len(drawn) < n:
            group = pick(left)
            left.remove(group)
            drawn[group] = pick(found[group])
        return [drawn[group] for group in found if group in drawn]
