"""The stages of a study: evolve, answer, measure. Each goes on from what the journal holds."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import HfEvolError, ModelError
from hf_evol.evolve.eliminate import repeated
from hf_evol.hub.provenance import ModelRecord, describe
from hf_evol.models.journal import Journal, open_journal
from hf_evol.progress import counted_tokens
from hf_evol.prompts.judge import rewriting_task
from hf_evol.run import steps
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages, engine_of, spec_of
from hf_evol.run.steps import REASON
from hf_evol.scoring.confidence import Confidence
from hf_evol.scoring.difficulty import Difficulty
from hf_evol.scoring.diversity import diversity
from hf_evol.scoring.embed import Embed
from hf_evol.scoring.judge import Judge
from hf_evol.scoring.pairs import is_text
from hf_evol.scoring.reward import Reward
from hf_evol.study.measures import N_WORDS, REWARD_OF_EVOLUTION, USABLE
from hf_evol.study.results import LABEL, SEEDS, STATUS
from hf_evol.transform import Transform

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_evol.study.study import Study

logger = logging.getLogger(__name__)

MPNET = "sentence-transformers/all-mpnet-base-v2"  # the paper's embedding model
_OF_RESPONSE = "response_"  # begins the reasons that are the responder's
_KEPT = (
    LABEL, col.ID, col.ROUND, col.METHOD, col.SEED_INSTRUCTION, col.PARENT_INSTRUCTION, col.INSTRUCTION, col.INPUT,
    col.EVOLVER, col.EVOL_STATUS, col.ELIMINATION, col.CONTEXT,
)  # fmt: skip


class Work:
    """A study's models and transforms, and what became of them. Making it checks settings and models, and loads no weights.

    Attributes:
        failures: measures that could not be made: ``stage`` and ``error``.
        diversities: the variety of each evolver's set in each round, as `hf_evol.diversity` summarises it.
    """

    def __init__(self, study: Study, recipe: Recipe) -> None:
        self.study, self.recipe, self.map = study, recipe, steps.mapper(recipe)
        self.failures: list[dict[str, str]] = []
        self.diversities: list[dict[str, Any]] = []
        alike = replace(recipe, judge=None, by_example=bool(recipe.by_example))  # whatever the evolvers' sizes
        self.stages = {label: Stages.of(replace(alike, model=model)) for label, model in study.evolvers.items()}
        first = next(iter(self.stages.values()))
        self.respond, self.score = first.respond, first.score if recipe.scorer else None
        shared = {"methods": first.evolve.methods, "journal": recipe.journal}
        self.confidence = {
            label: Confidence(stages.evolve.model, positions=study.positions, **shared)
            for label, stages in self.stages.items()
        }
        self.judge = study.judge and engine_of(recipe, study.judge)
        self.difficulty = self.judge and Difficulty(self.judge, journal=recipe.journal)
        reward = study.reward and spec_of(recipe, study.reward)
        self.rewards = [Reward(reward, of=of, **shared) for of in ("evolution", "response")] if reward else []
        self.embed = None
        if study.embedding is not None:
            try:
                embed = Embed(spec_of(recipe, study.embedding))
                embed.check()
                self.embed = embed
            except HfEvolError as error:
                if study.embedding != MPNET:
                    raise
                self._failed("diversity", error)  # nobody asked for the default
        evolvers = [stages.evolve for stages in self.stages.values()]
        for transform in filter(None, [*evolvers, self.respond, self.score, self.difficulty, *self.rewards]):
            transform.check()

    def _failed(self, stage: str, error: Exception) -> None:
        self.failures.append({"stage": stage, "error": str(error)})
        logger.warning("%s could not be measured: %s", stage, error)

    def records(self) -> list[tuple[str, ModelRecord]]:
        """(label or role, what is known of the model), the evolvers first."""
        others = {
            "responder": self.respond.model,
            "scorer": self.score and self.score.model,
            "judge": self.judge,
            "reward": self.rewards and self.rewards[0].model,
            "embedding": self.embed and self.embed.model,
        }
        evolvers = [(label, describe("evolver", of.evolve.model)) for label, of in self.stages.items()]
        return evolvers + [(role, describe(role, model)) for role, model in others.items() if model]

    def evolve(self, seeds: Dataset) -> tuple[Dataset, list[dict[str, Any]]]:
        """All rows of all evolvers and rounds, and what each round of each cost."""
        from datasets import concatenate_datasets

        parts, costs = [], []
        for label, stages in self.stages.items():
            parameters = describe("evolver", stages.evolve.model).n_parameters
            rounds = steps.evolve(seeds.remove_columns(col.OUTPUT), stages, self.recipe.rounds, self.map, f"{label}, ")
            for number in range(1, self.recipe.rounds + 1):
                begun = time.monotonic()
                with counted_tokens() as new:
                    rows = next(rounds)
                seconds = time.monotonic() - begun
                last = [history[-1] for history in rows[col.HISTORY]]
                prompt_tokens, tokens = (sum(entry[name] for entry in last) for name in ("n_prompt_tokens", "n_tokens"))
                # where the journal had some of the replies, the time is not the round's
                seconds = self._seconds(stages, rows, number, seconds if new[0] == tokens else None)
                flops = 2 * parameters * (prompt_tokens + tokens) if parameters else None
                cost = {"evolver": label, "round": number, "prompt_tokens": prompt_tokens, "tokens": tokens}
                costs.append(cost | {"seconds": seconds, "flops": flops})
                parts.append(steps.columns(rows.add_column(LABEL, [label] * len(rows)), _KEPT))
            models.release()
        return concatenate_datasets(parts), costs

    def _seconds(self, stages: Stages, rows: Dataset, number: int, measured: float | None) -> float | None:
        """The time that a round took when it was made in one go, in this run or an earlier one; else None."""
        journal = open_journal(self.recipe.journal)
        if journal is None:
            return measured
        of = {"seconds": number} | stages.evolve.identity()
        key = Journal.key(of, rows[col.INSTRUCTION][:], str(self.recipe.seed))
        if measured is not None:
            journal.put({key: {"seconds": measured}})
        return journal.get([key]).get(key, {}).get("seconds")

    def answer(self, rows: Dataset) -> Dataset:
        """The rows with responses; their ``status``: ok, or why the evolution is left out; and their ``response_status``, which
        says nothing about the evolver."""
        answered = steps.respond(rows, self.respond, self.map, "all rounds")
        if why := steps.commonest_failure([answered]):  # not in what is published
            logger.warning("Requests failed. Most often: %s", why)
        rows = decided(answered)
        models.release()
        sets = Counter(zip(rows[LABEL], rows[col.ROUND], strict=True))
        statuses = zip(rows[LABEL], rows[col.ROUND], rows[STATUS], rows[col.RESPONSE_STATUS], strict=True)
        lost = Counter((label, number) for label, number, *of_row in statuses if "engine_error" in of_row)
        error = ModelError("Requests failed. The same command, with --overwrite, asks for them again.")
        for (label, number), count in lost.items():
            self._failed(f"{count} of {sets[label, number]} rows of {label} in round {number}", error)
        return rows

    def measure(self, rows: Dataset) -> Dataset:
        """Usable rows with every measure that could be made."""
        rows = self._tried("IFD and IC-IFD", rows, self.score, "Score")
        for reward in self.rewards:
            what = f"reward of the {reward.of}"
            rows = self._tried(what, rows, reward, what.capitalize())
            if reward.of == "evolution" and col.REWARD in rows.column_names:
                status = f"{REWARD_OF_EVOLUTION}_status"
                rows = rows.rename_columns({col.REWARD: REWARD_OF_EVOLUTION, col.REWARD_STATUS: status})
        rows = self._tried("difficulty", rows, self.difficulty, "Rate difficulty")
        rows = self._tried("top-1 probability", rows, self._confidence)
        return self._tried("diversity", rows, self.embed and self._diversity)

    def measure_seeds(self, seeds: Dataset) -> Dataset:
        """The seeds, as round 0, with the measures that they can have."""
        rows = seeds.remove_columns(col.OUTPUT)
        texts = [text if is_text(text) else None for text in rows[col.INSTRUCTION]]
        rows = _added(
            rows,
            {
                LABEL: ([SEEDS] * len(rows), "string"),
                STATUS: ([col.OK if text else "invalid_input" for text in texts], "string"),
                col.ROUND: ([0] * len(rows), "int32"),
                N_WORDS: ([float(len(text.split())) if text else None for text in texts], "float64"),
            },
        )
        rows = self._tried("difficulty", rows, self.difficulty, "Rate the seeds")
        return self._tried("diversity", rows, self.embed and self._diversity)

    def compare_rewritings(self, rows: Dataset) -> list[dict[str, Any]] | None:
        """The judge's verdict on each pair of rewritings of one seed in one round; None without a judge."""
        from datasets import Dataset

        if not self.judge:
            return None
        wanted = (LABEL, col.ROUND, col.ID, col.SEED_INSTRUCTION, col.INSTRUCTION, col.CONTEXT)
        texts: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
        for row in steps.columns(rows, wanted):
            texts.setdefault((row[col.ROUND], row[col.ID]), {})[row[LABEL]] = row
        pairs = []
        for a, b in combinations(self.study.evolvers, 2):
            for (number, row_id), by in texts.items():
                if a in by and b in by:
                    pair = {"a": a, "b": b, col.ROUND: number, col.ID: row_id}
                    pair[col.INSTRUCTION] = rewriting_task(by[a][col.SEED_INSTRUCTION])
                    pair |= {col.OUTPUT_A: by[a][col.INSTRUCTION], col.OUTPUT_B: by[b][col.INSTRUCTION]}
                    pairs.append(pair | ({col.CONTEXT: by[a][col.CONTEXT]} if col.CONTEXT in by[a] else {}))
        if not pairs:
            return []
        judge = Judge(self.judge, journal=self.recipe.journal)
        judged = self._tried("judge's preference", Dataset.from_list(pairs), judge, "Judge")
        return judged.to_list() if col.VERDICT in judged.column_names else None

    def _tried(
        self, stage: str, rows: Dataset, work: Transform | Callable[[Dataset], Dataset] | None, label: str | None = None
    ) -> Dataset:
        """The measured rows; or, where that fails or failed before, the rows as they were, and a note."""
        if not work or stage in [failure["stage"] for failure in self.failures]:
            return rows
        try:
            return self.map(rows, work, label) if label else work(rows)
        except HfEvolError as error:
            self._failed(stage, error)
            return rows
        finally:
            models.release()

    def _confidence(self, rows: Dataset) -> Dataset:
        from datasets import concatenate_datasets

        parts = []
        for label, transform in self.confidence.items():
            part = _of(rows, label)
            parts.append(self.map(part, transform, f"Top-1 probabilities of {label}"))
            models.release()
        return concatenate_datasets(parts)

    def _diversity(self, rows: Dataset) -> Dataset:
        from datasets import concatenate_datasets

        embedded, parts = self.map(rows, self.embed, "Embed"), []
        sets = dict.fromkeys(zip(rows[LABEL], rows[col.ROUND], strict=True))
        for label, number in sets:
            part, summary = diversity(_of(embedded, label, number))
            self.diversities.append({"evolver": label, "round": number} | summary)
            parts.append(part.remove_columns(col.EMBEDDING))
        return concatenate_datasets(parts) if parts else embedded.remove_columns(col.EMBEDDING)


