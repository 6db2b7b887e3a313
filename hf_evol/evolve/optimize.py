"""The optimisation stage of Auto Evol-Instruct (arXiv:2406.00770, section 3): a model revises the evolving method.

The paper's own scenario (arXiv:2412.11231, Scenario 3) leaves this stage out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from hf_evol import columns as col
from hf_evol.errors import ConfigError, check_counts
from hf_evol.evolve.auto_evol import AutoEvolInstruct
from hf_evol.evolve.eliminate import Eliminate
from hf_evol.generation.base import GREEDY, Completion, Engine, SamplingParams, generate
from hf_evol.generation.sampling import row_key
from hf_evol.generation.transformers_engine import as_engine
from hf_evol.models import ModelSpec
from hf_evol.models.journal import open_journal
from hf_evol.prompts.auto_evol import ANALYSE, AUTO, KEEP_MARK, REVISE, revised_method
from hf_evol.prompts.evol_instruct import Method
from hf_evol.prompts.template import chat, fill
from hf_evol.reading.replies import strip_thinking
from hf_evol.transform import map_dataset


@dataclass(frozen=True)
class MethodOptimizer:
    """Revise the evolving method by what goes wrong with it, and keep what fails least.

    In each step the current method evolves a mini-batch; the optimizer names the failures in it and revises the method,
    several times; each revision evolves the held-out rows, and the one that fails least replaces the current method if it
    fails less. A row fails if its ``evol_status`` is not ok or `Eliminate` finds a reason, with the optimizer as the judge.

    Args:
        evolver: the model that evolves: a Hub id, a folder, a `ModelSpec` or an engine.
        optimizer: the model that names failures, revises and judges.
        start: the first method.
        steps: how many mini-batches.
        candidates: revisions in each step.
        batch_size: rows of a mini-batch.
        held_out: rows on which the failure rates are measured.
        max_calls: requests in all, journal hits included; a step that would go beyond is not begun.
        seed: of the choice of rows and of the sampling noise.
        temperature, top_p, max_new_tokens: of evolving and revising, the paper's by default.
        journal: True for the journal in the cache folder, False for none, or a file.
    """

    evolver: str | ModelSpec | Engine
    optimizer: str | ModelSpec | Engine
    start: Method = AUTO
    steps: int = 5
    candidates: int = 3
    batch_size: int = 10
    held_out: int = 50
    max_calls: int = 5000
    seed: int = 0
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 2048
    journal: bool | str | Path = True

    def __post_init__(self) -> None:
        check_counts(self, "steps", "candidates", "batch_size", "held_out", "max_calls")
        if self.max_calls < 2 * self.held_out:
            raise ConfigError(f"max_calls={self.max_calls} does not reach for measuring the first method once.")
        object.__setattr__(self, "evolver", as_engine(self.evolver))
        object.__setattr__(self, "optimizer", as_engine(self.optimizer))
        self._evolve  # noqa: B018 - checks the other settings now

    @property
    def _evolve(self) -> AutoEvolInstruct:
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "max_new_tokens": self.max_new_tokens}
        return AutoEvolInstruct(
            self.evolver, methods=(self.start,), tries=1, seed=self.seed, journal=self.journal, **sampling
        )

    def optimize(self, seeds: Dataset) -> OptimizedMethod:
        """Find a better method on rows with ``id`` and ``instruction``; `ConfigError` where they are too few."""
        if len(seeds) < self.held_out + self.batch_size:
            needed = f"held_out={self.held_out} and a mini-batch of {self.batch_size}"
            raise ConfigError(f"{len(seeds)} rows are too few for {needed}.")
        for model in (self.evolver, self.optimizer):
            model.check()
        rows = seeds.select_columns([col.ID, col.INSTRUCTION]).shuffle(seed=self.seed)
        held_out, rest = rows.select(range(self.held_out)), rows.select(range(self.held_out, len(rows)))
        found = OptimizedMethod(self.start, calls=2 * self.held_out)
        first = found.measured(self.start, self._failures(self.start, held_out))
        found.record.append({"step": 0} | first)
        calls_of_a_step = self.batch_size + 1 + self.candidates * (1 + 2 * self.held_out)
        for step in range(1, self.steps + 1):
            if found.calls + calls_of_a_step > self.max_calls:
                found.record.append({"step": step, "stopped": f"it would take more than {self.max_calls} calls"})
                break
            start = (step - 1) * self.batch_size % max(1, len(rest) - self.batch_size + 1)
            self._step(step, rest.select(range(start, start + self.batch_size)), held_out, found)
            found.calls += calls_of_a_step
        return found

    def _step(self, step: int, batch: Dataset, held_out: Dataset, found: OptimizedMethod) -> None:
        evolved = self._evolved(found.method, batch, f"Evolve, step {step}")
        shown = "\n\n".join(
            f"### Instruction\n{row[col.PARENT_INSTRUCTION]}\n\n### Result\n"
            + (row[col.INSTRUCTION] if row[col.EVOL_STATUS] == col.OK else f"none: {row[col.EVOL_STATUS]}")
            for row in evolved
        )
        report = self._ask([fill(ANALYSE, trajectory=shown)], GREEDY, ["greedy"])[0]
        entry = {"step": step, "report": strip_thinking(report.text) or None, "error": report.error, "candidates": []}
        found.record.append(entry)
        if report.error or not entry["report"]:
            return
        of = found.method
        words = of.template[0][1][0][1]  # of the first turn
        prompt = fill(REVISE, mark=KEEP_MARK if "{instruction}" in words else "", method=words, report=entry["report"])
        keys = [row_key(self.seed, f"candidate-{k}", step, "revise") for k in range(self.candidates)]
        for k, reply in enumerate(self._ask([prompt] * self.candidates, self._evolve.sampling, keys)):
            method = None if reply.error else revised_method(strip_thinking(reply.text), of, f"auto_{step}_{k}")
            if method is None:
                entry["candidates"].append({"rejected": reply.error or "no_method", "reply": reply.text})
            else:
                entry["candidates"].append(found.measured(method, self._failures(method, held_out)))

    def _ask(self, prompts: list[str], params: SamplingParams, keys: list[str]) -> list[Completion]:
        return generate(self.optimizer, [chat(prompt) for prompt in prompts], params, keys, open_journal(self.journal))

    def _evolved(self, method: Method, rows: Dataset, label: str) -> Dataset:
        return map_dataset(rows, replace(self._evolve, methods=(method,)), desc=label, num_proc=1)

    def _failures(self, method: Method, rows: Dataset) -> Counter[str]:
        """How many of the rows fail with the method, for which reason."""
        evolved = self._evolved(method, rows, f"Measure {method.name}")
        rules = Eliminate(keep=True, judge=self.optimizer, journal=self.journal)
        judged = map_dataset(evolved, rules, desc="Judge", num_proc=1)
        return Counter(
            col.reason(status) if status != col.OK else why
            for status, why in zip(judged[col.EVOL_STATUS], judged[col.ELIMINATION], strict=True)
        )


@dataclass
class OptimizedMethod:
    """The best method found, its failure rate on the held-out rows, the calls made, and the record of every step.

    A record holds ``step``; the first one, of the method to start with, what a candidate's has: ``method``,
    ``failure_rate``, ``failures`` (reasons and counts) and whether it was ``taken``; the others ``report`` (of failures)
    and ``candidates``, of which one that can't be used has ``rejected`` and ``reply`` instead.
    """

    method: Method
    failure_rate: float = math.inf
    calls: int = 0
    record: list[dict[str, Any]] = field(default_factory=list)

    def measured(self, method: Method, counts: Counter[str]) -> dict[str, Any]:
        """Take the method if it fails less often than the best so far; what to record of it."""
        rate = 1 - counts[col.KEPT] / counts.total()
        failures = {name: count for name, count in counts.items() if name != col.KEPT}
        taken = rate < self.failure_rate
        if taken:
            self.method, self.failure_rate = method, rate
        return {"method": method.to_dict(), "failure_rate": rate, "failures": failures, "taken": taken}

    def save(self, folder: Path) -> None:
        """Write ``method.yaml``, which ``--methods`` reads."""
        methods = yaml.safe_dump([self.method.to_dict()], sort_keys=False, allow_unicode=True)
        (folder / "method.yaml").write_text(methods, encoding="utf-8")
