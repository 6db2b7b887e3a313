"""Servers that fail, are overloaded, refuse or are left alone."""

import asyncio
import math
import signal
import sqlite3
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from chat_server import PARAMS, ChatServer, Refusal, ask, drawn, engine_for, only, reply_to, unused_port, working

from hf_evol.errors import ConfigError, HfEvolError, ModelError
from hf_evol.generation import endpoint
from hf_evol.generation.chat_completions import Failure, retry_after
from hf_evol.generation.endpoint import EndpointEngine, _Gate
from hf_evol.models.journal import Journal
from hf_evol.prompts.template import chat

PROMPTS = [f"prompt number {i}" for i in range(120)]


def http_date(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def rows_in(file):
    with sqlite3.connect(file) as connection:
        return connection.execute("SELECT count(*) FROM requests").fetchone()[0]


FAULTS = [
    429, 500, 502, 503, "truncated", "short", "reset",
    Refusal(429, {"Retry-After": "0"}), Refusal(429, {"Retry-After": http_date(0)}),
    Refusal(200, body={"error": "in an answer that should be good"}), Refusal(200, body=[]),
]  # fmt: skip


def three_in_ten(prompt, attempt):
    number = drawn(prompt, attempt)
    return FAULTS[int(number * 1e6) % len(FAULTS)] if number < 0.3 else None


def three_in_ten_or_silence(prompt, attempt):
    number = drawn(prompt, attempt)
    return ("hang", "drip")[number < 0.004] if number < 0.008 else three_in_ten(prompt, attempt)


def test_every_row_ends_with_its_own_text_under_faults(server, tmp_path):
    server.fault = three_in_ten_or_silence
    engine = engine_for(server, max_tries=12, max_concurrency=16, timeout_s=0.4)
    done = ask(engine, PROMPTS, journal=Journal(tmp_path / "j.sqlite"))
    assert [completion.text for completion in done] == [reply_to(prompt) for prompt in PROMPTS]
    assert all(c.error is None and c.finish_reason == "stop" for c in done)
    tries = [(prompt, attempt) for prompt, last in server.attempts.items() for attempt in range(1, last + 1)]
    faults = [fault for fault in (three_in_ten_or_silence(*one) for one in tries) if fault is not None]
    assert len(faults) >= 30 and all(fault in faults for fault in (*FAULTS, "hang", "drip"))

    asked = len(server.requests)
    assert ask(engine, PROMPTS, journal=Journal(tmp_path / "j.sqlite")) == done
    assert len(server.requests) == asked


def test_rows_that_use_up_their_tries_have_an_error_and_the_others_their_texts(server):
    server.fault = three_in_ten
    done = ask(engine_for(server, max_tries=2), PROMPTS)
    for prompt, completion in zip(PROMPTS, done, strict=True):
        if three_in_ten(prompt, 1) is not None and three_in_ten(prompt, 2) is not None:
            assert completion.error.startswith("engine_error: ") and completion.text == ""
            assert completion.finish_reason == "error" and server.attempts[prompt] == 2
        else:
            assert completion.error is None and completion.text == reply_to(prompt)
    assert 3 < sum(completion.error is not None for completion in done) < 30


def test_a_server_that_goes_away_and_comes_back_is_waited_for():
    port, prompts = unused_port(), PROMPTS[:12]
    engine = EndpointEngine("tiny", f"http://127.0.0.1:{port}/v1", max_concurrency=1, max_tries=2, patience_s=30)
    before, done = ChatServer(port), []
    before.delay_s = 0.05

    def work():
        done.extend(ask(engine, prompts))

    thread = threading.Thread(target=work)
    with before:
        thread.start()
        while len(before.requests) < 4:
            time.sleep(0.01)
    time.sleep(1.0)  # longer than both tries would take
    with ChatServer(port) as after:
        thread.join()
    assert [completion.text for completion in done] == [reply_to(prompt) for prompt in prompts]
    assert after.requests


def with_another_model(server):
    server.models, server.choice = [{"id": "other"}], lambda body: {"message": {"content": "of the other model"}}
    return server


@pytest.mark.parametrize("when", ["after it was away", "after broken connections", "between two calls"])
def test_a_server_that_goes_on_with_another_model_ends_the_run(waits, when):
    port, found = unused_port(), []
    engine = EndpointEngine("tiny", f"http://127.0.0.1:{port}/v1", max_concurrency=3)

    def go_on(stream):
        with pytest.raises(ConfigError, match="has no model 'tiny'; it has 'other'"):
            for finished in stream:
                found.extend(finished)

    stream = engine.stream([chat(prompt) for prompt in PROMPTS], PARAMS, PROMPTS)
    with ChatServer(port) as server:
        server.models, server.delay_s = [{"id": "tiny"}], 0.01
        found += next(stream)
        if when == "between two calls":
            stream.close()
            stream = engine.stream([chat(prompt) for prompt in PROMPTS], PARAMS, PROMPTS)
        if when == "after broken connections":
            server.fault = lambda prompt, attempt: "reset" if attempt == 1 else None
        if when != "after it was away":
            with_another_model(server)
            go_on(stream)
    if when == "after it was away":
        while not waits:
            time.sleep(0.01)
        with with_another_model(ChatServer(port)):
            go_on(stream)
    assert found and {completion.text for _, completion in found} <= {reply_to(prompt) for prompt in PROMPTS}


def test_without_patience_a_server_that_is_away_costs_a_row_its_tries_alone(server, waits):
    engine = engine_for(server, max_concurrency=1, max_tries=3, patience_s=0)
    server.fault = lambda prompt, attempt: server.__exit__() if prompt == PROMPTS[1] else None
    done = ask(engine, PROMPTS[:4])
    assert [completion.error is None for completion in done] == [True, False, False, False]
    assert sorted(waits) == [1, 1, 1, 2, 2, 2]


def test_after_a_wait_in_vain_one_broken_connection_does_not_fail_the_rows(server, monkeypatch):
    only(engine_for(server))
    endpoint._known[engine_for(server)._place].given_up = True
    once, calls = endpoint._Session._once, []

    async def broken_once(self, chat, sent):
        calls.append(chat)
        if len(calls) == 1:
            raise Failure("connection failed (ConnectError)", again=True, away=True)
        return await once(self, chat, sent)

    monkeypatch.setattr(endpoint._Session, "_once", broken_once)
    assert not any(completion.error for completion in ask(engine_for(server), PROMPTS[:4]))


def test_a_server_that_stays_away_is_not_waited_for_longer_than_stated(server, caplog, monkeypatch):
    monkeypatch.setattr(endpoint, "_LOOKS_EVERY_S", 0.1)
    engine = EndpointEngine("tiny", server.url, max_concurrency=1, max_tries=1, patience_s=0.5)
    server.fault = lambda prompt, attempt: server.__exit__() if prompt == PROMPTS[1] else None
    first, *others = ask(engine, PROMPTS)
    assert first.text == reply_to(PROMPTS[0])
    assert all(completion.error.startswith("engine_error: connection failed") for completion in others)
    said = f"{server.url} is away (connection failed (ConnectError)). It is waited for, up to 0.5 s (patience_s)."
    assert caplog.messages == [said]
    begun = time.monotonic()
    assert all(completion.error for completion in ask(engine, PROMPTS))  # the next batch does not wait again
    assert time.monotonic() - begun < 0.4


def test_a_server_that_hangs_is_waited_for_and_then_given_up(server, caplog):
    engine = engine_for(server, timeout_s=0.2, patience_s=0.3, max_concurrency=4)
    assert only(engine).error is None
    server.fault, server.models = lambda prompt, attempt: "hang", "hang"
    begun = time.monotonic()
    done = ask(engine, PROMPTS)  # a look ends with the patience
    assert {completion.error for completion in done} == {"engine_error: no answer within 0.2 s"}
    assert len(caplog.messages) == 1 and "is away (no answer within 0.2 s)" in caplog.text
    assert time.monotonic() - begun < 5 and len(server.requests) <= 1 + 4


def test_a_list_of_models_that_hangs_is_looked_at_once(server, monkeypatch):
    monkeypatch.setattr(endpoint, "_LOOK_S", 0.5)
    server.models = "hang"
    begun = time.monotonic()
    assert not any(only(engine_for(server), prompt).error for prompt in PROMPTS[:12])
    assert 0.5 < time.monotonic() - begun < 3


def test_a_server_that_loads_its_model_is_waited_for(server):
    """llama.cpp takes connections before it can answer."""
    engine = engine_for(server, max_tries=2)
    assert only(engine, "before").error is None
    loading = Refusal(503, body={"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})
    server.fault = lambda prompt, attempt: loading if attempt < 9 else None
    assert only(engine).text == reply_to("why") and server.attempts["why"] == 9


@pytest.mark.parametrize(
    ("fault", "reason", "tries"),
    [
        (429, "HTTP 429", 3),
        (500, "HTTP 500", 3),
        (408, "HTTP 408", 3),
        (400, "HTTP 400", 1),
        ("truncated", "the answer is broken", 3),
        (Refusal(200, body={"choices": []}), "the answer is broken", 3),
        ("short", "connection failed", 3),
        ("reset", "connection failed", 3),
        ("hang", "no answer within 1 s", 3),
        ("drip", "no answer within 1 s", 3),
    ],
)
def test_a_row_that_always_fails_has_a_reason_after_all_its_tries(server, tmp_path, fault, reason, tries):
    server.fault = lambda prompt, attempt: fault if prompt == "bad" else None
    options = {"timeout_s": 1} if fault in ("hang", "drip") else {}
    engine, prompts = engine_for(server, max_tries=3, **options), ["a", "bad", "b", "c"]
    engine.check()  # so that it is known which fields the server takes
    server.attempts.clear()
    done = ask(engine, prompts, journal=Journal(tmp_path / "j.sqlite"))
    assert [c.text for c in done] == [reply_to("a"), "", reply_to("b"), reply_to("c")]
    assert [c.finish_reason for c in done] == ["stop", "error", "stop", "stop"]
    assert done[1].error.removeprefix("engine_error: ").startswith(reason)
    assert server.attempts == {"a": 1, "bad": tries, "b": 1, "c": 1}
    assert rows_in(tmp_path / "j.sqlite") == 3

    server.fault = lambda prompt, attempt: None
    again = ask(engine, prompts, journal=Journal(tmp_path / "j.sqlite"))
    assert [c.text for c in again] == [reply_to(prompt) for prompt in prompts]
    assert server.attempts == {"a": 1, "bad": tries + 1, "b": 1, "c": 1}


def test_the_reason_holds_what_the_server_says(server):
    """Else nobody learns why every row fails: a context that is too short, a field that the server doesn't know."""
    said = "This model's maximum context length is 2048 tokens"
    server.fault = lambda prompt, attempt: Refusal(400, body={"error": {"message": said}})
    assert said in only(engine_for(server)).error


def test_waits_grow_up_to_a_minute(server, waits):
    server.fault = lambda prompt, attempt: 500
    only(engine_for(server, max_tries=9))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_wait_that_the_server_asks_for_is_kept(server, waits):
    server.fault = lambda prompt, attempt: Refusal(429, {"Retry-After": "0.3"}) if attempt == 1 else None
    assert only(engine_for(server)).text == reply_to("why")
    first, second = (request.time for request in server.requests)
    assert 0.3 <= second - first < 1.3 and waits == []


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("0", 0, 0),
        ("1.5", 1.5, 1.5),
        ("-3", 0, 0),
        ("86400", 600, 600),
        (-60, 0, 0),
        (300, 200, 300),
        (1e6, 600, 600),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, low, high):
    """A number stands for the date so many seconds from now."""
    value = value if isinstance(value, str) else http_date(value)
    assert low <= retry_after({"Retry-After": value}) <= high


def test_retry_after_in_milliseconds_is_finer():
    assert retry_after({"Retry-After": "1", "retry-after-ms": "350"}) == 0.35
    assert retry_after({"Retry-After": "1", "retry-after-ms": "soon"}) == 1


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": "nan"}, {"Retry-After": "inf"}])
def test_retry_after_that_says_nothing(headers):
    assert retry_after(headers) is None


# What would fail for every row


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, r"refuses requests for 'tiny' \(401\).*no key.*api_key_env"),
        (403, r"refuses requests for 'tiny' \(403\).*no key.*api_key_env"),
        (404, r"refuses requests for 'tiny' \(404\).*model's name.*base_url"),
        (402, "402"),  # Inference Providers, once the credits are used up
    ],
)
def test_a_refusal_of_every_row_is_raised_at_once(server, status, advice):
    server.fault = lambda prompt, attempt: status
    server.delay_s = 0.01
    with pytest.raises(ModelError, match=advice) as caught:
        ask(engine_for(server, max_concurrency=4), PROMPTS)
    assert server.url in str(caught.value)
    assert 1 <= len(server.requests) <= 4 and max(server.attempts.values()) == 1


