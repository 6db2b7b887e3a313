"""Runs that outgrow one machine (extra ``cluster``): `run` is `hf_evol.run` on datatrove's local, Slurm, Ray or HF Jobs executor;
`Apply` wraps any transform for a pipeline of one's own."""

import os

from hf_evol.errors import require_extra

# datatrove logs with loguru, which would write the values of variables, rows and settings among them, into tracebacks.
os.environ.setdefault("LOGURU_DIAGNOSE", "NO")
require_extra("datatrove", "cluster", "hf_evol.cluster")

from hf_evol.cluster.run import Execution, run  # noqa: E402
from hf_evol.cluster.steps import Apply  # noqa: E402

__all__ = ["Apply", "Execution", "run"]
