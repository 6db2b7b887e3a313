"""Rows and chats that several tests score, and how records are compared."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from hf_evol import models
from hf_evol.models import ModelSpec, loading
from hf_evol.scoring.pairs import SCORES

ROWS = [
    ("Write a poem.", "The sea is deep and blue."),
    ("Why?", "Because rivers flow to the sea, and the sea is large. " * 5),
    ("How many apples are left? " * 6, "4 apples"),
    ("Write a poem.", "Of rivers, then?"),
    ("", "No question."),
    ("Why?", "The sea is deep and blue."),
    ("Explain {braces} <|end|> and 👋", "They are <|user|> characters."),
    ("Write a poem.", "The sea is deep and blue."),
    ("too long " * 300, "The sea is deep and blue."),
    ("List three facts", "It is salty."),
]
CONVENTIONS = ("paper", "superfiltering", "exact", "exact_chat")


def batch_of(rows):
    return {"instruction": [row[0] for row in rows], "output": [row[1] for row in rows]}


def records(out):
    """Row by row, the columns of scores."""
    return [dict(zip(SCORES, row, strict=True)) for row in zip(*(out[name] for name in SCORES), strict=True)]


def close(record, tolerance=1e-6):
    return {
        name: pytest.approx(value, abs=tolerance, rel=tolerance) if isinstance(value, float) else value
        for name, value in record.items()
    }


def chat(*turns):
    return [{"role": role, "content": text} for role, text in turns]


CHAT = chat(
    ("system", "Be brief."), ("user", "How many rivers?"), ("assistant", "Three of them."),
    ("user", "Which?"), ("assistant", "The Nile, to begin with."),
)  # fmt: skip


@contextmanager
def hooked(folder, hook, kind=models.CAUSAL):
    """Call ``hook`` with the tokens of each forward pass of the model."""
    model = models.load_model(ModelSpec(folder), kind)
    module = model.base_model if kind == models.CAUSAL else model
    handle = module.register_forward_pre_hook(lambda _, args, options: hook(options["input_ids"]), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def unloadable(name="load_model"):
    """Loading a model fails the test."""

    def refuse(*args):
        pytest.fail("The model was loaded.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models if hasattr(models, name) else loading, name, refuse)
        yield
