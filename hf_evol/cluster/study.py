"""A study on datatrove: the same rows, statistics and report as `hf_evol.study`, by many tasks."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hf_evol import __version__
from hf_evol.cluster.mapping import Mapper
from hf_evol.cluster.run import Execution, deciding
from hf_evol.cluster.workers import at_work
from hf_evol.run.recipe import Recipe
from hf_evol.study.study import Study, compare, prepare

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_evol.run.result import RunResult


def study(study: Study, recipe: Recipe, execution: Execution | None = None) -> RunResult:
    """`hf_evol.study.study.run` by many tasks.

    What asks models is cut into tasks, one stage for each; what is left, such as the statistics, is done here. This
    stays until the end, with Slurm, too. A call after an interruption, of any kind, does what is missing. The seconds of
    ``costs`` are null, as tasks share neither a clock nor a machine.

    Args:
        study: the evolvers and the models that measure.
        recipe: as `hf_evol.study.study.run` takes it.
        execution: where and by how many tasks; every stage has as many.

    Raises:
        HfEvolError: as `hf_evol.study.study.run` does.
        OutputError: another launcher is at work in the work folder, or it belongs to another plan.
        TaskError: tasks failed or died.

    Example:
        ``study(Study({"small": "Qwen/Qwen2.5-0.5B-Instruct", "large": "Qwen/Qwen2.5-7B-Instruct"}), recipe,
        Execution(tasks=8, workers=2))``
    """
    execution = execution or Execution()
    folder = execution.folder(recipe.output)
    with (
        folder.locked(),
        at_work(execution, folder) as workers,
        tempfile.TemporaryDirectory(prefix="hf_evol-") as cache,
    ):
        work, seeds = prepare(study, recipe, Mapper(workers, cache))
        folder.claim(_plan(study, recipe, seeds, execution.n_tasks))
        result = compare(work, seeds)
        folder.clear()
        return result


def _plan(study: Study, recipe: Recipe, seeds: Dataset, tasks: int) -> dict[str, Any]:
    """What tells this study from others. Shards are named by what decides them, weights among it."""
    of_rows = {"rows": len(seeds), "seeds": seeds._fingerprint}
    return deciding(recipe) | asdict(study) | of_rows | {"tasks": tasks, "version": __version__}
