"""A small OpenAI-compatible chat server on 127.0.0.1 that breaks in every way it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hf_evol.generation.base import Completion, SamplingParams, generate
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.models.journal import Journal
from hf_evol.prompts.template import chat

KEY = "sk-TheKeyThatNobodyMaySee"
PARAMS = SamplingParams(temperature=0.7, top_p=0.95, max_new_tokens=64)


def reply_to(prompt: str) -> str:
    """The server's answer: other prompts have other answers, so that a mix-up shows."""
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"Describe the number {digest} step by step, with an example."


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def drawn(*values: object) -> float:
    """A number in [0, 1) that depends on the values alone."""
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:4], "little") / 2**32


def working() -> list[threading.Thread]:
    """The threads of endpoint engines."""
    return [thread for thread in threading.enumerate() if "(_run)" in thread.name]


def engine_for(server: ChatServer, **options: Any) -> EndpointEngine:
    return EndpointEngine("tiny", server.url, **options)


def ask(
    engine: EndpointEngine,
    prompts: list[str],
    params: SamplingParams = PARAMS,
    journal: Journal | None = None,
    keys: list[str] | None = None,
) -> list[Completion]:
    return generate(engine, [chat(prompt) for prompt in prompts], params, keys or prompts, journal)


def only(engine: EndpointEngine, prompt: str = "why", params: SamplingParams = PARAMS) -> Completion:
    return ask(engine, [prompt], params)[0]


@dataclass(frozen=True)
class Refusal:
    """An answer with an error's status."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = field(default_factory=lambda: {"error": {"message": "told to fail"}})


@dataclass(frozen=True)
class Seen:
    """One request, as the server saw it; ``active`` counts those under way, with this one."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    active: int
    time: float

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]

    @property
    def sent(self) -> str:
        """All that came over the wire, as text."""
        return json.dumps([self.path, self.headers, self.body])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are part of the tests; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class ChatServer:
    """Use as a context manager.

    Attributes:
        fault: from a prompt and how often it came (from 1) to what goes wrong: None, a status, a `Refusal`,
            ``"truncated"`` (half of the JSON), ``"short"`` (the connection ends before the announced length),
            ``"reset"``, ``"hang"`` (no answer) or ``"drip"`` (a byte now and then, without end).
        choice: from a request's body to what differs from the usual choice; ``"usage"`` is replaced too.
        delay_s: how long an answer takes.
        models: the entries of ``/v1/models``, or None for a server without it; ``"hang"`` never answers.
        requests: what was asked, in order.
    """

    def __init__(self, port: int = 0) -> None:
        self.fault: Callable[[str, int], int | str | Refusal | None] = lambda prompt, attempt: None
        self.choice: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: {}
        self.delay_s = 0.0
        self.models: list[dict[str, Any]] | str | None = None
        self.requests: list[Seen] = []
        self.attempts: Counter[str] = Counter()
        self.active = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.connections: set[socket.socket] = set()
        self._http = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"chats": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]

    @property
    def most_active(self) -> int:
        return max(request.active for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    chats: ChatServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.chats.connections.add(self.connection)

    def finish(self) -> None:
        self.chats.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        models = self.chats.models
        if models == "hang":
            self._hang(b"")
        else:
            self._json(404 if models is None else 200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        data, chats = self.rfile.read(int(self.headers["Content-Length"])), self.chats
        if len(data) < int(self.headers["Content-Length"]):  # the client has gone
            self.close_connection = True
            return
        body = json.loads(data)
        with chats.lock:
            chats.active += 1
            seen = Seen(self.path, dict(self.headers), body, chats.active, time.monotonic())
            chats.requests.append(seen)
            chats.attempts[seen.prompt] += 1
            attempt = chats.attempts[seen.prompt]
        if chats.closing.wait(chats.delay_s):  # it answers nothing more
            self.close_connection = True
            return
        fault = chats.fault(seen.prompt, attempt)
        with chats.lock:  # before the answer goes out, as the client may send the next request at once
            chats.active -= 1
        if fault is None:
            self._json(200, self._completion(body))
        elif isinstance(fault, int):
            self._refuse(Refusal(fault))
        elif isinstance(fault, Refusal):
            self._refuse(fault)
        else:
            getattr(self, f"_{fault}")(json.dumps(self._completion(body)).encode())

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        text = reply_to(body["messages"][-1]["content"])
        special = self.chats.choice(body)
        usage = {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 7 + len(text.split())}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice | {name: value for name, value in special.items() if name != "usage"}],
            "usage": special.get("usage", usage),
        }

    def _send(self, status: int, data: bytes, headers: dict[str, str], announced: int | None = None) -> None:
        self.send_response(status)
        length = len(data) if announced is None else announced
        for name, value in {"Content-Type": "application/json", "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), {})

    def _refuse(self, refusal: Refusal) -> None:
        self._send(refusal.status, json.dumps(refusal.body).encode(), refusal.headers)

    def _truncated(self, data: bytes) -> None:
        self._send(200, data[: len(data) // 2], {})

    def _short(self, data: bytes) -> None:
        self._send(200, data[: len(data) // 2], {}, announced=len(data))
        self.close_connection = True

    def _reset(self, data: bytes) -> None:
        """Drop the connection as a crashed server does: with linger 0, closing sends RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def _hang(self, data: bytes) -> None:
        self.chats.closing.wait()
        self.close_connection = True

    def _drip(self, data: bytes) -> None:
        self._send(200, b"", {}, announced=len(data))
        with contextlib.suppress(OSError):  # the client has gone
            while not self.chats.closing.wait(0.05):
                self.wfile.write(b" ")
        self.close_connection = True
