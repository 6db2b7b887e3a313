"""A small Hub in memory, served on 127.0.0.1: the part of the HTTP protocol that pushing a set, describing repositories
and loading from them with `datasets` and `evaluate` need. Large files go over plain LFS; with `lfs_suffixes = ()` every
file is part of the commit."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_TestTokenThatNobodyMaySee"
SIGNATURE = "X-Amz-Signature=ThatNobodyMaySee"  # in the addresses that large files go to
FRONT_MATTER = re.compile(r"\A\ufeff?---\r?\n(.*?)\r?\n---", re.DOTALL)
ALWAYS = 10**9


@dataclass
class Commit:
    message: str
    changed: list[str]
    files: dict[str, bytes]
    sha: str
    lfs: frozenset[str] = frozenset()


@dataclass
class Repo:
    """One repository, branch by branch. Its first commit holds ``.gitattributes``, as on the Hub."""

    private: bool = False
    sdk: str | None = None
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": []})

    def commit(
        self, message: str, changes: dict[str, bytes | None], branch: str = "main", lfs: Set[str] = frozenset()
    ) -> Commit:
        """Add a commit to a branch; a file whose content is None goes."""
        commits = self.branches[branch]
        before = commits[-1] if commits else Commit("", [], {}, "")
        sha = hashlib.sha1(repr((before.sha, message, sorted(changes.items()))).encode()).hexdigest()
        files = {path: data for path, data in (before.files | changes).items() if data is not None}
        commits.append(Commit(message, sorted(changes), files, sha, before.lfs - set(changes) | lfs))
        return commits[-1]

    def at(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((commit for made in self.branches.values() for commit in made if commit.sha == revision), None)

    def start_branch(self, name: str, commit: Commit) -> None:
        made = next(made for made in self.branches.values() if commit in made)
        self.branches[name] = made[: made.index(commit) + 1]

    @property
    def commits(self) -> list[Commit]:
        return self.branches["main"]

    @property
    def lfs(self) -> frozenset[str]:
        return self.commits[-1].lfs

    @property
    def files(self) -> dict[str, bytes]:
        """Path to content at the head, without what the Hub itself puts there."""
        return self.files_at("main")

    def files_at(self, revision: str) -> dict[str, bytes]:
        return {path: data for path, data in self.at(revision).files.items() if path != ".gitattributes"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are part of the tests; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    """Use as a context manager. ``requests`` lists what was asked as ``"METHOD /path"``, ``received`` the bytes that came
    with each, ``tokens`` with what token."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.who: dict[str, Any] = {"type": "user", "name": "user", "orgs": []}
        self.objects: dict[str, bytes] = {}
        self.lfs_suffixes: tuple[str, ...] = (".parquet", ".png", ".safetensors")
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.received: list[int] = []
        self.waits: list[float] = []
        self.connections: set[socket.socket] = set()
        self._failures: list[list[Any]] = []
        self._actions: list[list[Any]] = []
        self._halfway: list[list[Any]] = []
        self.lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self.connections):  # else a client that keeps them open goes on talking to this Hub
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def fail_next(self, path_fragment: str, status: int | str, times: int = ALWAYS) -> None:
        """Answer the next requests whose path holds the fragment with a status; or drop the connection, instead of
        doing what was asked (``"reset"``) or of telling that it is done (``"lost"``)."""
        self._failures.append([path_fragment, status, times])

    def answer_next(self, path_fragment: str, body: bytes, times: int = ALWAYS) -> None:
        """Answer the next requests whose path holds the fragment with 200 and this body, and do nothing."""
        self.fail_next(path_fragment, body, times)  # type: ignore[arg-type]

    def before_next(self, path_fragment: str, action: Callable[[], object], times: int = 1) -> None:
        """Do something, such as another person's commit, before the next requests whose path holds the fragment."""
        self._actions.append([path_fragment, action, times])

    def at_half(self, path_fragment: str, action: Callable[[], object]) -> None:
        """Do something when half of the next request whose path holds the fragment has come."""
        self._halfway.append([path_fragment, action, 1])

    def heal(self) -> None:
        self._failures.clear()

    def act_before(self, path: str) -> None:
        self._act(self._actions, path)

    def act_halfway(self, path: str) -> None:
        self._act(self._halfway, path)

    def _act(self, actions: list[list[Any]], path: str) -> None:
        for entry in actions:
            if entry[0] in path and entry[2] > 0:
                entry[2] -= 1
                entry[1]()

    def failure_for(self, path: str) -> int | str | None:
        for failure in self._failures:
            if failure[0] in path and failure[2] > 0:
                failure[2] -= 1
                return failure[1]
        return None

    def add_repo(
        self, kind: str, repo_id: str, files: dict[str, bytes], *, private: bool = False, sdk: str | None = None
    ) -> Repo:
        """Create a repository (``kind``: model, dataset or space), with one more commit if there are files."""
        repo = self.repos[kind, repo_id] = Repo(private, sdk)
        card = {"README.md": f"---\ntitle: New\nsdk: {sdk}\n---\n".encode()} if sdk else {}
        repo.commit("initial commit", {".gitattributes": b"*.parquet filter=lfs\n", **card})
        if files:
            repo.commit("Add files", files)
        return repo

    def environment(self) -> dict[str, str]:
        """For a subprocess that should use this Hub."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def address(self, kind: str, repo_id: str) -> str:
        return f"{self.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"

    def connect(self, monkeypatch: Any, cache: Any) -> None:
        """Point `huggingface_hub` and `datasets`, in this process, to this Hub; waits between tries take no time."""
        import datasets.config
        from huggingface_hub import constants

        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": constants.HF_URL_HOSTS | {"127.0.0.1"},
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(cache / "token"),
            "HF_STORED_TOKENS_PATH": str(cache / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.url)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
        monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=self.waits.append))


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the acknowledgement of its headers

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
            self.hub.received.append(len(body))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            self.hub.tokens.add(token)
            self.signed_in = token == TOKEN
            self.query = parse_qs(urlsplit(self.path).query)
            self.hub.act_before(path)
            failure = self.hub.failure_for(path)
            if failure in ("reset", "lost"):
                if failure == "lost":
                    self.wfile = io.BytesIO()
                    self._route(urlsplit(self.path).path, body)
                self._reset()
            elif isinstance(failure, bytes):
                self._send(200, failure, Content_Type="application/json")
            elif failure is not None:
                self._error(int(failure), message=f"Told to fail ({self.headers.get('Authorization')})")
            else:
                self._route(urlsplit(self.path).path, body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _route(self, path: str, body: bytes) -> None:
        for method, pattern, answer in _ROUTES:
            if self.command in method and (match := re.fullmatch(pattern, path)):
                return answer(
                    self, body, **{name: value and unquote(value) for name, value in match.groupdict().items()}
                )
        return self._error(404, message="No such page")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            half = self.rfile.read(length // 2)
            self.hub.act_halfway(self.path)
            return half + self.rfile.read(length - len(half))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _reset(self) -> None:
        """Drop the connection as a crashed server does: with linger 0, closing sends RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def _send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _error(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X_Error_Code": code} if code else {}
        data = json.dumps({"error": message or code}).encode()
        self._send(status, data, Content_Type="application/json", X_Error_Message=message or code, **headers)

    def _find(self, kind: str, repo_id: str, revision: str = "main") -> tuple[Repo, Commit] | None:
        """The repository and the commit; None when an error has been sent."""
        repo = self.hub.repos.get((kind, repo_id))
        if repo is None or (repo.private and not self.signed_in):
            return self._error(404 if self.signed_in else 401, "RepoNotFound", "Repository not found")
        commit = repo.at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def _may_write(self) -> bool:
        if not self.signed_in:
            self._error(401, message="Invalid username or password.")
        return self.signed_in

    def whoami(self, body: bytes) -> None:
        if self._may_write():
            self._json(self.hub.who)

    def auth_check(self, body: bytes, kind: str, repo_id: str) -> None:
        if self._find(kind, repo_id) and self._may_write():
            self._json({})

    def validate_yaml(self, body: bytes) -> None:
        match = FRONT_MATTER.match(json.loads(body)["content"])
        try:
            yaml.safe_load(match[1]) if match else None
        except yaml.YAMLError as error:
            return self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return self._json({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        if not self._may_write():
            return None
        wanted = json.loads(body)
        kind, repo_id = wanted.get("type", "model"), f"{wanted['organization'] or 'user'}/{wanted['name']}"
        url, sdk = self.hub.address(kind, repo_id), wanted.get("sdk")
        if (kind == "space") != (sdk is not None):
            return self._error(400, message="A Space, and only a Space, has an sdk")
        if (kind, repo_id) in self.hub.repos:
            return self._json({"error": "You already created this repo", "url": url}, 409)
        self.hub.add_repo(kind, repo_id, {}, private=wanted.get("visibility") == "private", sdk=sdk)
        return self._json({"url": url, "name": repo_id})

    def info(self, body: bytes, kind: str, repo_id: str, revision: str | None) -> None:
        if not (found := self._find(kind, repo_id, revision or "main")):
            return
        repo, commit = found
        match, card = FRONT_MATTER.match(commit.files.get("README.md", b"").decode(errors="replace")), {}
        with contextlib.suppress(yaml.YAMLError):  # a card that can't be read has no data
            card = {"cardData": json.loads(json.dumps(yaml.safe_load(match[1]), default=str))} if match else {}
        self._json(
            {
                "id": repo_id,
                "sha": commit.sha,
                "private": repo.private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in commit.files],
                "sdk": repo.sdk,
                **card,
            }
        )

    def preupload(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        if not self._may_write() or not (found := self._find(kind, repo_id, revision)):
            return
        commit, files = found[1], []
        for asked in json.loads(body)["files"]:
            path, large = asked["path"], asked["path"].endswith(self.hub.lfs_suffixes)
            entry = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if (data := commit.files.get(path)) is not None:
                entry["oid"] = hashlib.sha256(data).hexdigest() if path in commit.lfs else _git_hash(data)
            files.append(entry)
        self._json({"files": files})

    def lfs_batch(self, body: bytes, repo_id: str, prefix: str | None) -> None:
        if not self._may_write() or not self._find(prefix or "model", repo_id):
            return
        objects = json.loads(body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs-objects/{entry['oid']}?{SIGNATURE}"}}
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._error(400, message="The content does not match its hash")
        self.hub.objects[oid] = body
        return self._send(200, b"")

    def commit(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        if not self._may_write() or not (found := self._find(kind, repo_id, revision)):
            return None
        (repo, head), message, parent, changes, large = found, "", None, {}, set()
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                message, parent = value["summary"], value.get("parentCommit")
            elif key == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile" and value["oid"] in self.hub.objects:
                changes[value["path"]] = self.hub.objects[value["oid"]]
                large.add(value["path"])
            elif key == "deletedFile":
                changes[value["path"]] = None
            else:
                return self._error(400, message=f"Cannot commit {line}")
        if parent not in (None, head.sha):
            return self._error(412, message="A commit has happened since. Please refresh and try again.")
        address, opened = self.hub.address(kind, repo_id), {}
        if self.query.get("create_pr") == ["1"]:
            number = 1 + sum(name.startswith("refs/pr/") for name in repo.branches)
            revision, opened = f"refs/pr/{number}", {"pullRequestUrl": f"{address}/discussions/{number}"}
            repo.start_branch(revision, head)
        elif revision not in repo.branches:
            return self._error(400, message=f"{revision} is no branch")
        sha = repo.commit(message, changes, revision, large).sha
        return self._json({"success": True, "commitOid": sha, "commitUrl": f"{address}/commit/{sha}", **opened})

    def branch(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        start = json.loads(body).get("startingPoint", "main")
        if not self._may_write() or not (found := self._find(kind, repo_id, start)):
            return None
        if revision in found[0].branches:
            return self._error(409, message=f"Reference already exists: {revision}")
        found[0].start_branch(revision, found[1])
        return self._json({})

    def refs(self, body: bytes, kind: str, repo_id: str) -> None:
        if not (found := self._find(kind, repo_id)):
            return
        refs: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for name, commits in found[0].branches.items():
            opened = name.startswith("refs/pr/")
            ref = {"name": name, "ref": name if opened else f"refs/heads/{name}", "targetCommit": commits[-1].sha}
            refs["pullRequests" if opened else "branches"].append(ref)
        self._json(refs)

    def _entries(self, commit: Commit) -> dict[str, dict[str, Any]]:
        """Every file and folder of a commit by its path, as the tree and the paths-info tell of them."""
        entries = {}
        for path, data in commit.files.items():
            for folder in list(PurePosixPath(path).parents)[:-1]:
                entries[str(folder)] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": str(folder)}
            entries[path] = {"type": "file", "oid": _git_hash(data), "size": len(data), "path": path}
            if path in commit.lfs:
                entries[path]["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        made = {"id": commit.sha, "title": commit.message, "date": "2025-01-01T00:00:00.000Z"}
        return {path: {**entry, "lastCommit": made} for path, entry in sorted(entries.items())}

    def tree(self, body: bytes, kind: str, repo_id: str, revision: str, path: str | None) -> None:
        if not (found := self._find(kind, repo_id, revision)):
            return None
        entries, top = self._entries(found[1]), PurePosixPath(path or ".")
        if path and entries.get(path, {"type": "none"})["type"] != "directory":
            return self._error(404, "EntryNotFound", f"{path} does not exist on {revision}")
        deep = self.query.get("recursive", ["false"])[0].lower() in ("1", "true")
        within = PurePosixPath.parents.fget if deep else lambda entry: [entry.parent]
        return self._json([entry for name, entry in entries.items() if top in within(PurePosixPath(name))])

    def paths_info(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        if not (found := self._find(kind, repo_id, revision)):
            return
        entries = self._entries(found[1])
        self._json([entries[path] for path in parse_qs(body.decode()).get("paths", []) if path in entries])

    def resolve(self, body: bytes, repo_id: str, revision: str, path: str, prefix: str | None) -> None:
        if not (found := self._find(prefix or "model", repo_id, revision)):
            return None
        data = found[1].files.get(path)
        headers = {"X_Repo_Commit": found[1].sha}
        if data is None:
            return self._error(404, "EntryNotFound", f"{path} does not exist on {revision}")
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest() if path in found[1].lfs else _git_hash(data)}"'
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            if first > last:
                return self._send(416, b"", Content_Range=f"bytes */{len(data)}")
            headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
            return self._send(206, data[first : last + 1], **headers)
        return self._send(200, data, **headers)


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_REPO = r"(?P<repo_id>[^/]+/[^/]+?)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_REPO}"
_PREFIX = r"/((?P<prefix>dataset|space)s/)?"  # a model has none
_REVISION = r"(?P<revision>[^/]+)"  # a slash in it is quoted
_ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", rf"{_API}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"{_API}/commit/{_REVISION}", _Handler.commit),
    ("POST", rf"{_API}/branch/{_REVISION}", _Handler.branch),
    ("POST", rf"{_API}/paths-info/{_REVISION}", _Handler.paths_info),
    ("GET", rf"{_API}/tree/{_REVISION}(/(?P<path>.+))?", _Handler.tree),
    ("GET", rf"{_API}/refs", _Handler.refs),
    ("GET", rf"{_API}/auth-check/write", _Handler.auth_check),
    ("GET", rf"{_API}(/revision/{_REVISION})?", _Handler.info),
    ("POST", rf"{_PREFIX}{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs-objects/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("GET HEAD", rf"{_PREFIX}{_REPO}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]
