"""What tests have workers do: in a module of its own, which they can import."""

import os
import signal
import time
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from hf_evol.cluster import Apply
from hf_evol.scoring.ic_ifd import IcIfd


class Located(Apply):
    """Notes, for each row, the process, its place among the workers and how many models it has loaded."""

    def __init__(self, model):
        super().__init__(IcIfd(model, journal=False))

    def run(self, data, rank=0, world_size=1):
        from hf_evol.models import loading

        for document in super().run(data, rank, world_size):
            misses = len(loading._models)
            document.metadata |= {"pid": os.getpid(), "place": loading._rank, "loads": misses}
            yield document


class Deadly(PipelineStep):
    """Kills the process of one task, the first times that it is tried, each of which it notes in a folder."""

    name, type = "deadly", "test"

    def __init__(self, folder, victim, times):
        super().__init__()
        self.folder, self.victim, self.times = folder, victim, times

    def run(self, data, rank=0, world_size=1):
        Path(self.folder, f"{rank}-{time.time_ns()}").touch()
        if rank == self.victim and len(list(Path(self.folder).glob(f"{rank}-*"))) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from data or ()


def fail(message):
    raise KeyError(message)


def visible_gpus(seconds):
    time.sleep(seconds)  # so that the other worker takes the other call
    return os.environ.get("CUDA_VISIBLE_DEVICES")
