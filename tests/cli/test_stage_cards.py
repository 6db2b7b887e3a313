"""What the commands of the stages leave beside their rows: the record of the chain, and its card."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
from chat_server import KEY, ChatServer
from datasets import Dataset, load_dataset
from talkative import make_talkative
from tiny_models import build_llama, build_tokenizer

import hf_evol
from hf_evol.cli.main import main
from hf_evol.generation import endpoint

CHAIN = ("evolve", "eliminate", "respond", "score", "select")
COLUMNS = {
    "evolve": "evol_status", "eliminate": "elimination", "respond": "response_status", "score": "ic_ifd_status",
}  # fmt: skip


def record_of(folder):
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def card_of(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def commands_on(card):
    """The commands of the card's block of shell."""
    block = re.search(r"^```bash\n(.*?)\n```$", card, re.DOTALL | re.MULTILINE)[1]
    return [shlex.split(line)[1:] for line in block.replace("\\\n", " ").splitlines()]


def rows_of(folder):
    return load_dataset(str(folder), split="train").to_list()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All stages on 12 seeds with a model that fails at some; each stage's folder is called as the stage."""
    here = tmp_path_factory.mktemp("made")
    build_llama(context=2048).save_pretrained(here / "wide")
    build_tokenizer().save_pretrained(here / "wide")
    rows = [{"instruction": f"Write a poem about the number {n}.", "output": "An answer."} for n in range(14)]
    (here / "secret").mkdir()
    seeds = here / "secret" / "seeds.jsonl"
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ["--model", "wide"]
    options = {
        "evolve": [*model, "--limit", "12", "--rounds", "2", "--tries", "2", "--max-new-tokens", "8"],
        "eliminate": ["--max-growth", "3", "--file-format", "json"],
        "respond": [*model, "--response-max-new-tokens", "8"],
        "score": model,
        "select": ["--select", "1", "--select-by", "ifd", "--lowest", "--per", "method"],
    }
    source = str(seeds)
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        patch.chdir(here)
        for stage in CHAIN:
            assert main([stage, "--dataset", source, *options[stage], "--output", stage]) == 0
            source = stage
    return here


@pytest.fixture
def chain(made, here, monkeypatch):
    """A copy, in the working folder."""
    make_talkative(monkeypatch)
    return shutil.copytree(made, here, dirs_exist_ok=True)


def test_each_stage_says_what_became_of_the_rows(chain):
    left = 12
    for place, stage in enumerate(CHAIN):
        record, rows = record_of(chain / stage), rows_of(chain / stage)
        assert record["kind"] == "stages" and [entry["stage"] for entry in record["stages"]] == list(CHAIN[: place + 1])
        own = record["stages"][-1]
        assert (own["rows_in"], own["rows_out"]) == (left, len(rows)) == (sum(own["counts"].values()), len(rows))
        assert record["recipe"] == own["settings"]
        if stage in ("evolve", "respond", "score"):
            found = [row[COLUMNS[stage]].split(":")[0] for row in rows]
            assert own["counts"] == {status: found.count(status) for status in found}
        assert record["stages"][:-1] == (record_of(chain / CHAIN[place - 1])["stages"] if place else [])
        assert sum(entry["rows"] for entry in record["configs"]) == len(rows)
        left = len(rows)
    failed = record["stages"][0]["counts"]
    assert len(failed) > 1 and record["stages"][1]["counts"]["not_evolved"] == 12 - failed["ok"]
    assert set(record["stages"][-1]["counts"]) == {"selected", "not_selected", "no_score"}


def test_the_rounds_of_evolving_are_counted_from_the_history(chain):
    history = [entry for row in rows_of(chain / "evolve") for entry in row["history"]]
    for table in record_of(chain / "select")["stages"][0]["rounds"]:
        entries = [entry for entry in history if entry["round"] == table["round"]]
        assert sum(table["counts"].values()) == len(entries) == 12
        assert table["counts"]["ok"] == sum(entry["status"] == "ok" for entry in entries)
        texts = [(1 + bool(entry["rejected"]), "ok") for entry in entries if entry["status"] == "ok"]
        texts += [(other["try"], other["status"]) for entry in entries for other in entry["rejected"]]
        tries = [{}, {}]
        for number, status in texts:
            tries[number - 1][status] = tries[number - 1].get(status, 0) + 1
        assert table["tries"] == tries
    assert len(history) == 24


