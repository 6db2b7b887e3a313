"""One request to an OpenAI-compatible server: what it says, and what the answer means."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from hf_evol.generation.base import Completion, SamplingParams
from hf_evol.generation.sampling import request_seed
from hf_evol.progress import visible
from hf_evol.secrets import without_secrets

LONGEST_WAIT_S = 60.0
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
# How servers say that a prompt does not fit: OpenAI, vLLM, llama.cpp; SGLang; TGI; Mistral, Fireworks.
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum model length|`inputs` (tokens|must)|prompt is too long|too large for model",
    re.IGNORECASE,
)
# What servers would add of their own, by default or from a model's generation_config.json, at the values that change nothing.
_ADDED = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_FOR_TRANSFORMERS = "generation_config"  # as JSON, and in place of all others; without do_sample, it is greedy
_FOR_LLAMA_CPP = {"samplers": ["temperature", "top_p"]}  # all that are to run, in our order: its own has top-p first
PLAIN = (*_ADDED, *_FOR_LLAMA_CPP, _FOR_TRANSFORMERS)


class Failure(Exception):
    """What went wrong with one try.

    Args:
        again: another try may come right.
        overloaded: fewer requests at a time may.
        away: the server is not there, or not yet.
        too_long: the prompt does not fit, whatever the try.
        wait_s: what the server asks for.
        fields: of the request, which the server does not take.
    """

    def __init__(
        self, reason: str, *, again: bool, overloaded: bool = False, away: bool = False, too_long: bool = False,
        wait_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"{'too_long' if too_long else 'engine_error'}: {storable(reason)}")
        self.again, self.overloaded, self.away, self.too_long, self.wait_s = again, overloaded, away, too_long, wait_s
        self.fields: frozenset[str] = frozenset()


def fields(params: SamplingParams, key: str, refused: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What a request says beside the model and the turns, without what the server refused before."""
    samples = params.temperature > 0
    said: dict[str, Any] = {
        "max_completion_tokens" if "max_tokens" in refused else "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "seed": request_seed(key),
        **_ADDED,
        **_FOR_LLAMA_CPP,
        _FOR_TRANSFORMERS: json.dumps(_ADDED | {"do_sample": samples, "top_k": 0}),
    }
    if samples:
        said["top_p"] = params.top_p
    if params.top1_probs:
        said |= {"logprobs": True, "top_logprobs": 2}
    unsaid = refused if params.top_p == 1 else refused - {"top_p"}  # refused at 1 alone
    return {name: value for name, value in said.items() if name not in unsaid}


def refused_fields(words: str, sent: Mapping[str, Any]) -> frozenset[str]:
    """Which of the fields that were sent a refusal names, of those that a request can do without."""
    needless = {*PLAIN, "seed", "logprobs", "top_logprobs"} | ({"top_p"} if sent.get("top_p") == 1 else set())
    if "max_completion_tokens" in words:
        needless.add("max_tokens")
    return frozenset(name for name in needless & sent.keys() if re.search(rf"\b{name}\b", words))


def missing(refused: frozenset[str]) -> str:
    """In a sentence, what a server that refused fields can't be had to do; nothing if all can."""
    lost = [name for name in ("seed", "logprobs") if name in refused]
    # A server that refuses what it does not know, as llama.cpp's field, and not this, reads this.
    if _FOR_TRANSFORMERS in refused or not refused & _FOR_LLAMA_CPP.keys():
        lost += [name for name in _ADDED if name in refused]
    return f"It takes no {', '.join(lost)}, so what it does there is its own affair." if lost else ""


def failure_of(response: Any) -> Failure:
    """What an answer with an error's status means for its row."""
    status, words = response.status_code, words_of(body(response))
    too_long = status in (400, 413, 422, 500) and bool(_TOO_LONG.search(response.text))
    again = (status in (408, 409, 425, 429) or status >= 500) and not too_long
    away = status == 503 and "loading" in words.lower()  # llama.cpp is back before its model
    reason, wait_s = f"HTTP {status}{words}", retry_after(response.headers)
    return Failure(
        reason, again=again, overloaded=status in (429, 503) and not away, away=away, too_long=too_long, wait_s=wait_s
    )


def completion_of(answer: Any, params: SamplingParams) -> Completion:
    """What an answer says, as far as it is there: servers leave out much of what the protocol has."""
    if not isinstance(answer, dict) or not answer.get("choices"):
        failed = isinstance(answer, dict) and answer.get("error")
        what = "an error in place of an answer" if failed else "the answer is broken"
        raise Failure(what + words_of(answer), again=True)
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    reason, text = str(choice.get("finish_reason") or "").lower(), _text(choice["message"].get("content"))
    if error := choice.get("error"):
        raise Failure(f"an error in place of an answer{words_of(error)}", again=True)
    if reason in _FAILED:
        raise Failure(f"finish reason {reason}", again=reason in _PASSING)
    n_prompt_tokens, n_tokens = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    end = "stop" if reason in _STOPPED else "unknown"
    if reason in _CUT_OFF or (end == "unknown" and n_tokens >= params.max_new_tokens):
        end = "length"
    if end == "stop":
        n_tokens = max(0, n_tokens - 1)
    return Completion(text, end, n_prompt_tokens, n_tokens, top1_probs=_top1_probs(choice, params.top1_probs))


def body(response: Any) -> Any:
    """JSON, or else text."""
    try:
        return response.json()
    except ValueError:
        return response.text


def words_of(said: Any) -> str:
    """What the server gives as a reason, without the key, which it may repeat."""
    for name in ("error", "detail", "message"):
        if isinstance(said, dict):
            said = said.get(name, said)
    text = without_secrets(" ".join(visible(storable(str(said))).split()))
    return f": {text[:300]}" if text else ""


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait, from milliseconds, seconds or a date."""
    value, finer = headers.get("Retry-After", ""), headers.get("retry-after-ms", "")
    try:
        wait = float(finer) / 1000 if re.fullmatch(r"[\d.]+", finer) else float(value)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(wait, 0.0), 10 * LONGEST_WAIT_S) if math.isfinite(wait) else None


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
    return storable(content or "")


def _top1_probs(choice: Mapping[str, Any], count: int) -> list[float] | None:
    """The probability of the most probable token at each of the first positions; None where one is missing or odd."""
    try:
        tokens = choice["logprobs"]["content"][:count]
        # vLLM puts the sampled token first and cuts the list afterwards, hence two of them and their maximum.
        probs = [math.exp(max(other["logprob"] for other in token["top_logprobs"])) for token in tokens]
    except (TypeError, LookupError, ValueError, OverflowError):
        return None
    return probs if probs and all(map(math.isfinite, probs)) else None


def storable(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold and UTF-8 can't, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
