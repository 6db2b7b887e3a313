"""AutoIF: constraints that a Python function can check, and the functions that check them."""

from hf_evol.autoif.sandbox import Limits, Result, Sandbox
from hf_evol.autoif.verify import Thresholds, cross_validate, parse_completion

__all__ = ["Limits", "Result", "Sandbox", "Thresholds", "cross_validate", "parse_completion"]
