"""The stages of a run as datatrove pipelines, one for each model, so that only one model is in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from datatrove.pipeline.base import PipelineStep

from hf_evol import columns as col
from hf_evol.cluster.shards import ReadShard, WriteParquet, load_shards
from hf_evol.cluster.steps import Apply, Keep, MakeRoom
from hf_evol.run.pipeline import conclude
from hf_evol.run.recipe import Recipe
from hf_evol.run.result import REASON, Round, RunResult, evolution_reasons, response_reasons
from hf_evol.run.stages import Stages

if TYPE_CHECKING:
    from datasets import Features

    from hf_evol.cluster.work import WorkFolder


@dataclass(frozen=True)
class Stage:
    """One pipeline and its tasks. A later stage begins when all tasks of the one before are completed."""

    name: str
    label: str
    tasks: int
    pipeline: list[PipelineStep]


def stages_of(
    recipe: Recipe, transforms: Stages, seeds: Features, folder: WorkFolder, tasks: int, journal: str | None
) -> list[Stage]:
    """Evolve, respond and score.

    To evolve, a task takes one shard of the seeds through all rounds, and writes each round's rows as a shard of its own,
    numbered ``(round - 1) * tasks + task``. The other stages have one task for each of these.

    Args:
        journal: as `Apply` takes it, or None for the recipe's own.
    """

    def apply(transform: Any) -> Apply:
        return Apply(transform, journal=journal)

    def write(kind: str, features: Features, first: int = 0) -> WriteParquet:
        return WriteParquet(folder.shard(kind), features, first)

    roles, later = transforms.models, tasks * recipe.rounds
    evolve: list[PipelineStep] = [MakeRoom(roles["evolver"]), ReadShard(folder.shard("seeds"))]
    features = seeds
    for number in range(recipe.rounds):
        features = transforms.eliminate.features(transforms.evolve.features(features))
        evolved = _without(features, col.HISTORY)
        evolve += [apply(transforms.evolve), apply(transforms.eliminate), write("evolved", evolved, number * tasks)]
    after = replace(transforms.eliminate, judge=None)  # the rules about responses; the judge has spoken
    answered = after.features(transforms.respond.features(evolved))
    respond = [
        MakeRoom(roles["responder"]),
        ReadShard(folder.shard("evolved")),
        Keep(evolution_reasons, write("failed", _with_reason(evolved))),
        apply(transforms.respond),
        apply(after),
        Keep(response_reasons, write("unanswered", _with_reason(answered))),
        write("answered", answered),
    ]
    score = [
        MakeRoom(roles["scorer"]),
        ReadShard(folder.shard("answered")),
        apply(transforms.score),
        write("scored", transforms.score.features(answered)),
    ]
    of = f"{recipe.rounds} round{'s' * (recipe.rounds > 1)}"
    return [
        Stage("evolve", f"Evolve, {of}", tasks, evolve),
        Stage("respond", f"Respond, {of}", later, respond),
        Stage("score", f"Score, {of}", later, score),
    ]


def _without(features: Features, name: str) -> Features:
    return type(features)({key: kind for key, kind in features.items() if key != name})


def _with_reason(features: Features) -> Features:
    from datasets import Value

    return type(features)(dict(features) | {REASON: Value("string")})


def finish_shards(recipe: Recipe, folder: WorkFolder, n_seeds: int, tasks: int) -> RunResult:
    """The last step, when all tasks are completed: select, write the set and, if asked, publish it."""
    with folder.scratch() as cache:
        rounds = [
            Round(
                *(
                    load_shards(folder.shard(kind), range(first, first + tasks), cache)
                    for kind in ("scored", "failed", "unanswered")
                )
            )
            for first in range(0, recipe.rounds * tasks, tasks)
        ]
        return conclude(recipe, Stages.of(recipe), n_seeds, rounds)


class Finish(PipelineStep):
    """The last step as a task of its own, where the launcher does not wait for the others.

    It removes the shards and the lock; the logs stay, as this task's own are still being written.
    """

    name = "finish"
    type = "hf_evol"

    def __init__(self, recipe: Recipe, path: str, n_seeds: int, tasks: int) -> None:
        super().__init__()
        self.recipe, self.path, self.n_seeds, self.n_tasks = recipe, path, n_seeds, tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        from hf_evol.cluster.work import JOURNALS, LOGS, WorkFolder

        folder = WorkFolder(self.path)
        result = finish_shards(self.recipe, folder, self.n_seeds, self.n_tasks)
        folder.clear(keep=[LOGS, JOURNALS] if result.n_failed_requests else [LOGS])
        folder.unlock()
        yield from data or ()
