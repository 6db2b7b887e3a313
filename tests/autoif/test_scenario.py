import json
from dataclasses import replace
from pathlib import Path

import pytest
import scripted_model
from chat_server import ChatServer
from datasets import Dataset, load_dataset
from hub_server import HubServer

from hf_evol import autoif
from hf_evol.autoif.scenario import AutoIf, read_constraints
from hf_evol.cli.main import main
from hf_evol.errors import ConfigError, SourceError
from hf_evol.run.recipe import Recipe

SEEDS = ["Write the whole answer in capital letters", "Use exactly 5 words", "Use only palindromes"]


@pytest.fixture
def server():
    with ChatServer() as server:
        server.choice = scripted_model.reply
        yield server


def settings_in(folder):
    seeds, queries = folder / "seeds.txt", folder / "queries.jsonl"
    seeds.write_text("\n".join([*SEEDS, "", SEEDS[0]]), encoding="utf-8")
    asked = [f"What can you tell me about the number {n}, {{really}}?" for n in range(20)]
    queries.write_text("\n".join(json.dumps({"query": text}) for text in ["short", *asked, asked[0]]), encoding="utf-8")
    return {"seeds": str(seeds), "queries": str(queries), "requests": 6, "completions": 3, "per_constraint": 4}


def recipe_in(folder, server):
    options = {"engine": "endpoint", "base_url": server.url, "model": "tiny", "temperature": 0.7, "max_new_tokens": 512}
    return Recipe(**options, output=str(folder / "out"), journal=str(folder / "journal.sqlite"))


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path)


