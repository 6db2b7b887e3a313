"""Sets on S3: a server in this process, dummy credentials."""

import json
import uuid
from dataclasses import replace

import fsspec
import pytest
from datasets import load_dataset

import hf_evol
from hf_evol.cli.main import main
from hf_evol.errors import OutputError
from hf_evol.output import read_provenance
from hf_evol.recipe import Recipe

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

SEEDS = [{"instruction": f"Write a poem about {what}.", "output": "An answer."} for what in ("sea", "a {x}", "owls")]


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch, tmp_path):
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = fsspec.filesystem("s3")
    name = f"bucket-{uuid.uuid4().hex}"  # `datasets` keeps what it has downloaded by its address
    fs.mkdir(name)
    fs.pipe_file(f"{name}/seeds.jsonl", "".join(json.dumps(row) + "\n" for row in SEEDS).encode())
    yield f"s3://{name}"
    fs.rm(name, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def recipe(bucket, tiny_model):
    """Seeds from the bucket, and the set into it."""
    return Recipe(
        dataset=f"{bucket}/seeds.jsonl", model=tiny_model, rounds=1, max_new_tokens=8, output=f"{bucket}/deep/set"
    )


def read(path):
    with fsspec.open(path, "r", encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_set_is_written_and_read_back(recipe, streaming):
    result = hf_evol.run(recipe)
    rows = load_dataset("parquet", data_files=f"{recipe.output}/dropped/*.parquet", split="train", streaming=streaming)
    dropped = [row["seed_instruction"] for row in rows]
    kept = sum(table["in_set"] for table in result.provenance["rounds"])
    assert len(dropped) + kept == len(SEEDS) and set(dropped) <= {row["instruction"] for row in SEEDS}
    assert read_provenance(recipe.output) == json.loads(json.dumps(result.provenance))
    assert "# " in read(f"{recipe.output}/README.md")


def test_an_earlier_set_is_replaced_on_request_only(recipe):
    hf_evol.run(recipe)
    fs = fsspec.filesystem("s3")
    fs.touch(f"{recipe.output}/old/rows.parquet")
    with pytest.raises(OutputError, match="--overwrite"):
        hf_evol.run(recipe)
    hf_evol.run(replace(recipe, overwrite=True))
    assert not fs.exists(f"{recipe.output}/old") and fs.exists(f"{recipe.output}/provenance.json")


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
