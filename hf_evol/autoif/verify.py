"""Verification functions as transforms: ask for them, cross-validate them, and run them on responses.

The rule of cross-validation is AutoIF's (arXiv:2406.13542), with the paper's thresholds (arXiv:2412.11231, Scenario 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol import progress
from hf_evol.autoif.completions import parse_completion
from hf_evol.errors import ConfigError, check_counts
from hf_evol.generation.sampling import row_key
from hf_evol.prompts.autoif import verify_prompt
from hf_evol.reading.replies import strip_thinking
from hf_evol.sandbox import Result, Sandbox
from hf_evol.transform import Batch, SampledTransform, Transform

_TIMEOUTS = 2  # a function that runs out of time on its first inputs is not called on the others


@dataclass(frozen=True, kw_only=True)
class Verify(SampledTransform):
    """Ask a model for verification functions and test cases of each constraint, several times.

    Input columns:
        ``id``, ``instruction`` (the constraint).

    Output columns:
        ``completions`` (the replies that came back, in order), ``verify_status``: ``ok``, ``invalid_input``, or the first
        error where no reply came back.

    Args:
        n: replies to each constraint; 8 in the paper.
    """

    n: int = 8

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.INSTRUCTION)
    output_columns: ClassVar[dict[str, Any]] = {col.COMPLETIONS: ["string"], col.VERIFY_STATUS: "string"}
    label: ClassVar[str] = "Verify"

    def __post_init__(self) -> None:
        check_counts(self, "n")
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


THRESHOLDS = {"paper": {}, "autoif": {"min_functions": 3, "min_cases": 10}}  # arguments of `CrossValidate`


@dataclass(frozen=True, kw_only=True)
class CrossValidate(Transform):
    """Keep the functions and cases of each constraint that agree with each other.

    Equal functions and equal cases count once. A case is kept if at least one function gives its output; a function, if
    it is right on enough of the kept cases, and on the same ones where sets have another order; the constraint, if enough
    functions are left.

    Input columns:
        ``instruction`` (a worked example of the prompt for another one is no function of it), ``completions`` (a function
        and cases each, in the forms that `parse_completion` reads).

    Output columns:
        ``functions``, ``accuracies`` and ``cases`` that are kept, ``n_functions`` and ``n_cases`` before, without
        repetitions, ``losses`` (how many completions, functions and cases each reason took), ``constraint_status``:
        ``ok``, ``too_few_cases`` or ``too_few_functions``.

    Args:
        min_accuracy: least share of the kept cases on which a function is right.
        min_functions: least number of functions that reach it; 1 in the paper, 3 in AutoIF.
        min_cases: least number of different cases before any is left out; 1 in the paper, 10 in AutoIF.
        sandbox: where the functions run; `SandboxError` where generated code can't be isolated, at construction.
    """

    min_accuracy: float = 0.8
    min_functions: int = 1
    min_cases: int = 1
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
        if not 0 <= self.min_accuracy <= 1 or self.min_functions < 1 or self.min_cases < 1:
            raise ConfigError(f"min_accuracy must be from 0 to 1, min_functions and min_cases 1 or more; got {self!r}.")

    def apply(self, batch: Batch) -> Batch:
        columns: Batch = {name: [] for name in self.output_columns}
        for instruction, completions in zip(batch[col.INSTRUCTION], batch[col.COMPLETIONS], strict=True):
            for name, value in self._validated(instruction, completions or []).items():
                columns[name].append(value)
            progress.advance(1)
        self.sandbox.close()
        return columns

    def _validated(self, instruction: str, completions: Sequence[str | None]) -> dict[str, Any]:
        losses: Counter[str] = Counter()
        sources: Counter[str] = Counter()
        cases: dict[tuple[str, bool], dict[str, Any]] = {}
        for completion in completions:
            parsed = parse_completion(completion or "", instruction)
            if isinstance(parsed, str):
                losses[parsed] += 1
                continue
            sources[parsed[0]] += 1
            for case in parsed[1]:
                losses["case_repeated"] += (case["input"], case["output"]) in cases
                cases.setdefault((case["input"], case["output"]), case)
        inputs = [case["input"] for case in cases.values()]
        right: dict[str, list[bool]] = {}  # of each function, whether it gives each case's output
        for source, times in sources.items():
            results = self._call(source, inputs)
            if results[0].failure == "syntax_error":  # only the sandbox parses: a parser, too, is something to attack
                losses["syntax_error"] += times
                continue
            losses["function_repeated"] += times - 1
            losses.update({f"call_{col.reason(result.failure)}" for result in results if result.failure})
            right[source] = _right(results, cases.values())
        agreed = list(map(any, zip(*right.values(), strict=True))) or [False] * len(cases)
        n_agreed = sum(agreed)
        accuracies = {source: sum(row) / max(1, n_agreed) for source, row in right.items()}
        accurate = {source: share for source, share in accuracies.items() if n_agreed and share >= self.min_accuracy}
        again = {source: _right(self.sandbox.call(source, inputs, hash_seed=1), cases.values()) for source in accurate}
        kept = {source: share for source, share in accurate.items() if again[source] == right[source]}
        losses["case_without_agreement"] += len(cases) - n_agreed
        losses["function_inaccurate"] += len(right) - len(accurate)
        losses["function_unstable"] += len(accurate) - len(kept)
        status = "too_few_functions" if len(kept) < self.min_functions else col.OK
        return {
            col.FUNCTIONS: list(kept),
            col.ACCURACIES: list(kept.values()),
            col.CASES: list(compress(cases.values(), agreed)),
            col.N_FUNCTIONS: len(right),
            col.N_CASES: len(cases),
            col.LOSSES: [{"reason": reason, "count": count} for reason, count in losses.items() if count],
            col.CONSTRAINT_STATUS: "too_few_cases" if len(cases) < self.min_cases else status,
        }

    def _call(self, source: str, inputs: Sequence[str]) -> list[Result]:
        """A function's results; one that runs out of time on its first two inputs is given up, with ``timeout``."""
        results = self.sandbox.call(source, inputs[:_TIMEOUTS])
        if len(results) == _TIMEOUTS and all(result.failure == "timeout" for result in results):
            return results + [Result(None, "timeout")] * (len(inputs) - _TIMEOUTS)
        return results + self.sandbox.call(source, inputs[_TIMEOUTS:])


