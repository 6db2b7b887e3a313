"""No secret in recipe, card, provenance, journal, log or message: a secret in every setting and variable, and a search of all
that is written, said and sent."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import logging
import re
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from chat_server import ChatServer, Refusal
from hub_server import TOKEN, HubServer
from talkative import make_talkative

from hf_evol.cli.main import entry_point
from hf_evol.errors import ConfigError, HfEvolError
from hf_evol.generation import endpoint
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.hub.card import as_yaml
from hf_evol.hub.provenance import shareable
from hf_evol.models import ModelSpec
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages
from hf_evol.secrets import without_secrets

MARK = "NobodyMaySee"  # in every secret; those of the local Hub have it, too
KEYS = {
    "OPENAI_API_KEY": f"sk-proj-OpenAi{MARK}",
    "SERVER_AUTH": f"TheServersOwn{MARK}",
    "DB_PASSWORD": f"OfTheBase{MARK}",
}
MODELS = [entry.name for entry in dataclasses.fields(Recipe) if "dict" in entry.type and entry.name != "columns"]
OF_MODELS = sorted(
    {entry.name for kind in (ModelSpec, EndpointEngine) for entry in dataclasses.fields(kind)} | {"engine", "unknown"}
)
TEXTS = [entry.name for entry in dataclasses.fields(Recipe) if re.search("str|dict|list", entry.type)]


def secret(place: str) -> str:
    """A token that tells where it was planted."""
    return f"hf_{re.sub('[^A-Za-z0-9]', '', place)}That{MARK}"


def found(text: str | bytes) -> list[str]:
    """The secrets in a text, with what is around them."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [text[max(0, match.start() - 60) : match.end() + 10] for match in re.finditer(rf"\w*{MARK}", text)]


