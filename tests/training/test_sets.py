import pytest
from datasets import Dataset, load_dataset

from hf_evol.errors import ConfigError, SourceError
from hf_evol.hub.publish import publish
from hf_evol.training.sets import load_training_sets, names_of


def test_a_runs_folder_gives_its_selected_rows(finished):
    (one,) = load_training_sets([finished])
    assert (one.name, one.source, one.config) == ("small-set", finished, "selected")
    assert one.rows.to_list() == load_dataset(finished, "selected", split="train").to_list()
    assert len(one.rows) == 2


def test_another_configuration_on_request(finished):
    (one,) = load_training_sets([finished], "round_1")
    assert one.rows["id"][:] == load_dataset(finished, "round_1", split="train")["id"][:]
    assert len(one.rows) > 2


def test_a_set_on_the_hub(hub, finished):
    publish(finished, "user/evolved")
    (one,) = load_training_sets(["user/evolved"])
    assert (one.name, one.config) == ("evolved", "selected")
    assert one.rows["output"][:] == load_dataset(finished, "selected", split="train")["output"][:]


def test_plain_rows_need_no_configuration(rows_folder):
    (one,) = load_training_sets([rows_folder("plain")])
    assert (one.config, len(one.rows)) == ("default", 3)


def test_an_unknown_configuration_is_told_with_those_there_are(finished):
    with pytest.raises(ConfigError, match=r"no config 'round_9'\. Configs: selected, .*round_1.*--config-name"):
        load_training_sets([finished], "round_9")


def test_several_configurations_without_selected_must_be_chosen_from(rows_folder, tmp_path):
    for name in ("a", "b"):
        rows_folder(f"many/{name}")
    card = "---\nconfigs:\n- config_name: a\n  data_files: a/*\n- config_name: b\n  data_files: b/*\n---\n"
    (tmp_path / "many" / "README.md").write_text(card)
    with pytest.raises(ConfigError, match=r"no config 'selected'\. Configs: a, b\. Choose one with --config-name"):
        load_training_sets([str(tmp_path / "many")])
    assert load_training_sets([str(tmp_path / "many")], "b")[0].config == "b"


@pytest.mark.parametrize("source", ["no/such/folder/here", "./nothing", "a b"])
def test_an_unknown_set_is_told(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="a folder that hf-evol run has written"):
        load_training_sets([source])


def test_an_unknown_set_on_the_hub_is_told(hub):
    with pytest.raises(SourceError, match="user/nothing"):
        load_training_sets(["user/nothing"])


def test_a_set_without_rows_is_told(tmp_path):
    Dataset.from_dict({"instruction": ["a"], "output": ["b"]}).select([]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(SourceError, match="no rows"):
        load_training_sets([str(tmp_path)])


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["me/alpaca-8b"], ["alpaca-8b"]),
        (["me/alpaca-8b", "me/alpaca-70b/"], ["alpaca-8b", "alpaca-70b"]),
        (["small/evolved", "large/evolved"], ["small-evolved", "large-evolved"]),
        (["a/evolved", "b/evolved", "b/c"], ["a-evolved", "b-evolved", "b-c"]),
        (["evolved", "b/evolved"], ["evolved", "b-evolved"]),
        (["/runs/my set, 2", "x/ünï{}"], ["my-set-2", "n"]),
        (["me/Set", "you/set"], ["me-Set", "you-set"]),  # file systems may not tell their last parts apart
    ],
)
def test_names_are_short_apart_and_fit_for_files(sources, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no folder has one of the names
    assert names_of(sources) == names


@pytest.mark.parametrize(
    "sources", [["me/a", "me/a"], ["me/a", "me/a/"], ["me/a b", "me/a-b"], [""], ["…"], ["a", "…"]]
)
def test_what_no_name_tells_apart_is_refused(sources):
    with pytest.raises(ConfigError, match="differ"):
        names_of(sources)


def test_a_folder_is_named_as_it_is_on_disk(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert names_of(["."]) == ["here"]
