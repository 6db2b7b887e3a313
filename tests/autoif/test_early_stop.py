"""A model that can't do a step is noticed before all of it is asked, and nothing else changes."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from chat_server import ChatServer
from datasets import load_dataset
from scripted_model import step_of

from hf_evol import autoif
from hf_evol.autoif import scenario
from hf_evol.autoif.augment import Augment, augment_requests, new_constraints
from hf_evol.autoif.scenario import AutoIf
from hf_evol.cli.main import main
from hf_evol.errors import HfEvolError, ModelError
from hf_evol.prompts.autoif import python_block
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import engine_of

FIRST = 8  # constraints that are asked for before the others
USELESS = "- The function returns True if it is short\n- Be good\n- Write exactly three paragraphs"


def say(text):
    return {"message": {"role": "assistant", "content": text}}


def useful(body):
    prompt, step = body["messages"][-1]["content"], step_of(body)
    if step == "augment":
        return say(f"- Use exactly {body['seed'] % 9973} words\n- Be good")
    if step == "verify":
        n = int((re.search(r"exactly (\d+)", prompt) or [0, 2])[1]) % 97 + 1
        source = f"def evaluate(response):\n    return len(response.split()) == {n}"
        return say(python_block(source, [("word " * n, True), ("word " * (n + 1), False)]))
    return say("two words")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(scenario, "_FIRST_CONSTRAINTS", FIRST)
    with ChatServer() as server:
        server.choice = useful
        yield server


@pytest.fixture
def make(tmp_path, server):
    """Runs with so many seeds; nothing is remembered."""
    (tmp_path / "queries.jsonl").write_text(
        "\n".join(json.dumps({"query": f"What is the number {n} good for?"}) for n in range(4)), encoding="utf-8"
    )
    recipe = Recipe(
        engine="endpoint", base_url=server.url, model="tiny", temperature=0.7, max_new_tokens=512,
        output=str(tmp_path / "out"), journal=False,
    )  # fmt: skip

    def make(n_seeds, **more):
        seeds = tmp_path / "seeds.txt"
        seeds.write_text("\n".join(f"Use exactly {n} words" for n in range(10_000, 10_000 + n_seeds)), encoding="utf-8")
        given = {"requests": 2, "completions": 3, "per_constraint": 1} | more
        return AutoIf(str(seeds), str(tmp_path / "queries.jsonl"), **given), recipe

    return make


def asked(server, step):
    """How often what was asked of a step, by text and sampling seed; nothing may be twice."""
    seen = [seen.body for seen in server.requests if step_of(seen.body) == step]
    times = Counter((body["messages"][-1]["content"], body["seed"]) for body in seen)
    assert set(times.values()) <= {1}
    return len(seen)


def stage(result, name):
    return next(stage for stage in result.provenance["stages"] if stage["stage"] == name)


def test_no_new_constraint_in_the_first_requests(make, server, capsys):
    server.choice = lambda body: say(USELESS) if step_of(body) == "augment" else useful(body)
    settings, recipe = make(3, requests=20)
    result = autoif(settings, recipe)
    assert (asked(server, "augment"), asked(server, "verify")) == (8, 9)
    found = stage(result, "augment")
    assert (found["given"], found["left"], found["lost"]) == (20, 8, {"not_asked": 12})
    assert stage(result, "clean")["lost"] == {"about_the_check": 8, "too_short": 8, "example": 8}
    rows = load_dataset(recipe.output, split="train")
    assert rows["instruction"][:] == [f"Use exactly {n} words" for n in (10_000, 10_001, 10_002)]
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("tiny "))
    assert "asked 8 times" in line and "about_the_check 8" in line and "12 requests" in line and "seeds alone" in line


def test_no_new_constraint_and_no_seeds(make, server, tmp_path):
    server.choice = lambda body: say(USELESS if body["seed"] % 2 else "I'm sorry, but I can't help with that.")
    settings, recipe = make(3, requests=20, include_seeds=False)
    with pytest.raises(ModelError) as raised:
        autoif(settings, replace(recipe, journal=str(tmp_path / "journal.sqlite")))
    message = str(raised.value)
    assert (
        "tiny was asked 8 times for 50 new constraints" in message and "refusal " in message and "too_short " in message
    )
    assert "12 requests" in message and "larger model" in message and "in the journal" in message
    assert isinstance(raised.value, HfEvolError) and asked(server, "augment") == 8 and asked(server, "verify") == 0
    with pytest.raises(ModelError) as raised:
        autoif(replace(settings, requests=1), recipe)
    assert "asked 1 times" in str(raised.value) and "journal" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("requests", [8, 9])
def test_all_requests_are_made_where_one_line_is_of_use(make, server, requests):
    settings, recipe = make(1, requests=requests, include_seeds=False)
    engine = engine_of(recipe, recipe.model)
    augment = Augment(
        engine, seeds=("Use exactly 10000 words",), count=50, max_new_tokens=512, journal=False, seed=recipe.seed
    )
    replies = augment(augment_requests(requests).to_dict())
    made, reasons = new_constraints(replies["constraints"], augment.seeds)
    server.requests.clear()
    result = autoif(settings, recipe)
    constraints = load_dataset(recipe.output, "constraints", split="train")
    assert constraints.select_columns(["id", "instruction"]).to_list() == made.to_list()
    assert asked(server, "augment") == requests == len(made) and asked(server, "verify") == 3 * requests
    assert stage(result, "augment")["lost"] == {} and stage(result, "clean")["lost"] == dict(reasons)


def test_one_usable_line_in_the_last_of_the_first_requests(make, server):
    kept = []

    def choice(body):
        if step_of(body) != "augment":
            return useful(body)
        kept.append(body["seed"])
        return useful(body) if len(kept) == 8 else say(USELESS)

    server.choice = choice
    settings, recipe = make(1, requests=20)
    assert stage(autoif(settings, recipe), "clean")["left"] == 1 and asked(server, "augment") == 20


def test_what_a_server_refuses_says_nothing_of_the_model(make, server):
    """Whether it is asked for constraints or for functions."""
    server.fault = lambda prompt, attempt: 400 if prompt.startswith(("-", "Use")) else None
    settings, recipe = make(12, requests=20)
    result = autoif(settings, recipe)
    assert stage(result, "augment")["lost"] == {"engine_error": 20}
    assert stage(result, "verify")["lost"] == {"engine_error": 12}
    assert len(load_dataset(recipe.output, "constraints", split="train")) == 12


def no_functions(body):
    if step_of(body) != "verify":
        return useful(body)
    wrong = python_block("def evaluate(response):\n    return response", [("a", True)])
    return say(wrong if body["seed"] % 2 else "I would look at the words.")


def test_no_function_for_the_first_constraints(make, server, tmp_path):
    server.choice = no_functions
    settings, recipe = make(12)
    with pytest.raises(ModelError) as raised:
        autoif(settings, recipe)
    assert (asked(server, "augment"), asked(server, "verify")) == (2, 3 * FIRST)
    message = str(raised.value)
    assert "tiny was asked for functions that check 8 constraints, 3 times each" in message
    counts = {name: int(n) for name, n in re.findall(r"(\w+) (\d+)[,)]", message)}
    assert counts["no_json"] + counts["function_inaccurate"] + counts["function_repeated"] == 3 * FIRST
    assert counts["too_few_cases"] + counts["too_few_functions"] == FIRST
    assert "other 6 constraints" in message and "larger model" in message and "journal" not in message
    assert "thresholds" not in message and not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="thresholds"):
        autoif(replace(settings, thresholds="autoif"), recipe)


def test_functions_that_always_say_no_check_nothing(make, server):
    def no(body):
        if step_of(body) != "verify":
            return useful(body)
        source = f"def evaluate(response):\n    return response == {str(body['seed'])!r}"
        return say(python_block(source, [("A short text.", False), (f"Text {body['seed']}", False)]))

    server.choice = no
    with pytest.raises(ModelError, match="keep a function that tells answers apart"):
        autoif(*make(12))
    assert asked(server, "verify") == 3 * FIRST


def test_no_more_than_the_first_constraints_are_a_set_as_before(make, server):
    server.choice = no_functions
    settings, recipe = make(FIRST - 2)
    autoif(settings, recipe)
    assert asked(server, "verify") == 3 * FIRST
    constraints = load_dataset(recipe.output, "constraints", split="train")
    assert len(constraints) == FIRST and "ok" not in constraints["constraint_status"][:]


def test_one_kept_of_the_first_constraints_and_all_are_asked(make, server, tmp_path, monkeypatch):
    server.choice = lambda body: useful(body) if "10007" in body["messages"][-1]["content"] else no_functions(body)
    settings, recipe = make(12)
    result = autoif(settings, recipe)
    assert asked(server, "verify") == 3 * 14
    found = load_dataset(recipe.output, "constraints", split="train")
    names = [f"seed-{n}" for n in range(12)] + ["constraint-0", "constraint-1"]
    assert found["id"][:] == names and [n for n, status in enumerate(found["constraint_status"]) if status == "ok"] == [
        7
    ]
    monkeypatch.setattr(scenario, "_FIRST_CONSTRAINTS", 1000)
    monkeypatch.setattr(scenario, "_FIRST_REQUESTS", 1000)
    whole = autoif(settings, replace(recipe, output=str(tmp_path / "whole")))
    assert whole.provenance["stages"] == result.provenance["stages"]
    for name in ("rows", "constraints"):
        one, other = (load_dataset(str(tmp_path / place), name, split="train") for place in ("out", "whole"))
        assert one.to_list() == other.to_list() and one.features == other.features


def test_on_the_command_line(make, server, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_EVOL_CACHE", str(tmp_path / "cache"))
    server.choice = no_functions
    settings, recipe = make(12)
    options = [f"--seeds={settings.seeds}", f"--queries={settings.queries}", "--per-constraint=1", "--requests=1"]
    options += ["--engine=endpoint", f"--base-url={server.url}", "--model=tiny", f"--output={recipe.output}"]
    assert main(["autoif", *options]) == 1
    asked_before = len(server.requests)
    assert "Error: tiny was asked for functions" in capsys.readouterr().err
    assert main(["autoif", *options]) == 1
    assert (
        len(server.requests) <= asked_before + 1 and "in the journal" in capsys.readouterr().err
    )  # whether anyone is there
