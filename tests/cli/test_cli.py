from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from datasets import Dataset, load_dataset

import hf_evol
from hf_evol.cli.options import recipe_options, took
from hf_evol.progress import Time
from hf_evol.run.recipe import Recipe

COMMANDS = [
    "run",
    "evolve",
    "eliminate",
    "respond",
    "score",
    "select",
    "card",
    "push",
    "recipe",
    "metric",
    "metric install",
    "recipe trl",
    "recipe llama-factory",
    "recipe lighteval",
]
SHORT = ["--max-new-tokens", "8"]
SHORT_RESPONSES = ["--response-max-new-tokens", "8"]


pytestmark = pytest.mark.usefixtures("here")


def as_typed(value):
    return " ".join(value) if isinstance(value, list) else ""


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(call, command):
    code, said = call(*command.split(), "--help")
    assert code == 0
    assert "Usage:" in said
    shown = set(re.findall(r"--[a-z-]+", said))
    if command == "run":
        assert {"--" + name.replace("_", "-") for name in Recipe.__dataclass_fields__} <= shown
        assert {"--recipe", "--dry-run"} <= shown
        assert "[default:" in said  # not read as a style
    if not command:
        assert all(name in said for name in COMMANDS[:10])


@pytest.mark.parametrize(
    ("command", "temperature"), [("self-instruct", 0.7), ("autoif", 0.7), ("optimize", 0.7), ("evolve", 0.0)]
)
def test_help_shows_the_commands_own_defaults(call, command, temperature):
    said = call(command, "--help")[1]
    assert re.search(r"(?s)--temperature .*?\[default: ([\d.]+)\]", said)[1] == str(temperature)


def test_options_go_before_the_recipe_file_and_both_before_a_commands_own_defaults(here):
    """Also where the file says what is the default of other commands."""
    found = []

    @recipe_options("temperature", "top_p", "seed", temperature=0.7, top_p=0.5)
    def command(recipe: Recipe) -> None:
        found.append((recipe.temperature, recipe.top_p, recipe.seed))

    (here / "own.yaml").write_text("temperature: 0.0\nseed: 3\n")
    nothing = dict.fromkeys(("temperature", "top_p", "seed"))
    command(recipe=None, **nothing)
    command(recipe="own.yaml", **nothing)
    command(recipe="own.yaml", **nothing | {"temperature": 0.2, "top_p": 0.95})
    assert found == [(0.7, 0.5, 0), (0.0, 0.5, 3), (0.2, 0.95, 3)]


def test_the_short_help_flag_works(call):
    assert call("-h")[0] == call("run", "-h")[0] == 0


def test_our_progress_bars_stay_when_those_of_libraries_go():
    code = (
        "import hf_evol.cli.options as o, huggingface_hub.utils as h; o.quiet(); print(h.are_progress_bars_disabled())"
    )
    for setting, off in ((None, "False"), ("1", "True")):
        env = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
        env |= {"HF_HUB_DISABLE_PROGRESS_BARS": setting} if setting else {}
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert out.stdout.strip() == off


def test_the_version_is_shown(call):
    assert call("--version") == (0, f"hf-evol {hf_evol.__version__}\n")


def test_help_is_quick():
    code = (
        "import sys; from hf_evol.cli.main import main;"
        "codes = [main(words.split()) for words in ('--help', 'run --help', '--version', 'run --typo')];"
        "print(codes, [name for name in ('torch', 'datasets', 'transformers', 'pandas') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[0, 0, 0, 2] []"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["run", "--typo"], "No such option: --typo"),
        (["run", "--dry-run", "extra"], "unexpected extra argument"),
        (["score", "--rounds", "2"], "No such option: --rounds"),
        (["run", "--rounds", "two"], "valid integer"),
        (["run", "--temperature", "warm"], "valid number"),
        (["run", "--rounds"], "--rounds"),
        (["push", "folder"], "Missing argument"),
        (["run", "--model", "{name: x"], "not a mapping"),
        (["run", "--push-to", "me/set"], "--dataset"),
    ],
    ids=as_typed,
)
def test_wrong_usage_exits_with_2(call, arguments, said):
    code, output = call(*arguments)
    assert code == 2
    assert said in output
    assert "Traceback" not in output