def test_the_card_says_which_models_and_scores_there_are(chain):
    record = record_of(chain / "select")
    assert record["title"].startswith("seeds.jsonl, evolved by wide (")
    assert [model["role"] for model in record["models"]] == ["evolver", "responder", "scorer"]
    assert record["source"]["name"] == "seeds.jsonl" and any("seed set" in note for note in record["licence_notes"])
    assert [entry["n"] for entry in record["scores"]] == [len(rows_of(chain / "select"))] * 2
    assert {failure["status"] for failure in record["failures"]} == {
        text["status"] for row in rows_of(chain / "evolve") for text in row["rejected"]
    }
    best = sorted((row["ic_ifd"] for row in rows_of(chain / "select")), reverse=True)[:3]
    assert [example["ic_ifd"] for example in record["examples"]] == best
    assert record_of(chain / "respond")["scores"] == [] and len(record_of(chain / "respond")["models"]) == 2
    card = card_of(chain / "select")
    assert "evolved by\n**wide, a model of" in card and "evol-instruct" in card and "12 (limit 12)" in card
    assert 'load_dataset("select", "default", split="train")' in card and "## Scores" in card
    assert "## Scores" not in card_of(chain / "respond") and "ic-ifd" not in card_of(chain / "respond")


def test_nothing_of_this_machine_is_written(chain):
    for stage in CHAIN:
        written = card_of(chain / stage) + json.dumps(record_of(chain / stage))
        assert str(chain) not in written and "secret" not in written


def test_the_commands_on_the_card_make_the_rows_again(chain, monkeypatch):
    commands = commands_on(card_of(chain / "select"))
    assert [command[0] for command in commands] == list(CHAIN)

    def again(folder):
        return [[row[name] for name in ("id", "instruction", "output", "history", "ic_ifd")] for row in rows_of(folder)]

    monkeypatch.chdir(chain / "secret")  # where the file is that the card names
    shutil.copytree(chain / "wide", "wide")
    for command in commands:
        assert main(command) == 0
    assert again("5-select") == again(chain / "select")


def test_the_card_command_works_on_every_stage(chain, call):
    for stage in CHAIN:
        assert call("card", stage, "--diff") == (0, "The card would not change.\n")
        code, _ = call("card", stage, "--repo-id", "user/name")
        assert code == 0 and 'load_dataset("user/name", "default", split="train")' in card_of(chain / stage)


def test_a_chain_on_rows_from_elsewhere_claims_no_evolving(call, here, wide_model):
    shutil.copytree(wide_model, here / "wide")
    rows = {"instruction": ["Name a river.", "Name a lake.", None], "output": ["The Nile.", None, "Baikal."]}
    Dataset.from_dict(rows | {"rejected": ["Nile.", "Lake.", "No."]}).to_parquet("plain.parquet")
    assert call("score", "--dataset", "plain.parquet", "--model", "wide", "--output", "scored")[0] == 0
    record, card = record_of(here / "scored"), card_of(here / "scored")
    assert record["title"].startswith("plain.parquet, scored by wide (")
    assert record["stages"][0]["counts"] == {"invalid_input": 2, "ok": 1} and record["failures"] == []
    assert [example["instruction"] for example in record["examples"]] == ["Name a river."]
    text = card.partition("## Citation")[0].replace("hf\\_evol", "").replace("hf_evol", "").replace("hf-evol", "")
    assert "evol" not in text.casefold() and "synthetic" not in text and "language_creators" not in text
    assert "The texts are those of the seed set" in card
    assert call("select", "--dataset", "scored", "--output", "best", "--select", "1")[0] == 1  # no ids
    Dataset.from_dict(rows | {"id": ["a-0", "a-1", "a-2"], "score": [1.0, 2.0, None]}).to_parquet("ids.parquet")
    assert (
        call("select", "--dataset", "ids.parquet", "--select-by", "score", "--select", "1", "--output", "best")[0] == 0
    )
    record, card = record_of(here / "best"), card_of(here / "best")
    assert record["title"] == "ids.parquet, after select" and record["models"] == record["scores"] == []
    assert record["stages"][0]["counts"] == {"selected": 1, "not_selected": 1, "no_score": 1}
    assert "## Models" not in card and "annotations_creators" not in card
    threshold = ["--select-by", "score", "--threshold", "1.5"]
    assert call("select", "--dataset", "ids.parquet", *threshold, "--output", "above")[0] == 0
    assert commands_on(card_of(here / "above")) == [
        ["select", "--dataset", "ids.parquet", *threshold, "--output", "1-select"]
    ]


def test_a_set_of_which_nothing_is_left_has_a_card(call, here):
    parent = "Name two rivers."
    rows = {"instruction": [parent], "parent_instruction": [parent], "evol_status": ["unchanged"]}
    Dataset.from_dict(rows).to_parquet("rows.parquet")
    assert call("eliminate", "--dataset", "rows.parquet", "--output", "kept")[0] == 0
    record, card = record_of(here / "kept"), card_of(here / "kept")
    assert record["configs"] == record["examples"] == [] and record["stages"][0]["counts"]["not_evolved"] == 1
    assert "\n0 rows, made from rows.parquet" in card and "load_dataset" not in card


