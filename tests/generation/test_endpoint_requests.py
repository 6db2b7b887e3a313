"""What is sent, to whom, and what the engine makes of the answers."""

import json
import logging
import math
import pickle
import traceback
from types import SimpleNamespace

import pytest
from chat_server import KEY, Refusal, ask, engine_for, only, reply_to

from hf_evol.errors import ConfigError, HfEvolError
from hf_evol.generation import endpoint
from hf_evol.generation.base import GREEDY, SamplingParams
from hf_evol.generation.chat_completions import PLAIN
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.models.journal import Journal
from hf_evol.prompts.template import chat

HUB_TOKEN = "hf_TokenOfTheHubOnly"


@pytest.mark.parametrize("place", ["file", "environment"])
def test_the_token_of_the_hub_is_never_sent_to_a_server(server, monkeypatch, tmp_path, key, place):
    from huggingface_hub import get_token

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text(HUB_TOKEN)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if place == "environment":
        (tmp_path / "token").unlink()
        monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    assert get_token() == HUB_TOKEN
    for engine in (engine_for(server), engine_for(server, api_key_env=key)):
        engine.check()
        ask(engine, ["a", "b"])
    assert len(server.requests) == 6
    assert not any(HUB_TOKEN in request.sent for request in server.requests)


def test_the_key_goes_to_the_server_and_nowhere_else(server, key, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.fault = lambda prompt, attempt: 500 if attempt == 1 else 400 if prompt == "bad" else None
    engine = engine_for(server, api_key_env=key)
    done = ask(engine, ["a", "bad", "b"], journal=Journal(tmp_path / "j.sqlite"))
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    server.fault = lambda prompt, attempt: 403
    with pytest.raises(Exception) as caught:
        engine.check()
    files = list(tmp_path.iterdir())
    assert files and caplog.records
    shown = [repr(engine), str(engine), repr(engine.identity()), repr(done), caplog.text]
    shown += ["".join(traceback.format_exception(caught.value))]
    shown += [pickle.dumps(thing).decode("latin-1") for thing in (engine, caught.value)]
    shown += [file.read_bytes().decode("latin-1") for file in files]
    assert not [text for text in shown if KEY in text]


def test_a_key_that_the_server_repeats_is_not_shown(server, key):
    engine = engine_for(server, api_key_env=key)
    server.fault = lambda prompt, attempt: Refusal(401, body={"error": f"Incorrect API key provided: {KEY}"})
    with pytest.raises(Exception) as caught:
        engine.check()
    assert KEY not in "".join(traceback.format_exception(caught.value))
    server.fault = lambda prompt, attempt: Refusal(400, body={"error": f"No credit for {KEY}"})
    assert KEY not in only(engine).error


def test_a_token_of_the_hub_that_a_provider_repeats_is_not_shown(monkeypatch):
    from huggingface_hub import AsyncInferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    class Refused(HfHubHTTPError):
        def __init__(self):
            said = {"error": f"No credit for {HUB_TOKEN}"}
            self.response = SimpleNamespace(status_code=400, headers={}, json=lambda: said, text="")

    async def refuse(*_, **__):
        raise Refused

    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    monkeypatch.setattr(AsyncInferenceClient, "chat_completion", refuse)
    error = only(EndpointEngine("tiny")).error
    assert "No credit for" in error and HUB_TOKEN not in error


@pytest.mark.parametrize("end", ["\n", "\u00e9"])
def test_a_key_that_no_header_can_hold_is_not_shown(server, key, monkeypatch, caplog, end):
    """A key that is read from a file often ends in a line break; HTTP libraries log headers that they can't send."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(key, KEY + end)
    text = ""
    try:
        engine_for(server, api_key_env=key).check()
    except HfEvolError as error:
        text = "".join(traceback.format_exception(error))
    assert text or server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in text + caplog.text


def test_a_password_in_the_address_is_not_shown():
    """The address stands in messages and cards, and over a password the key would not be sent."""
    with pytest.raises(ConfigError) as caught:
        EndpointEngine("tiny", "http://user:TheSecret@localhost:8000/v1")
    assert "TheSecret" not in str(caught.value)


def test_a_variable_that_is_gone_by_the_time_it_is_needed(server, key, monkeypatch):
    engine = pickle.loads(pickle.dumps(engine_for(server, api_key_env=key)))
    monkeypatch.delenv(key)
    with pytest.raises(HfEvolError, match=key):
        only(engine)
    assert server.requests == []


def test_what_a_request_says(server):
    ask(engine_for(server), ["a", "b"], SamplingParams(0.25, 0.5, 33))
    assert sorted(server.prompts) == ["a", "b"]
    for request in server.requests:
        body = request.body
        assert request.path == "/v1/chat/completions"
        assert body["model"] == "tiny" and body["messages"] == chat(request.prompt)
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.25, 0.5, 33)
        assert not {"logprobs", "top_logprobs"} & set(body) and not body.get("stream")


def test_seeds_depend_on_the_key_alone(server):
    def seeds(prompts, keys, **options):
        server.requests.clear()
        ask(engine_for(server, **options), prompts, keys=keys)
        return {request.prompt: request.body["seed"] for request in server.requests}

    prompts, keys = [f"prompt {i}" for i in range(100)], [f"0|1|evolve|row-{i}" for i in range(100)]
    first = seeds(prompts, keys)
    assert len(set(first.values())) == 100
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in first.values())
    assert max(first.values()) > 2**30 > min(first.values())
    assert seeds(prompts[::-1], keys[::-1], max_concurrency=3) == first
    assert set(seeds(["x", "y"], ["same", "same"]).values()) == {seeds(["z"], ["same"])["z"]}
    assert 0 <= seeds(["x"], ["a lone \ud800 surrogate"])["x"] < 2**31


def test_a_retry_is_the_same_request(server):
    server.fault = lambda prompt, attempt: 500 if attempt < 3 else None
    only(engine_for(server))
    bodies = [request.body for request in server.requests]
    assert len(bodies) == 3 and bodies[0] == bodies[1] == bodies[2]


def test_greedy_requests_suit_servers_that_refuse_a_top_p_of_one(server):
    """Text Generation Inference takes a top_p between 0 and 1, both excluded, or none."""
    said = {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"}
    server.fault = lambda *_: Refusal(422, body=said) if server.requests[-1].body.get("top_p", 0.5) >= 1 else None
    completion = only(engine_for(server), params=GREEDY)
    assert completion.error is None and server.requests[-1].body["temperature"] == 0


@pytest.mark.parametrize(
    ("found", "means"),
    [
        *((found, "stop") for found in ("stop", "eos_token", "stop_sequence", "eos", "STOP", "stop_token", "end_turn")),
        *((found, "length") for found in ("length", "max_tokens", "MAX_TOKENS")),
        *((found, "unknown") for found in (None, "", "something new", 7)),
    ],
)
def test_a_text_is_kept_whatever_is_said_of_its_end(server, tmp_path, found, means):
    server.choice = lambda body: {"finish_reason": found}
    journal = Journal(tmp_path / "journal.sqlite")
    for _ in range(2):
        (completion,) = ask(engine_for(server), ["why"], journal=journal)
        assert (completion.text, completion.error, completion.finish_reason) == (reply_to("why"), None, means)
    assert len(server.requests) == 1


def test_an_answer_without_all_that_the_protocol_has(server):
    message = {"content": reply_to("why"), "reasoning_content": "Let me see.", "refusal": None}
    server.fault = lambda *_: Refusal(200, body={"choices": [{"message": message}]})
    assert only(engine_for(server)).text == reply_to("why")


def test_a_text_that_fills_the_limit_is_cut_off_where_nothing_is_said(server):
    server.choice = lambda body: {"finish_reason": None, "usage": {"completion_tokens": 64}}
    assert only(engine_for(server)).finish_reason == "length"


def test_a_content_of_parts(server):
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Because."}]
    server.choice = lambda body: {"message": {"role": "assistant", "content": parts}}
    assert only(engine_for(server)).text == "Because."


def test_an_error_in_the_body_of_a_good_status_shows_the_servers_words(server):
    said = {"message": "Provider \x1b[31mreturned error", "code": 502}
    server.fault = lambda *_: Refusal(200, body={"error": said})
    completion = only(engine_for(server, max_tries=2))
    assert completion.error == "engine_error: an error in place of an answer: Provider [31mreturned error"
    assert len(server.requests) == 2


@pytest.mark.parametrize("usage", [{"prompt_tokens": "3", "completion_tokens": -1}, {"prompt_tokens": 3.5}, []])
def test_odd_counts_end_no_run(server, usage):
    server.choice = lambda body: {"usage": usage}
    completion = only(engine_for(server))
    assert completion.text == reply_to("why") and completion.n_tokens == 0
    assert completion.n_prompt_tokens == (3 if usage and usage["prompt_tokens"] == "3" else 0)


def test_an_error_in_a_choice_is_tried_again(server):
    failed = {"finish_reason": "stop", "message": {"content": ""}, "error": {"message": "upstream gone", "code": 502}}
    server.choice = lambda body: failed if len(server.requests) == 1 else {}
    assert only(engine_for(server)).text == reply_to("why")
    server.choice = lambda body: {"finish_reason": "network_error"}
    assert only(engine_for(server, max_tries=2)).error == "engine_error: finish reason network_error"
    assert len(server.requests) == 4


def test_a_quota_that_is_used_up_ends_the_run(server):
    server.fault = lambda *_: Refusal(
        429, body={"error": {"code": "insufficient_quota", "message": "You exceeded it."}}
    )
    with pytest.raises(HfEvolError, match="quota is used up"):
        ask(engine_for(server), [f"prompt {i}" for i in range(20)])
    assert len(server.requests) <= 20


# What servers take, and what they make of it


class Strict:
    """A server that takes some fields alone, and refuses others as one of these does."""

    BASE = {"messages", "model", "stream", "max_tokens", "temperature", "top_p", "seed"}

    def __init__(
        self, server, *more, name=lambda others: f"Unexpected fields in the request: {set(others)}", status=422
    ):
        self.server, self.taken, self.name, self.status = server, self.BASE | set(more), name, status
        server.fault = self

    def __call__(self, prompt, attempt):
        others = sorted(self.server.requests[-1].body.keys() - self.taken)
        return Refusal(self.status, body={"detail": self.name(others)}) if others else None


def test_a_request_switches_off_what_servers_add(server):
    """Those of vLLM, SGLang and llama.cpp; for transformers serve, which would be greedy, a whole configuration."""
    for params, samples in ((GREEDY, False), (SamplingParams(0.7, 0.95, 8), True)):
        only(engine_for(server), params=params)
        body = server.requests[-1].body
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0, 1)
        assert body["presence_penalty"] == body["frequency_penalty"] == 0
        assert body["samplers"] == ["temperature", "top_p"]
        own = json.loads(body["generation_config"])
        assert own["do_sample"] is samples and (own["top_k"], own["min_p"], own["repetition_penalty"]) == (0, 0, 1)


def test_fields_that_transformers_serve_refuses_are_left_out(server, caplog):
    Strict(server, "generation_config", "presence_penalty", "frequency_penalty")
    engine = engine_for(server)
    engine.check()
    assert ask(engine, ["a", "b"])[1].text == reply_to("b")
    assert len(server.requests) == 4 and not caplog.messages and engine.notes == []  # it can be had all the same


@pytest.mark.parametrize(
    "name",
    [
        lambda others: f"Unrecognized request argument supplied: {others[0]}",
        lambda others: [{"type": "extra_forbidden", "loc": ["body", other], "msg": "Extra inputs"} for other in others],
        lambda others: "Bad request.",
    ],
    ids=["one at a time", "all at once", "without a name"],
)
def test_what_a_strict_server_cannot_be_had_to_do_is_said_once(server, caplog, name):
    Strict(server, name=name, status=400)
    engine = engine_for(server)
    engine.check()
    assert len(server.requests) <= 8
    before = len(server.requests)
    assert not any(completion.error for completion in ask(engine, ["a", "b"]))
    assert len(server.requests) == before + 2
    (note,) = engine.notes
    assert note.startswith("It takes no top_k, min_p, repetition_penalty, ")
    assert caplog.messages == [f"{server.url}, tiny: {note}"]


def test_a_top_k_that_is_refused_by_a_server_that_ignores_other_fields_is_said(server):
    said = {"error": "top_k must be between 1 and 100"}
    server.fault = lambda *_: Refusal(400, body=said) if "top_k" in server.requests[-1].body else None
    engine = engine_for(server)
    engine.check()
    assert engine.notes == ["It takes no top_k, so what it does there is its own affair."]


def test_a_seed_that_is_refused_is_left_out_and_said(server):
    Strict(server, *PLAIN).taken.remove("seed")
    engine = engine_for(server)
    engine.check()
    assert engine.notes == ["It takes no seed, so what it does there is its own affair."]


def test_a_top_p_of_one_that_is_refused_is_left_out(server):
    said = {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"}
    server.fault = lambda *_: Refusal(422, body=said) if server.requests[-1].body.get("top_p", 0.5) >= 1 else None
    assert only(engine_for(server), params=SamplingParams(0.7, 1.0, 8)).error is None
    assert only(engine_for(server), params=SamplingParams(0.7, 0.9, 8)).error is None
    assert [request.body.get("top_p") for request in server.requests] == [1.0, None, 0.9]


def test_models_that_take_the_limit_under_its_newer_name(server):
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    body = {"error": {"message": said, "param": "max_tokens", "code": "unsupported_parameter"}}
    server.fault = lambda *_: Refusal(400, body=body) if "max_tokens" in server.requests[-1].body else None
    for _ in range(2):
        assert only(engine_for(server)).error is None
    assert [request.body.get("max_completion_tokens") for request in server.requests] == [None, 64, 64]


def test_a_refusal_that_is_about_one_row_changes_no_other_request(server):
    engine = engine_for(server)
    engine.check()
    server.fault = lambda prompt, attempt: 400 if prompt == "bad" else None
    ask(engine, ["a", "bad", "b"])
    assert server.attempts["bad"] == 1 and all("top_k" in request.body for request in server.requests)


def test_a_server_that_does_not_sample_is_found_out(server, caplog):
    engine = engine_for(server)
    engine.check(GREEDY)
    assert len(server.requests) == 1 and not caplog.messages
    engine.check(SamplingParams(temperature=0.3))
    assert len(server.requests) == 3 and len({request.body["seed"] for request in server.requests}) == 3
    (note,) = engine.notes
    assert "greedy" in note and caplog.messages == [f"{server.url}, tiny: {note}"]


def test_a_server_that_samples_is_not_suspected(server):
    server.choice = lambda body: {"message": {"role": "assistant", "content": f"Number {body['seed']}."}}
    engine = engine_for(server)
    engine.check(SamplingParams(temperature=0.3))
    assert engine.notes == []


def test_only_texts_at_a_top_p_of_one_tell_whether_a_server_samples(server):
    """A small top-p is greedy on any server, and of a reasoning model there may be no text yet."""
    server.choice = lambda body: {"message": {"content": f"{body['seed'] if body.get('top_p') == 1 else 'Same'}"}}
    engine = engine_for(server)
    engine.check(SamplingParams(temperature=0.3, top_p=0.05))
    server.choice = lambda body: {"message": {"content": None}, "finish_reason": "length"}
    endpoint._compare_seeds.cache_clear()
    engine.check(SamplingParams(temperature=0.3))
    assert len(server.requests) == 5 and engine.notes == []


ONE = {"object": "model", "owned_by": "llamacpp"}


@pytest.mark.parametrize(
    ("listed", "fine"),
    [
        (["tiny"], True),
        (["/models/tiny.gguf"], True),
        (["tiny:latest"], True),
        (["other"], False),
        (["/models/tiny-Q4_K_M.gguf"], False),
        (["gpt-4o", "gpt-4o-mini"], True),  # such a server looks at the name
        ([], True),
        (None, True),
    ],
)
def test_the_name_must_be_that_of_a_server_with_one_model(server, listed, fine):
    server.models = listed and [ONE | {"id": name} for name in listed]
    if fine:
        assert only(engine_for(server)).error is None
        return
    with pytest.raises(ConfigError, match=f"has no model 'tiny'; it has '{listed[0]}'"):
        only(engine_for(server))
    assert server.requests == []


@pytest.mark.parametrize("entry", [{"id": "other", "status": {"value": "unloaded"}}, {"name": "other"}, {"id": None}])
def test_a_server_that_loads_models_by_name_or_gives_none_is_asked_for_any(server, entry):
    server.models = [ONE | entry]
    assert only(engine_for(server)).error is None


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 input tokens"),
        (400, {"code": 400, "message": "request (20031 tokens) exceeds the available context size (2048 tokens)",
               "type": "exceed_context_size_error"}),
        (400, {"message": "Please reduce the length of the messages.", "code": "context_length_exceeded"}),
        (400, "The input (4000 tokens) is longer than the model's context length (2048 tokens)."),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 4000 `inputs` tokens"),
        (400, "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"),
    ],
    ids=["vLLM", "llama.cpp", "OpenAI", "SGLang", "TGI", "Mistral"],
)  # fmt: skip
def test_a_prompt_that_does_not_fit_has_a_status_of_its_own(server, status, said):
    server.fault = lambda prompt, attempt: Refusal(status, body={"error": said}) if prompt == "long" else None
    long, other = ask(engine_for(server), ["long", "why"])
    assert long.error.startswith(f"too_long: HTTP {status}: ") and long.finish_reason == "error"
    assert other.text == reply_to("why") and server.attempts["long"] == 1


def test_a_prompt_that_can_t_be_sent_is_an_error_of_its_row(server):
    lone, other = ask(engine_for(server), ["half a pair: \ud800", "why"])
    assert lone.error.startswith("engine_error: ") and other.text == reply_to("why")


def test_equal_requests_are_sent_once(server):
    done = ask(engine_for(server), ["why", "how", "why"], keys=["greedy"] * 3)
    assert [completion.text for completion in done] == [reply_to("why"), reply_to("how"), reply_to("why")]
    assert sorted(server.prompts) == ["how", "why"]


@pytest.mark.parametrize(
    "content",
    [None, [], [None], [{}], [{"token": "a", "top_logprobs": None}], [{"token": "a", "top_logprobs": []}],
     [{"token": "a", "logprob": float("nan"), "top_logprobs": [{"token": "a", "logprob": float("nan")}]}]],
    ids=repr,
)  # fmt: skip
def test_odd_log_probabilities_cost_themselves_alone(server, content):
    server.choice = lambda body: {"logprobs": {"content": content}}
    completion = only(engine_for(server), params=SamplingParams(top1_probs=2))
    assert (completion.text, completion.error, completion.top1_probs) == (reply_to("why"), None, None)


@pytest.mark.parametrize("found", ["content_filter", "tool_calls"])
def test_texts_that_are_not_the_models_are_errors(server, found):
    server.choice = lambda body: {"finish_reason": found}
    completion = only(engine_for(server))
    assert completion.error == f"engine_error: finish reason {found}"
    assert completion.text == "" and len(server.requests) == 1


def test_counts_of_tokens(server):
    completion = only(engine_for(server))
    assert (completion.n_prompt_tokens, completion.n_tokens) == (7, len(reply_to("why").split()) - 1)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": None, "completion_tokens": None}])
def test_no_counts_of_tokens(server, usage):
    server.choice = lambda body: {"usage": usage}
    completion = only(engine_for(server))
    assert completion.text == reply_to("why") and (completion.n_prompt_tokens, completion.n_tokens) == (0, 0)


def test_null_content_is_an_empty_text(server):
    server.choice = lambda body: {"message": {"role": "assistant", "content": None}}
    completion = only(engine_for(server))
    assert (completion.text, completion.error, completion.finish_reason) == ("", None, "stop")


PROBS = [{"a": 0.75, "b": 0.25}, {"a": 0.125, "b": 0.5}, {"c": 0.875, "a": 0.0625}]
TOP1 = SamplingParams(max_new_tokens=3, top1_probs=2)


def says_of(sampled, sampled_first=False):
    """A server that samples these tokens and lists the most probable ones, as many as asked for."""

    def choice(body):
        content = []
        for token, probs in zip(sampled, PROBS, strict=True):
            ranked = sorted(probs, key=probs.get, reverse=True)
            listed = list(dict.fromkeys([token, *ranked])) if sampled_first else ranked
            shown = [{"token": t, "logprob": math.log(probs[t])} for t in listed[: body["top_logprobs"]]]
            content.append({"token": token, "logprob": math.log(probs[token]), "top_logprobs": shown})
        return {"logprobs": {"content": content}}

    return choice


def test_probabilities_of_the_most_probable_tokens(server):
    server.choice = says_of("aac")
    assert only(engine_for(server), params=TOP1).top1_probs == pytest.approx([0.75, 0.5])
    assert server.requests[0].body["logprobs"] is True and server.requests[0].body["top_logprobs"] >= 1


def test_probabilities_where_the_sampled_token_comes_first(server):
    """vLLM lists the sampled token before the most probable ones and cuts that list to the length asked for."""
    server.choice = says_of("bac", sampled_first=True)
    assert only(engine_for(server), params=TOP1).top1_probs == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize(
    ("reason", "said", "expected"),
    [("stop", 8, 7), ("eos_token", 1, 0), ("stop", 0, 0), ("length", 8, 8), ("odd", 8, 8)],
)
def test_the_end_token_is_not_counted_as_generated(server, reason, said, expected):
    server.choice = lambda body: {"finish_reason": reason, "usage": {"completion_tokens": said}}
    assert only(engine_for(server)).n_tokens == expected


@pytest.mark.parametrize("said", [None, {}, {"content": None}, {"content": []}])
def test_servers_that_do_not_tell_probabilities(server, said):
    server.choice = lambda body: {"logprobs": said}
    completion = only(engine_for(server), params=TOP1)
    assert completion.error is None and completion.text == reply_to("why") and not completion.top1_probs
