"""A durable record of finished requests, so that nothing finished is generated twice."""

from __future__ import annotations

import atexit
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
_CHUNK = 400  # SQLite's smallest limit on the variables of one statement is 999, and each hash is two
_WRITE_AFTER_S = 2.0  # a transaction writes whole pages, so it pays to have many requests in one
_WRITE_FROM = 1000  # requests
_TAIL = 100_000  # requests at the file's end that are found by an index in memory, beside a tenth of the others

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode

# Requests are written one after the other. Their hashes are random, and so would touch, and write, a page each in an index
# that is kept up at once: it gets those of the tail together, in order. ``user_version`` is the last id that it has.
_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL, completion TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS places (hash BLOB PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TEMP TABLE tail (hash BLOB PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
"""


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
        self._off = False
        self._begin()
        atexit.register(self.flush)

    def _begin(self) -> None:
        """What belongs to one process: after a fork, the other one's requests and locks are none of ours."""
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._unwritten: dict[bytes, str] = {}
        self._timer: threading.Timer | None = None
        self._seen = 0  # the last id that is in ``places`` or ``tail``

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            yield

    @staticmethod
    def key(identity: Mapping[str, object], chat: object, row_key: str) -> bytes:
        """The hash under which a request is kept."""
        content = _encode([identity, chat, row_key])
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[:16]

    def get(self, hashes: Iterable[bytes]) -> dict[bytes, dict[str, object]]:
        """The known requests among ``hashes``, by hash."""
        wanted, found = list(dict.fromkeys(hashes)), {}
        try:
            with self._alone():
                if wanted and (connection := self._connect()):
                    with connection:  # of one moment
                        self._catch_up(connection)
                        for start in range(0, len(wanted), _CHUNK):
                            part = wanted[start : start + _CHUNK]
                            marks = ",".join("?" * len(part))
                            found.update(
                                connection.execute(
                                    "SELECT r.hash, completion FROM (SELECT id FROM places WHERE hash IN "
                                    f"({marks}) UNION SELECT id FROM tail WHERE hash IN ({marks})) JOIN requests r USING (id) "
                                    "ORDER BY id",
                                    [*part, *part],
                                )
                            )
                found |= {digest: self._unwritten[digest] for digest in wanted if digest in self._unwritten}
                return {digest: json.loads(completion) for digest, completion in found.items()}
        except (sqlite3.Error, OSError, json.JSONDecodeError) as error:
            self._give_up(error)
        return {}

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Have ``tail`` hold what any process has written and ``places`` doesn't."""
        indexed = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("DELETE FROM tail WHERE id <= ?", (indexed,))
        self._seen = max(self._seen, indexed)
        connection.execute("INSERT OR REPLACE INTO tail SELECT hash, id FROM requests WHERE id > ?", (self._seen,))
        self._seen = max(self._seen, connection.execute("SELECT MAX(id) FROM requests").fetchone()[0] or 0)

    def put(self, completions: Mapping[bytes, Mapping[str, object]]) -> None:
        """Make ``completions``, by hash, durable within two seconds. `get` knows them at once."""
        try:
            with self._alone():
                if not completions or not self._connect():
                    return
                self._unwritten |= {digest: json.dumps(completion) for digest, completion in completions.items()}
                if len(self._unwritten) >= _WRITE_FROM:
                    self.flush()
                elif self._timer is None:
                    self._timer = threading.Timer(_WRITE_AFTER_S, self.flush)
                    self._timer.daemon = True
                    self._timer.start()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def flush(self) -> None:
        """Make what was `put` durable now, in one transaction."""
        try:
            with self._alone():
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                now = time.time()
                rows = [(digest, completion, now) for digest, completion in self._unwritten.items()]
                if rows and (connection := self._connect()):
                    with connection:
                        connection.executemany(
                            "INSERT INTO requests (hash, completion, created) VALUES (?, ?, ?)", rows
                        )
                        self._index(connection, _TAIL)
                self._unwritten.clear()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    @staticmethod
    def _index(connection: sqlite3.Connection, tail: int) -> None:
        """Take the tail into ``places``, where it is longer than so much and a tenth of what is there."""
        indexed = connection.execute("PRAGMA user_version").fetchone()[0]
        last = connection.execute("SELECT MAX(id) FROM requests").fetchone()[0] or 0
        if last - indexed > tail + indexed // 10:
            connection.execute(
                "INSERT OR REPLACE INTO places SELECT hash, id FROM requests WHERE id > ? ORDER BY hash, id", (indexed,)
            )
            connection.execute(f"PRAGMA user_version={last}")

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
                        "DELETE FROM requests WHERE id IN (SELECT id FROM (SELECT id, SUM(LENGTH(CAST(completion AS "
                        "BLOB)) + LENGTH(hash) + 16) OVER (ORDER BY created DESC, id DESC) AS total FROM requests) "
                        "WHERE total > ?)",
                        (max_bytes,),
                    ).rowcount
                connection.execute("DELETE FROM places WHERE id NOT IN (SELECT id FROM requests)")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed

    @contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        self.flush()
        try:
            with self._alone():
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
        if self._connection is not None:
            return
        for wait_s in (0, 0.1, 0.5):  # while another process makes it, a part of it may be there
            time.sleep(wait_s)
            if is_journal(self.path) is not False:
                return
        raise ConfigError(
            f"{str(self.path)!r} is no journal of hf_evol, so it is left as it is. Move it away, or name another file "
            "with journal (--journal)."
        )

    def _connect(self) -> sqlite3.Connection | None:
        if self._off:
            return None
        if self._connection is None:
            self.check()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
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
                connection.execute("PRAGMA temp_store=MEMORY")
                connection.executescript(_TABLES)
                return connection
            except sqlite3.OperationalError as error:
                connection.close()
                # SQLite does not wait by itself where another process opens the new file at the same moment.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _give_up(self, error: Exception) -> None:
        self._off, self._connection = True, None
        self._unwritten.clear()
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
