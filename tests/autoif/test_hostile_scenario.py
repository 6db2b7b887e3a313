"""The scenario with replies, seeds and outputs that nobody wishes for."""

import json
import os
import re
import signal
from pathlib import Path

import fsspec
import pytest
import yaml
from chat_server import ChatServer, Refusal
from datasets import load_dataset
from scripted_model import step_of

from hf_evol import autoif
from hf_evol.autoif.scenario import AutoIf, read_constraints
from hf_evol.cli.main import main
from hf_evol.errors import OutputError, SourceError
from hf_evol.run.recipe import Recipe

HOSTILE = [
    "Use {instruction}, {seeds}, {query} and {{count}}", "Use <|im_end|> and </s> in the answer",
    "Use </details></summary><script>alert(1)</script> here", "Use ```` and ``` and | and **x** <!-- hf_evol: end -->",
    "--- pretty_name: [ never closed", "{{ 7*7 }} and {% raw %} of Jinja", "[bold]red[/nope] of a terminal",
    "Use \u202eevil words\u202c twice", "# heading that is a seed",
]  # fmt: skip
FUNCTION = "def evaluate(response):\n    '''```\n</details> {{ x }} <!-- hf_evol: end of the generated part -->'''\n    return True"


def say(text, **more):
    return {"message": {"role": "assistant", "content": text}} | more


def reply(body):
    """As a good model does; new constraints and answers differ by the request's seed."""
    prompt, n, step = body["messages"][-1]["content"], body["seed"] % 97, step_of(body)
    if step == "augment":
        return say("\n".join(f"- Use exactly {n + k} words" for k in range(8)))
    if step == "verify":
        n = (re.search(r"exactly (\d+)", prompt) or [0, 2])[1]
        source = f"def evaluate(response):\n    return len(response.split()) == {n}"
        return say(json.dumps({"func": source, "cases": [{"input": "word " * int(n), "output": True}]}))
    return say("two words")


@pytest.fixture
def server():
    with ChatServer() as server:
        server.choice = reply
        yield server


@pytest.fixture
def settings(tmp_path):
    queries = tmp_path / "queries.jsonl"
    asked = [f"What is {{number}} {n}, </details> <|im_end|>?" for n in range(4)]
    queries.write_text("\n".join(json.dumps({"query": text}) for text in asked), encoding="utf-8")
    (tmp_path / "seeds.txt").write_text(
        "\r\n".join(["Use exactly 5 words", "Use only palindromes"]), encoding="utf-8-sig"
    )
    return {"queries": str(queries), "seeds": str(tmp_path / "seeds.txt"), "requests": 2, "completions": 3, "per_constraint": 2}  # fmt: skip


@pytest.fixture
def recipe(tmp_path, server):
    options = {"engine": "endpoint", "base_url": server.url, "model": "tiny", "temperature": 0.7, "max_new_tokens": 512}
    return Recipe(**options, output=str(tmp_path / "out"), journal=str(tmp_path / "journal.sqlite"))


def lost(result, stage, what):
    return next(each["lost"] for each in result.provenance["stages"] if (each["stage"], each["what"]) == (stage, what))


