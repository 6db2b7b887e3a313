"""Sets on S3: a server in this process, dummy credentials."""

import json
from dataclasses import replace

import fsspec
import pytest
from datasets import load_dataset
from talkative import make_talkative

import hf_evol
from hf_evol.cli.main import main
from hf_evol.errors import OutputError, SourceError
from hf_evol.hub.target import check_output, read_provenance
from hf_evol.run.recipe import Recipe

SEEDS = [{"instruction": f"Write a poem about {what}.", "output": "An answer."} for what in ("sea", "a {x}", "owls")]


@pytest.fixture
def bucket(bucket):
    """A bucket with seeds."""
    with fsspec.open(f"{bucket}/seeds.jsonl", "wb") as file:
        file.write("".join(json.dumps(row) + "\n" for row in SEEDS).encode())
    return bucket


@pytest.fixture
def recipe(bucket, tiny_model, monkeypatch):
    """Seeds from the bucket, and the set into it."""
    make_talkative(monkeypatch)
    return Recipe(
        dataset=f"{bucket}/seeds.jsonl", model=tiny_model, methods=[{"name": "as_it_is", "template": "{instruction}"}],
        rounds=1, tries=1, max_new_tokens=8, response_max_new_tokens=8, output=f"{bucket}/deep/set",
    )  # fmt: skip


def read(path):
    with fsspec.open(path, "r", encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_set_is_written_and_read_back(recipe, streaming):
    result = hf_evol.run(recipe)
    (table,) = result.provenance["rounds"]
    found = []
    for config, count in (("round_1", table["in_set"]), ("dropped", sum(table["dropped"].values()))):
        files = f"{recipe.output}/{config}/*.parquet"
        rows = load_dataset("parquet", data_files=files, split="train", streaming=streaming) if count else ()
        texts = [row["seed_instruction"] for row in rows]
        assert len(texts) == count
        found += texts
    assert table["in_set"] and sorted(found) == sorted(row["instruction"] for row in SEEDS)
    assert read_provenance(recipe.output) == json.loads(json.dumps(result.provenance))
    assert "# " in read(f"{recipe.output}/README.md")


def test_an_earlier_set_is_replaced_on_request_only(recipe):
    hf_evol.run(recipe)
    fs = fsspec.filesystem("s3")
    with pytest.raises(OutputError, match="--overwrite"):
        hf_evol.run(recipe)
    fs.touch(f"{recipe.output}/mine/rows.parquet")
    with pytest.raises(OutputError, match=r"mine/rows\.parquet"):
        hf_evol.run(replace(recipe, overwrite=True))
    fs.rm(f"{recipe.output}/mine/rows.parquet")
    hf_evol.run(replace(recipe, overwrite=True, rounds=1))
    assert fs.exists(f"{recipe.output}/provenance.json")


def test_what_is_no_set_is_left_alone(recipe):
    with fsspec.open(f"{recipe.output}/thesis.txt", "w") as file:
        file.write("mine")
    with pytest.raises(OutputError, match="is missing"):
        hf_evol.run(replace(recipe, overwrite=True))
    assert read(f"{recipe.output}/thesis.txt") == "mine"


def test_the_card_is_written_anew_there(recipe, capsys):
    hf_evol.run(recipe)
    assert main(["card", recipe.output, "--repo-id", "user/set", "--diff"]) == 0
    assert "user/set" in capsys.readouterr().out and "user/set" not in read(f"{recipe.output}/README.md")
    assert main(["card", recipe.output, "--repo-id", "user/set"]) == 0
    assert "user/set" in read(f"{recipe.output}/README.md")


def test_a_bucket_that_holds_something_is_refused(recipe, bucket):
    with pytest.raises(OutputError, match="exists"):
        hf_evol.run(replace(recipe, output=bucket))


def test_missing_credentials_are_told(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(OutputError, match=r"can't be written: .*credentials"):
        check_output("s3://nobody-s-bucket/set", overwrite=False)
    with pytest.raises(SourceError, match="credentials"):
        hf_evol.load_seeds("s3://nobody-s-bucket/rows.jsonl")
