"""Any OpenAI-compatible server, or HF Inference Providers, through `huggingface_hub`'s asynchronous client."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import queue
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import AsyncInferenceClient, get_async_session, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, InferenceTimeoutError

from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation.base import GREEDY, Chat, Completion, SamplingParams
from hf_evol.generation.chat_completions import (
    LONGEST_WAIT_S,
    PLAIN,
    Failure,
    body,
    completion_of,
    failure_of,
    fields,
    missing,
    refused_fields,
)
from hf_evol.secrets import keep_secret, without_secrets

logger = logging.getLogger(__name__)

_LOOK_S, _LOOKS_EVERY_S = 10.0, 2.0  # at a server that may be away
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")  # as no key looks
# What to do about refusals that would meet every row.
_KEY = "Name the environment variable that holds the right key with api_key_env, or sign in with `hf auth login`."
_ADVICE = {
    401: _KEY,
    402: "It asks for payment before it answers.",
    403: _KEY,
    404: "Check the model's name on the server, and that base_url ends in /v1.",
}


@dataclass(frozen=True)
class EndpointEngine:
    """Completes chats on a server: vLLM, TGI, ``transformers serve``, llama.cpp, or an HF Inference Provider.

    As many requests run as the server bears: one more after a round of successes, half as many after a 429, 503 or
    timeout. Those, other 5xx, broken connections and broken answers are tried again, after a random wait that grows
    exponentially, or the ``Retry-After`` that the server asks for; after the last try the row gets an error. A server that
    went away or hangs during the work is waited for; after ``patience_s``, the rows that are left get an error. A complete
    answer is kept whatever the server says of its end. Each request carries a seed made of its row key; whether it gives the
    same text again is the server's affair. Requests switch off what servers add to temperature and top-p (top-k, min-p,
    penalties), by the fields of vLLM, SGLang, llama.cpp and ``transformers serve``; fields that a server refuses are left out,
    and a warning and the set's card say what could not be had.

    Args:
        model: the model's name on the server.
        base_url: the server's address, such as ``http://localhost:8000/v1``; None for Inference Providers.
        provider: an Inference Provider's name, or ``"auto"``.
        api_key_env: the environment variable that holds the key. By default Inference Providers get the Hub's token,
            and a ``base_url`` gets none.
        max_concurrency: most requests at a time.
        max_tries: how often a request is sent before its row gets an error.
        timeout_s: seconds for one try.
        patience_s: about how many seconds a server that answered before is waited for; with 0, a row's tries are all.
        n_parameters: the model's size, for cards.
    """

    model: str
    base_url: str | None = None
    provider: str | None = None
    api_key_env: str | None = None
    max_concurrency: int = 64
    max_tries: int = 6
    timeout_s: float = 600.0
    patience_s: float = 300.0
    n_parameters: int | None = None

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ConfigError(f"An endpoint needs the model's name on the server; got {self.model!r}.")
        if self.base_url is not None and self.provider is not None:
            raise ConfigError("Give base_url or provider, not both.")
        if self.base_url is not None:
            _check_url(self.base_url)
        for name in ("max_concurrency", "max_tries"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ConfigError(f"{name} must be a whole number over 0; got {getattr(self, name)!r}.")
        if not self.timeout_s > 0 or not self.patience_s >= 0:
            given = f"{self.timeout_s!r} and {self.patience_s!r}"
            raise ConfigError(f"timeout_s must be over 0, and patience_s 0 or more; got {given}.")
        self._key()

    @property
    def name(self) -> str:
        """As recorded beside rows: of a path on the server, only the last part."""
        name = self.model.rstrip("/").rsplit("/", 1)[-1] if self.model.startswith(("/", "~", ".")) else self.model
        return without_secrets(name)

    def check(self, params: SamplingParams = GREEDY) -> None:
        """Ask for one token and, where texts are to be sampled, for two short ones, once in this process.

        Raises:
            ModelError: there is no answer.
            ConfigError: the server has one model, of another name; later requests raise it, too.
        """
        _probe(self)
        if params.temperature > 0:
            _compare_seeds(self)

    @property
    def notes(self) -> list[str]:
        """What the server was found not to do as `SamplingParams` say, in sentences."""
        return list(_known[self._place].notes)

    def recall(self, notes: Sequence[str]) -> None:
        """Add what another process found to `notes`."""
        _known[self._place].notes = list(dict.fromkeys([*self.notes, *notes]))

    @property
    def _place(self) -> tuple[str, str | None]:
        return self.model, self.base_url or self.provider

    @property
    def _where(self) -> str:
        return self.base_url or "the Inference Provider"

    def _key(self) -> str | None:
        """The key, without the line break that a file leaves at its end."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key and key.isascii() and key.isprintable()):
            named = (
                repr(self.api_key_env)
                if _VARIABLE.fullmatch(self.api_key_env)
                else "that api_key_env names (not the key!)"
            )
            raise ConfigError(f"The environment variable {named}, which should hold the key, holds none.")
        keep_secret(key)
        return key

    def identity(self) -> dict[str, object]:
        return {"model": self.model, "endpoint": self.base_url or self.provider or "auto", "fields": PLAIN}

    def count_prompt_tokens(self, chats: Sequence[Chat]) -> int:
        """An estimate, at four characters a token: only the server knows its tokenizer and template."""
        return sum(len(turn["content"]) for chat in chats for turn in chat) // 4

    def stream(
        self, chats: Sequence[Chat], params: SamplingParams, keys: Sequence[str]
    ) -> Iterator[list[tuple[int, Completion]]]:
        results: queue.SimpleQueue[tuple[int, Completion] | Exception | None] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        session = _Session(self, params, results)
        # The places of equal requests, which are sent once; greedily, keys don't count.
        equal: dict[str, list[int]] = {}
        for place, (chat, key) in enumerate(zip(chats, keys, strict=True)):
            equal.setdefault(repr((chat, key if params.temperature else None)), []).append(place)
        with_it = {places[0]: places for places in equal.values()}
        main = loop.create_task(session.complete({place: (chats[place], keys[place]) for place in with_it}))
        thread = threading.Thread(target=_run, args=(loop, main, results), daemon=True)
        thread.start()
        try:
            while (item := results.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield [(place, item[1]) for place in with_it[item[0]]]
        finally:
            if thread.is_alive():
                loop.call_soon_threadsafe(main.cancel)
            thread.join()
            loop.close()


def _check_url(url: str) -> None:
    if "@" in url or without_secrets(url) != url:
        raise ConfigError("base_url must not hold a password, as it is shown and recorded; use api_key_env.")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"base_url must look like http://localhost:8000/v1; got {url!r}.")