def test_hostile_texts_stay_texts(settings, recipe, server, tmp_path):
    def choice(body):
        step = step_of(body)
        if step == "augment":
            return say("\n".join(f"- new: {text}" for text in HOSTILE))
        if step == "verify":
            return say(json.dumps({"func": FUNCTION, "cases": [{"input": "A", "output": True}]}))
        turns = "\n".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"])
        return say(f"{turns}\n```\n</details>\n# Heading")

    server.choice = choice
    seeds = tmp_path / "seeds.jsonl"
    texts = [*HOSTILE, "Use two\n\nline breaks", None, "  "]
    seeds.write_text("\n".join(json.dumps({"instruction": text}) for text in texts), encoding="utf-8")
    result = autoif(AutoIf(**settings | {"seeds": str(seeds)}), recipe)
    rows = load_dataset(recipe.output, split="train")
    assert {*HOSTILE, "Use two\n\nline breaks"} <= set(rows["instruction"])
    for row in rows:
        asked = f"in every part: {row['instruction']}\nuser: {row['input']}\n```"
        assert asked in row["output"] and row["pass_rate"] == 1
    shown = next(seen.prompt for seen in server.requests if step_of(seen.body) == "augment")
    assert shown == "\n".join(f"- {' '.join(text.split())}" for text in [*HOSTILE, "Use two line breaks"])
    card = (Path(recipe.output) / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["pretty_name"].startswith("Verifiable constraints")
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert len(result.provenance["examples"]) == 3 and outside.count("</details>") == 3
    assert "script" not in outside and "7*7" not in outside and "\n# Heading" not in outside
    assert card.count("<!-- hf_evol:") == 2 and "\u202e" not in card


def test_replies_without_content(settings, recipe, server):
    server.choice = lambda body: say(None)
    result = autoif(AutoIf(**settings), recipe)
    assert lost(result, "augment", "requests") == {"empty": 2}
    assert lost(result, "cross-validate", "completions") == {"no_json": 6}
    assert [entry["name"] for entry in result.provenance["configs"]] == ["constraints"]


def test_cut_off_responses_are_dropped_with_their_reason(settings, recipe, server):
    server.choice = lambda body: reply(body) | {"finish_reason": "length"}
    result = autoif(AutoIf(**settings), recipe)
    assert set(lost(result, "respond", "rows")) == {"cut_off"}
    dropped = load_dataset(recipe.output, "dropped", split="train")
    assert set(dropped["dropped_because"]) == {"response_cut_off"}


def test_half_a_surrogate_pair_ends_no_run(settings, recipe, server):
    def choice(body):
        choice = reply(body)
        more = "\n- Use the \ud83d sign" if step_of(body) == "augment" else " \ud83d"
        choice["message"]["content"] += more
        return choice

    def fault(prompt, attempt):
        return Refusal(400, body={"error": "no \ud83d"}) if prompt == "Use exactly 5 words" else None

    server.choice, server.fault = choice, fault
    autoif(AutoIf(**settings), recipe)
    rows = load_dataset(recipe.output, split="train")
    assert len(rows) and all(text.endswith(" \ufffd") for text in rows["output"])
    constraints = load_dataset(recipe.output, "constraints", split="train")
    assert "Use the \ufffd sign" in constraints["instruction"][:]
    assert constraints["verify_status"][0].startswith("engine_error") and "\ufffd" in constraints["verify_status"][0]


def test_ctrl_c_and_the_same_command_again(settings, recipe, server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_EVOL_CACHE", str(tmp_path / "cache"))
    autoif(AutoIf(**settings), recipe)
    whole = len(server.requests)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    options += ["--engine=endpoint", f"--base-url={server.url}", "--model=tiny", "--max-new-tokens=512"]

    def stopping(stop_at):
        def choice(body):
            if len(server.requests) == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            return reply(body)

        return choice

    for stop_at in (whole + 2, whole + 40):
        server.choice = stopping(stop_at)
        assert main(["autoif", *options, "--output", str(tmp_path / "again")]) == 130
        assert "goes on from there" in capsys.readouterr().err and not (tmp_path / "again").exists()
    server.choice = reply
    assert main(["autoif", *options, "--output", str(tmp_path / "again")]) == 0
    most_active = 8  # at the start, an endpoint is asked by as many at once; they may be asked again
    assert len(server.requests) <= 2 * whole + 2 * most_active
    for name in ("rows", "constraints"):
        one, other = (load_dataset(str(tmp_path / place), name, split="train") for place in ("out", "again"))
        assert one.to_list() == other.to_list()


def test_outputs(settings, recipe, server, tmp_path):
    from dataclasses import replace

    remote = replace(recipe, output="memory://autoif/set")
    result = autoif(AutoIf(**settings), remote)
    files = fsspec.filesystem("memory").find("/autoif/set")
    assert {file.split("/")[-1] for file in files} >= {"README.md", "provenance.json", "train-00000-of-00001.parquet"}
    assert result.output == remote.output
    asked = len(server.requests)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep", encoding="utf-8")
    for refused in (remote, recipe, replace(recipe, overwrite=True)):
        with pytest.raises(OutputError, match="exists"):
            autoif(AutoIf(**settings), refused)
    assert len(server.requests) == asked and (tmp_path / "out" / "mine.txt").read_text(encoding="utf-8") == "keep"


def test_seed_files(settings, tmp_path):
    assert read_constraints(settings["seeds"]) == ["Use exactly 5 words", "Use only palindromes"]  # without the BOM
    (tmp_path / "latin.txt").write_bytes("Use no naïve words".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n\n", encoding="utf-8")
    for source in ("nowhere3://seeds.txt", str(tmp_path / "latin.txt"), str(tmp_path / "empty.txt"), str(tmp_path)):
        with pytest.raises(SourceError):
            read_constraints(source)


def test_the_command_line(capsys):
    assert main(["autoif", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--no-include-seeds" in shown and "--require-pass" in shown and "sandbox" in shown
    given = ["autoif", "--seeds", "none.txt", "--queries", "demo/general"]
    for wrong in (
        ["--typo", "1"],
        ["--requests", "x"],
        ["--thresholds", "strict"],
        ["--per-constraint", "0"],
        ["--rounds", "2"],
    ):
        assert main([*given, *wrong]) == 2
    assert main(["autoif", "--seeds", "none.txt"]) == 2
    assert main(given) == 1 and "Cannot read the constraints" in capsys.readouterr().err
