import json

import pytest
from hub_server import HubServer
from talkative import make_talkative

import hf_evol
from hf_evol.run.recipe import Recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory, wide_model):
    """A set as a run leaves it: a tiny model on a few bundled seeds."""
    output = tmp_path_factory.mktemp("finished") / "small set"
    recipe = Recipe(
        model=wide_model, limit=4, rounds=1, max_new_tokens=24, response_max_new_tokens=24, select=2, journal=False,
        output=str(output),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        result = hf_evol.run(recipe)
    assert result.provenance["rounds"][0]["selected"] == 2
    return str(output)


@pytest.fixture
def rows_folder(tmp_path):
    """Makes a folder with rows and nothing else, as a single stage or a plain dataset has it."""

    def make(name, n=3, **changes):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rows = [{"instruction": f"Count to {i}.", "input": "", "output": f"{i} {{x}}"} | changes for i in range(n)]
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(folder)

    return make


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hub-cache")
        yield server
