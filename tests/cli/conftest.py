"""The command line, called in a folder of its own."""

from __future__ import annotations

import json

import pytest
from talkative import make_talkative
from tiny_models import build_llama, build_tokenizer

from hf_evol.cli.main import main


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Help in whole lines, whatever terminal was there when typer was first asked for it."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 300)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Each test in a folder of its own, on a terminal wide enough for whole messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.fixture
def seed_file(here):
    rows = [{"instruction": f"Write a poem about {what}.", "output": "An answer."} for what in ("sea", "a {x}", "owls")]
    (here / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "seeds.jsonl"


@pytest.fixture
def call(capsys):
    """Run the command; gives its exit code and all it said."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def wide_model(tmp_path_factory, monkeypatch):
    """A tiny model whose context holds the prompts, and whose tokens are read as instructions."""
    make_talkative(monkeypatch)
    folder = tmp_path_factory.mktemp("models") / "wide"
    build_llama(context=2048).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)
