"""AutoIF: constraints that a Python function can check, the functions that check them, and rows that use both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_evol.autoif.scenario import AutoIf
    from hf_evol.hub.writer import RunResult
    from hf_evol.run.recipe import Recipe

_HOME = {
    name: module
    for module, names in {
        "augment": ("Augment", "augment_requests", "new_constraints"),
        "compose": ("AnswerUnderConstraint", "compose_rows", "user_queries"),
        "scenario": ("AutoIf",),
        "verify": ("CheckResponses", "CrossValidate", "Verify", "pass_rates"),
    }.items()
    for name in names
}

__all__ = ["autoif", *_HOME]


def autoif(settings: AutoIf, recipe: Recipe) -> RunResult:
    """Make rows with verifiable constraints, and write them.

    The output holds the configs ``rows`` (the default: ``instruction``, the constraint; ``input``, the query; ``output``;
    ``functions``, ``cases``, ``accuracies``; ``pass_rate``), ``constraints`` (every constraint with its status) and
    ``dropped`` (rows without a response, or under ``require_pass``), the card and ``provenance.json``, whose ``stages``
    say of each stage what it was ``given``, what was ``left``, and what the others were ``lost`` to.

    Args:
        settings: of the scenario.
        recipe: ``model`` writes constraints and functions, ``responder`` answers; sampling, engine and output settings
            count, those of evolving and scoring don't. Its ``temperature`` must be over 0; 0.7 in the paper.

    Raises:
        ModelError: the model's first replies hold nothing of use, so that the others are not asked for.
        HfEvolError: with what to do; wrong settings and sources before any model is loaded.
    """
    from hf_evol.autoif.scenario import run

    return run(settings, recipe)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"hf_evol.autoif.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hf_evol.autoif' has no attribute {name!r}")