def decided(answered: steps.Round) -> Dataset:
    """All answered rows with what is held of their texts: of two usable ones of an evolver that say the same, the later one
    is a duplicate, as in the set of a run."""
    from datasets import concatenate_datasets

    left_out = (answered.failed, answered.unanswered)
    reasons = []  # rows are in the order of their evolvers
    for label in dict.fromkeys(answered.rows[LABEL]):
        reasons += ["duplicate" if again else col.KEPT for again in repeated(_of(answered.rows, label))]
    reasons += chain(*(part[REASON] for part in left_out))
    rows = concatenate_datasets([answered.rows, *(part.remove_columns(REASON) for part in left_out)])
    # why the response is left out is the responder's
    statuses = [col.OK if why == col.KEPT or why.startswith(_OF_RESPONSE) else why for why in reasons]
    of_response = [
        col.OK if why == col.KEPT else why.removeprefix(_OF_RESPONSE) if status == col.OK else None
        for why, status in zip(reasons, statuses, strict=True)
    ]
    texts = [text if status == col.OK else "" for text, status in zip(rows[col.INSTRUCTION], statuses, strict=True)]
    outputs = rows[col.OUTPUT][:] if col.OUTPUT in rows.column_names else [None] * len(rows)
    known = {col.OUTPUT, col.RESPONDER, col.RESPONSE_STATUS, col.EVOL_STATUS, col.ELIMINATION}
    return _added(
        rows.remove_columns(list(known.intersection(rows.column_names))),
        {
            col.OUTPUT: (outputs, "string"),
            STATUS: (statuses, "string"),
            col.RESPONSE_STATUS: (of_response, "string"),
            N_WORDS: ([float(len(text.split())) if text else None for text in texts], "float64"),
            # unknown where the request failed, as the server was down or memory ran out
            USABLE: ([None if why == "engine_error" else float(why == col.OK) for why in statuses], "float64"),
        },
    )


def _of(rows: Dataset, label: str, number: int | None = None) -> Dataset:
    sets = enumerate(zip(rows[LABEL], rows[col.ROUND], strict=True))
    return rows.select([place for place, (of, at) in sets if of == label and number in (None, at)])


def _added(rows: Dataset, columns: dict[str, tuple[list[Any], str]]) -> Dataset:
    from datasets import Value

    for name, (values, kind) in columns.items():
        rows = rows.add_column(name, values, feature=Value(kind))
    return rows