def test_what_was_finished_before_a_refusal_is_kept(server, tmp_path):
    server.fault = lambda prompt, attempt: 401 if len(server.requests) > 40 else None
    with pytest.raises(ModelError, match="401"):
        ask(engine_for(server, max_concurrency=4), PROMPTS, journal=Journal(tmp_path / "j.sqlite"))
    assert 36 <= rows_in(tmp_path / "j.sqlite") <= 40
    server.fault = lambda prompt, attempt: None
    done = ask(engine_for(server), PROMPTS, journal=Journal(tmp_path / "j.sqlite"))
    assert [c.text for c in done] == [reply_to(prompt) for prompt in PROMPTS]


def test_the_probe_asks_for_one_token_once_in_a_process(server):
    engine_for(server).check()
    engine_for(server).check()
    assert len(server.requests) == 1 and server.requests[0].body["max_tokens"] == 1
    engine_for(server, max_concurrency=2).check()
    assert len(server.requests) == 2


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (400, 2)])  # 400 may be about a field
def test_a_failed_probe_is_made_again(server, status, requests):
    server.fault = lambda prompt, attempt: status
    with pytest.raises(ModelError, match=str(status)):
        engine_for(server).check()
    assert len(server.requests) == requests
    server.fault = lambda prompt, attempt: None
    engine_for(server).check()
    assert len(server.requests) == requests + 1


