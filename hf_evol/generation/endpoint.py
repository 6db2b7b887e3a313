"""Any OpenAI-compatible server, or HF Inference Providers, through `huggingface_hub`'s asynchronous client."""

from __future__ import annotations

import asyncio
import math
import os
import queue
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation.base import GREEDY, Chat, Completion, SamplingParams
from hf_evol.generation.sampling import request_seed
from hf_evol.progress import visible
from hf_evol.secrets import keep_secret, without_secrets

# What servers say of the end of a text, in lower case: it ended; it was cut off; it is none to keep, of which some may come
# right when tried again. A text of which they say anything else, or nothing, is kept as "unknown".
_STOPPED = {
    "stop", "eos", "eos_token", "stop_sequence", "stop_token", "stop_str", "end_turn", "end", "complete", "completed", "finished",
}  # fmt: skip
_CUT_OFF = {
    "length", "max_tokens", "max_length", "model_length", "max_output_tokens", "token_limit", "model_context_window_exceeded",
}  # fmt: skip
_PASSING = {"error", "network_error", "insufficient_system_resource"}
_FAILED = {
    *_PASSING, "abort", "aborted", "cancelled", "tool_calls", "function_call", "malformed_function_call", "content_filter", "safety",
    "sensitive", "refusal", "recitation", "blocklist", "prohibited_content", "spii",
}  # fmt: skip
_LONGEST_WAIT_S = 60.0
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
    went away during the work is waited for. A complete answer is kept whatever the server says of its end. Each request
    carries a seed made of its row key; whether it gives the same text again is the server's affair.

    Args:
        model: the model's name on the server.
        base_url: the server's address, such as ``http://localhost:8000/v1``; None for Inference Providers.
        provider: an Inference Provider's name, or ``"auto"``.
        api_key_env: the environment variable that holds the key. By default Inference Providers get the Hub's token,
            and a ``base_url`` gets none.
        max_concurrency: most requests at a time.
        max_tries: how often a request is sent before its row gets an error.
        timeout_s: seconds for one try.
        patience_s: how many seconds a server that takes no connections any more is waited for.
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

    def check(self) -> None:
        """Ask for one token, once in this process; raise `ModelError` if there is no answer."""
        _probe(self)

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
        return {"model": self.model, "endpoint": self.base_url or self.provider or "auto"}

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
    chats = [[{"role": "user", "content": "Hello"}]]
    for ((_, completion),) in replace(engine, patience_s=0).stream(chats, replace(GREEDY, max_new_tokens=1), ["probe"]):
        if completion.error:
            raise ModelError(
                f"{engine.model!r} does not answer at {engine._where}: {completion.error}. Is the server up?"
            )


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


