"""Studies that compare evolvers on the same seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_evol.hub.writer import RunResult
    from hf_evol.run.recipe import Recipe
    from hf_evol.study.study import Study


def study(study: Study, recipe: Recipe) -> RunResult:
    """Compare evolvers that rewrite the same seeds by the same methods, row by row, and write what was found.

    Requests and scores are in the journal, so a study that broke off goes on, and one with a further evolver does only what
    is new. A measure that fails is noted, and the others are made.

    The output holds ``results.json`` (`hf_evol.study.results` says what), the configs ``rows``, ``set_<label>`` of each
    evolver, ``comparisons``, ``summaries`` and ``costs``, figures, ``report.html``, the card and ``provenance.json``.

    Args:
        study: the evolvers and the models that measure.
        recipe: ``dataset`` and its settings, ``responder`` of all, ``scorer`` (None leaves IFD and IC-IFD out),
            ``methods``, ``rounds``, sampling, engine and output settings.

    Raises:
        HfEvolError: with what to do; wrong settings, seeds, models and outputs before any model is loaded.
    """
    from hf_evol.study.study import run

    return run(study, recipe)
