"""The stages of a study: evolve, answer, measure. Each goes on from what the journal holds."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

from datasets import Dataset, concatenate_datasets

from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import HfEvolError, ModelError
from hf_evol.models.record import ModelRecord, describe
from hf_evol.progress import counted_tokens
from hf_evol.prompts.judge import rewriting_task
from hf_evol.run import steps
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages, engine_of, spec_of
from hf_evol.scoring.compatibility import NEGATIVE, Compatibility, compatibility_adjusted_reward
from hf_evol.scoring.confidence import Confidence
from hf_evol.scoring.difficulty import Difficulty
from hf_evol.scoring.diversity import diversity
from hf_evol.scoring.embed import Embed
from hf_evol.scoring.judge import Judge
from hf_evol.scoring.pairs import is_text
from hf_evol.scoring.reward import Reward
from hf_evol.study.measures import EVOLVER, N_WORDS, REWARD_OF_EVOLUTION
from hf_evol.study.results import LABEL, SEEDS, STATUS, numbers
from hf_evol.study.rows import TOKENS, CountedRespond, as_evolved, count_words, decided, of_label, with_columns
from hf_evol.transform import Transform, failed_requests, values_of

if TYPE_CHECKING:
    from hf_evol.study.study import Study

logger = logging.getLogger(__name__)

MPNET = "sentence-transformers/all-mpnet-base-v2"  # the paper's embedding model
_KEPT = (
    LABEL, col.ID, col.ROUND, col.METHOD, col.SEED_INSTRUCTION, col.PARENT_INSTRUCTION, col.INSTRUCTION, col.INPUT,
    col.EVOLVER, col.EVOL_STATUS, col.ELIMINATION, col.CONTEXT,
)  # fmt: skip
_ASK_AGAIN = ModelError("Requests failed. The same command, with --overwrite, asks for them again.")


def embedder(recipe: Recipe, embedding: str | dict | None) -> tuple[Embed | None, HfEvolError | None]:
    """A model's `Embed`; or none, where none is wanted, or the default, which nobody has asked for, can't be had: and why."""
    if embedding is None:
        return None, None
    try:
        embed = Embed(spec_of(recipe, embedding))
        embed.check()
        return embed, None
    except HfEvolError as error:
        if embedding != MPNET:
            raise
        return None, error


class Work:
    """A study's models and transforms, and what became of them. Making it checks settings and models, and loads no weights.

    Attributes:
        failures: measures that could not be made: ``stage`` and ``error``.
        failed: how many rows' requests failed, by what was said of them.
        rounds: how many the seeds are evolved for; 0 where responders answer the seeds themselves.
        diversities: the variety of each evolver's set in each round, as `hf_evol.diversity` summarises it.
    """

    def __init__(self, study: Study, recipe: Recipe) -> None:
        self.study, self.recipe = study, recipe
        self.failures: list[dict[str, str]] = []
        self.failed: Counter[str] = Counter()
        self.diversities: list[dict[str, Any]] = []
        self.evolves = study.role is EVOLVER
        self.rounds = recipe.rounds if self.evolves else 0
        alike = replace(recipe, judge=None, by_example=bool(recipe.by_example))  # whatever the evolvers' sizes
        if not self.evolves:
            alike = replace(alike, best_of=1)
        self.stages = {label: Stages.of(replace(alike, model=model)) for label, model in study.candidates.items()}
        first = next(iter(self.stages.values()))
        self.respond, self.score = first.respond, first.score if recipe.scorer else None
        shared = {"methods": first.evolve.methods, "journal": recipe.journal}
        self.writers: dict[str, Any] = {  # of what is compared
            label: of.evolve if self.evolves else CountedRespond(**vars(of.respond))
            for label, of in self.stages.items()
        }
        self.confidence = {
            label: Confidence(writer.model, positions=study.positions, **shared)
            for label, writer in self.writers.items()
            if self.evolves
        }
        self.judge = study.judge and engine_of(recipe, study.judge)
        self.difficulty = self.evolves and self.judge and Difficulty(self.judge, journal=recipe.journal)
        reward = study.reward and spec_of(recipe, study.reward)
        rewarded = ("evolution", "response") if self.evolves else ("response",)
        self.rewards = [Reward(reward, of=of, **shared) for of in rewarded] if reward else []
        base = study.base and spec_of(recipe, study.base)
        self.compatibility = base and Compatibility(base, beta=study.beta, journal=recipe.journal)
        self.embed, error = embedder(recipe, study.embedding) if self.evolves else (None, None)
        if error:
            self._failed("diversity", error)
        others = (self.respond, self.score, self.difficulty, *self.rewards, self.compatibility)
        for transform in filter(None, (*self.writers.values(), *others)):
            transform.check()

    def map(self, rows: Dataset, transform: Transform, label: str) -> Dataset:
        """The transformed rows; requests that failed are counted."""
        rows = steps.mapper(self.recipe)(rows, transform, label)
        self.failed += failed_requests(rows.data, transform)
        return rows

    def _failed(self, stage: str, error: Exception) -> None:
        self.failures.append({"stage": stage, "error": str(error)})
        logger.warning("%s could not be measured: %s", stage, error)

    def records(self) -> tuple[dict[str, ModelRecord], list[ModelRecord]]:
        """What is known of the models: of those that are compared, by label, and of the others."""
        others = {
            "responder": self.evolves and self.respond.model,
            "scorer": self.score and self.score.model,
            "judge": self.judge,
            "reward": self.rewards and self.rewards[0].model,
            "embedding": self.embed and self.embed.model,
            "base": self.compatibility and self.compatibility.model,
        }
        compared = {label: describe(self.study.role.name, of.model) for label, of in self.writers.items()}
        return compared, [describe(role, model) for role, model in others.items() if model]

    def make(self, seeds: Dataset) -> tuple[Dataset, list[dict[str, Any]]]:
        """All rows with their responses, and what those that are compared spent in each round.

        Their ``status`` is ok, or why what is compared is left out; in a study of evolvers, ``response_status`` says nothing
        about the evolver.
        """
        made, costs = [], []
        for label, writer in self.writers.items():
            parameters = describe(self.study.role.name, writer.model).n_parameters
            rounds = self._evolved(seeds, label) if self.evolves else self._answered(seeds, label)
            for number in numbers(self.rounds):
                begun = time.monotonic()
                with counted_tokens() as new:
                    rows, (prompt_tokens, tokens) = next(rounds)
                seconds = time.monotonic() - begun if new[0] == tokens else None  # the journal had some of the replies
                flops = 2 * parameters * (prompt_tokens + tokens) if parameters else None
                cost = {self.study.role.name: label, "round": number, "prompt_tokens": prompt_tokens, "tokens": tokens}
                costs.append(cost | {"seconds": seconds, "flops": flops})
                made.append(rows)
            models.release()
        if self.evolves:
            made = [steps.respond(concatenate_datasets(made), self.respond, self.map, "all rounds")]
            models.release()
        rows = concatenate_datasets([decided(answered, self.evolves) for answered in made])
        self._count_lost(rows)
        return rows, costs

    def _evolved(self, seeds: Dataset, label: str) -> Iterator[tuple[Dataset, list[int]]]:
        """The rows of each round, and the tokens of prompts and replies."""
        for rows in steps.evolve(
            seeds.remove_columns(col.OUTPUT), self.stages[label], self.rounds, self.map, f"{label}, "
        ):
            last = [history[-1] for history in rows[col.HISTORY]]
            tokens = [sum(entry[name] for entry in last) for name in TOKENS]
            yield steps.columns(rows.add_column(LABEL, [label] * len(rows)), _KEPT), tokens

    def _answered(self, seeds: Dataset, label: str) -> Iterator[tuple[steps.Round, list[int]]]:
        """Likewise of the seeds, answered."""
        rows = with_columns(as_evolved(seeds), {LABEL: ([label] * len(seeds), "string")})
        answered = steps.respond(steps.columns(rows, _KEPT), self.writers[label], self.map, label)
        tokens = [sum(chain(answered.rows[name], answered.unanswered[name])) for name in TOKENS]
        yield answered, tokens

    def _count_lost(self, rows: Dataset) -> None:
        """Note of how many rows the requests failed."""
        names = [name for name in (STATUS, col.RESPONSE_STATUS) if name in rows.column_names]
        of_all = list(values_of(rows, LABEL, col.ROUND, *names))
        sets = Counter((label, number) for label, number, *_ in of_all)
        lost = Counter((label, number) for label, number, *statuses in of_all if col.failed(statuses))
        for (label, number), count in lost.items():
            when = f" in round {number}" if number else ""
            self._failed(f"{count} of {sets[label, number]} rows of {label}{when}", _ASK_AGAIN)

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
        rows = self._tried("top-1 probability", rows, self.confidence and self._confidence)
        rows = self._tried("loss under the base", rows, self.compatibility and self._compatibility)
        return self._tried("diversity", rows, self.embed and self._diversity)

    def measure_seeds(self, seeds: Dataset) -> Dataset:
        """The seeds, as round 0, with the measures that they can have."""
        texts = [text if is_text(text) else None for text in seeds[col.INSTRUCTION]]
        rows = with_columns(
            seeds.remove_columns(col.OUTPUT),
            {
                LABEL: ([SEEDS] * len(seeds), "string"),
                STATUS: ([col.OK if text else "invalid_input" for text in texts], "string"),
                col.ROUND: ([0] * len(seeds), "int32"),
                N_WORDS: (count_words(texts), "float64"),
            },
        )
        rows = self._tried("difficulty", rows, self.difficulty, "Rate the seeds")
        return self._tried("diversity", rows, self.embed and self._diversity)

    def compare(self, rows: Dataset) -> list[dict[str, Any]] | None:
        """The judge's verdict on each pair of what was made of one seed in one round; None without a judge."""
        if not self.judge:
            return None
        wanted = (LABEL, col.ROUND, col.ID, col.SEED_INSTRUCTION, col.INSTRUCTION, col.INPUT, col.OUTPUT, col.CONTEXT)
        found: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
        for row in steps.columns(rows, wanted):
            found.setdefault((row[col.ROUND], row[col.ID]), {})[row[LABEL]] = row
        made, given = (col.INSTRUCTION, (col.CONTEXT,)) if self.evolves else (col.OUTPUT, (col.CONTEXT, col.INPUT))
        pairs = []
        for a, b in combinations(self.study.candidates, 2):
            for (number, row_id), by in found.items():
                if a in by and b in by:
                    pair = {"a": a, "b": b, col.ROUND: number, col.ID: row_id}
                    asked = rewriting_task(by[a][col.SEED_INSTRUCTION]) if self.evolves else by[a][col.INSTRUCTION]
                    pair |= {col.INSTRUCTION: asked, col.OUTPUT_A: by[a][made], col.OUTPUT_B: by[b][made]}
                    pairs.append(pair | {name: by[a][name] for name in given if name in by[a]})
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
        before = self.failed.total()
        try:
            measured = self.map(rows, work, label) if label else work(rows)
            if n := self.failed.total() - before:
                self._failed(f"{stage} of {n} of {len(rows)} rows", _ASK_AGAIN)
            return measured
        except HfEvolError as error:
            self._failed(stage, error)
            return rows
        finally:
            models.release()

    def _confidence(self, rows: Dataset) -> Dataset:
        parts = []
        for label, transform in self.confidence.items():
            part = of_label(rows, label)
            parts.append(self.map(part, transform, f"Top-1 probabilities of {label}"))
            models.release()
        return concatenate_datasets(parts)

    def _compatibility(self, rows: Dataset) -> Dataset:
        rows = self.map(rows, self.compatibility, "Loss under the base")
        if col.REWARD not in rows.column_names:
            return rows.remove_columns(col.CAR)
        for label in self.writers:
            of = of_label(rows, label)
            found = compatibility_adjusted_reward(of[col.REWARD], of[col.BASE_LOSS], beta=self.study.beta)
            if found["status"] == NEGATIVE:
                said = (
                    f"The mean reward of {label} is {found['mean_reward']:.3g}, and a negative one would rise with the loss. "
                    "Compare rewards and losses, or take a reward model whose scale begins at zero."
                )
                self._failed("compatibility-adjusted reward", ModelError(said))
                return rows.remove_columns(col.CAR)
        return rows

    def _diversity(self, rows: Dataset) -> Dataset:
        embedded, parts = self.map(rows, self.embed, "Embed"), []
        sets = dict.fromkeys(zip(rows[LABEL], rows[col.ROUND], strict=True))
        for label, number in sets:
            part, summary = diversity(of_label(embedded, label, number))
            self.diversities.append({EVOLVER.name: label, "round": number} | summary)
            parts.append(part.remove_columns(col.EMBEDDING))
        return concatenate_datasets(parts) if parts else embedded.remove_columns(col.EMBEDDING)