def test_no_command_shows_the_help(call):
    code, said = call()
    assert code == 2
    assert "Usage:" in said


WRONG_SETTINGS = [
    (["--rounds", "0"], "rounds must be 1 or more; got 0"),
    (["--tries", "0"], "tries must be 1 or more; got 0"),
    (["--temperature", "-1"], "temperature must be 0 (greedy) or more; got -1.0"),
    (["--top-p", "0"], "top_p must be over 0"),
    (["--max-new-tokens", "0"], "max_new_tokens must be 1 or more"),
    (["--response-max-new-tokens", "0"], "max_new_tokens must be 1 or more"),
    (["--response-temperature", "-1"], "temperature must be 0 (greedy) or more; got -1.0"),
    (["--methods", "nothing"], "Unknown method 'nothing'"),
    (["--dtype", "float8"], "dtype must be"),
    (["--file-format", "xml"], "parquet, json, arrow; got 'xml'"),
    (["--recipe", "nothing"], "Built-in recipes: alpaca, code_alpaca, from_scratch, gsm8k"),
    (["--model", "{name: x, revison: 3}"], "unknown settings"),
    (["--select", "1.5"], "1.5"),
    (["--select", "0"], "select"),
    (["--select-by", "nothing"], "nothing"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG_SETTINGS, ids=as_typed)
def test_wrong_settings_exit_with_2_before_a_model_is_loaded(
    call, here, tiny_model, seed_file, monkeypatch, arguments, said
):
    monkeypatch.setattr("hf_evol.models.load_model", lambda spec: pytest.fail("a model was loaded"))
    code, output = call("run", "--dataset", seed_file, "--model", tiny_model, "--output", "out", *arguments)
    assert code == 2
    assert said in output
    assert "Traceback" not in output
    assert [path.name for path in here.iterdir()] == [seed_file]


def test_a_model_on_a_server_can_not_score(call):
    code, said = call(
        "score", "--model", "{name: x, engine: endpoint, base_url: http://localhost:9/v1}", "--output", "out"
    )
    assert code == 2 and "An endpoint gives no losses to score by" in said


def test_a_recipe_with_an_unknown_key_exits_with_2(call, here):
    (here / "mine.yaml").write_text("modle: x\n")
    code, said = call("run", "--recipe", "mine.yaml")
    assert code == 2
    assert "Unknown recipe setting 'modle'" in said


def test_a_format_that_does_not_fit_exits_with_2(call, tiny_model, seed_file):
    code, said = call("run", "--dataset", seed_file, "--format", "gsm8k", "--model", tiny_model, "--output", "out")
    assert code == 2
    assert "needs the column question, answer or response" in said


@pytest.mark.parametrize("command", ["run", "evolve", "respond", "score", "select"])
def test_missing_seeds_exit_with_1(call, here, tiny_model, command):
    model = [] if command == "select" else ["--model", tiny_model]
    code, said = call(command, "--dataset", "nothing.jsonl", "--output", "out", *model)
    assert code == 1
    assert "Error: Cannot load the seed set 'nothing.jsonl'" in said
    assert list(here.iterdir()) == []


def test_a_missing_model_exits_with_1(call, here, seed_file):
    model = str(here / "no" / "such" / "model")
    code, said = call("run", "--dataset", seed_file, "--model", model, "--output", "out")
    assert code == 1
    assert "no/such/model" in said
    assert not (here / "out").exists()


def test_a_model_without_chat_template_names_the_option(call, seed_file, bos_model):
    arguments = ["run", "--dataset", seed_file, "--model", bos_model, "--output", "out", "--dry-run"]
    code, said = call(*arguments)
    assert code == 2
    assert "--chat-template" in said
    code, said = call(*arguments, "--chat-template", "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert (code, "3 rows" in said) == (0, True)


@pytest.mark.parametrize("command", ["run", "evolve", "respond", "score"])
def test_an_existing_output_exits_with_1_and_names_the_option(call, here, tiny_model, seed_file, command):
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("mine")
    code, said = call(command, "--dataset", seed_file, "--model", tiny_model, "--output", "out")
    assert code == 1
    assert "--overwrite" in said
    assert [path.name for path in (here / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", [["card", "nothing"], ["push", "nothing", "me/set"]], ids=" ".join)
def test_a_missing_set_exits_with_1(call, command):
    code, said = call(*command)
    assert code == 1
    assert "'nothing' holds no finished set" in said


def test_rows_without_a_score_exit_with_1(call, seed_file):
    code, said = call("select", "--dataset", seed_file, "--select", "1", "--output", "out")
    assert code == 1
    assert "'ic_ifd'" in said
    assert "'instruction'" in said


def test_a_score_that_is_no_number_exits_with_1(call, here):
    (here / "rows.jsonl").write_text('{"id": "a-0", "instruction": "x"}\n')
    code, said = call("select", "--dataset", "rows.jsonl", "--select-by", "instruction", "--output", "out")
    assert code in (1, 2)
    assert "'instruction'" in said


def test_a_dry_run_shows_the_plan_and_writes_nothing(call, here, tiny_model, seed_file):
    arguments = [
        "--dataset",
        seed_file,
        "--model",
        tiny_model,
        "--rounds",
        "2",
        "--methods",
        "gsm8k",
        "--output",
        "out",
    ]
    code, said = call("run", "--dry-run", *arguments)
    assert code == 0
    assert "seeds.jsonl: 3 rows, 2 rounds, methods constraint, deepen, concretize, reasoning\n" in said
    assert "at most 54 requests" in said
    tokens = int(re.search(r"([\d,]+) prompt tokens", said)[1].replace(",", ""))
    assert tokens > 3 * 50
    assert "output: out (parquet)" in said
    assert [path.name for path in here.iterdir()] == [seed_file]


@pytest.mark.parametrize("preset", ["science", "writing", "multilingual"])
def test_presets_are_planned_and_what_they_need_is_said(call, tiny_model, seed_file, monkeypatch, preset):
    arguments = ["run", "--dataset", seed_file, "--model", tiny_model, "--methods", preset, "--dry-run"]
    if preset == "multilingual":
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda name: None)
            code, said = call(*arguments)
            assert code == 1 and "pip install 'hf_evol[multilingual]'" in said
        pytest.importorskip("py3langid")
    code, said = call(*arguments)
    assert code == 0 and "methods constraint, deepen, concretize, reasoning, breadth\n" in said


def test_steps_that_a_command_does_not_take_are_named(call, here, caplog, wide_model, seed_file):
    (here / "mine.yaml").write_text(
        f"dataset: {seed_file}\nmodel: {wide_model}\nself_instruct: 5\nback_translate: 1\nmax_new_tokens: 24\n"
    )
    assert call("evolve", "--recipe", "mine.yaml", "--output", "a")[0] == 0
    assert "Ignored of the recipe: self_instruct, back_translate." in caplog.text
    caplog.clear()
    assert call("back-translate", "--recipe", "mine.yaml", "--output", "b")[0] == 0
    assert "Ignored of the recipe: self_instruct." in caplog.text
    assert json.loads((here / "b" / "provenance.json").read_text())["stages"][0]["settings"]["max_constraints"] == 1


def test_a_dry_run_without_seeds_covers_the_bundled_sets(call, here, tiny_model):
    code, said = call("run", "--dry-run", "--model", tiny_model, "--limit", "2")
    assert code == 0
    assert [f"demo/{name}: 2 rows" in said for name in ("general", "code")] == [True] * 2
    assert list(here.iterdir()) == []


def test_options_come_before_the_recipe_file(call, here, tiny_model, seed_file):
    (here / "mine.yaml").write_text(f"dataset: {seed_file}\nmodel: {tiny_model}\nrounds: 2\nlimit: 2\n")
    code, said = call("run", "--recipe", "mine.yaml", "--rounds", "1", "--dry-run")
    assert code == 0
    assert "seeds.jsonl: 2 rows, 1 rounds" in said


def test_the_stages_chain(call, wide_model, seed_file):
    model = ["--model", wide_model]
    code, said = call("evolve", "--dataset", seed_file, *model, *SHORT, "--rounds", "2", "--output", "evolved")
    assert (code, "3 rows in evolved" in said, "Last round: ok 3" in said) == (0, True, True)
    assert re.search(r"^Evolve: \d+ s, \d+ tokens, [\d,]+ tokens/s$", said, re.MULTILINE)
    code, said = call("eliminate", "--dataset", "evolved", "--keep", "--output", "flagged")
    assert (code, "3 rows in flagged" in said) == (0, True)
    code, said = call(
        "respond", "--dataset", "flagged", *model, *SHORT_RESPONSES, "--output", "answered", "--file-format", "json"
    )
    assert (code, "3 rows in answered" in said, "Responses: ok 3" in said) == (0, True, True)
    code, said = call("score", "--dataset", "answered", *model, "--output", "scored", "--file-format", "arrow")
    assert (code, "3 rows in scored" in said, "Status: " in said) == (0, True, True)
    assert re.search(r"^Score: \d+ s$", said, re.MULTILINE)
    code, said = call("select", "--dataset", "scored", "--select", "2", "--select-by", "n_tokens_q", "--output", "best")
    assert (code, "2 rows in best" in said) == (0, True)

    evolved, scored, best = (load_dataset(folder, split="train") for folder in ("evolved", "scored", "best"))
    assert scored["id"][:] == evolved["id"][:] == ["seeds-0", "seeds-1", "seeds-2"]
    assert scored["round"][:] == [2, 2, 2]
    assert all(isinstance(text, str) for text in scored["output"])
    lengths = dict(zip(scored["id"], scored["n_tokens_q"], strict=True))
    expected = sorted(lengths, key=lambda row_id: (-lengths[row_id], row_id))[:2]
    assert best["id"][:] == sorted(expected)


def test_eliminate_drops_failed_rows_and_repeats(call, here):
    parent, evolved = "Name two rivers.", "Name two rivers of Africa that flow to the Atlantic Ocean."
    rows = {
        "instruction": [evolved, evolved, parent, "x " * 200], "parent_instruction": [parent] * 4,
        "evol_status": ["ok", "ok", "unchanged", "ok"], "id": [f"a-{n}" for n in range(4)],
    }  # fmt: skip
    Dataset.from_dict(rows).to_parquet("rows.parquet")
    code, said = call("eliminate", "--dataset", "rows.parquet", "--output", "kept")
    assert (code, "1 rows in kept" in said) == (0, True)
    assert all(f"{reason} 1" in said for reason in ("duplicate", "not_evolved", "blow_up"))
    assert load_dataset("kept", split="train")["id"][:] == ["a-0"]
    assert call("eliminate", "--dataset", "rows.parquet", "--keep", "--max-growth", "0", "--output", "all")[0] == 0
    flags = load_dataset("all", split="train")["elimination"][:]
    assert flags == ["kept", "duplicate", "not_evolved", "kept"]


def test_rows_whose_evolution_failed_are_not_answered(call, tiny_model, here):
    Dataset.from_dict({"instruction": ["Name a river.", "Name a lake."], "evol_status": ["ok", "leak"]}).to_parquet(
        "r.parquet"
    )
    source = ["--dataset", "r.parquet", "--model", tiny_model]
    code, said = call("respond", *source, *SHORT_RESPONSES, "--output", "answered")
    assert (code, "not_evolved 1" in said) == (0, True)
    assert load_dataset("answered", split="train")["response_status"][1] == "not_evolved"


def test_evolving_an_evolved_set_goes_on_from_its_round(call, wide_model, seed_file):
    model = ["--model", wide_model]
    for source, rounds, output in ((seed_file, "2", "whole"), (seed_file, "1", "first"), ("first", "1", "second")):
        assert call("evolve", "--dataset", source, *model, *SHORT, "--rounds", rounds, "--output", output)[0] == 0
    whole, second = (load_dataset(name, split="train").to_list() for name in ("whole", "second"))
    assert whole == second and whole[0]["round"] == 2 and whole[0]["evol_status"] == "ok"


def test_a_selection_by_threshold_lowest_and_group(call, here):
    rows = {"id": [f"a-{i}" for i in range(5)], "score": [0.1, 0.9, 0.5, 0.7, None], "round": [1, 1, 2, 2, 2]}
    Dataset.from_dict(rows).to_parquet("rows.parquet")

    def selected(output, *options):
        code, _ = call("select", "--dataset", "rows.parquet", "--select-by", "score", "--output", output, *options)
        assert code == 0
        return load_dataset(output, split="train")["id"][:]

    assert selected("a", "--threshold", "0.5") == ["a-1", "a-2", "a-3"]
    assert selected("b", "--threshold", "0.5", "--lowest") == ["a-0", "a-2"]
    assert selected("c", "--select", "1", "--per", "round") == ["a-1", "a-3"]
    assert selected("d", "--select", "1", "--lowest") == ["a-0"]
    assert selected("e", "--threshold", "0.5", "--select", "1") == ["a-1"]
    assert selected("f") == ["a-1"]


def test_a_stage_replaces_its_own_earlier_result_on_request(call, tiny_model, seed_file):
    arguments = ["score", "--dataset", seed_file, "--model", tiny_model, "--output", "out"]
    assert call(*arguments)[0] == 0
    assert call(*arguments)[0] == 1
    code, said = call(*arguments, "--overwrite", "--limit", "2")
    assert (code, "2 rows in out" in said) == (0, True)


def test_a_limit_beyond_the_rows_takes_all(call, tiny_model, seed_file):
    code, said = call("score", "--dataset", seed_file, "--model", tiny_model, "--limit", "99", "--output", "out")
    assert (code, "3 rows in out" in said) == (0, True)


def test_a_set_without_instructions_exits_with_1_and_says_how_to_convert(call, here, tiny_model):
    (here / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    code, said = call("respond", "--dataset", "rows.jsonl", "--model", tiny_model, "--output", "out")
    assert code == 1
    assert "'instruction' not found" in said
    assert "to_instructions" in said
    assert not (here / "out").exists()


def test_an_empty_seed_file_exits_with_1(call, here, tiny_model):
    (here / "empty.jsonl").write_text("")
    code, said = call("run", "--dataset", "empty.jsonl", "--model", tiny_model, "--output", "out")
    assert code == 1
    assert "empty.jsonl" in said


def test_an_interruption_names_the_journal(call, monkeypatch, tiny_model, seed_file):
    from hf_evol.run import pipeline

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "plan", interrupted)
    code, said = call("run", "--dataset", seed_file, "--model", tiny_model, "--dry-run")
    assert code == 130
    assert "journal" in said


def test_a_plan_says_what_of_the_seeds_can_be_read(call, here, tiny_model, caplog):
    call_ = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    rows = [
        {"conversations": json.dumps([{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}])},
        {
            "conversations": json.dumps(
                [{"role": "user", "content": "And?"}, {"role": "assistant", "tool_calls": call_}]
            )
        },
        {"conversations": json.dumps([{"from": "gpt\x1b[2J", "value": "Hm."}])},
    ]
    (here / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ("--model", tiny_model)
    code, said = call("run", "--dataset", "chats.jsonl", "--dry-run", *model)
    assert code == 0 and "chats.jsonl: 3 rows, 1 rounds" in said
    assert "1 of 3 rows can be read; of the others: tool_call 1, odd_turns 1." in caplog.text + said
    assert "\x1b[2J" not in caplog.text + said
    (here / "none.jsonl").write_text(json.dumps(rows[1]) + "\n")
    code, said = call("run", "--dataset", "none.jsonl", *model, "--output", "out")
    assert (
        code == 2 and "No row of 'none.jsonl' can be read. 0 of 1 rows can be read; of the others: tool_call 1." in said
    )
    assert not (here / "out").exists()


def test_columns_are_named_on_the_command_line(call, here, tiny_model):
    (here / "rows.csv").write_text("task,solution\nWhy?,So.\n")
    code, said = call("run", "--dataset", "rows.csv", "--dry-run", "--model", tiny_model)
    assert code == 2 and "--columns yours=instruction" in said
    options = ("--columns", "task=instruction, solution=output")
    code, said = call("run", "--dataset", "rows.csv", "--dry-run", "--model", tiny_model, *options)
    assert code == 0 and "rows.csv: 1 rows" in said
    code, said = call("run", "--dataset", "rows.csv", "--dry-run", "--model", tiny_model, "--columns", "task")
    assert code == 2 and "'task' is not OLD=NEW" in said


def test_what_stages_took_is_told_by_stage():
    times = [
        Time("Evolve, round 1 of 2", 100.0, 3000),
        Time("Evolve, round 2 of 2", 50.0, 1500),
        Time("Score", 3700.0, 0),
    ]
    assert list(took(times)) == ["Evolve: 2 min 30 s, 4,500 tokens, 30 tokens/s", "Score: 1 h 01 min"]
