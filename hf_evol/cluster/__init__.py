"""Runs that outgrow one machine (extra ``cluster``): `run` is `hf_evol.run` on datatrove's local, Slurm, Ray or HF Jobs executor;
`Apply` wraps any transform for a pipeline of one's own."""

import traceback
from typing import Any

from hf_evol.errors import require_extra
from hf_evol.secrets import without_secrets

require_extra("datatrove", "cluster", "hf_evol.cluster")

from loguru import logger  # noqa: E402


def _without_secrets(record: dict[str, Any]) -> None:
    """Of what datatrove logs. Its tracebacks become Python's own: loguru's hold the values of variables, rows among them."""
    raised = traceback.format_exception(*record["exception"]) if record["exception"] else ()
    record |= {"message": without_secrets("\n".join([record["message"], *raised])), "exception": None}


logger.configure(patcher=_without_secrets)

from hf_evol.cluster.run import Execution, run  # noqa: E402
from hf_evol.cluster.steps import Apply  # noqa: E402

__all__ = ["Apply", "Execution", "run"]