def found_in(folder) -> list[str]:
    """The secrets in the files of a folder, and in their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [f"{path.name}: {text}" for path in files for text in found(path.read_bytes())]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_EVOL_CACHE", str(tmp_path / "cache"))
    make_talkative(monkeypatch)
    endpoint._probe.cache_clear()
    monkeypatch.setattr(endpoint, "LONGEST_WAIT_S", 0.01)
    rows = [{"prompt": f"Write a poem about {what}.", "output": "An answer."} for what in ("sea", "a {x}", "owls")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hub-cache")
        monkeypatch.setattr("datasets.config.USE_PARQUET_EXPORT", False)
        yield server


@pytest.fixture
def server():
    """Refuses a request in three, and repeats what it was sent."""
    with ChatServer() as server:
        server.fault = lambda prompt, attempt: (
            echo(server) if prompt != "Hello" and len(server.requests) % 3 == 0 else None
        )
        yield server


def echo(server, status=400):
    sent = {name.lower(): value for name, value in server.requests[-1].headers.items()}
    return Refusal(status, body={"error": {"message": f"no: {sent['authorization']}"}})


@pytest.fixture
def site(here):
    """The address of the rows, with a password and a token."""
    handler = type("Handler", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=here)) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://me:Password{MARK}@127.0.0.1:{http.server_port}/rows.jsonl?token=Query{MARK}&file=rows.jsonl"
        http.shutdown()


@pytest.fixture
def call(monkeypatch, capfd):
    """The command as it is installed; gives its exit code and all that was said."""

    def run(*arguments):
        with monkeypatch.context() as patch:
            for name in ("stdout", "stderr"):
                patch.setattr(sys, name, getattr(sys, name))  # which the command replaces
            patch.setattr(logging.getLogger("hf_evol"), "handlers", [])
            patch.setattr("signal.signal", lambda *_: None)
            patch.setattr(sys, "argv", ["hf-evol", *map(str, arguments)])
            try:
                entry_point()
            except SystemExit as exit_:
                code = exit_.code
            except Exception as error:  # as the interpreter shows it
                sys.excepthook(type(error), error, error.__traceback__)
                code = "traceback"
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


def test_a_run_shows_none(here, hub, server, site, call, wide_model):
    """One whose server refuses some requests, and that is pushed all the same."""
    answers = {"name": "served", "engine": "endpoint", "base_url": server.url, "api_key_env": "SERVER_AUTH"}
    loading = {"attn_implementation": "eager", "cache_dir": f"/tmp/{MARK}"}
    settings = {
        "dataset": site, "columns": {"prompt": "instruction"}, "config": secret("config"), "revision": secret("revision"),
        "model": {"name": wide_model, "revision": secret("model"), "loading": loading}, "responder": answers,
        "scorer": wide_model, "response_system": f"Be brief; my token is {secret('response_system')}.",
        "license": secret("license"), "rounds": 1, "max_new_tokens": 24, "journal": "journal.sqlite", "output": "set",
        "file_format": "json", "push_to": "user/set",
    }  # fmt: skip
    (here / "mine.yaml").write_text(yaml.safe_dump(settings))
    code, said = call("run", "--recipe", "mine.yaml")
    assert code == 1 and "no: Bearer ***" in said and "is not pushed" in said
    assert KEYS["SERVER_AUTH"] in server.requests[0].sent and TOKEN in hub.tokens
    assert not found(said)
    code, said = call("push", "set", "user/set")
    assert code == 0 and not found(said)
    assert not found_in(here / "set")
    assert not [leak for file in here.glob("journal.sqlite*") for leak in found(file.read_bytes())]
    published = hub.repos["dataset", "user/set"].commits[-1]
    assert published.files["README.md"] and not found(repr(published))
    shown = json.loads((here / "set" / "provenance.json").read_text())["recipe"]
    assert shown["model"]["loading"] == {"attn_implementation": "eager"}


def test_stages_show_none(here, server, site, call, wide_model):
    remote = [
        "--engine",
        "endpoint",
        "--base-url",
        server.url,
        "--api-key-env",
        "SERVER_AUTH",
        "--journal",
        "journal.sqlite",
    ]
    rows = ["--columns", "prompt=instruction", "--file-format", "json", "--rounds", "1"]
    code, said = call("evolve", "--dataset", site, *rows, *remote, "--model", secret("model"), "--output", "evolved")
    assert code in (0, 1) and not found(said), said
    code, said = call(
        "respond",
        "--dataset",
        "evolved",
        *remote,
        "--model",
        "x",
        "--response-system",
        secret("system"),
        "--file-format",
        "json",
        "--output",
        "b",
    )
    assert code in (0, 1) and not found(said), said
    server.fault = lambda prompt, attempt: echo(server, 500)
    endpoint._probe.cache_clear()
    code, said = call(
        "respond", "--dataset", "evolved", *remote, "--model", "y", "--file-format", "json", "--output", "c"
    )
    assert code == 1 and "Bearer ***" in said and not found(said), said
    assert not [leak for name in ("evolved", "b", "c") for leak in found_in(here / name)]
    assert not [leak for file in here.glob("journal.sqlite*") for leak in found(file.read_bytes())]


def test_a_study_and_autoif_show_none(here, server, site, call, monkeypatch):
    monkeypatch.setattr(importlib.import_module("hf_evol.study.study"), "draw", lambda *_: [])  # which takes seconds
    remote = [
        "--engine",
        "endpoint",
        "--base-url",
        server.url,
        "--api-key-env",
        "SERVER_AUTH",
        "--journal",
        "journal.sqlite",
    ]
    evolvers = [
        "--evolver",
        f"a={{name: a, revision: {secret('evolver')}}}",
        "--evolver",
        "b=b",
        "--responder",
        "c",
        "--judge",
        "c",
    ]
    rows = ["--dataset", site, "--columns", "prompt=instruction", "--rounds", "1", "--file-format", "json"]
    code, said = call("study", *rows, *remote, *evolvers, "--output", "failed", "--embedding", "none")
    assert code == 2 and "unknown settings: 'revision'" in said and not found(said), said
    evolvers[1] = "a=a"
    code, said = call("study", *rows, *remote, *evolvers, "--output", "study", "--embedding", "none")
    assert code in (0, 1) and "no: Bearer ***" in said and not found(said) and not found_in(here / "study"), said
    (here / "seeds.txt").write_text("Use only capital letters")
    few = ["--requests", "1", "--completions", "1", "--per-constraint", "1"]
    given = [
        "--seeds",
        "seeds.txt",
        "--queries",
        site,
        "--model",
        "x",
        *remote,
        *few,
        "--output",
        "autoif",
        "--license",
        secret("l"),
    ]
    code, said = call("autoif", *given, "--file-format", "json")
    assert code in (0, 1) and not found(said) and not found_in(here / "autoif"), said


FAILING = {
    **{name: ["run", f"--{name.replace('_', '-')}", secret(name), "--dry-run"] for name in TEXTS},
    "output": ["run", "--output", secret("output")],
    "push_to": ["run", "--push-to", secret("push_to")],
    "a number": ["run", "--rounds", secret("rounds")],
    "an unknown option": ["run", f"--{secret('option')}", "1"],
    "an argument": ["run", secret("argument")],
    "a command": [secret("command")],
    "a recipe": ["run", "--recipe", secret("recipe")],
    "an executor's option": ["run", "--executor", "local", "--executor-option", f"{secret('name')}={secret('value')}"],
    "half an option": ["run", "--executor", "local", "--executor-option", secret("half")],
    "a script's option": [
        "run",
        "--executor",
        "slurm",
        *(f"--executor-option={option}" for option in ("time=1", "partition=a", f"qos={secret('qos')}")),
    ],
    "a store": ["run", "--dataset", f"ftp://me:Password{MARK}@127.0.0.1:1/rows.jsonl"],
    "a site": ["run", "--dataset", f"http://127.0.0.1:1/rows?api_key=Query{MARK}&f=rows.jsonl"],
    "an output": ["run", "--dataset", "rows.jsonl", "--output", f"ftp://me:Password{MARK}@127.0.0.1:1/set"],
    "a work folder": [
        "run",
        "--dataset",
        "rows.jsonl",
        "--executor",
        "local",
        "--work-folder",
        f"memory://me:Pass{MARK}@x/w",
    ],
    "a server": ["run", "--engine", "endpoint", "--base-url", f"http://me:Password{MARK}@127.0.0.1:1/v1"],
    "a server without a scheme": ["run", "--engine", "endpoint", "--base-url", f"me:Password{MARK}@127.0.0.1:1/v1"],
    "the key itself": [
        "run",
        "--engine",
        "endpoint",
        "--base-url",
        "http://127.0.0.1:1/v1",
        "--api-key-env",
        f"own{MARK}",
    ],
    "a card": ["card", f"ftp://me:Password{MARK}@127.0.0.1:1/set"],
    "a push": ["push", secret("folder"), "user/set"],
}


def test_failures_show_none(here, hub, call, wide_model):
    hub.fail_next("/api/", 403)
    (here / secret("output")).write_text("There already.")
    usual = {
        "dataset": "rows.jsonl",
        "columns": "prompt=instruction",
        "model": wide_model,
        "scorer": wide_model,
        "limit": 1,
    }
    usual |= {"max-new-tokens": 4, "response-max-new-tokens": 4, "rounds": 1, "journal": "false"}
    leaks = {}
    for place, arguments in FAILING.items():
        usual["output"] = f"out-{len(leaks)}"
        more = [f"--{name}={value}" for name, value in usual.items() if f"--{name}" not in arguments]
        code, said = call(*arguments, *(more if arguments[0] == "run" else ()))
        leaks[place] = found(said)
        assert said and (code in (1, 2) or (code == 0 and "--dry-run" in arguments)), (place, said)
    assert not {place: leak for place, leak in leaks.items() if leak}


def test_an_error_that_nobody_expected_shows_none(here, call, monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("hf_evol.run.pipeline"), "load_seeds", lambda *_, **__: {}[KEYS["DB_PASSWORD"]]
    )
    code, said = call("select", "--dataset", "rows.jsonl")
    assert code == "traceback" and "KeyError: '***'" in said and not found(said)


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(Recipe)])
def test_no_value_of_a_wrong_type_is_shown_if_it_may_hold_more(name):
    for value in ({"login": MARK}, [MARK]):
        try:
            shown = as_yaml(Recipe(**{name: value}).for_card())
        except ConfigError as error:
            shown = str(error)
        assert not found(shown) or name in ("columns", "methods")  # whose words are published


@pytest.mark.parametrize("name", OF_MODELS)
@pytest.mark.parametrize("engine", ["transformers", "endpoint"])
def test_no_setting_of_a_model_shows_one(name, engine):
    for value in (secret(name), {"token": MARK}, {"proxies": {"https": MARK}}, [MARK], json.dumps({"api_key": MARK})):
        for role in MODELS:
            recipe = Recipe(engine=engine, **{role: {"name": "x", name: value}})
            assert not found(as_yaml(shareable({"recipe": recipe.for_card()})))
            with contextlib.suppress(HfEvolError):
                Stages.of(recipe)
                continue
            with pytest.raises(HfEvolError) as caught:
                Stages.of(recipe)
            assert not found(str(caught.value))


SHOWN = {
    "GET https://me:hunter2@host/rows?token=abc&page=2": "GET https://***@host/rows?token=***&page=2",
    "https://bucket.host/x?X-Amz-Signature=0f&sig=1&v=2": "https://bucket.host/x?X-Amz-Signature=***&sig=***&v=2",
    "{'Authorization': 'Basic bWU6aHVudGVyMg==', 'api_key': 'hunter22'}": "{'Authorization': 'Basic ***', 'api_key': '***'}",
    "sent Bearer 0123456789abcdef": "sent Bearer ***",
    f"hf_{34 * 'x'}, sk-proj-{20 * 'x'}, ghp_{36 * 'x'} and AKIAIOSFODNN7EXAMPLE": "***, ***, *** and ***",
    "password: hunter22": "password: ***",
}
ORDINARY = [
    "Unexpected token: '<|endoftext|>'", "max_new_tokens must be 1 or more; got 0.", "hf_hub_download failed",
    "Set OPENAI_API_KEY, the API key of the server.", "risk-averse-but-otherwise-quite-rational", "hf://datasets/me/rows@main/a.json",
    "https://host/a@b.json?page=2", "Unknown key: instruction", "git@host",
]  # fmt: skip


def test_secrets_are_told_by_their_form():
    assert {text: without_secrets(text) for text in SHOWN} == SHOWN
    assert [without_secrets(text) for text in (*ORDINARY, *SHOWN.values())] == [*ORDINARY, *SHOWN.values()]


def test_secrets_are_told_by_their_value(hub, monkeypatch):
    from huggingface_hub import constants

    values = {
        "THE_API_KEY": "short1",
        "X_TOKEN_FILE": __file__,
        "MAX_TOKENS": "1000000",
        "THE_SECRET": "two\nlines",
        "KEYBOARD": "querty",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).parent.mkdir()
    Path(constants.HF_TOKEN_PATH).write_text("of-no-known-form-at-all")
    Path(constants.HF_STORED_TOKENS_PATH).write_text("[other]\nhf_token = another-of-no-known-form\n")
    said = f"short1 {__file__} 1000000 lines querty of-no-known-form-at-all another-of-no-known-form"
    assert without_secrets(said) == f"*** {__file__} 1000000 lines querty *** ***"
    assert without_secrets({"a": ["short1", 1], "token": "x"}) == {"a": ["***", 1], "token": "***"}


def test_a_model_is_loaded_with_no_token_of_its_own():
    with pytest.raises(ConfigError, match=r"loading must not hold a token.*hf auth login"):
        ModelSpec("x", loading={"token": "abc"})
