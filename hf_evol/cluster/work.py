"""The work folder of a run: shards, completion marks and logs, and the lock that keeps a second launcher out."""

from __future__ import annotations

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

import fsspec
from fsspec.implementations.local import LocalFileSystem

from hf_evol.cluster.steps import RANK
from hf_evol.errors import ConfigError, HfEvolError, OutputError

PLAN, LOCK = "plan.json", "lock.json"
SHARDS = ("seeds", "evolved", "failed", "answered", "unanswered", "scored")
LOGS, JOURNALS, MAPS = "logs", "journals", "maps"
SCRATCH = "scratch"  # where a last step that was killed leaves its cache
_OURS = {*SHARDS, LOGS, JOURNALS, MAPS, SCRATCH, PLAN, LOCK}


class WorkFolder:
    """A folder on any fsspec store that all workers reach.

    Args:
        path: a local path or an fsspec URL.

    Raises:
        ConfigError: there is no such store, or what reaches it is not installed.
    """

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/") if "://" in path else str(Path(path).expanduser().absolute())
        try:
            self.fs, self.root = fsspec.url_to_fs(self.path)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"The work folder {path!r} can't be used: {error}") from error

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def at(self, *parts: str) -> str:
        """The path of a file or folder within."""
        return "/".join((self.path, *parts))

    def shard(self, kind: str) -> str:
        """The path of one kind of shards."""
        return self.at(kind, f"{RANK}.parquet")

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file within, or None where there is none."""
        self.fs.invalidate_cache()
        try:
            return json.loads(self.fs.cat_file(f"{self.root}/{name}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise OutputError(
                f"{self.at(name)!r} can't be read: {error}. Delete the work folder to begin anew."
            ) from error

    def write(self, name: str, content: Mapping[str, Any], *, new: bool = False) -> None:
        """Write a JSON file within; with ``new``, raise `FileExistsError` if it is there."""
        data = json.dumps(content, indent=2, ensure_ascii=False).encode()
        path = f"{self.root}/{name}"
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if not new:
            self.fs.pipe_file(path, data)
            return
        try:
            self.fs.pipe_file(path, data, mode="create")
        except (NotImplementedError, ValueError):  # a store that can't create exclusively
            if self.fs.exists(path):
                raise FileExistsError(path) from None
            self.fs.pipe_file(path, data)

    def claim(self, plan: Mapping[str, Any]) -> None:
        """Take the folder for this plan, or go on with it.

        Raises:
            OutputError: it belongs to another plan, or holds something else.
        """
        if (known := self.read(PLAN)) is not None:
            differing = sorted(name for name in known.keys() | plan.keys() if known.get(name) != plan.get(name))
            if differing:
                raise OutputError(
                    f"The work folder {self.path!r} holds the unfinished run of another plan; it differs in "
                    f"{', '.join(differing)}. Run that one to its end, delete the folder, or give another with --work-folder."
                )
            return
        entries = self.fs.ls(self.root, detail=False) if self.fs.exists(self.root) else []
        names = {entry.rstrip("/").rpartition("/")[2] for entry in entries}
        if not names <= _OURS:
            raise OutputError(
                f"The work folder {self.path!r} holds something else. Give an empty or new one with --work-folder."
            )
        self.clear(keep=[JOURNALS])  # of a run that has ended
        self.write(PLAN, plan)

    def clear(self, keep: Sequence[str] = ()) -> None:
        """Remove what a run has put here, but for the lock."""
        for name in (PLAN, *SHARDS, MAPS, SCRATCH, JOURNALS, LOGS):
            if name not in keep:
                self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file or folder within, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm(f"{self.root}/{name}", recursive=True)

    def unlock(self) -> None:
        """Remove the lock, and the folder if nothing else is in it."""
        self.remove(LOCK)
        if self.is_local:
            with suppress(OSError):
                Path(self.root).rmdir()

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A new local folder, within where this one is local, that is gone when the block ends."""
        parent = Path(self.root, SCRATCH) if self.is_local else None
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="hf_evol-", dir=parent) as folder:
            yield folder

    @contextmanager
    def locked(self) -> Iterator[list[str]]:
        """Keep others out while the block runs. Job ids that it adds to the list keep the lock beyond it.

        Raises:
            OutputError: another launcher is at work here, or the folder can't be used.
        """
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "birth": _birth(os.getpid())}
        holder |= {"started": time.strftime("%Y-%m-%d %H:%M:%S%z"), "jobs": []}
        try:
            try:
                self._acquire(holder)
            except HfEvolError:
                raise
            except Exception as error:  # stores raise errors of their own, such as S3's without credentials
                raise OutputError(
                    f"The work folder {self.path!r} can't be used: {error}. Give another with --work-folder."
                ) from error
            jobs: list[str] = []
            try:
                yield jobs
            finally:
                if jobs:  # which the launcher leaves to themselves
                    self.write(LOCK, holder | {"birth": None, "jobs": jobs})
                else:
                    self.unlock()
        except HfEvolError:
            raise
        except OSError as error:
            raise OutputError(
                f"The work folder {self.path!r} can't be used: {error}. The same command does what is missing."
            ) from error

    def note_jobs(self, jobs: Sequence[str]) -> None:
        """Note in the lock what runs for this launcher, and goes on should it be killed."""
        self.write(LOCK, (self.read(LOCK) or {}) | {"jobs": list(jobs)})

    def _acquire(self, holder: Mapping[str, Any]) -> None:
        try:
            self.write(LOCK, holder, new=True)
            return
        except FileExistsError:
            other = self.read(LOCK)
        if other is not None and not _has_ended(other):
            who = f"process {other['pid']} on {other['host']}, started {other['started']}"
            who += f", jobs {', '.join(other['jobs'])}" if other["jobs"] else ""
            raise OutputError(
                f"Another launcher works in {self.path!r}: {who}. If it has ended, delete {self.at(LOCK)!r} and run the "
                "same command again."
            )
        self.remove(LOCK)
        try:
            self.write(LOCK, holder, new=True)
        except FileExistsError as error:  # a third one was faster
            raise OutputError(f"Another launcher has just begun to work in {self.path!r}.") from error


def _has_ended(holder: Mapping[str, Any]) -> bool:
    """Whether a launcher and its jobs have surely ended."""
    elsewhere = holder["host"] != socket.gethostname()
    if holder["birth"] is not None and (elsewhere or _birth(holder["pid"]) == holder["birth"]):
        return False
    return not holder["jobs"] or have_ended(holder["jobs"])


def have_ended(jobs: Sequence[str]) -> bool:
    """Whether Slurm's queue surely holds none of these jobs."""
    try:
        command = ["squeue", "--noheader", "--jobs", ",".join(jobs)]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return not listed.stdout.strip() and (not listed.returncode or "Invalid job id" in listed.stderr)


def _birth(pid: int) -> str | None:
    """What tells a living process from another of the same number; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # start time, in ticks since boot
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "alive"
