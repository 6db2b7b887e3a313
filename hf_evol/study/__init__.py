"""Studies that compare evolvers, or responders, on the same seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_evol.hub.writer import RunResult
    from hf_evol.run.recipe import Recipe
    from hf_evol.study.study import Study


def study(study: Study, recipe: Recipe) -> RunResult:
    """Compare models that do the same with the same seeds, row by row, and write what was found.

    Evolvers rewrite the seeds by the same methods, and one responder answers what they make of them. Responders answer the
    seeds as they are; which is the better one depends on the base that is to be tuned on the responses (arXiv:2411.07133).

    Requests and scores are in the journal, so a study that broke off goes on, and one with a further model does only what
    is new. A measure that fails is noted, and the others are made.

    The output holds ``results.json``, the configs ``rows``, ``set_<label>`` of each model that is compared, ``comparisons``,
    ``summaries`` and ``costs``, figures, ``report.html``, the card and ``provenance.json``.

    Args:
        study: what is compared, and the models that measure.
        recipe: ``dataset`` and its settings, ``scorer`` (None leaves IFD and IC-IFD out), sampling, engine and output
            settings; of evolvers also ``responder`` of all, ``methods`` and ``rounds``.

    Raises:
        HfEvolError: with what to do; wrong settings, seeds, models and outputs before any model is loaded.
    """
    from hf_evol.study.study import run

    return run(study, recipe)
