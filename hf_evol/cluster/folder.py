"""The work folder of a run by many tasks: shards, completion marks and logs, and the lock that keeps a second launcher out."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from datatrove.io import DataFolder
from filelock import FileLock, Timeout

from hf_evol.data.files import placing, write_file
from hf_evol.errors import HfEvolError, OutputError, SourceError

PLAN, LOCK, LOGS, JOURNALS = "plan.json", "lock.json", "logs", "journals"
_WRITTEN = ("seeds", "rows", "failed", "unanswered", LOGS, JOURNALS, PLAN)


class WorkFolder(DataFolder):
    """A folder on any fsspec store that all workers reach, given by a path or URL."""

    @property
    def url(self) -> str:
        return self.resolve_paths("")

    @property
    def digest(self) -> str:
        place = os.path.realpath(self.path) if self.is_local() else self.url  # the same by whatever link
        return hashlib.sha256(place.encode()).hexdigest()[:16]

    def put_shard(self, rows: Dataset, kind: str, number: int) -> None:
        """Write a shard as an Arrow file, whole or not at all."""
        with placing(self.resolve_paths(f"{kind}/{number:05}.arrow")) as file:
            write_file(rows, file, "arrow")

    def load_shards(self, kind: str, numbers: Sequence[int], copies: str | None = None) -> Dataset:
        """The rows of shards, in order: in memory or, with a local folder for copies of remote ones, memory-mapped."""
        parts = []
        with tempfile.TemporaryDirectory(prefix="hf_evol-") as passing:
            for name in (f"{kind}/{number:05}.arrow" for number in numbers):
                file = self.resolve_paths(name)
                try:
                    if not self.is_local():
                        file = str(Path(copies or passing, name.replace("/", "-")))
                        self.get_file(name, file)
                    parts.append(Dataset.from_file(file, in_memory=copies is None))
                except FileNotFoundError as error:
                    raise SourceError(f"The shard {name} is missing in {self.url!r}. Run the command again.") from error
        return concatenate_datasets(parts)

    def claim(self, plan: Mapping[str, Any]) -> None:
        """Take the folder for this plan, or go on with it. It must not belong to another plan, or hold something else."""
        if known := self._read(PLAN):
            differing = sorted(name for name in known.keys() | plan.keys() if known.get(name) != plan.get(name))
            if differing:
                raise OutputError(
                    f"The work folder {self.url!r} holds the unfinished run of another plan; it differs in "
                    f"{', '.join(differing)}. Run that one to its end, delete the folder, or give another with --work-folder."
                )
            return
        if known is None and any(name.strip("/") != LOCK for name in self.ls("", detail=False)):
            raise OutputError(f"The folder {self.url!r} holds something else. Give a new one with --work-folder.")
        self.clear(keep=[JOURNALS, PLAN])  # of a run that has ended
        self._write(PLAN, plan)

    def clear(self, keep: Sequence[str] = ()) -> None:
        """Remove what a run has put here, but for the lock. An empty plan says so for what is kept, or left by a kill."""
        self._write(PLAN, {})
        for name in _WRITTEN:
            if name not in keep:
                self._remove(name)

    def unlock(self) -> None:
        """Remove the lock, and the folder if nothing else is in it."""
        self._remove(LOCK)
        if self.is_local():
            with suppress(OSError):
                Path(self.path).rmdir()

    @contextmanager
    def locked(self) -> Iterator[list[str]]:
        """Keep others out while the block runs, by an `OutputError`. Job ids that it adds to the list keep the lock beyond it.

        On one machine the operating system lets one process in, and forgets a lock when its process ends; between machines it
        is a file that is created or not, and that only the machine which has left it may take over.
        """
        everyones = "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()  # whatever TMPDIR says
        jobs: list[str] = []
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.ctime(), "jobs": jobs}
        try:
            with FileLock(Path(everyones, f"hf_evol-{self.digest}.lock"), blocking=False):
                self._take_lock(holder)
                try:
                    yield jobs
                finally:
                    if jobs:  # which the launcher leaves to themselves
                        self._write(LOCK, holder)
                    else:
                        self.unlock()
        except Timeout as error:
            raise OutputError(f"Another launcher works in {self.url!r}, on this machine.") from error
        except OSError as error:
            if isinstance(error, HfEvolError):
                raise
            what = f"The work folder {self.url!r} can't be used: {error}."
            raise OutputError(f"{what} Run the same command again, or give another with --work-folder.") from error

    def _take_lock(self, holder: Mapping[str, Any]) -> None:
        try:
            return self._write(LOCK, holder, new=True)
        except FileExistsError:
            other = self._read(LOCK)
        except Exception as error:  # stores raise errors of their own, such as S3's without credentials
            raise OSError(f"{error}") from error
        if other is not None and (other["host"] != holder["host"] or (other["jobs"] and in_queue(other["jobs"]))):
            raise OutputError(
                f"Another launcher works in {self.url!r}: {', '.join(f'{name} {value}' for name, value in other.items())}. "
                f"If it has ended, delete {self.resolve_paths(LOCK)!r} and run the same command again."
            )
        return self._write(LOCK, holder)

    def _read(self, name: str) -> dict[str, Any] | None:
        self.invalidate_cache()
        try:
            return json.loads(self.cat_file(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            what = "it" if name == LOCK else "the work folder"
            raise OutputError(
                f"{self.resolve_paths(name)!r} can't be read: {error}. Delete {what} to go on."
            ) from error

    def _write(self, name: str, content: Mapping[str, Any], *, new: bool = False) -> None:
        data = json.dumps(content, indent=2, ensure_ascii=False).encode()
        self.makedirs("", exist_ok=True)
        if new and self.is_local():  # fsspec would look first, and then write
            with Path(self.path, name).open("xb") as file:
                file.write(data)
        else:
            self.pipe_file(name, data, mode="create" if new else "overwrite")

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.rm(name, recursive=True)


def in_queue(jobs: Sequence[str]) -> bool:
    """Whether Slurm's queue may hold one of these jobs."""
    listed = subprocess.run(["squeue", "--noheader", "--jobs", ",".join(jobs)], capture_output=True, text=True)
    return bool(listed.stdout.strip() or (listed.returncode and "Invalid job id" not in listed.stderr))
