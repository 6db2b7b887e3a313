import io
import json
import zipfile

import pytest
import yaml
from datasets import Dataset, load_dataset
from test_publish import REPO, ROWS, check_loads, make_set

from hf_evol.errors import HubError
from hf_evol.hub.configs import seen
from hf_evol.hub.publish import publish

THEIRS = {"question": ["a", "b", "c"]}


def parquet(rows):
    file = io.BytesIO()
    Dataset.from_dict(rows).to_parquet(file)
    return file.getvalue()


def card(**configs):
    entries = [{"config_name": name, "data_files": files} for name, files in configs.items()]
    return f"---\n{yaml.safe_dump({'configs': entries})}---\nTheirs.\n".encode()


def refused(repo, folder, said):
    before = dict(repo.files)
    with pytest.raises(HubError, match=said):
        publish(folder, REPO)
    assert repo.files == before


@pytest.fixture
def finished(tmp_path):
    return make_set(tmp_path / "set", {"selected": ROWS, "round_1": ROWS})


@pytest.mark.parametrize("pattern", ["*/*.parquet", "**/*.parquet", "**"])
@pytest.mark.parametrize("rows", [THEIRS, ROWS])
def test_a_pattern_of_others_takes_no_rows_of_the_set(hub, finished, pattern, rows):
    repo = hub.add_repo("dataset", REPO, {"theirs/a.parquet": parquet(rows), "README.md": card(theirs=pattern)})
    refused(repo, finished, "'theirs' that hf_evol has not written and that would take in '(histogram|round_1)")
    assert load_dataset(REPO, split="train")[:] == rows


def test_a_config_over_an_earlier_set_reads_the_new_one_and_keeps_a_file(hub, finished):
    publish(finished, REPO)
    repo = hub.repos["dataset", REPO]
    published = repo.files["README.md"].decode()
    both = "- config_name: both\n  data_files: '*/*.parquet'\n"
    repo.commit("Over it", {"README.md": published.replace("configs:\n", f"configs:\n{both}").encode()})
    make_set(finished, {"selected": ROWS, "round_2": {"instruction": ["new"]}})
    publish(finished, REPO)
    check_loads({"both": {"instruction": ["new", *ROWS["instruction"]]}, "selected": ROWS, None: ROWS})

    of_file = "- config_name: one\n  data_files: round_2/train-00000-of-00001.parquet\n"
    published = repo.files["README.md"].decode()
    repo.commit("Of a file", {"README.md": published.replace("configs:\n", f"configs:\n{of_file}").encode()})
    make_set(finished, {"selected": ROWS})
    refused(repo, finished, "'one' that hf_evol has not written and that reads 'round_2/train-00000-of-00001.parquet'")


def test_a_config_of_others_gets_no_split_of_the_set(hub, finished):
    splits = [{"split": "train", "path": "theirs/a.parquet"}, {"split": "test", "path": "round_*/*.parquet"}]
    repo = hub.add_repo(
        "dataset", REPO, {"theirs/a.parquet": parquet(ROWS), "README.md": card(a="theirs/a.parquet", theirs=splits)}
    )
    refused(repo, finished, "'theirs' that hf_evol has not written and that would take in 'round_1/train-")


@pytest.mark.parametrize("there_are", ["renewed", "left"])
def test_a_split_that_people_pushed_into_a_config_stays(hub, finished, there_are):
    publish(finished, REPO)
    Dataset.from_dict({"instruction": ["Test?"]}).push_to_hub(REPO, "round_1", split="test")
    renewed = {"instruction": ["new"]}
    make_set(finished, {"selected": ROWS} | ({"round_1": renewed} if there_are == "renewed" else {}))
    for _ in range(2):
        publish(finished, REPO)
        assert load_dataset(REPO, "round_1", split="test")[:] == {"instruction": ["Test?"]}
        check_loads({"selected": ROWS, None: ROWS} | ({"round_1": renewed} if there_are == "renewed" else {}))


@pytest.mark.parametrize("mark", [{}, {"default": True}])
def test_the_default_of_others_stays(hub, tmp_path, finished, mark):
    entries = [{"config_name": "theirs", "data_files": "theirs/a.parquet"} | mark]
    entries += [{"config_name": "more", "data_files": "theirs/a.parquet"}] if mark else []
    text = f"---\n{yaml.safe_dump({'configs': entries})}---\n".encode()
    repo = hub.add_repo("dataset", REPO, {"theirs/a.parquet": parquet(THEIRS), "README.md": text})
    for _ in range(2):
        publish(finished, REPO)
        check_loads({None: THEIRS, "theirs": THEIRS, "selected": ROWS})
    refused(repo, make_set(tmp_path / "stage", {"default": ROWS}), "'theirs' of others is the default one there")


def test_the_default_that_the_info_of_others_gives_is_not_taken(hub, finished):
    data = {"configs": [{"config_name": name, "data_files": "theirs/a.parquet"} for name in ("a", "b")]}
    text = f"---\n{yaml.safe_dump(data | {'dataset_info': {'config_name': 'b'}})}---\n".encode()
    repo = hub.add_repo("dataset", REPO, {"theirs/a.parquet": parquet(THEIRS), "README.md": text})
    refused(repo, finished, "loads 'b', and would not any more")


@pytest.mark.parametrize(
    ("files", "file"),
    [
        (["a.png", "b.png", "notes.md"], None), ([f"pictures/{n}.png" for n in range(5)], None),
        ([f"pictures/{n}.png" for n in range(6)], "pictures/0.png"), (["train.txt"], "train.txt"),
        (["val/x.jpg", "y.jpg"], "val/x.jpg"), (["data/part-00000-of-00002.txt"], "data/part-00000-of-00002.txt"),
        (["train.zip"], "train.zip"), (["pictures.zip"], "pictures.zip"), (["evaluation_notes.txt"], "evaluation_notes.txt"),
        (["dataset_infos.json", "data.csv"], "data.csv"), (["dataset_infos.json", "dataset_info.json"], None),
        (["set.py"], None),
    ],
)  # fmt: skip
def test_rows_without_a_config_are_told_from_notes(hub, finished, files, file):
    repo = hub.add_repo("dataset", REPO, dict.fromkeys(files, b"x") | {"README.md": b"# Theirs\n"})
    if file:
        refused(repo, finished, f"holds rows that no config of its card names, such as '{file}'")
    else:
        publish(finished, REPO)


def test_a_config_of_zips_stays_loadable(hub, finished):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a.jsonl", json.dumps({"x": 1}))
    files = {"rows.zip": archive.getvalue(), "README.md": card(theirs="rows.zip")}
    refused(hub.add_repo("dataset", REPO, files), finished, "'theirs' of zip files, such as 'rows.zip'")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": b"---\n2024: x\n---\n"}, "keywords must be strings"),
        ({"README.md": card(a=[{"split": "x"}]), "a.csv": b""}, "data_files"),
        ({"evolved-set.py": b""}, "scripts are no longer supported"),
    ],
)  # fmt: skip
def test_what_datasets_cannot_read_is_told(hub, finished, files, said):
    refused(hub.add_repo("dataset", REPO, files), finished, f"datasets can't read '{REPO}' .*{said}")


def test_a_large_dataset_without_configs_is_seen_in_no_time():
    files = [f"part-{n % 7}/{n}.jpg" for n in range(20_000)]
    assert seen(REPO, None, files).reader == "imagefolder"