def test_a_server_that_is_down(waits):
    url = f"http://127.0.0.1:{unused_port()}/v1"
    with pytest.raises(ModelError, match=f"'tiny' does not answer at {url}: .*connection failed.*Is the server up"):
        EndpointEngine("tiny", url).check()
    assert len(waits) == 5


def test_a_wrong_address_is_an_error_of_the_package(waits):
    with pytest.raises(HfEvolError, match="notaport"):
        EndpointEngine("tiny", "http://127.0.0.1:notaport/v1").check()


@pytest.mark.parametrize(("provider", "advice"), [(None, "hf auth login"), ("auto", "hf auth login"), ("none", "none")])
def test_inference_providers_that_cannot_be_asked(monkeypatch, tmp_path, waits, provider, advice):
    """There is no token, or no such provider: known before anything is sent, so nothing is tried again."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HfEvolError, match=advice):
        EndpointEngine("tiny", provider=provider).check()
    assert waits == []


def test_a_local_server_answers_while_the_hub_is_switched_off(server, monkeypatch):
    """HF_HUB_OFFLINE=1 is usual on machines that serve a model to themselves and have no way out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert only(engine_for(server)).text == reply_to("why")


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"base_url": "localhost:8000"},
        {"base_url": "http://localhost:8000/v1", "provider": "auto"},
        {"max_concurrency": 0},
        {"max_concurrency": 0.5},  # would let no request through, for ever
        {"max_tries": 0},
        {"max_tries": 1.5},
        {"timeout_s": 0},
        {"timeout_s": math.nan},
        {"api_key_env": "NO_SUCH_VARIABLE"},
    ],
)
def test_wrong_settings(options):
    with pytest.raises(ConfigError):
        EndpointEngine(**({"model": "tiny"} | options))


