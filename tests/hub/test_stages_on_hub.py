"""What the commands of the stages leave, on the Hub."""

import json
import shutil

import pytest
from datasets import Dataset, get_dataset_config_names, load_dataset
from talkative import make_talkative

import hf_evol
from hf_evol.cli.main import main
from hf_evol.data.files import write_dataset
from hf_evol.hub.record import read_provenance, write_provenance

REPO = "user/chain"
SHORT = {
    "evolve": ["--model", "tiny", "--max-new-tokens", "24"],
    "respond": ["--model", "tiny", "--response-max-new-tokens", "24"],
    "score": ["--model", "tiny"],
    "select": ["--select", "2"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, licensed_model):
    """All stages on bundled seeds; each stage's folder is called as the stage."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(licensed_model, folder / "tiny")
    source = ["demo/general", "--limit", "6", "--rounds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        patch.chdir(folder)
        for stage in ("evolve", "eliminate", "respond", "score", "select"):
            assert main([stage, "--dataset", *source, *SHORT.get(stage, []), "--output", stage]) == 0
            source = [stage]
    return folder


@pytest.fixture
def chain(made, tmp_path, monkeypatch, talkative):
    """A copy, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def rows_of(name, *config):
    return load_dataset(str(name), *config, split="train").to_list()


def test_every_stage_can_be_pushed_and_loaded(hub, chain):
    for stage in ("evolve", "respond", "select"):
        assert main(["push", stage, f"{REPO}-{stage}"]) == 0
        repo = hub.repos["dataset", f"{REPO}-{stage}"]
        assert rows_of(f"{REPO}-{stage}") == rows_of(chain / stage)
        assert repo.files["provenance.json"] == (chain / stage / "provenance.json").read_bytes()
        local, card = (chain / stage / "README.md").read_text(), repo.files["README.md"].decode()
        assert card == local.replace(f'load_dataset("{stage}"', f'load_dataset("{REPO}-{stage}"') != local
        commits = len(repo.commits)
        assert main(["push", stage, f"{REPO}-{stage}"]) == 0
        assert len(repo.commits) == commits


def test_what_people_wrote_in_the_local_card_is_pushed(hub, chain):
    card = chain / "select" / "README.md"
    card.write_text(card.read_text().replace("license: apache-2.0", "license: mit") + "\nMine.\n")
    assert main(["push", "select", REPO]) == 0
    pushed = hub.repos["dataset", REPO].files["README.md"].decode()
    assert "license: mit" in pushed and pushed.endswith("\nMine.\n") and f'load_dataset("{REPO}"' in pushed


def test_a_later_push_replaces_the_rows_whatever_their_number_of_files(hub, chain):
    assert main(["push", "evolve", REPO]) == 0
    for file in (chain / "select").glob("train-*"):
        file.unlink()
    rows = Dataset.from_list(rows_of(chain / "evolve"))
    write_dataset(rows, chain / "select", "parquet", max_bytes=rows._estimate_nbytes() // 2)
    assert len(list((chain / "select").glob("train-*"))) > 1
    write_provenance(read_provenance("select"), chain / "select")
    assert main(["push", "select", REPO]) == 0
    assert "train-00000-of-00001.parquet" not in hub.repos["dataset", REPO].files
    assert [row["id"] for row in rows_of(REPO)] == rows["id"][:]


def test_a_chain_takes_the_place_of_a_published_run(hub, chain):
    short = {"max_new_tokens": 24, "response_max_new_tokens": 24}
    hf_evol.run(hf_evol.Recipe(model="tiny", limit=4, rounds=1, output="run", **short))
    assert main(["push", "run", REPO]) == 0
    assert main(["push", "select", REPO]) == 0
    assert get_dataset_config_names(REPO) == ["default"]
    assert rows_of(REPO) == rows_of(chain / "select")
    assert not [name for name in hub.repos["dataset", REPO].files if name.startswith(("selected/", "round_1/"))]


def test_a_chain_goes_on_from_the_hub(hub, chain):
    assert main(["push", "select", REPO]) == 0
    assert main(["score", "--dataset", REPO, *SHORT["score"], "--output", "again"]) == 0
    record = json.loads((chain / "again" / "provenance.json").read_text())
    assert record["source"]["name"] == REPO and record["source"]["on_hub"]
    assert (
        record["source"]["license"] == "apache-2.0"
        and record["source"]["revision"] == hub.repos["dataset", REPO].commits[-1].sha
    )
    assert record["title"].startswith("chain, scored by tiny (")
