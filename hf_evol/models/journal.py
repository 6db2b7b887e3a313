"""A durable record of finished requests, so that nothing finished is generated twice."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hf_evol.errors import ConfigError, OutputError

_MARK = int.from_bytes(b"hfEv")  # SQLite's application_id of our files
_TIMEOUT_S = 60
_CHUNK = 500  # SQLite's smallest limit on the variables of one statement is 999


def cache_folder() -> Path:
    """Where journals lie unless told otherwise: ``$HF_EVOL_CACHE``, or ``hf_evol`` under ``$HF_HOME``."""
    if folder := os.environ.get("HF_EVOL_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hf_evol"


class Journal:
    """One SQLite file in WAL mode, safe under several processes and threads.

    A request is known by the hash of its content: model identity, sampling parameters, chat and row key. A
    journal that can't be read or written (a full disk, a read-only or damaged file) is switched off with a warning, and
    the run goes on without it. A file that is no journal is never touched: it is a `ConfigError`.

    Args:
        path: the file; made, with its folder, at the first use. An empty file becomes a journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._off = False
        self._lock = threading.RLock()

    @staticmethod
    def key(identity: Mapping[str, object], chat: object, row_key: str) -> str:
        """The hash under which a request is kept."""
        content = json.dumps([identity, chat, row_key], sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, hashes: Iterable[str]) -> dict[str, dict[str, object]]:
        """The known requests among ``hashes``, by hash."""
        wanted, found = list(dict.fromkeys(hashes)), {}
        try:
            with self._lock:
                connection = self._connect()
                for start in range(0, len(wanted) if connection else 0, _CHUNK):
                    part = wanted[start : start + _CHUNK]
                    marks = ",".join("?" * len(part))
                    rows = connection.execute(f"SELECT hash, completion FROM requests WHERE hash IN ({marks})", part)
                    found.update({digest: json.loads(completion) for digest, completion in rows})
        except (sqlite3.Error, OSError, json.JSONDecodeError) as error:
            self._give_up(error)
        return found

    def put(self, completions: Mapping[str, Mapping[str, object]]) -> None:
        """Make ``completions``, by hash, durable in one transaction."""
        try:
            rows = [(digest, json.dumps(completion), time.time()) for digest, completion in completions.items()]
            with self._lock:
                if rows and (connection := self._connect()):
                    with connection:
                        connection.executemany("INSERT OR REPLACE INTO requests VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def stats(self) -> JournalStats:
        """What the file holds.

        Raises:
            OutputError: it can't be read.
        """
        with self._working() as connection:
            count, first, last = connection.execute(
                "SELECT COUNT(*), MIN(created), MAX(created) FROM requests"
            ).fetchone()
        files = [self.path, self.path.with_name(self.path.name + "-wal")]
        size = sum(file.stat().st_size for file in files if file.exists())
        times = [datetime.fromtimestamp(moment) if moment else None for moment in (first, last)]
        return JournalStats(count, size, *times)

    def prune(self, older_than_days: float | None = None, max_bytes: int | None = None) -> int:
        """Remove requests by age, and then the oldest until the rest takes at most ``max_bytes``; how many.

        A run may go on writing meanwhile.

        Raises:
            OutputError: the file can't be written.
        """
        with self._working() as connection:
            removed = 0
            with connection:
                if older_than_days is not None:
                    limit = time.time() - older_than_days * 86_400
                    removed += connection.execute("DELETE FROM requests WHERE created < ?", (limit,)).rowcount
                if max_bytes is not None:
                    # The newest whose sizes, summed from the newest on, stay within the bound.
                    removed += connection.execute(
                        "DELETE FROM requests WHERE hash IN (SELECT hash FROM (SELECT hash, SUM(LENGTH(CAST(completion AS "
                        "BLOB)) + LENGTH(hash) + 16) OVER (ORDER BY created DESC, hash) AS total FROM requests) "
                        "WHERE total > ?)",
                        (max_bytes,),
                    ).rowcount
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed

    @contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                connection = self._connect()
                if connection is None:
                    raise OSError("it is off for this process")
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"The journal {str(self.path)!r} can't be used: {self._why(error)}. Delete the file if it is damaged."
            ) from error

    def check(self) -> None:
        """Raise `ConfigError` where something lies that is no journal."""
        if self._connection is None and is_journal(self.path) is False:
            raise ConfigError(
                f"{str(self.path)!r} is no journal of hf_evol, so it is left as it is. Move it away, or name another file "
                "with journal (--journal)."
            )

    def _connect(self) -> sqlite3.Connection | None:
        if self._off:
            return None
        if self._connection is None or self._pid != os.getpid():  # a connection must not cross a fork
            self.check()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._open()
            self._connection, self._pid = connection, os.getpid()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            connection = sqlite3.connect(self.path, timeout=_TIMEOUT_S, check_same_thread=False)
            try:
                if connection.execute("PRAGMA application_id").fetchone()[0] != _MARK:
                    connection.execute(f"PRAGMA application_id={_MARK}")  # in the file itself, before there is a log
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS requests (hash TEXT PRIMARY KEY, completion TEXT NOT NULL, "
                    "created REAL NOT NULL) WITHOUT ROWID"
                )
                return connection
            except sqlite3.OperationalError as error:
                connection.close()
                # SQLite does not wait by itself where another process opens the new file at the same moment.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _give_up(self, error: Exception) -> None:
        self._off, self._connection = True, None
        warnings.warn(
            f"The journal {str(self.path)!r} can't be used and is off for this process: {self._why(error)}. Finished "
            "requests are no longer remembered. Free some space, make it writable or delete it, then start again.",
            stacklevel=3,
        )

    def _why(self, error: Exception) -> str:
        """SQLite says of a read-only folder only that it can't open the file."""
        places = [place for place in (self.path, self.path.parent) if place.exists() and not os.access(place, os.W_OK)]
        return f"{str(places[0])!r} is not writable" if places else str(error)


@dataclass(frozen=True)
class JournalStats:
    """Finished requests, size of the files in bytes, and when the first and the last were written."""

    requests: int
    bytes: int
    first: datetime | None
    last: datetime | None


def is_journal(path: Path) -> bool | None:
    """Whether a file is a journal; None where it may become one, or can't be read. Leaves everything as it is."""
    try:
        if not path.is_file():
            return False if path.exists() else None
        if not path.stat().st_size:
            return None
        # Through SQLite: closing the file ourselves would drop the locks that this process holds on it. Immutable means
        # that no log is read or made, and a writable schema that a file cut short is none the less read.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA writable_schema=ON")
            return connection.execute("PRAGMA application_id").fetchone()[0] == _MARK
    except (sqlite3.OperationalError, OSError):
        return None
    except sqlite3.DatabaseError:
        return False


def journals(folder: Path) -> tuple[list[Journal], list[Path]]:
    """The journals in a folder, links followed; and the other files that are named like one."""
    named = sorted(folder.glob("*.sqlite"))
    ours = [path for path in named if is_journal(path)]
    return [Journal(path) for path in dict.fromkeys(path.resolve() for path in ours)], [
        p for p in named if p not in ours
    ]


_journals: dict[Path, Journal] = {}


def open_journal(setting: bool | str | Path) -> Journal | None:
    """The journal that a transform's ``journal`` argument names, one per file and process.

    Args:
        setting: True for ``journal.sqlite`` in `cache_folder`, False for none, or a path.

    Raises:
        ConfigError: there is something else.
    """
    if setting is False:
        return None
    path = cache_folder() / "journal.sqlite" if setting is True else Path(setting)
    journal = _journals.setdefault(path, Journal(path))
    journal.check()
    return journal
