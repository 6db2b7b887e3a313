"""Rows from the Hub, and shards and sets written there through ``hf://``."""

from dataclasses import replace

import pytest
from hub_server import HubServer

import hf_evol
from hf_evol.cluster import Execution, run
from hf_evol.errors import OutputError


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import HfFileSystem

    HfFileSystem.clear_instance_cache()
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hub-cache")
        yield server
    HfFileSystem.clear_instance_cache()


def test_a_set_is_written_to_the_hub(hub, recipe, plain, within, tmp_path):
    repo = hub.add_repo("dataset", "me/set", {})
    execution = Execution(tasks=2, work_folder=str(tmp_path / "work"))
    run(replace(recipe, output="hf://datasets/me/set"), execution)
    assert len(repo.commits) == 2  # the first has no rows
    differing = {"README.md", "provenance.json"}  # say where the set is
    assert {name: data for name, data in repo.files.items() if name not in {".gitattributes", *differing}} == {
        name: data for name, data in plain.items() if name not in differing
    }
    assert 'load_dataset("me/set", "selected", split="train")' in repo.files["README.md"].decode()
    with pytest.raises(OutputError, match="exists"):
        run(replace(recipe, output="hf://datasets/me/set"), execution)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("hf://datasets/me/missing", r"There is no dataset 'me/missing'.* hf repos create me/missing --type dataset"),
        ("hf://datasets/me/set@other", "a branch that is not there"),
        ("hf://datasets/me/set/round_1", "whole dataset, hf://datasets/user/name"),
        ("hf://me/model", "whole dataset, hf://datasets/user/name"),
    ],
)
def test_an_output_on_the_hub_is_checked_before_anything_is_done(hub, recipe, output, message):
    hub.add_repo("dataset", "me/set", {})
    hub.add_repo("model", "me/model", {})
    with pytest.raises(OutputError, match=message):
        hf_evol.run(replace(recipe, output=output))


def test_a_card_that_was_there_stays_outside_the_generated_part(hub, recipe, within, tmp_path):
    repo = hub.add_repo("dataset", "me/set", {"README.md": b"---\nlicense: mit\n---\n\n# Mine\n\nWritten by hand.\n"})
    hf_evol.run(replace(recipe, output="hf://datasets/me/set", limit=3, rounds=1))
    assert "Written by hand." in repo.files["README.md"].decode()
    hf_evol.run(replace(recipe, output="hf://datasets/me/set", limit=3, rounds=1, overwrite=True, select=1))
    assert len(repo.commits) == 4