class _Failure(Exception):
    """What went wrong with one try."""

    def __init__(
        self, reason: str, *, again: bool, overloaded: bool = False, away: bool = False, wait_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.again, self.overloaded, self.away, self.wait_s = again, overloaded, away, wait_s


class _Session:
    """One call of `EndpointEngine.stream`: its client, its gate, and where results go."""

    def __init__(self, engine: EndpointEngine, params: SamplingParams, results: queue.SimpleQueue) -> None:
        self.engine, self.params, self.results = engine, params, results

    async def complete(self, requests: dict[int, tuple[Chat, str]]) -> None:
        from huggingface_hub import AsyncInferenceClient, get_async_session, get_token

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
            try:
                async with asyncio.TaskGroup() as group:
                    for place, (chat, key) in requests.items():
                        group.create_task(self._row(place, chat, key))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _row(self, place: int, chat: Chat, key: str) -> None:
        attempt, away_since = 0, None
        while True:
            attempt, wait = attempt + 1, 0.0
            async with self.gate:
                try:
                    async with asyncio.timeout(self.engine.timeout_s):
                        completion = await self._once(chat, key)
                    self.gate.widen()
                    _answering.add(self.engine._place)
                    break
                except TimeoutError:
                    failure = _Failure(f"no answer within {self.engine.timeout_s:g} s", again=True, overloaded=True)
                except _Failure as error:
                    failure = error
                completion = Completion("", "error", error=f"engine_error: {_storable(str(failure))}")
                now, again = time.monotonic(), failure.again and attempt < self.engine.max_tries
                away_since = (away_since or now) if failure.away else None
                if failure.away and self.engine._place in _answering and now - away_since < self.engine.patience_s:
                    again, attempt = True, min(attempt, 4)
                if again:
                    longest = min(_LONGEST_WAIT_S, 0.5 * 2**attempt)
                    wait = random.uniform(0, longest) if failure.wait_s is None else failure.wait_s
                if failure.overloaded:
                    self.gate.narrow()
                    await asyncio.sleep(wait)  # in its place, so that no other row runs into the same refusal
                    wait = 0.0
            if not again:
                break
            await asyncio.sleep(wait)
        self.results.put((place, completion))

    async def _once(self, chat: Chat, key: str) -> Completion:
        from huggingface_hub.errors import HfHubHTTPError, HTTPError, InferenceTimeoutError

        params = self.params
        logprobs = {"logprobs": True, "top_logprobs": 2} if params.top1_probs else {}
        try:
            _answer.set(None)
            await self.client.chat_completion(
                chat,
                model=self.engine.model,
                max_tokens=params.max_new_tokens,
                temperature=params.temperature,
                top_p=params.top_p if params.temperature > 0 else None,  # TGI refuses 1, the value of greedy sampling
                seed=request_seed(key),
                **logprobs,
            )
        except HfHubHTTPError as error:
            raise self._refused(error) from None  # its text may repeat the key
        except InferenceTimeoutError as error:
            raise _Failure("timed out", again=True, overloaded=True) from error
        except (HTTPError, OSError) as error:
            name = type(error).__name__
            raise _Failure(f"connection failed ({name})", again=True, away=name.startswith("Connect")) from error
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            unasked = _answer.get() is None
            if unasked and self.engine.base_url is None and type(error) is ValueError:  # no token, provider or model
                raise ModelError(f"{self.engine._where} can't be asked for {self.engine.model!r}: {error}") from None
            if unasked:
                raise _Failure(f"the request can't be sent ({type(error).__name__})", again=False) from error
        # Read here, as the client's own reading is strict, and odd log-probabilities would cost the text.
        try:
            return self._completion(_body(_answer.get()))
        except (TypeError, AttributeError, LookupError, UnicodeError) as error:
            raise _Failure(f"the answer is broken ({type(error).__name__})", again=True) from error

    def _refused(self, error: Any) -> Exception:
        status, engine = error.response.status_code, self.engine
        about_the_prompt = status == 403 and engine._place in _answering
        if status in _ADVICE and not about_the_prompt:
            key = engine.api_key_env or ("the Hub's token" if engine.base_url is None else "no key")
            sent = f"{engine._where} refuses requests for {engine.model!r} ({status}); they were sent with {key}."
            return ModelError(f"{sent} {_ADVICE[status]}")
        if status == 429 and "insufficient_quota" in error.response.text:
            return ModelError(f"{engine._where} refuses requests for {engine.model!r} (429): the quota is used up.")
        again, overloaded = status in (408, 409, 425, 429) or status >= 500, status in (429, 503)
        reason, wait_s = f"HTTP {status}{_said(_body(error.response))}", _retry_after(error.response.headers)
        return _Failure(reason, again=again, overloaded=overloaded, wait_s=wait_s)

    def _completion(self, answer: Any) -> Completion:
        """What an answer says, as far as it is there: servers leave out much of what the protocol has."""
        params = self.params
        if not isinstance(answer, dict) or not answer.get("choices"):
            failed = isinstance(answer, dict) and answer.get("error")
            what = "an error in place of an answer" if failed else "the answer is broken"
            raise _Failure(what + _said(answer), again=True)
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        reason, text = str(choice.get("finish_reason") or "").lower(), _text(choice["message"].get("content"))
        if error := choice.get("error"):
            raise _Failure(f"an error in place of an answer{_said(error)}", again=True)
        if reason in _FAILED:
            raise _Failure(f"finish reason {reason}", again=reason in _PASSING)
        n_prompt_tokens, n_tokens = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        end = "stop" if reason in _STOPPED else "unknown"
        if reason in _CUT_OFF or (end == "unknown" and n_tokens >= params.max_new_tokens):
            end = "length"
        if end == "stop":
            n_tokens = max(0, n_tokens - 1)
        return Completion(text, end, n_prompt_tokens, n_tokens, top1_probs=_top1_probs(choice, params.top1_probs))


_answering: set[tuple[str, str | None]] = set()  # models and servers that have answered this process
_answer: ContextVar[Any] = ContextVar("answer")  # the last response to the running task


async def _remember(response: Any) -> None:
    await response.aread()
    _answer.set(response)


def _body(response: Any) -> Any:
    """JSON, or else text."""
    try:
        return response.json()
    except ValueError:
        return response.text


def _said(said: Any) -> str:
    """What the server gives as a reason, without the key, which it may repeat."""
    for name in ("error", "detail", "message"):
        if isinstance(said, dict):
            said = said.get(name, said)
    text = without_secrets(" ".join(visible(_storable(str(said))).split()))
    return f": {text[:300]}" if text else ""


def _retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait, from seconds or a date."""
    value = headers.get("Retry-After", "")
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(wait, 0.0), 10 * _LONGEST_WAIT_S) if math.isfinite(wait) else None


def _count(value: Any) -> int:
    """A number of tokens; 0 where it is none."""
    return int(value) if str(value).isdecimal() else 0


def _text(content: Any) -> str:
    """A content's text; of parts, those that are text, and no reasoning."""
    if isinstance(content, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]
        content = "".join(
            part.get("text") or "" for part in parts if part.get("type", "text") in ("text", "output_text")
        )
    return _storable(content or "")


def _top1_probs(choice: Mapping[str, Any], count: int) -> list[float] | None:
    """The probability of the most probable token at each of the first positions; None where one is missing or odd."""
    try:
        tokens = choice["logprobs"]["content"][:count]
        # vLLM puts the sampled token first and cuts the list afterwards, hence two of them and their maximum.
        probs = [math.exp(max(other["logprob"] for other in token["top_logprobs"])) for token in tokens]
    except (TypeError, LookupError, ValueError, OverflowError):
        return None
    return probs if probs and all(map(math.isfinite, probs)) else None


def _storable(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold and UTF-8 can't, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