def _run(loop: asyncio.AbstractEventLoop, main: asyncio.Task, results: queue.SimpleQueue) -> None:
    try:
        loop.run_until_complete(main)
    except asyncio.CancelledError:
        pass
    except Exception as error:
        results.put(error)
    finally:
        results.put(None)


@lru_cache(maxsize=32)
def _probe(engine: EndpointEngine) -> None:
    (completion,) = _trial(engine, "Hello", replace(GREEDY, max_new_tokens=1), ["probe"])
    if completion.error:
        why = completion.error.partition(": ")[2].rstrip(".")
        raise ModelError(f"{engine.model!r} does not answer at {engine._where}: {why}. Is the server up?")


@lru_cache(maxsize=32)
def _compare_seeds(engine: EndpointEngine) -> None:
    """A server that ignores the temperature gives the same text for any seed; a small top-p would too, and no text tells nothing."""
    one, other = _trial(engine, "Make up a sentence.", SamplingParams(1.0, 1.0, 24), ["one seed", "another seed"])
    if one.text == other.text != "":
        note = "Two seeds gave the same text at temperature 1, so its texts are greedy, whatever the temperature."
        _known[engine._place].note(engine, note)


def _trial(engine: EndpointEngine, text: str, params: SamplingParams, keys: list[str]) -> list[Completion]:
    chats: list[Chat] = [[{"role": "user", "content": text}] for _ in keys]
    done = dict(pair for finished in engine.stream(chats, params, keys) for pair in finished)
    return [done[place] for place in range(len(keys))]


class _Gate:
    """How many requests may run now."""

    def __init__(self, most: int) -> None:
        self.most, self.limit, self.active = most, float(min(most, 8)), 0
        self.free = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self.free:
            await self.free.wait_for(lambda: self.active < math.floor(self.limit))
            self.active += 1

    async def __aexit__(self, *_: object) -> None:
        async with self.free:
            self.active -= 1
            self.free.notify_all()

    def widen(self) -> None:
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def narrow(self) -> None:
        self.limit = max(1.0, self.limit / 2)


