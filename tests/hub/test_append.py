import json

import pytest
from datasets import load_dataset
from talkative import make_talkative

import hf_evol
from hf_evol import columns as col
from hf_evol.cli.main import main
from hf_evol.errors import ColumnError, HubError

REPO = "user/evolved"


@pytest.fixture(scope="module")
def made(tmp_path_factory, licensed_model):
    """A set of two rounds, and the rows of the round that follows."""
    output = str(tmp_path_factory.mktemp("made") / "out")
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        recipe = hf_evol.Recipe(
            model=licensed_model, limit=8, rounds=2, max_new_tokens=24, response_max_new_tokens=24, select=0.5, output=output
        )  # fmt: skip
        hf_evol.run(recipe)
        rows = load_dataset(output, "round_2", split="train")
        for transform in (
            hf_evol.EvolInstruct(licensed_model, max_new_tokens=24),
            hf_evol.Respond(licensed_model, max_new_tokens=24),
            hf_evol.IcIfd(licensed_model),
        ):
            rows = hf_evol.map(rows, transform)
    return output, rows


@pytest.fixture
def published(hub, made):
    """The set on the Hub."""
    hf_evol.publish(made[0], REPO)
    return hub.repos["dataset", REPO]


@pytest.fixture
def rows(made):
    return made[1]


def loaded(config):
    return load_dataset(REPO, config, split="train")


def test_a_round_is_added_in_one_commit(published, rows):
    before = {name: loaded(name) for name in ("round_1", "round_2", "selected")}
    commits = len(published.commits)
    hf_evol.append(rows, REPO)
    assert len(published.commits) == commits + 1
    assert published.commits[-1].message == "Add round 3"
    for name in ("round_1", "round_2"):
        assert loaded(name).to_list() == before[name].to_list()
        assert not any(name in path for path in published.commits[-1].changed)
    new = loaded("round_3")
    statuses = zip(rows["id"], rows[col.EVOL_STATUS], rows[col.RESPONSE_STATUS], strict=True)
    assert set(new["id"]) <= {row_id for row_id, *both in statuses if both == ["ok", "ok"]}
    assert set(new["round"]) == {3}
    best = sorted((score for score in new[col.IC_IFD] if score is not None), reverse=True)
    chosen = loaded("selected").filter(lambda row: row["round"] == 3)
    assert sorted(chosen[col.IC_IFD], reverse=True) == best[: -(-len(best) // 2)]
    assert loaded("selected").filter(lambda row: row["round"] < 3).to_list() == before["selected"].to_list()

    record = json.loads(published.files["provenance.json"])
    assert [table["round"] for table in record["rounds"]] == [1, 2, 3] and record["recipe"]["rounds"] == 3
    table = record["rounds"][2]
    assert table["rows_in"] == len(rows) == table["in_set"] + sum(table["dropped"].values())
    assert len(record["models"]) == 3  # the same models
    card = published.files["README.md"].decode()
    assert "in\n3 rounds of Evol-Instruct" in card and "config_name: round_3" in card

    hf_evol.append(rows, REPO)  # once more
    assert len(published.commits) == commits + 1


def test_a_round_of_a_set_from_scratch(hub, licensed_model, talkative, tmp_path):
    """The rejected replies stay, and constraints are those of the rows that have them."""
    pytest.importorskip("rapidfuzz")
    recipe = hf_evol.Recipe(
        model=licensed_model, limit=8, self_instruct=6, back_translate=2, max_new_tokens=24, response_max_new_tokens=24,
        output=str(tmp_path / "out"), file_format="json",
    )  # fmt: skip
    hf_evol.run(recipe)
    hf_evol.publish(recipe.output, REPO)
    published = hub.repos["dataset", REPO]
    before, record = dict(published.files), json.loads(published.files["provenance.json"])
    assert record["constraints"]
    rows = loaded("round_1")
    for transform in (
        hf_evol.EvolInstruct(licensed_model, max_new_tokens=24),
        hf_evol.Respond(licensed_model, max_new_tokens=24),
        hf_evol.IcIfd(licensed_model),
    ):
        rows = hf_evol.map(rows, transform)
    hf_evol.append(rows, REPO)
    kept = [name for name in before if name.startswith(("rejected/", "round_1/"))]
    assert len(kept) == 2 and all(published.files[name] == before[name] for name in kept)
    after, new = json.loads(published.files["provenance.json"]), loaded("round_2")
    assert [entry for entry in after["configs"] if entry["name"] == "rejected"] == record["configs"][-1:]
    assert after["constraints"] == record["constraints"] and len(new)
    assert not any(new["checks"]) and not any(new["functions"]) and set(new["back_translate_status"]) == {None}


def test_another_evolver_is_listed(published, rows, tiny_model):
    rows = rows.map(lambda row: {"evolver": tiny_model})
    hf_evol.append(rows, REPO)
    record = json.loads(published.files["provenance.json"])
    models = record["models"]
    assert [model["name"] for model in models if model["role"] == "evolver"] == [
        "licensed",
        tiny_model.rsplit("/", 1)[-1],
    ]
    assert any("states no licence" in note for note in record["licence_notes"]) and record["license"] is None


def test_rows_that_do_not_follow_are_refused(published, rows):
    commits = len(published.commits)
    for wrong, message in (
        (loaded("round_2"), "not found"),
        (rows.map(lambda row: {"round": 5}), "must be of round 3"),
        (rows.map(lambda row: {"id": "other-" + row["id"]}), "which 'user/evolved' lacks"),
        (rows.map(lambda row: {"id": rows[0]["id"]}), "more than once"),
        (rows.map(lambda row: {"ic_ifd_convention": "exact"}), "Score them alike"),
    ):
        with pytest.raises(ColumnError, match=message):
            hf_evol.append(wrong, REPO)
    with pytest.raises(HubError, match="no set of hf_evol to append to"):
        hf_evol.append(rows, "user/other")
    assert len(published.commits) == commits


def test_someone_else_pushes_meanwhile(published, rows, hub):
    commits = len(published.commits)
    hub.before_next("/commit/", lambda: published.commit("theirs", {"notes.txt": b"mine"}))
    with pytest.raises(HubError, match="Someone else has pushed"):
        hf_evol.append(rows, REPO)
    assert len(published.commits) == commits + 1
    hf_evol.append(rows, REPO)
    assert published.files["notes.txt"] == b"mine" and len(loaded("round_3"))


def test_on_the_command_line(published, licensed_model, tmp_path, monkeypatch, talkative):
    monkeypatch.chdir(tmp_path)
    model = ["--model", licensed_model]
    source = ["--dataset", REPO, "--config", "round_2", "--rounds", "1", "--max-new-tokens", "24"]
    assert main(["evolve", *source, *model, "--output", "e"]) == 0
    assert main(["respond", "--dataset", "e", *model, "--response-max-new-tokens", "24", "--output", "r"]) == 0
    assert main(["score", "--dataset", "r", *model, "--output", "s"]) == 0
    assert main(["push", "s", REPO, "--append"]) == 0
    assert len(loaded("round_3"))


@pytest.mark.parametrize("place", ["/resolve/", "/commit/"])
def test_a_hub_that_fails_is_not_an_empty_one(published, rows, hub, place):
    commits = len(published.commits)
    hub.fail_next(f"{REPO}{place}", 503)
    with pytest.raises(HubError, match="503") as caught:
        hf_evol.append(rows, REPO)
    assert "/tmp" not in str(caught.value) and "no set" not in str(caught.value)
    hub.heal()
    hf_evol.append(rows, REPO)
    assert len(published.commits) == commits + 1
