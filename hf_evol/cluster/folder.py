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
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from hf_evol.data.files import placing
from hf_evol.errors import ConfigError, HfEvolError, OutputError, SourceError
from hf_evol.progress import without_datasets_bars

if TYPE_CHECKING:
    from datasets import Dataset

PLAN, LOCK, LOGS, JOURNALS = "plan.json", "lock.json", "logs", "journals"
_SHARDS = ("seeds", "rows", "failed", "unanswered")
_SCRATCH = "scratch"  # where a last step that was killed leaves its cache
_OURS = {*_SHARDS, _SCRATCH, PLAN, LOCK, LOGS, JOURNALS}


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

    def put_shard(self, rows: Dataset, kind: str, number: int) -> None:
        """Write a shard, whole or not at all."""
        with placing(self.at(kind, f"{number:05}.parquet")) as file, without_datasets_bars():
            rows.to_parquet(file)

    def put_seeds(self, seeds: Dataset, tasks: int) -> None:
        """Cut the seeds into a shard for each task, in order. A shard that is there is whole, and stays."""
        for rank, part in enumerate(parts_of(len(seeds), tasks)):
            if not self.fs.exists(f"{self.root}/seeds/{rank:05}.parquet"):
                self.put_shard(seeds.select(part), "seeds", rank)

    def load_shards(self, kind: str, numbers: Sequence[int], cache: str | None = None) -> Dataset:
        """The rows of shards, in order; memory-mapped from a folder ``cache``, or else in memory.

        Raises:
            SourceError: a shard is missing.
        """
        import pyarrow.parquet as pq
        from datasets import Dataset, Features, load_dataset

        files, n_rows = [self.at(kind, f"{number:05}.parquet") for number in numbers], 0
        try:
            for path in files:
                with fsspec.open(path, "rb") as file:
                    shard = pq.ParquetFile(file)
                    features, n_rows = Features.from_arrow_schema(shard.schema_arrow), n_rows + shard.metadata.num_rows
        except FileNotFoundError as error:
            raise SourceError(f"A shard in {self.at(kind)!r} is missing: {error}. Run the command again.") from error
        if not n_rows:  # datasets can't load files without any rows
            return Dataset.from_dict({name: [] for name in features}, features=features)
        with without_datasets_bars(), tempfile.TemporaryDirectory(prefix="hf_evol-") as passing:
            options = {"cache_dir": cache or passing, "keep_in_memory": cache is None}
            return load_dataset("parquet", data_files=files, split="train", **options)

    def claim(self, plan: Mapping[str, Any]) -> None:
        """Take the folder for this plan, or go on with it.

        Raises:
            OutputError: it belongs to another plan, or holds something else.
        """
        if known := self._read(PLAN):
            differing = sorted(name for name in known.keys() | plan.keys() if known.get(name) != plan.get(name))
            if differing:
                raise OutputError(
                    f"The work folder {self.path!r} holds the unfinished run of another plan; it differs in "
                    f"{', '.join(differing)}. Run that one to its end, delete the folder, or give another with --work-folder."
                )
            return
        entries = self.fs.ls(self.root, detail=False) if self.fs.exists(self.root) else []
        names = {entry.rstrip("/").rpartition("/")[2] for entry in entries}
        if known is None and names - {LOCK}:
            raise OutputError(
                f"The work folder {self.path!r} holds something else. Give an empty or new one with --work-folder."
            )
        self.clear(keep=[JOURNALS])  # of a run that has ended
        self._write(PLAN, plan)

    def clear(self, keep: Sequence[str] = ()) -> None:
        """Remove what a run has put here, but for the lock. An empty plan stays to say so where something is kept."""
        for name in _OURS - {LOCK, PLAN, *keep}:
            self._remove(name)
        if keep:
            self._write(PLAN, {})
        else:
            self._remove(PLAN)

    def unlock(self) -> None:
        """Remove the lock, and the folder if nothing else is in it."""
        self._remove(LOCK)
        if self.is_local:
            with suppress(OSError):
                Path(self.root).rmdir()

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A new local folder, within where this one is local, that is gone when the block ends."""
        parent = Path(self.root, _SCRATCH) if self.is_local else None
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="hf_evol-", dir=parent) as folder:
            yield folder

    @contextmanager
    def locked(self) -> Iterator[list[str]]:
        """Keep others out while the block runs. Job ids that it adds to the list keep the lock beyond it.

        On one machine the operating system lets one process in, and forgets a lock when its process ends; between machines it
        is a file that is created or not. A file left by a machine is taken over on that machine alone, so that no two launchers
        can both find it stale.

        Raises:
            OutputError: another launcher, or a job of one, is at work here, or the folder can't be used.
        """
        from filelock import FileLock, Timeout

        place = os.path.realpath(self.root) if self.is_local else self.path
        digest = hashlib.sha256(place.encode()).hexdigest()[:16]
        everyones = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # whatever TMPDIR says
        mutex = FileLock(everyones / f"hf_evol-{digest}.lock", blocking=False)
        try:
            with mutex:
                holder = {"host": socket.gethostname(), "pid": os.getpid()}
                holder |= {"started": time.strftime("%Y-%m-%d %H:%M:%S%z"), "jobs": []}
                self._take_lock(holder)
                jobs: list[str] = []
                try:
                    yield jobs
                finally:
                    if jobs:  # which the launcher leaves to themselves
                        self._write(LOCK, holder | {"jobs": jobs})
                    else:
                        self.unlock()
        except Timeout as error:
            raise OutputError(f"Another launcher works in {self.path!r}, on this machine.") from error
        except HfEvolError:
            raise
        except OSError as error:
            raise OutputError(
                f"The work folder {self.path!r} can't be used: {error}. The same command does what is missing."
            ) from error

    def _take_lock(self, holder: Mapping[str, Any]) -> None:
        try:
            try:
                self._write(LOCK, holder, new=True)
            except FileExistsError:
                other = self._read(LOCK)
                if other is not None and (other["host"] != holder["host"] or not have_ended(other["jobs"])):
                    who = f"process {other['pid']} on {other['host']}, started {other['started']}"
                    who += f", jobs {', '.join(other['jobs'])}" if other["jobs"] else ""
                    raise OutputError(
                        f"Another launcher works in {self.path!r}: {who}. If it has ended, delete {self.at(LOCK)!r} and run "
                        "the same command again."
                    ) from None
                self._write(LOCK, holder)
        except HfEvolError:
            raise
        except Exception as error:  # stores raise errors of their own, such as S3's without credentials
            raise OutputError(
                f"The work folder {self.path!r} can't be used: {error}. Give another with --work-folder."
            ) from error

    def _read(self, name: str) -> dict[str, Any] | None:
        self.fs.invalidate_cache()
        try:
            return json.loads(self.fs.cat_file(f"{self.root}/{name}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise OutputError(
                f"{self.at(name)!r} can't be read: {error}. Delete {'it' if name == LOCK else 'the work folder'} to go on."
            ) from error

    def _write(self, name: str, content: Mapping[str, Any], *, new: bool = False) -> None:
        data, path = json.dumps(content, indent=2, ensure_ascii=False).encode(), f"{self.root}/{name}"
        self.fs.makedirs(self.root, exist_ok=True)
        if new and self.is_local:
            with Path(path).open("xb") as file:
                file.write(data)
            return
        if new:
            try:
                self.fs.pipe_file(path, data, mode="create")
                return
            except (NotImplementedError, ValueError):  # a store that can't create exclusively
                if self.fs.exists(path):
                    raise FileExistsError(path) from None
        self.fs.pipe_file(path, data)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.fs.rm(f"{self.root}/{name}", recursive=True)


def parts_of(n_rows: int, tasks: int) -> list[range]:
    """The places of the rows that each task takes."""
    return [range(n_rows * rank // tasks, n_rows * (rank + 1) // tasks) for rank in range(tasks)]


def have_ended(jobs: Sequence[str]) -> bool:
    """Whether Slurm's queue surely holds none of these jobs."""
    if not jobs:
        return True
    try:
        command = ["squeue", "--noheader", "--jobs", ",".join(jobs)]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return not listed.stdout.strip() and (not listed.returncode or "Invalid job id" in listed.stderr)