class _Session:
    """One call of `EndpointEngine.stream`: its client, its gate, and where results go."""

    def __init__(self, engine: EndpointEngine, params: SamplingParams, results: queue.SimpleQueue) -> None:
        self.engine, self.params, self.results, self.known = engine, params, results, _known[engine._place]
        self.away_since: float | None = None
        self.gone: Completion | None = None  # what rows get once the server was waited for in vain
        self.named, self.naming = False, asyncio.Lock()

    async def complete(self, requests: dict[int, tuple[Chat, str]]) -> None:
        engine = self.engine
        key, self.gate = engine._key(), _Gate(engine.max_concurrency)
        if engine.base_url is not None:
            # Without a key of its own, the client would send the Hub's token to any server.
            options = {"base_url": engine.base_url, "api_key": key or "none"}
        else:
            keep_secret(key := key or get_token() or "")
            options = {"provider": engine.provider or "auto", "api_key": key or None}
        async with AsyncInferenceClient(timeout=engine.timeout_s, **options) as self.client:
            session = await self.client.exit_stack.enter_async_context(get_async_session())
            hooks = {**session.event_hooks, "response": [*session.event_hooks.get("response", ()), _remember]}
            # HF_HUB_OFFLINE is about the Hub; the client would obey it with any server
            session.event_hooks = hooks if engine.base_url is None else hooks | {"request": []}
            self.client._async_client = session
            await self._check_name()
            try:
                async with asyncio.TaskGroup() as group:
                    for place, (chat, key) in requests.items():
                        group.create_task(self._row(place, chat, key))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _row(self, place: int, chat: Chat, key: str) -> None:
        attempt = 0
        while True:
            attempt, wait = attempt + 1, 0.0
            async with self.gate:
                if completion := self.gone:
                    break
                try:
                    async with asyncio.timeout(self.engine.timeout_s):
                        completion = await self._ask(chat, key)
                    await self._check_name()
                    self.gate.widen()
                    self.known.answers, self.known.given_up, self.away_since = True, False, None
                    break
                except TimeoutError:
                    reason, since = f"no answer within {self.engine.timeout_s:g} s", time.monotonic()
                    hangs = self._patience_s > 0 and not await self._is_there(since + self._patience_s)
                    failure = Failure(reason, again=True, overloaded=True, away=hangs)
                except Failure as error:
                    failure, since = error, time.monotonic()
                completion, again = Completion("", "error", error=str(failure)), attempt < self.engine.max_tries
                if failure.away:
                    self.named = self.known.lists_none = False
                else:
                    self.away_since = None
                # The row has no part in that, nor has any other a chance.
                if failure.away and self.known.answers and self._patience_s:
                    if not await self._is_back(failure, since):
                        self.gone, self.known.given_up = completion, True
                        break
                    attempt -= 1
                    continue
                if not (failure.again and again):
                    break
                longest = min(LONGEST_WAIT_S, 0.5 * 2**attempt)
                wait = random.uniform(0, longest) if failure.wait_s is None else failure.wait_s
                if failure.overloaded:
                    self.gate.narrow()
                    await asyncio.sleep(wait)  # in its place, so that no other row runs into the same refusal
                    continue
            await asyncio.sleep(wait)
        self.results.put((place, completion))

    @property
    def _patience_s(self) -> float:
        """After a wait in vain, enough for one look."""
        return min(self.engine.patience_s, _LOOKS_EVERY_S if self.known.given_up else math.inf)

    async def _is_back(self, failure: Failure, since: float) -> bool:
        """Wait for a server that answered before; whether it takes requests again."""
        patience_s = self._patience_s
        if self.away_since is None:
            self.away_since = since
            if not self.known.given_up:
                said = "%s is away (%s). It is waited for, up to %g s (patience_s)."
                logger.warning(said, self.engine._where, str(failure).partition(": ")[2], patience_s)
        while self.away_since is not None and time.monotonic() < (end := self.away_since + patience_s):
            await asyncio.sleep(random.uniform(0, min(_LOOKS_EVERY_S, patience_s / 2)))
            if await self._is_there(end):
                return True
        return self.away_since is None  # another row has met it

    async def _ask(self, chat: Chat, key: str) -> Completion:
        """Leaves out the fields that the server refuses."""
        refused = self.known.refused
        while True:
            try:
                completion = await self._once(chat, fields(self.params, key, refused))
            except Failure as error:
                if not error.fields:
                    raise
                refused |= error.fields
                continue
            if refused - self.known.refused:
                self.known.refused |= refused
                self.known.note(self.engine, missing(self.known.refused))
            return completion

    async def _once(self, chat: Chat, sent: dict[str, Any]) -> Completion:
        try:
            _answer.set(None)
            await self.client.chat_completion(chat, model=self.engine.model, extra_body=sent)
        except HfHubHTTPError as error:
            raise self._refusal(error.response, sent) from None  # its text may repeat the key
        except InferenceTimeoutError as error:
            raise TimeoutError from error
        except (HTTPError, OSError) as error:
            name, self.named = type(error).__name__, False  # another server may come in its place
            raise Failure(f"connection failed ({name})", again=True, away=name.startswith("Connect")) from error
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            unasked = _answer.get() is None
            if unasked and self.engine.base_url is None and type(error) is ValueError:  # no token, provider or model
                raise ModelError(f"{self.engine._where} can't be asked for {self.engine.model!r}: {error}") from None
            if unasked:
                raise Failure(f"the request can't be sent ({type(error).__name__})", again=False) from error
        # Read here, as the client's own reading is strict, and odd log-probabilities would cost the text.
        try:
            return completion_of(body(_answer.get()), self.params)
        except (TypeError, AttributeError, LookupError, UnicodeError) as error:
            raise Failure(f"the answer is broken ({type(error).__name__})", again=True) from error

    def _refusal(self, response: Any, sent: dict[str, Any]) -> Exception:
        status, engine = response.status_code, self.engine
        about_the_prompt = status == 403 and self.known.answers
        if status in _ADVICE and not about_the_prompt:
            key = engine.api_key_env or ("the Hub's token" if engine.base_url is None else "no key")
            said = f"{engine._where} refuses requests for {engine.model!r} ({status}); they were sent with {key}."
            return ModelError(f"{said} {_ADVICE[status]}")
        if status == 429 and "insufficient_quota" in response.text:
            return ModelError(f"{engine._where} refuses requests for {engine.model!r} (429): the quota is used up.")
        failure = failure_of(response)
        if status in (400, 422) and not failure.too_long:
            unnamed = frozenset() if self.known.answers else frozenset(sent.keys() & set(PLAIN))
            failure.fields = refused_fields(response.text, sent) or unnamed
        return failure

    async def _check_name(self) -> None:
        """At the beginning, and after a broken connection before a row is done."""
        async with self.naming:
            if not (self.named or self.known.lists_none):
                self.known.lists_none = not await self._is_there()
                self.named = True

    async def _is_there(self, until: float = math.inf) -> bool:
        """Whether the server answers at all by then.

        A server of one model may take any name, and the wrong one would stand in the card. One that lists a status loads others
        on demand.
        """
        engine = self.engine
        if engine.base_url is None:
            return True
        key = engine._key()
        try:
            async with asyncio.timeout_at(min(until, time.monotonic() + min(_LOOK_S, engine.timeout_s))):
                response = await self.client._async_client.get(
                    f"{engine.base_url.rstrip('/')}/models",
                    headers={"Authorization": f"Bearer {key}"} if key else None,
                )
        except (HTTPError, OSError):
            return False
        match body(response):
            case {"data": [{"id": str(name), **more}]} if "status" not in more and not _is_named(engine.model, name):
                said = f"{engine._where} has no model {engine.model!r}; it has {name!r}. Name that as the model."
                raise ConfigError(said)
        return True


def _is_named(model: str, listed: str) -> bool:
    """Whether a server means this model by a name; the tag or the folder may be left out."""
    if listed.endswith(".gguf") or listed.startswith(("/", ".", "~")):
        model, listed = (re.split(r"[/\\]", name)[-1].removesuffix(".gguf") for name in (model, listed))
    return model == listed or model.partition(":")[0] == listed or model == listed.partition(":")[0]


@dataclass
class _Known:
    """What this process knows of a model on a server: whether it has answered, that its list of models does not answer, that it was
    waited for in vain, which fields it refuses, and what it does not do as recorded."""

    answers: bool = False
    lists_none: bool = False
    given_up: bool = False
    refused: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)

    def note(self, engine: EndpointEngine, note: str) -> None:
        if note and note not in self.notes:
            self.notes.append(note)
            logger.warning("%s, %s: %s", engine._where, engine.name, note)


_known: defaultdict[tuple[str, str | None], _Known] = defaultdict(_Known)
_answer: ContextVar[Any] = ContextVar("answer")  # the last response to the running task


async def _remember(response: Any) -> None:
    await response.aread()
    _answer.set(response)
