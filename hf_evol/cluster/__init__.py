"""Runs that outgrow one machine: transforms as datatrove pipeline steps, and the main job on datatrove's executors.

Needs the extra ``cluster``. `Apply` wraps any transform unchanged, `ReadRows` and `WriteParquet` stand at the ends. `run`,
`map` and `study` are `hf_evol.run`, `hf_evol.map` and `hf_evol.study.study.run` on the local, Slurm, Ray or HF Jobs executor.
"""

import os

from hf_evol.errors import require_extra

# datatrove logs with loguru, which would write the values of variables, rows and settings among them, into tracebacks.
os.environ.setdefault("LOGURU_DIAGNOSE", "NO")
require_extra("datatrove", "cluster", "hf_evol.cluster")

from hf_evol.cluster.mapping import map  # noqa: E402
from hf_evol.cluster.run import Execution, run  # noqa: E402
from hf_evol.cluster.shards import ReadRows, ReadShard, WriteParquet  # noqa: E402
from hf_evol.cluster.steps import Apply, Keep  # noqa: E402
from hf_evol.cluster.study import study  # noqa: E402

__all__ = ["Apply", "Execution", "Keep", "ReadRows", "ReadShard", "WriteParquet", "map", "run", "study"]
