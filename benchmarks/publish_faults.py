"""Break a push at every step in every way, push again: what the user sees, what is lost, what is sent twice.

    python benchmarks/publish_faults.py > benchmarks/results/publish-faults.md

Run from a checkout: the Hub is that of ``tests/hub_server.py``, over loopback; the client is the real
`huggingface_hub`, with plain LFS. Fails if anything is lost, sent again although the Hub has it, or committed twice.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest

from hf_evol import publish
from hf_evol.errors import HubError
from hf_evol.hub.card import card_text
from hf_evol.hub.record import write_provenance

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hub_server import HubServer, Repo

REPO = "user/set"
WORDS = b"Their words.\n"
THEIRS = {
    "README.md": b"---\nlicense: cc0-1.0\nconfigs:\n- config_name: old\n  data_files: old/*\n---\n\n" + WORDS,
    "notes.txt": b"theirs",
    "old/a.parquet": b"rows",
}
FIRST, SECOND = "selected/train.parquet", "round_1/train.parquet"
RECORD = {
    "kind": "stages", "title": "Evolved", "recipe": {}, "license": "cc0-1.0", "licence_notes": [], "models": [],
    "stages": [{"stage": "select", "settings": {}, "rows_in": 2, "rows_out": 2, "counts": {}, "rounds": []}],
    "source": {"name": "rows", "config": None, "split": "train", "revision": "unknown", "license": "unknown",
               "on_hub": False, "language": []},
    "configs": [{"name": name, "rows": 2, "description": "", "extension": "parquet"} for name in ("selected", "round_1")],
    "methods": [], "failures": [], "scores": [], "examples": [], "libraries": {},
}  # fmt: skip
SIZE, LARGE = 2**16, 2**24  # bytes; large: more than what the sockets' buffers hold

FAULTS = ("reset", 401, 403, 404, 409, 412, 429, 500, 503)
FINISHES = "finishes"
NAMES = {"reset": "connection reset", "lost": "done, answer lost"}

Push = Callable[[HubServer, Path], str]  # what the user sees


@dataclass(frozen=True)
class Row:
    """One break and what came of it; ``again`` counts files that the Hub had stored or committed before."""

    step: str
    fault: str
    seen: str
    untouched: bool
    lost: list[str]
    sent: list[int]
    again: list[int]
    commits: int

    @property
    def good(self) -> bool:
        return self.untouched and not self.lost and not self.again and self.commits == 1


def content(name: str, size: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


def lfs_path(name: str, size: int) -> str:
    return f"/lfs-objects/{hashlib.sha256(content(name, size)).hexdigest()}"


# Step, part of its path, whether the repository is there before.
STEPS = (
    ("create, new", "/repos/create", False),
    ("create, there already", "/repos/create", True),
    ("repository's state", f"/api/datasets/{REPO}", True),
    ("published card", "/resolve/", True),
    ("check of the card", "/validate-yaml", True),
    ("preupload", "/preupload/", True),
    ("LFS batch", "/objects/batch", True),
    ("LFS upload, 2nd file", lfs_path(SECOND, SIZE), True),
    ("commit", "/commit/", True),
)


def build(folder: Path, second: int) -> Path:
    """A finished folder with two LFS files; ``second`` is the number of bytes of the second."""
    for name, size in {FIRST: SIZE, SECOND: second}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content(name, size))
    (folder / "README.md").write_text(card_text(RECORD), encoding="utf-8")
    write_provenance({**RECORD}, folder)
    return folder


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(
        repr([(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in files]).encode()
    ).hexdigest()


def push_here(hub: HubServer, folder: Path) -> str:
    """Push in this process, where waits between tries take no time."""
    with tempfile.TemporaryDirectory() as cache, pytest.MonkeyPatch.context() as patch:
        hub.connect(patch, Path(cache))
        try:
            publish(folder, REPO)
        except HubError as error:
            return str(error)
        return FINISHES


def push_and_stop(sent: signal.Signals) -> Push:
    """Push by the command, which gets a signal when the Hub has the first file and half of the second."""

    def push(hub: HubServer, folder: Path) -> str:
        with tempfile.TemporaryDirectory() as cache:
            env = os.environ | hub.environment() | {"HF_HOME": cache, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            command = [sys.executable, "-m", "hf_evol.cli.main", "push", str(folder), REPO]
            process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            hub.at_half(lfs_path(SECOND, LARGE), lambda: stop(hub, process, sent))
            said = process.communicate()[0].strip()
            return f"{said or 'nothing'} (exit {process.returncode})"

    return push


def stop(hub: HubServer, process: subprocess.Popen, sent: signal.Signals) -> None:
    while not hub.objects:
        time.sleep(0.01)
    process.send_signal(sent)


def uploads(hub: HubServer, start: int) -> dict[str, int]:
    """File hash, or ``"commit"``, to bytes received since the request of that number."""
    found: dict[str, int] = {}
    for request, size in zip(hub.requests[start:], hub.received[start:], strict=True):
        if "/lfs-objects/" in request or "/commit/" in request:
            name = request.rpartition("/")[2] if "/lfs-objects/" in request else "commit"
            found[name] = found.get(name, 0) + size
    return found


def lost(before: dict[str, bytes], repo: Repo) -> list[str]:
    """Files that are gone or changed; the card is merged, so of it their words must be there."""

    def kept(name: str, data: bytes) -> bool:
        now = repo.files.get(name, b"")
        return WORDS in now if name == "README.md" else now == data

    return [name for name, data in before.items() if not kept(name, data)]


def attempt(folder: Path, step: str, fault: str, there: bool, first: Push, place: str | None = None) -> Row:
    """Push until it breaks, then again with nothing in the way."""
    with HubServer() as hub:
        begun = len(hub.add_repo("dataset", REPO, THEIRS).commits) if there else 1
        before, was = dict(hub.repos["dataset", REPO].files) if there else {}, digest(folder)
        if place:
            hub.fail_next(place, int(fault) if fault.isdigit() else fault)
        seen = first(hub, folder)
        hub.heal()
        gone = lost(before, hub.repos["dataset", REPO]) if there else []
        committed = ("dataset", REPO) in hub.repos and len(hub.repos["dataset", REPO].commits) > begun
        stored, start = set(hub.objects), len(hub.requests)
        if (second := push_here(hub, folder)) != FINISHES:
            raise SystemExit(f"{step}, {fault}: the second push did not finish: {second}")
        repo, sent = hub.repos["dataset", REPO], uploads(hub, start)
        ours = {name: (folder / name).read_bytes() for name in (FIRST, SECOND)}
        gone += [*lost(before, repo), *lost(ours, repo)]
        again = [size for name, size in sent.items() if name in stored or committed]
        return Row(step, fault, seen, digest(folder) == was, gone, [*sent.values()], again, len(repo.commits) - begun)


def reason(message: str) -> str:
    """The sentence that tells why, with hashes cut short."""
    text = message.split(" did not finish: ")[-1].split(" The set in ")[0].split(" Sign in with ")[0]
    return re.sub(r"([0-9a-f]{7})[0-9a-f]{33,}", r"\1…", " ".join(text.split()))


def show(rows: list[Row]) -> None:
    print("Two LFS files, a card and provenance.json are pushed; the push breaks; a second one has nothing in its way.")
    print(
        "Again: what the Hub had stored or committed before. Where rights may be missing, the user is told to sign in.\n"
    )
    print(
        "| Step | What breaks | The push did not finish: … | Local files | Lost | Second push sends | Again | Commits |"
    )
    print("| --- | --- | --- | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        files = "unchanged" if row.untouched else "CHANGED"
        sent, again = (f"{len(sizes)} ({sum(sizes):,} B)" if sizes else "0" for sizes in (row.sent, row.again))
        gone = ", ".join(row.lost) or "nothing"
        values = (row.step, NAMES.get(row.fault, row.fault), reason(row.seen), files, gone, sent, again)
        print(f"| {' | '.join(values)} | {row.commits} |")


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    huggingface_hub.utils.logging.set_verbosity_error()
    huggingface_hub.utils.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        small, large = build(Path(name) / "small", SIZE), build(Path(name) / "large", LARGE)
        rows = []
        for step, place, there in STEPS:
            rows += [attempt(small, step, str(fault), there, push_here, place) for fault in FAULTS]
        rows.append(attempt(small, "commit", "lost", True, push_here, "/commit/"))
        for sent in (signal.SIGINT, signal.SIGKILL):
            rows.append(attempt(large, "LFS upload, 2nd file", sent.name, True, push_and_stop(sent)))
    show(rows)
    bad = sum(not row.good for row in rows)
    gone, again = sum(len(row.lost) for row in rows), sum(len(row.again) for row in rows)
    print(f"\n{len(rows)} breaks; huggingface_hub {huggingface_hub.__version__}.")
    print(f"Files lost: {gone}. Sent again: {again}. Breaks not as they should be: {bad}.")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