def test_a_chain_goes_on_from_the_result_of_a_run(call, here, wide_model):
    shutil.copytree(wide_model, here / "wide")
    (here / "wide" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    short = {"limit": 4, "rounds": 1, "max_new_tokens": 24, "response_max_new_tokens": 24}
    hf_evol.run(hf_evol.Recipe(model="wide", output="set", **short))
    source = ["--dataset", "set", "--config", "round_1", "--limit", "2"]
    assert call("score", *source, "--model", "wide", "--output", "scored")[0] == 0
    record, card = record_of(here / "scored"), card_of(here / "scored")
    assert record["title"].startswith("general, evolved by wide (") and record["license"] == "apache-2.0"
    assert [entry["stage"] for entry in record["stages"]] == ["run", "score"]
    run = record["stages"][0]
    assert (run["rows_in"], sum(run["rounds"][0]["counts"].values())) == (4, 4)
    assert [model["role"] for model in record["models"]] == ["evolver", "responder", "scorer"]
    assert commands_on(card)[1][:5] == ["score", "--dataset", "1-run", "--config", "round_1"]


def test_what_a_run_added_to_seeds_and_instructions_is_told_on(call, here, wide_model):
    pytest.importorskip("rapidfuzz")
    short = {"self_instruct": 6, "back_translate": 2, "max_new_tokens": 24, "response_max_new_tokens": 24}
    made = hf_evol.run(hf_evol.Recipe(model=wide_model, output="set", **short)).provenance
    assert call("score", "--dataset", "set", "--model", wide_model, "--output", "scored")[0] == 0
    run, card = record_of(here / "scored")["stages"][0], card_of(here / "scored")
    assert run["constraints"] == made["constraints"] != {} and run["self_instruct"] == made["self_instruct"]
    assert "- self-instruct\n" in card and "- verifiable-rewards\n" in card
    assert f"{sum(made['constraints'].values())} in all: " in card and "were made up by the evolver" in card
    evolving = ["--model", wide_model, "--rounds", "1", "--max-new-tokens", "24"]
    assert call("evolve", "--dataset", "scored", *evolving, "--output", "evolved")[0] == 0  # which clears constraints
    card = card_of(here / "evolved")
    assert "- self-instruct\n" in card and "verifiable-rewards" not in card and "in all: " not in card


def test_rows_evolved_after_they_were_scored_have_no_scores(call, here, wide_model):
    model = ["--model", wide_model]
    short = [*model, "--max-new-tokens", "24", "--rounds", "1"]
    assert call("evolve", "--limit", "3", *short, "--output", "a")[0] == 0
    assert call("respond", "--dataset", "a", *model, "--response-max-new-tokens", "24", "--output", "b")[0] == 0
    assert call("score", "--dataset", "b", *model, "--output", "c")[0] == 0
    assert call("evolve", "--dataset", "c", *short, "--methods", "breadth", "--output", "d")[0] == 0
    record = record_of(here / "d")
    assert record_of(here / "c")["scores"] and record["scores"] == []
    assert all(example["ic_ifd"] is None for example in record["examples"])
    assert [table["round"] for entry in record["stages"] for table in entry["rounds"]] == [1, 2]
    assert record["methods"] == ["constraint", "deepen", "concretize", "reasoning", "breadth"]
    assert record["prompts_version"].count(", ") == 1 and len(record["models"]) == 3


def test_no_server_and_no_key_is_on_the_card(call, here, seed_file, monkeypatch):
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    endpoint._probe.cache_clear()
    (here / "mine.yaml").write_text(
        "methods:\n- name: mine\n  template: 'Write it anew: {instruction}'\n- deepen\nresponder: /srv/secret/served\n"
    )
    with ChatServer() as server:
        remote = ["--engine", "endpoint", "--base-url", server.url, "--api-key-env", "ENDPOINT_KEY"]
        remote += ["--recipe", "mine.yaml"]
        evolver = ["--model", "/srv/secret/evolver", "--rounds", "1"]
        assert call("evolve", "--dataset", seed_file, *remote, *evolver, "--output", "evolved")[0] == 0
        assert call("respond", "--dataset", "evolved", *remote, "--output", "answered")[0] == 0
    card = card_of(here / "answered")
    written = card + json.dumps(record_of(here / "answered"))
    assert not any(private in written for private in ("/srv/secret", server.url, KEY, "ENDPOINT_KEY"))
    assert [model["name"] for model in record_of(here / "answered")["models"]] == ["evolver", "served"]
    evolve, respond = commands_on(card)
    assert respond[respond.index("--model") + 1] == "served"
    assert evolve[evolve.index("--methods") + 1] == "1-methods.yaml" and "template: 'Write it anew:" in card


def test_texts_that_look_like_dates_come_back_as_they_are(here, capsys, caplog):
    """Readers of JSON would make times of them."""
    rows = {"id": ["a-0", "a-1"], "instruction": ["2024-01-01", "2024-01-02T10:00:00"], "ic_ifd": [0.5, 0.25]}
    Dataset.from_dict(rows).to_parquet("rows.parquet")
    assert (
        main(["select", "--dataset", "rows.parquet", "--select", "1.0", "--file-format", "json", "--output", "out"])
        == 0
    )
    assert load_dataset("out", split="train").to_dict() == rows
    assert "'instruction' look like dates" in caplog.text