# Concurrency


@pytest.mark.parametrize(("most", "rows"), [(1, 5), (20, 120)])
def test_never_more_requests_than_allowed(server, most, rows):
    server.delay_s = 0.1
    ask(engine_for(server, max_concurrency=most), PROMPTS[:rows])
    assert most / 2 < server.most_active <= most


def test_fewer_requests_under_overload_and_more_again_after_it(server):
    server.fault = lambda prompt, attempt: (429, 503)[attempt % 2] if 20 < len(server.requests) <= 50 else None
    server.delay_s = 0.05
    prompts = [*PROMPTS, *(f"later {prompt}" for prompt in PROMPTS)]
    done = ask(engine_for(server, max_concurrency=16, max_tries=50), prompts)
    assert [c.text for c in done] == [reply_to(prompt) for prompt in prompts]
    active = [request.active for request in server.requests]
    assert 4 < max(active[:20]) <= 10 and max(active[40:50]) <= 2 and 10 < max(active[-100:]) <= 16


def test_other_failures_do_not_narrow(server):
    server.fault = lambda prompt, attempt: 500 if attempt == 1 else None
    server.delay_s = 0.02
    ask(engine_for(server, max_concurrency=8), PROMPTS[:40])
    assert max(request.active for request in server.requests[-30:]) > 4


def test_a_limit_on_the_rate_costs_time_and_no_row(server):
    """Ten answers in a fifth of a second, as servers with a quota do: many rows must not use up their tries."""
    answered = {}

    def quota(prompt, attempt):
        now = time.monotonic()
        with server.lock:
            window = int(now / 0.2)
            answered[window] = answered.get(window, 0) + 1
            return None if answered[window] <= 10 else Refusal(429, {"Retry-After": f"{0.2 - now % 0.2:.3f}"})

    server.fault = quota
    done = ask(engine_for(server, max_tries=4), PROMPTS[:100])
    assert [c.error for c in done if c.error] == []