@pytest.fixture
def recipe(tmp_path, server):
    return recipe_in(tmp_path, server)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run: its folder, its server, which goes on, its result, and how many requests it made."""
    folder = tmp_path_factory.mktemp("run")
    with ChatServer() as server:
        server.choice = scripted_model.reply
        result = autoif(AutoIf(**settings_in(folder)), recipe_in(folder, server))
        yield folder, server, result, len(server.requests)


def stages_of(result):
    return {(stage["stage"], stage["what"]): stage for stage in result.provenance["stages"]}


def test_everything_is_accounted_for(run):
    _, _, result, n_requests = run
    rows = load_dataset(result.output, split="train")
    stages = stages_of(result)
    for stage in stages.values():
        assert stage["given"] - stage["left"] == sum(stage["lost"].values())
    constraints = load_dataset(result.output, "constraints", split="train")
    new = stages["clean", "lines"]["left"]
    assert len(constraints) == stages["verify", "constraints"]["given"] == len(SEEDS) + new
    kept = [row for row in constraints if row["constraint_status"] == "ok"]
    assert len(rows) == 4 * len(kept) == stages["check", "rows"]["given"]
    assert sum(rate == 1 for rate in rows["pass_rate"]) == stages["check", "rows"]["left"]
    assert all(row["functions"] and len(row["functions"]) == len(row["accuracies"]) for row in rows)
    assert not any("os.open" in source or "subprocess" in source for row in rows for source in row["functions"])
    assert stages["queries", "user queries"]["lost"] == {"too_short": 1, "repeated": 1}
    assert stages["cross-validate", "completions"]["lost"]["no_json"] > 0
    probe = 1 + 2  # whether anyone is there, and whether two seeds give two texts
    assert n_requests == probe + 6 + 3 * len(constraints) + 4 * len(kept)


def test_a_response_passes_where_its_own_rule_says_so(run):
    rows = load_dataset(run[2].output, split="train").filter(
        lambda row: row["instruction"].startswith("Use exactly") and len(row["functions"]) == 1
    )
    assert len(rows) > 8
    for row in rows:
        n = int(row["instruction"].split()[2])
        assert row["pass_rate"] == float(len(row["output"].split()) == n)


def test_a_second_run_asks_nothing_and_gives_the_same_save_what_is_not_passed(run):
    folder, server, first, n_requests = run
    rows = load_dataset(first.output, split="train")
    again = replace(recipe_in(folder, server), output=str(folder / "again"))
    result = autoif(AutoIf(**settings_in(folder), require_pass=1.0), again)
    assert len(server.requests) == n_requests
    constraints = [load_dataset(made.output, "constraints", split="train").to_list() for made in (first, result)]
    assert constraints[0] == constraints[1]
    kept, dropped = (load_dataset(again.output, name, split="train") for name in ("rows", "dropped"))
    assert kept.to_list() == [row for row in rows if row["pass_rate"] == 1.0]
    assert set(dropped["dropped_because"]) == {"not_passed"} and len(kept) + len(dropped) == len(rows)
    stage = stages_of(result)["require_pass", "rows"]
    assert (stage["given"], stage["left"]) == (len(rows), len(kept))


def test_a_server_that_refuses_everything_leaves_reasons(settings, recipe, server):
    server.fault = lambda prompt, attempt: None if prompt == "Hello" else 400
    result = autoif(AutoIf(**settings), recipe)
    stages = stages_of(result)
    assert stages["augment", "requests"]["lost"] == {"engine_error": 6}
    assert stages["verify", "constraints"]["lost"] == {"engine_error": len(SEEDS)}
    assert stages["check", "rows"]["given"] == 0
    assert "No row was made" in (Path(recipe.output) / "README.md").read_text()


def test_on_the_command_line(settings, recipe, server, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_EVOL_CACHE", str(tmp_path / "cache"))
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    given = [
        "autoif",
        *options,
        "--engine=endpoint",
        f"--base-url={server.url}",
        "--model=tiny",
        f"--output={recipe.output}",
    ]
    assert main([*given, "--require-pass=0.5"]) == 0
    shown = capsys.readouterr().out
    assert "cross-validate" in shown and "README.md" in shown
    assert main([*given, "--overwrite", "--thresholds", "autoif"]) == 1  # which asks for more cases than there are
    assert "too_few_cases 32" in capsys.readouterr().err
    assert main(["card", recipe.output, "--diff"]) == 0
    assert "The card would not change." in capsys.readouterr().out


def test_requests_that_failed_keep_a_set_from_being_pushed(settings, recipe, server, capsys, monkeypatch, tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    options += ["--engine=endpoint", f"--base-url={server.url}", "--model=tiny", f"--output={recipe.output}"]
    server.fault = lambda prompt, attempt: 400 if "the number 1" in prompt else None
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "hub-cache")
        assert main(["autoif", *options, "--license=mit", "--push-to=user/set", f"--journal={recipe.journal}"]) == 1
        assert ("dataset", "user/set") not in hub.repos
    said = capsys.readouterr()
    n = len(load_dataset(recipe.output, "dropped", split="train"))
    assert f"Requests failed for {n} rows. Most often: engine_error: HTTP 400" in said.out
    assert "is not pushed" in said.err


def test_wrong_settings_are_refused_before_any_request(settings, recipe, server, tmp_path):
    for wrong, kind, message in (
        ({"thresholds": "none"}, ConfigError, "paper or autoif"),
        ({"requests": 0}, ConfigError, "requests must be 1"),
        ({"require_pass": 2}, ConfigError, "from 0 to 1"),
        ({"per_constraint": 21}, ConfigError, "20 usable queries are too few"),
        ({"seeds": str(tmp_path / "none.txt")}, SourceError, "Cannot read the constraints"),
        ({"queries": str(tmp_path / "none.jsonl")}, SourceError, "none.jsonl"),
    ):
        with pytest.raises(kind, match=message):
            autoif(AutoIf(**settings | wrong), recipe)
    with pytest.raises(ConfigError, match="temperature must be over 0"):
        autoif(AutoIf(**settings), replace(recipe, temperature=0.0))
    assert not server.requests


def test_constraints_from_a_dataset(tmp_path):
    Dataset.from_list([{"instruction": text} for text in SEEDS]).to_json(tmp_path / "seeds.jsonl")
    assert read_constraints(str(tmp_path / "seeds.jsonl")) == SEEDS