def _right(results: Iterable[Result], cases: Iterable[dict[str, Any]]) -> list[bool]:
    return [result.value is case["output"] for result, case in zip(results, cases, strict=True)]


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
        sandbox: as of `CrossValidate`.
    """

    sandbox: Sandbox = field(default_factory=Sandbox, compare=False)

    input_columns: ClassVar[tuple[str, ...]] = (col.FUNCTIONS, col.OUTPUT)
    output_columns: ClassVar[dict[str, Any]] = {col.PASS_RATE: "float64", col.CHECK_STATUS: "string"}
    label: ClassVar[str] = "Check responses"

    def apply(self, batch: Batch) -> Batch:
        checked = pass_rates(batch[col.FUNCTIONS], batch[col.OUTPUT], self.sandbox)
        self.sandbox.close()
        return {col.PASS_RATE: [rate for rate, _ in checked], col.CHECK_STATUS: [status for _, status in checked]}


def pass_rates(
    functions: Sequence[Sequence[str] | None], responses: Sequence[str | None], sandbox: Sandbox
) -> list[tuple[float | None, str]]:
    """Of each response, the share of its functions that it passes, and a status, as in `CheckResponses`.

    Rows with the same function are called together, which is where the sandbox is quick.
    """
    called: list[dict[str, Any] | None] = [
        dict.fromkeys(filter(None, sources or ())) if isinstance(response, str) and response.strip() else None
        for sources, response in zip(functions, responses, strict=True)
    ]
    places: dict[str, list[int]] = {}
    for place, sources in enumerate(called):
        for source in sources or ():
            places.setdefault(source, []).append(place)
    for source, having in places.items():
        for place, result in zip(having, sandbox.call(source, [responses[place] for place in having]), strict=True):
            called[place][source] = result
    progress.advance(len(called))
    return [_pass_rate(results if results is None else list(results.values())) for results in called]


def _pass_rate(results: list[Result] | None) -> tuple[float | None, str]:
    if not results:
        return None, "no_response" if results is None else "no_functions"
    if all(result.failure for result in results):
        return None, f"call_failed: {results[-1].failure}"
    return sum(result.value is True for result in results) / len(results), col.OK
