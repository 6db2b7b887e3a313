"""The main job: seeds → evolve → eliminate → respond → score → select → card → Hub, by one recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_evol.hub.writer import RunResult
    from hf_evol.run.recipe import Recipe


def run(recipe: Recipe) -> RunResult:
    """Evolve, answer, score, select, document and, if asked, publish a set.

    The output holds one folder of rows per config (``selected``, ``round_1`` and so on, ``dropped``), the
    card as ``README.md``, its figures, and ``provenance.json``. Every seed row is, for every round, in the
    round's config or in ``dropped`` with its reason. Stages go by model, not by round, so that only one model
    is in memory at a time.

    Raises:
        HfEvolError: with what to do; wrong settings, seeds, models and outputs before any model is loaded.
    """
    from hf_evol.run import pipeline

    return pipeline.run(recipe)
