"""The whole scenario: augment → verify → cross-validate → compose → respond → check, with what each stage loses."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import fsspec
from datasets import Dataset, concatenate_datasets

from hf_evol import columns as col
from hf_evol import models
from hf_evol.autoif.augment import Augment, augment_requests, new_constraints
from hf_evol.autoif.compose import AnswerUnderConstraint, compose_rows, user_queries
from hf_evol.autoif.verify import THRESHOLDS, CheckResponses, CrossValidate, Verify
from hf_evol.data.selection import select
from hf_evol.data.sources import load_seeds
from hf_evol.errors import ColumnError, ConfigError, ModelError, SourceError, check_counts
from hf_evol.hub.provenance import describe_source, library_versions, origin
from hf_evol.hub.target import Target
from hf_evol.hub.writer import Config, RunResult, check_target, finished, set_folder
from hf_evol.models.record import describe
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import engine_of
from hf_evol.run.steps import part
from hf_evol.sandbox import Sandbox
from hf_evol.secrets import public_name
from hf_evol.transform import Transform, failed_requests, map_dataset

_MAP_ROWS = 256
# What is measured before the rest is asked, so that a model that can't do a step is noticed within minutes. Where a third of
# the requests bring a usable constraint, none of 8 does with a chance of 4 %; where a tenth of the constraints are kept, none
# of 32 is with one of 3 %.
_FIRST_REQUESTS, _FIRST_CONSTRAINTS = 8, 32


@dataclass(frozen=True)
class AutoIf:
    """What the scenario needs beside a `Recipe`, whose models, sampling and output it uses.

    Args:
        seeds: a text file with a constraint a line, or any seed set with an ``instruction`` column.
        queries: any dataset that `user_queries` can read.
        queries_config, queries_split: of that dataset.
        requests: how often to ask for new constraints; 100 in the paper.
        per_request: how many to ask for at a time; 50 in the paper.
        include_seeds: verify and use the seed constraints, too.
        completions: replies with a function for each constraint; 8 in the paper.
        thresholds: ``"paper"`` or ``"autoif"``, which asks for 3 functions and 10 cases of a constraint.
        per_constraint: queries for each constraint; 16 in the paper.
        require_pass: keep only responses with at least this share of functions passed; None keeps all, as the paper.

    Raises:
        ConfigError: a value out of range.
    """

    seeds: str
    queries: str
    queries_config: str | None = None
    queries_split: str = "train"
    requests: int = 100
    per_request: int = 50
    include_seeds: bool = True
    completions: int = 8
    thresholds: str = "paper"
    per_constraint: int = 16
    require_pass: float | None = None

    def __post_init__(self) -> None:
        if self.thresholds not in THRESHOLDS:
            raise ConfigError(f"thresholds must be {' or '.join(THRESHOLDS)}; got {self.thresholds!r}.")
        check_counts(self, "requests", "per_request", "completions", "per_constraint")
        if self.require_pass is not None and not 0 <= self.require_pass <= 1:
            raise ConfigError(f"require_pass must be from 0 to 1; got {self.require_pass!r}.")


def run(settings: AutoIf, recipe: Recipe) -> RunResult:
    if not recipe.temperature:
        raise ConfigError("temperature must be over 0, such as 0.7: autoif makes the same requests many times.")
    sandbox = Sandbox()
    evolver, responder = engine_of(recipe, recipe.model), engine_of(recipe, recipe.responder or recipe.model)
    seeds = read_constraints(settings.seeds)
    augment = Augment(evolver, seeds=tuple(seeds), count=settings.per_request, **recipe.sampling)
    verify = Verify(evolver, n=settings.completions, **recipe.sampling)
    answer = AnswerUnderConstraint(responder, max_new_tokens=recipe.response_max_new_tokens, journal=recipe.journal)
    target = check_target(replace(recipe, dataset=settings.queries))
    asked = load_seeds(settings.queries, config=settings.queries_config, split=settings.queries_split)
    queries, unusable = user_queries(asked)
    if len(queries) < settings.per_constraint:
        raise ConfigError(
            f"{len(queries)} usable queries are too few for {settings.per_constraint} to each constraint."
        )
    for transform in (augment, verify, answer):
        transform.check()

    job = _Job(settings, recipe)
    constraints = job.augmented(augment)
    constraints = job.verified(constraints, verify, CrossValidate(sandbox=sandbox, **THRESHOLDS[settings.thresholds]))
    job.count("queries", "user queries", len(asked), unusable)
    kept = [place for place, status in enumerate(constraints[col.CONSTRAINT_STATUS]) if status == col.OK]
    rows = compose_rows(constraints.select(kept), queries, per_constraint=settings.per_constraint, seed=recipe.seed)
    job.count("compose", "rows", len(rows), {})
    if evolver != responder:
        models.release()
    rows, dropped = job.answered(rows, answer, CheckResponses(sandbox))
    return job.written({"evolver": evolver, "responder": responder}, rows, constraints, dropped, target)


def read_constraints(source: str) -> list[str]:
    """Constraints from a text file, one a line, or from the ``instruction`` column of a dataset.

    Raises:
        SourceError: nothing can be read there, or there is no constraint.
    """
    if source.endswith(".txt"):
        try:
            with fsspec.open(source, "r", encoding="utf-8-sig") as file:
                lines = file.read().splitlines()
        except (OSError, ValueError, ImportError) as error:  # not UTF-8, or no such file system
            raise SourceError(f"Cannot read the constraints {source!r}: {error}") from error
    else:
        rows = load_seeds(source)
        if col.INSTRUCTION not in rows.column_names:
            raise ColumnError(f"Column 'instruction' not found in {source!r}. Columns present: {rows.column_names}.")
        lines = rows[col.INSTRUCTION]
    found = list(dict.fromkeys(line.strip() for line in lines if isinstance(line, str) and line.strip()))
    if not found:
        raise SourceError(f"{source!r} holds no constraint.")
    return found


class _Job:
    """The stages of one run, each of which counts what it loses."""

    def __init__(self, settings: AutoIf, recipe: Recipe) -> None:
        self.settings, self.recipe = settings, recipe
        self.stages: list[dict[str, Any]] = []
        self.failed: Counter[str] = Counter()

    def count(self, stage: str, what: str, given: int, lost: Mapping[str, int]) -> None:
        left = given - sum(lost.values())
        self.stages.append({"stage": stage, "what": what, "given": given, "left": left, "lost": dict(lost)})

    def map(self, rows: Dataset, *transforms: Transform) -> Dataset:
        for transform in transforms:
            rows = map_dataset(rows, transform, batch_size=_MAP_ROWS, num_proc=self.recipe.num_proc)
            self.failed += failed_requests(rows.data, transform)
        return rows

    def augmented(self, augment: Augment) -> Dataset:
        """The constraints to verify, with ids."""
        settings, seeds = self.settings, augment.seeds
        requests = augment_requests(settings.requests)
        first = requests.take(min(_FIRST_REQUESTS, len(requests)))
        n_others = len(requests) - len(first)
        replies = self.map(first, augment)
        made, reasons = new_constraints(replies[col.CONSTRAINTS], seeds)
        not_asked = Counter()
        if not len(made) and col.are_answers(replies[col.AUGMENT_STATUS]):
            said = (
                f"{augment.model.name} was asked {len(first)} times for {settings.per_request} new constraints, and no line "
                f"of its replies is of use ({col.counted(col.lost(replies[col.AUGMENT_STATUS]) + reasons) or 'nothing was listed'})."
            )
            if not settings.include_seeds:
                raise ModelError(f"{said} {self.what_to_do(n_others, 'requests', 'Or include the seeds.')}")
            left_out = f" The other {n_others} requests are not made." if n_others else ""
            print(f"{said}{left_out} It goes on with the seeds alone.", file=sys.stderr, flush=True)
            not_asked = Counter(not_asked=n_others)
        elif n_others:
            replies = concatenate_datasets([replies, self.map(requests.skip(len(first)), augment)])
            made, reasons = new_constraints(replies[col.CONSTRAINTS], seeds)
        self.count("augment", "requests", settings.requests, col.lost(replies[col.AUGMENT_STATUS]) + not_asked)
        self.count("clean", "lines", len(made) + reasons.total(), reasons)
        if not settings.include_seeds:
            return made
        own = {col.ID: [f"seed-{place}" for place in range(len(seeds))], col.INSTRUCTION: seeds}
        return concatenate_datasets([Dataset.from_dict(own, features=made.features), made])

    def what_to_do(self, n: int, what: str, more: str) -> str:
        others = f"The other {n} {what} are not asked for. " if n else ""
        kept = " Finished requests are in the journal." if self.recipe.journal else ""
        return f"{others}Take a larger model, or one that was trained on code. {more}".strip() + kept

    def verified(self, constraints: Dataset, verify: Verify, validate: CrossValidate) -> Dataset:
        """All constraints, with functions and cases where they are kept."""
        first = constraints.take(min(_FIRST_CONSTRAINTS, len(constraints)))
        n_others = len(constraints) - len(first)
        rows = self.map(first, verify, validate)
        if n_others:
            if not _tells_apart(rows) and col.are_answers(rows[col.VERIFY_STATUS]):
                lost = col.lost(rows[col.CONSTRAINT_STATUS]) + col.lost(rows[col.VERIFY_STATUS]) + _losses(rows)
                strict = self.settings.thresholds != "paper"
                less = "Or ask for more completions, or less of them (thresholds)." if strict else ""
                raise ModelError(
                    f"{verify.model.name} was asked for functions that check {len(first)} constraints, {verify.n} times "
                    "each, and of no constraint does cross-validation keep a function that tells answers apart "
                    f"({col.counted(lost)}). {self.what_to_do(n_others, 'constraints', less)}"
                )
            rows = concatenate_datasets([rows, self.map(constraints.skip(len(first)), verify, validate)])
        self.count("verify", "constraints", len(rows), col.lost(rows[col.VERIFY_STATUS]))
        losses = _losses(rows)
        n_completions = sum(len(replies) for replies in rows[col.COMPLETIONS])
        for what, given, reasons in (
            ("completions", n_completions, ("no_json", "no_function", "no_cases", "copied", "syntax_error")),
            ("functions", sum(rows[col.N_FUNCTIONS]), ("function_inaccurate", "function_unstable")),
            ("cases", sum(rows[col.N_CASES]), ("case_without_agreement",)),
        ):
            self.count("cross-validate", what, given, {reason: losses[reason] for reason in reasons if losses[reason]})
        self.count("cross-validate", "constraints", len(rows), col.lost(rows[col.CONSTRAINT_STATUS]))
        return rows.remove_columns(col.COMPLETIONS)

    def answered(self, rows: Dataset, answer: AnswerUnderConstraint, check: CheckResponses) -> tuple[Dataset, Dataset]:
        rows = self.map(rows, answer)
        statuses = rows[col.RESPONSE_STATUS][:]
        self.count("respond", "rows", len(rows), col.lost(statuses))
        reasons = [col.KEPT if status == col.OK else f"response_{col.reason(status)}" for status in statuses]
        rows, unanswered = part(rows, reasons)
        rows = self.map(rows, check)
        rates, least = rows[col.PASS_RATE][:], self.settings.require_pass
        below = Counter(not_every_function=sum(rate is not None and rate < 1 for rate in rates))
        self.count("check", "rows", len(rows), col.lost(rows[col.CHECK_STATUS]) + below)
        if least is None:
            return rows, unanswered
        rows, refused = part(rows, [col.KEPT if rate is not None and rate >= least else "not_passed" for rate in rates])
        self.count("require_pass", "rows", len(rates), {"not_passed": len(refused)})
        return rows, concatenate_datasets([unanswered, refused.remove_columns([col.PASS_RATE, col.CHECK_STATUS])])

    def written(
        self, engines: Mapping[str, Any], rows: Dataset, constraints: Dataset, dropped: Dataset, target: Target
    ) -> RunResult:
        settings, recipe = self.settings, self.recipe
        records = [describe(role, engine) for role, engine in engines.items()]
        source = {"config": settings.queries_config, "split": settings.queries_split}
        queries = describe_source(settings.queries, **source, revision=None)
        own = asdict(settings) | {"seeds": public_name(settings.seeds), "queries": public_name(settings.queries)}
        named = ("model", "responder", "seed", "temperature", "top_p", "max_new_tokens", "engine")
        of_recipe = {name: value for name, value in recipe.for_card().items() if name in named}
        record = {
            "kind": "autoif",
            "title": f"Verifiable constraints by {records[0].name.rsplit('/', 1)[-1]} ({records[0].size})",
            "recipe": own | of_recipe,
            **origin(queries, records, recipe.license),
            "stages": self.stages,
            "figures": [],
            "libraries": library_versions(),
        }
        what = "constraints, queries and responses, with the functions that check them"
        configs = [
            Config("rows", rows, f"{what}; the default config"),
            Config("constraints", constraints, "every constraint, with its status, functions and cases"),
            Config("dropped", dropped, "rows left out, with the reason"),
        ]
        shown = [col.INSTRUCTION, col.INPUT, col.OUTPUT, col.FUNCTIONS, col.PASS_RATE]
        best = select(rows, col.PASS_RATE, top=3) if len(rows) else rows
        with set_folder(target, record, configs, file_format=recipe.file_format):
            record["examples"] = best.select_columns(shown).to_list()
        return finished(recipe, record, self.failed)


def _losses(rows: Dataset) -> Counter[str]:
    losses: Counter[str] = Counter()
    for entry in chain.from_iterable(rows[col.LOSSES]):
        losses[entry["reason"]] += entry["count"]
    return losses


def _tells_apart(rows: Dataset) -> bool:
    """Whether any constraint is kept by cases of both kinds: a function that always says no passes where all say no."""
    kept = zip(rows[col.CONSTRAINT_STATUS], rows[col.CASES], strict=True)
    return any(status == col.OK and len({case["output"] for case in cases}) == 2 for status, cases in kept)
