"""AutoIF: constraints that a Python function can check, the functions that check them, and rows that use both."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "AnswerUnderConstraint": "compose",
    "Augment": "augment",
    "AutoIf": "scenario",
    "CheckResponses": "functions",
    "CrossValidate": "functions",
    "Limits": "sandbox",
    "Result": "sandbox",
    "Sandbox": "sandbox",
    "Thresholds": "verify",
    "Verify": "functions",
    "augment_requests": "augment",
    "compose_rows": "compose",
    "cross_validate": "verify",
    "new_constraints": "augment",
    "parse_completion": "completions",
    "pass_rates": "functions",
    "run": "scenario",
    "user_queries": "compose",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"hf_evol.autoif.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hf_evol.autoif' has no attribute {name!r}")
