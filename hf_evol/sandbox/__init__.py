"""Where generated code runs, and nowhere else."""

from hf_evol.sandbox.sandbox import Result, Sandbox

__all__ = ["Result", "Sandbox"]