def test_the_gate_widens_by_one_a_round_and_narrows_by_half():
    gate = _Gate(64)
    assert gate.limit == 8
    for limit in (4, 2, 1, 1):
        gate.narrow()
        assert gate.limit == limit
    for limit in (2, 3, 4, 5):  # after as many successes as there were requests at a time
        for _ in range(limit - 1):
            gate.widen()
        assert limit - 0.3 < gate.limit <= limit
    for _ in range(5000):
        gate.widen()
    assert gate.limit == 64
    assert _Gate(3).limit == 3


def test_the_gate_lets_in_as_many_as_its_limit():
    async def main():
        gate, inside, seen = _Gate(5), 0, []

        async def worker(number):
            nonlocal inside
            async with gate:
                inside += 1
                seen.append((gate.limit, inside))
                await asyncio.sleep(0.001)
                inside -= 1
            if number == 30:
                gate.narrow()

        await asyncio.wait_for(asyncio.gather(*map(worker, range(60))), 5)
        return gate.active, seen

    active, seen = asyncio.run(main())
    assert active == 0 and len(seen) == 60
    assert max(inside for limit, inside in seen if limit == 5) == 5
    assert max(inside for limit, inside in seen if limit == 2.5) == 2


def test_a_cancelled_request_leaves_the_gate():
    async def main():
        gate = _Gate(1)

        async def worker():
            async with gate:
                await asyncio.sleep(30)

        first, second = asyncio.create_task(worker()), asyncio.create_task(worker())
        await asyncio.sleep(0)
        for task in (second, first):
            task.cancel()
        await asyncio.wait([first, second])
        async with asyncio.timeout(1), gate:
            return gate.active

    assert asyncio.run(main()) == 1


# Ending early


def asked_later(server):
    """How many requests come after now; those that are still on their way get a moment to arrive."""
    time.sleep(0.05)
    before = len(server.requests)
    time.sleep(0.15)
    return len(server.requests) - before


def test_closing_the_stream_stops_the_requests(server):
    server.delay_s = 0.01
    stream = engine_for(server, max_concurrency=4).stream([chat(prompt) for prompt in PROMPTS], PARAMS, PROMPTS)
    assert len(working()) == 0
    next(stream)
    assert len(working()) == 1
    stream.close()
    assert working() == [] and asked_later(server) == 0 and len(server.requests) < 40


def test_closing_the_stream_ends_requests_that_hang_or_wait(server):
    server.fault = lambda prompt, attempt: {"hang": "hang", "wait": Refusal(429, {"Retry-After": "60"})}.get(prompt)
    stream = engine_for(server).stream([chat(prompt) for prompt in ("hang", "wait", "a")], PARAMS, ["1", "2", "3"])
    ((place, completion),) = next(stream)
    assert place == 2 and completion.text == reply_to("a")
    start = time.monotonic()
    stream.close()
    assert working() == [] and time.monotonic() - start < 1


def test_an_interrupt_in_the_consumer_stops_the_requests(server, tmp_path):
    class Interrupted(Journal):
        puts = 0

        def put(self, completions):
            super().put(completions)
            self.puts += 1
            if self.puts == 3:
                raise KeyboardInterrupt

    server.delay_s = 0.01
    engine = engine_for(server, max_concurrency=4)
    with pytest.raises(KeyboardInterrupt):
        ask(engine, PROMPTS, journal=Interrupted(tmp_path / "j.sqlite"))
    assert working() == [] and asked_later(server) == 0 and len(server.requests) < 40
    before = len(server.requests)
    ask(engine, PROMPTS, journal=Journal(tmp_path / "j.sqlite"))
    assert len(server.requests) - before == len(PROMPTS) - 3


def test_ctrl_c_while_the_server_is_silent(server):
    server.fault = lambda prompt, attempt: "hang"
    main = threading.main_thread().ident

    def interrupt():
        while not server.requests:
            time.sleep(0.02)
        signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        threading.Thread(target=interrupt, daemon=True).start()
        only(engine_for(server, timeout_s=20))
    assert working() == [] and len(server.requests) == 1


def test_an_error_that_nobody_foresaw_is_raised(server, monkeypatch):
    async def fail(self, chat, key):
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(endpoint._Session, "_once", fail)
    with pytest.raises(Exception) as caught:
        ask(engine_for(server), PROMPTS)
    assert "nobody foresaw this" in "".join(traceback.format_exception(caught.value)) and working() == []


def test_no_rows_need_no_server(waits):
    assert ask(EndpointEngine("tiny", f"http://127.0.0.1:{unused_port()}/v1"), []) == []
