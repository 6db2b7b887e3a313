"""Verification functions as transforms: ask for them, cross-validate them, and run them on responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.autoif.sandbox import Result, Sandbox
from hf_evol.autoif.verify import Thresholds, cross_validate, resolve_thresholds
from hf_evol.errors import ConfigError
from hf_evol.generation.sampling import row_key
from hf_evol.prompts.autoif import verify_prompt
from hf_evol.prompts.replies import strip_thinking
from hf_evol.transform import Batch, SampledTransform, Transform

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class Verify(SampledTransform):
    """Ask a model for verification functions and test cases of each constraint, several times.

    Input columns:
        ``id``, ``instruction`` (the constraint).

    Output columns:
        ``completions`` (the replies that came back, in order), ``verify_status``: ``ok``, ``invalid_input``, or the first
        error where no reply came back.

    Args:
        model: a Hub id, a folder, a `ModelSpec` or an engine.
        n: replies to each constraint; 8 in the paper.
        seed: of the sampling noise.
        temperature, top_p, max_new_tokens: the paper's by default.
        journal: True for the journal in the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction.
    """

    n: int = 8

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.INSTRUCTION)
    output_columns: ClassVar[dict[str, Any]] = {col.COMPLETIONS: ["string"], col.VERIFY_STATUS: "string"}
    label: ClassVar[str] = "Verify"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n must be 1 or more; got {self.n!r}.")
        super().__post_init__()

    @property
    def passes(self) -> int:
        return self.n

    def apply(self, batch: Batch) -> Batch:
        texts = batch[col.INSTRUCTION]
        usable = [place for place, text in enumerate(texts) if isinstance(text, str) and text.strip()]
        asked = [(place, k) for place in usable for k in range(self.n)]
        chats = [verify_prompt(texts[place]) for place, _ in asked]
        keys = [row_key(self.seed, str(batch[col.ID][place]), k, "verify") for place, k in asked]
        replies: list[list[str]] = [[] for _ in texts]
        errors: list[str | None] = [None] * len(texts)
        progress.advance(self.n * (len(texts) - len(usable)))
        for (place, _), completion in zip(asked, self.complete(chats, keys), strict=True):
            if completion.error is None:
                replies[place].append(strip_thinking(completion.text))
            else:
                errors[place] = errors[place] or completion.error
        statuses = [col.OK if found else error or "invalid_input" for found, error in zip(replies, errors, strict=True)]
        return {col.COMPLETIONS: replies, col.VERIFY_STATUS: statuses}


@dataclass(frozen=True)
class CrossValidate(Transform):
    """Keep the functions and cases of each constraint that agree with each other; see `cross_validate`.

    Input columns:
        ``instruction``, ``completions``.

    Output columns:
        ``functions``, ``accuracies`` and ``cases`` that are kept, ``n_functions`` and ``n_cases`` before, ``losses`` (how
        many completions, functions and cases each reason took), ``constraint_status``: ``ok``, ``too_few_cases`` or
        ``too_few_functions``.

    Args:
        thresholds: a `Thresholds`, or ``"paper"`` or ``"autoif"``.
        sandbox: where the functions run.

    Raises:
        ConfigError: unknown thresholds, at construction.
        SandboxError: generated code can't be isolated here, at construction.
    """

    thresholds: Thresholds | str = "paper"
    sandbox: Sandbox = field(default_factory=Sandbox, compare=False)

    input_columns: ClassVar[tuple[str, ...]] = (col.INSTRUCTION, col.COMPLETIONS)
    output_columns: ClassVar[dict[str, Any]] = {
        col.FUNCTIONS: ["string"],
        col.ACCURACIES: ["float64"],
        col.CASES: [{"input": "string", "output": "bool"}],
        col.N_FUNCTIONS: "int32",
        col.N_CASES: "int32",
        col.LOSSES: [{"reason": "string", "count": "int32"}],
        col.CONSTRAINT_STATUS: "string",
    }
    label: ClassVar[str] = "Cross-validate"

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", resolve_thresholds(self.thresholds))

    def apply(self, batch: Batch) -> Batch:
        columns: Batch = {name: [] for name in self.output_columns}
        for instruction, completions in zip(batch[col.INSTRUCTION], batch[col.COMPLETIONS], strict=True):
            found = cross_validate(instruction, completions or [], thresholds=self.thresholds, sandbox=self.sandbox)
            losses = [{"reason": reason, "count": count} for reason, count in found["reasons"].items()]
            for name in columns:
                columns[name].append(
                    losses if name == col.LOSSES else found["status" if name == col.CONSTRAINT_STATUS else name]
                )
            progress.advance(1)
        self.sandbox.close()
        return columns


@dataclass(frozen=True)
class CheckResponses(Transform):
    """Run each row's verification functions on its response.

    The paper leaves this step out; AutoIF proper (arXiv:2406.13542) keeps the responses that pass.

    Input columns:
        ``functions``, ``output``.

    Output columns:
        ``pass_rate`` (the share of functions that return True; a call that fails did not), ``check_status``: ``ok``,
        ``no_response``, ``no_functions``, or ``call_failed: …`` where every call failed, with the last failure; the rate
        is null unless ok.

    Args:
        sandbox: where the functions run.

    Raises:
        SandboxError: generated code can't be isolated here, at construction.
    """

    sandbox: Sandbox = field(default_factory=Sandbox, compare=False)

    input_columns: ClassVar[tuple[str, ...]] = (col.FUNCTIONS, col.OUTPUT)
    output_columns: ClassVar[dict[str, Any]] = {col.PASS_RATE: "float64", col.CHECK_STATUS: "string"}
    label: ClassVar[str] = "Check responses"

    def apply(self, batch: Batch) -> Batch:
        functions, outputs = batch[col.FUNCTIONS], batch[col.OUTPUT]
        checked = pass_rates(functions, outputs, self.sandbox)
        self.sandbox.close()
        return {col.PASS_RATE: [rate for rate, _ in checked], col.CHECK_STATUS: [status for _, status in checked]}


def pass_rates(
    functions: Sequence[Sequence[str] | None], responses: Sequence[str | None], sandbox: Sandbox
) -> list[tuple[float | None, str]]:
    """Of each response, the share of its functions that it passes, and a status, as in `CheckResponses`.

    Rows with the same function are called together, which is where the sandbox is quick.
    """
    rows: list[tuple[float | None, str]] = [(None, "no_response")] * len(responses)
    by_row: dict[int, list[str]] = {}
    by_source: dict[str, list[int]] = {}
    for place, (sources, response) in enumerate(zip(functions, responses, strict=True)):
        if not isinstance(response, str) or not response.strip():
            continue
        by_row[place] = [source for source in dict.fromkeys(sources or ()) if source]
        for source in by_row[place]:
            by_source.setdefault(source, []).append(place)
    results: dict[tuple[int, str], Result] = {}
    for source, places in by_source.items():
        for place, result in zip(places, sandbox.call(source, [responses[i] for i in places]), strict=True):
            results[place, source] = result
    for place, sources in by_row.items():
        called = [results[place, source] for source in sources]
        if not called:
            rows[place] = (None, "no_functions")
        elif all(result.failure for result in called):
            rows[place] = (None, f"call_failed: {called[-1].failure}")
        else:
            rows[place] = (sum(result.value is True for result in called) / len(called), col.OK)
    progress.advance(len(rows))
    return rows
