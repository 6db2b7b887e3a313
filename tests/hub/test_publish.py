import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from chat_server import ChatServer
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetNotFoundError
from hub_server import SIGNATURE, TOKEN
from huggingface_hub import DatasetCard, HfApi, snapshot_download
from test_card import provenance

from hf_evol.cli.main import main
from hf_evol.errors import ConfigError, HubError, OutputError
from hf_evol.hub.merge import END
from hf_evol.hub.publish import check_push, publish
from hf_evol.hub.record import read_provenance, write_provenance
from hf_evol.hub.target import check_output
from hf_evol.hub.writer import Config, set_folder

REPO, SHARD = "user/evolved-set", "selected/train-00000-of-00001.parquet"


PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
ROWS = {"instruction": ["Why?", "How?"]}


def make_set(folder, tables, picture=PICTURE, file_format="parquet", **said):
    """Write a set as a run does, in small."""
    record = provenance() | {"title": "Evolved, größer 🌊", "license": "apache-2.0"} | said
    configs = [Config(name, Dataset.from_dict(rows), f"rows of {name}") for name, rows in tables.items()]
    with set_folder(check_output(str(folder), overwrite=True), record, configs, file_format=file_format) as made:
        (made / "histogram.png").write_bytes(picture)
    return folder


@pytest.fixture
def finished(tmp_path):
    """A folder as a run leaves it, whose name needs quoting in a shell."""
    return make_set(tmp_path / "my evolved set", {"selected": ROWS})


def content(folder, repo=REPO):
    """What is on the Hub of a folder: all its files, with the example of the place where they are."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files | {"README.md": files["README.md"].replace(folder.name.encode(), repo.encode())}


@pytest.fixture(params=["in the commit", "over LFS"])
def transfer(request, hub, monkeypatch):
    """Both ways that `huggingface_hub` uploads a folder: its pipeline (with hf_xet) and a plain commit."""
    if request.param == "in the commit":
        hub.lfs_suffixes = ()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    return request.param


def test_files_arrive_byte_for_byte_in_one_commit(hub, transfer, finished):
    url = publish(finished, REPO)
    repo = hub.repos["dataset", REPO]
    assert url == f"{hub.url}/datasets/{REPO}"
    assert repo.files == content(finished)
    assert repo.lfs == (set() if transfer == "in the commit" else {SHARD, "histogram.png"})
    assert [commit.message for commit in repo.commits] == ["initial commit", "Upload an evolved instruction set"]
    assert TOKEN in hub.tokens


def test_a_second_push_makes_no_commit(hub, transfer, finished):
    publish(finished, REPO)
    assert publish(finished, REPO) == f"{hub.url}/datasets/{REPO}"
    assert len(hub.repos["dataset", REPO].commits) == 2


def test_only_what_changed_is_committed(hub, transfer, finished):
    publish(finished, REPO)
    make_set(finished, {"selected": ROWS}, b"another picture")
    publish(str(finished), REPO, message="A new figure")
    last = hub.repos["dataset", REPO].commits[-1]
    assert (last.message, last.changed) == ("A new figure", ["histogram.png", "provenance.json"])
    assert hub.repos["dataset", REPO].files == content(finished)


def test_a_push_into_an_existing_set_keeps_its_other_files(hub, finished):
    repo = hub.add_repo("dataset", REPO, {"notes.txt": b"mine"}, private=True)
    publish(finished, REPO)
    assert repo.files == content(finished) | {"notes.txt": b"mine"}
    assert repo.private


PLACES = ["/repos/create", "/validate-yaml", "/preupload/", "/objects/batch", "/lfs-objects/", "/commit/"]
FAILURES = [(place, status) for place in PLACES for status in (401, 403, 500, "reset")]


@pytest.mark.parametrize(
    ("place", "status"), [*FAILURES, ("/preupload/", 404), ("/lfs-objects/", 404), ("/commit/", 429)]
)
def test_a_failed_push_goes_on_when_repeated(hub, finished, place, status):
    before = content(finished)
    hub.fail_next(place, status)
    with pytest.raises(HubError) as caught:
        publish(finished, REPO)
    _check_message(caught.value, finished)
    assert content(finished) == before

    hub.heal()
    publish(finished, REPO)
    assert hub.repos["dataset", REPO].files == before
    assert [commit.message for commit in hub.repos["dataset", REPO].commits][1:] == [
        "Upload an evolved instruction set"
    ]


@pytest.mark.parametrize(
    ("place", "status"), [("/preupload/", 403), ("/preupload/", "reset"), ("/commit/", 500), ("/commit/", "reset")]
)
def test_a_failed_push_of_the_pipeline_goes_on_when_repeated(hub, monkeypatch, finished, place, status):
    hub.lfs_suffixes = ()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    before = content(finished)
    hub.fail_next(place, status)
    with pytest.raises(HubError) as caught:
        publish(finished, REPO)
    _check_message(caught.value, finished)
    hub.heal()
    publish(finished, REPO)
    assert hub.repos["dataset", REPO].files == content(finished) == before


def _check_message(error, folder):
    message = str(error)
    assert "hf-evol push" in message
    assert str(folder) in message
    assert REPO in message
    assert TOKEN not in message
    assert SIGNATURE not in message
    assert "\n" not in message


SAID = [("/resolve/", status) for status in (401, 403, 404, 429, 503)]
SAID += [("/repos/create", 401), *((place, status) for place in PLACES for status in (403, 404, 503))]


@pytest.mark.parametrize(("place", "status"), SAID)
def test_the_message_holds_what_the_hub_said(hub, finished, place, status):
    hub.add_repo("dataset", REPO, {"README.md": b"# Theirs\n"} if place == "/resolve/" else {})
    hub.fail_next(place, status)
    if place == "/repos/create" and status in (401, 403):  # the dataset is there, so nothing need be created
        publish(finished, REPO)
        return
    with pytest.raises(HubError) as caught:
        publish(finished, REPO)
    message = str(caught.value)
    said = r"Told to fail \((Bearer \*\*\*|None)\)\."  # the token, where the request had one
    assert re.search(rf"did not finish: .*{status} [A-Z][A-Za-z ]+ for [A-Z]+ [^ ]*{place}[^ ]*: {said}", message)
    assert ("hf auth login" in message) == (status in (401, 403, 404))
    assert (f"'{SHARD}'" in message or "'histogram.png'" in message) == (place == "/lfs-objects/")


@pytest.mark.parametrize("place", ["/resolve/", *PLACES])
def test_the_message_says_what_got_no_answer(hub, finished, place):
    hub.add_repo("dataset", REPO, {"README.md": b"# Theirs\n"})
    hub.fail_next(place, "reset")
    with pytest.raises(HubError, match=rf"did not finish: .*No answer to [A-Z]+ [^ ]*{place}[^ ]*: ") as caught:
        publish(finished, REPO)
    assert "hf auth login" not in str(caught.value)


def test_a_conflict_without_the_address_of_the_dataset(hub, finished):
    hub.fail_next("/repos/create", 409)
    with pytest.raises(HubError, match=r"Its answer can't be understood \(KeyError: 'url'") as caught:
        publish(finished, REPO)
    _check_message(caught.value, finished)


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, finished):
    hub.fail_next("/commit/", "lost", 1)
    assert publish(finished, REPO) == f"{hub.url}/datasets/{REPO}"
    assert hub.repos["dataset", REPO].files == content(finished)
    sent = len(hub.requests)
    publish(finished, REPO)
    assert len(hub.repos["dataset", REPO].commits) == 2
    assert not [request for request in hub.requests[sent:] if "/lfs-objects/" in request or "/commit/" in request]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_push_goes_on_when_repeated(hub, finished, tmp_path, sent, code):
    env = os.environ | hub.environment() | {"HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "hf_evol.cli.main", "push", str(finished), REPO]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    hub.before_next("/lfs-objects/", lambda: process.send_signal(sent))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Interrupted. The same command goes on" in errors and "Traceback" not in errors
    assert len(hub.repos["dataset", REPO].commits) == 1
    publish(finished, REPO)
    assert hub.repos["dataset", REPO].files == content(finished)


def test_large_files_that_arrived_are_not_sent_again(hub, finished):
    hub.fail_next("/commit/", 500)
    with pytest.raises(HubError):
        publish(finished, REPO)
    sent = [request for request in hub.requests if request.startswith("PUT")]
    hub.heal()
    publish(finished, REPO)
    assert len(sent) == 2
    assert [request for request in hub.requests if request.startswith("PUT")] == sent


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refused_by_the_xet_storage(hub, monkeypatch, finished, status):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.fail_next("/xet-write-token/", status)
    with pytest.raises(HubError) as caught:
        publish(finished, REPO)
    _check_message(caught.value, finished)
    assert any("/xet-write-token/" in request for request in hub.requests)
    assert len(hub.repos["dataset", REPO].commits) == 1


@pytest.mark.parametrize("private", [False, True])
def test_the_command_in_the_message_finishes_the_same_push(hub, finished, capsys, private):
    hub.fail_next("/repos/create", 403)
    with pytest.raises(HubError) as caught:
        publish(finished, REPO, private=private)
    hub.heal()
    program, *arguments = shlex.split(re.search(r"hf-evol push .*", str(caught.value))[0])
    assert program == "hf-evol"
    assert main(arguments) == 0, capsys.readouterr().err
    assert f"{hub.url}/datasets/{REPO}" in capsys.readouterr().out
    assert hub.repos["dataset", REPO].files == content(finished)
    assert hub.repos["dataset", REPO].private is private


def test_no_token(hub, monkeypatch, finished):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="hf auth login"):
        publish(finished, REPO)
    assert hub.tokens == {None}
    assert not hub.repos


def test_a_token_that_cannot_be_sent_is_not_shown(hub, monkeypatch, finished):
    monkeypatch.setenv("HF_TOKEN", TOKEN + "é")  # headers are ASCII
    with pytest.raises(HubError) as caught:
        publish(finished, REPO)
    assert TOKEN not in str(caught.value)
    assert hub.tokens <= {None}


def test_nobody_listens(hub, finished):
    hub.__exit__()
    with pytest.raises(HubError, match="hf-evol push"):
        publish(finished, REPO)


def test_offline_mode(hub, monkeypatch, finished):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="offline mode is enabled"):
        publish(finished, REPO)
    assert hub.requests == []


def test_a_card_that_the_hub_refuses(hub, finished):
    (finished / "README.md").write_text("---\nlicense: [mit\n---\n", encoding="utf-8")
    with pytest.raises(HubError, match=r"card can't be read"):
        publish(finished, REPO)
    assert len(hub.repos["dataset", REPO].commits) == 1


MALFORMED = [
    "", "name", "user/", "/name", "user/set/more", "datasets/user/name", "https://huggingface.co/datasets/user/name",
    "user name/set", "user/my set", "user/set\n", "user/se--t", "user/se..t", "user/..", "user/.set", "user/set-",
    "user/set.git", "üser/set", "user/" + "x" * 97,
]  # fmt: skip


@pytest.mark.parametrize("repo_id", MALFORMED)
def test_malformed_names_are_refused_before_any_request(hub, finished, repo_id):
    with pytest.raises(ConfigError, match="user/name") as caught:
        publish(finished, repo_id)
    assert repr(repo_id) in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize("missing", ["README.md", "provenance.json"])
def test_an_unfinished_folder_is_refused_before_any_request(hub, finished, missing):
    (finished / missing).unlink()
    with pytest.raises(OutputError, match=missing):
        publish(finished, REPO)
    assert hub.requests == []


def test_a_folder_that_is_not_there(hub, tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        publish(tmp_path / "nowhere", REPO)
    assert hub.requests == []


THEIRS = {"question": ["a", "b", "c"]}


@pytest.fixture
def rows_of(finished):
    """A finished folder of two configs, which load; gives the local rows of a config."""
    tables = {"selected": ROWS, "round_1": {"instruction": ["Why?", "How?", "Größer 🌊?"]}}
    make_set(finished, tables)
    return tables


def card_of(repo, revision="main"):
    return repo.files_at(revision)["README.md"].decode()


def check_loads(expected, **options):
    """What `datasets` reads, whole and streamed, config by config; None is the default one."""
    for name, rows in expected.items():
        assert load_dataset(REPO, name, split="train", **options)[:] == rows
        streamed = load_dataset(REPO, name, split="train", streaming=True, **options)
        assert list(streamed) == [{column: value} for column, values in rows.items() for value in values]


def test_what_was_pushed_loads_as_the_local_rows(hub, transfer, finished, rows_of):
    publish(finished, REPO)
    check_loads(rows_of | {None: rows_of["selected"]})
    make_set(finished, rows_of | {"round_1": {"instruction": ["new"]}})
    publish(finished, REPO)
    check_loads(rows_of | {"round_1": {"instruction": ["new"]}})


def test_a_private_set_loads_with_the_token_only(hub, finished, rows_of, monkeypatch):
    publish(finished, REPO, private=True)
    with monkeypatch.context() as signed_out:
        signed_out.delenv("HF_TOKEN")
        for streaming in (False, True):
            with pytest.raises(DatasetNotFoundError):
                load_dataset(REPO, split="train", streaming=streaming)
        check_loads({"selected": rows_of["selected"]}, token=TOKEN)
    check_loads(rows_of)


@pytest.mark.parametrize(("name", "default"), [("default", None), ("theirs", None), ("theirs", True)])
def test_into_a_set_that_datasets_made_and_back(hub, finished, rows_of, name, default):
    Dataset.from_dict(THEIRS).push_to_hub(REPO, name, set_default=default)
    publish(finished, REPO)
    theirs = {name: THEIRS}
    check_loads(rows_of | theirs | {None: THEIRS})
    data = yaml.safe_load(card_of(hub.repos["dataset", REPO]).split("---\n")[1])
    assert [config["config_name"] for config in data["configs"]] == ["selected", "round_1", *theirs]
    assert data["dataset_info"]

    Dataset.from_dict(THEIRS).push_to_hub(REPO, "later")
    publish(finished, REPO)
    check_loads(rows_of | theirs | {"later": THEIRS, None: THEIRS})
    commits = len(hub.repos["dataset", REPO].commits)
    publish(finished, REPO)
    assert len(hub.repos["dataset", REPO].commits) == commits


def test_a_pull_request_leaves_the_main_branch_alone(hub, finished, rows_of):
    Dataset.from_dict(THEIRS).push_to_hub(REPO)
    repo = hub.repos["dataset", REPO]
    before = dict(repo.files)
    for number in (1, 2):
        assert publish(finished, REPO, create_pr=True) == f"{hub.url}/datasets/{REPO}/discussions/{number}"
        check_loads(rows_of | {"default": THEIRS}, revision=f"refs/pr/{number}")
    assert repo.files == before
    check_loads({None: THEIRS})


def test_a_branch_gets_its_own_card(hub, finished, rows_of):
    repo = hub.add_repo("dataset", REPO, {"README.md": b"# On main\n"})
    HfApi().create_branch(REPO, branch="more/rows", repo_type="dataset")
    repo.commit("Theirs", {"README.md": b"# On the branch\n"}, "more/rows")
    publish(finished, REPO, revision="more/rows")
    assert repo.files == {"README.md": b"# On main\n"}
    assert card_of(repo, "more/rows").endswith(f"{END}\n\n# On the branch\n")
    check_loads(rows_of, revision="more/rows")


def test_a_branch_that_is_not_there(hub, finished):
    repo = hub.add_repo("dataset", REPO, {})
    with pytest.raises(HubError, match="--revision nowhere") as caught:
        publish(finished, REPO, revision="nowhere")
    _check_message(caught.value, finished)
    assert list(repo.branches) == ["main"] and len(repo.commits) == 1


@pytest.mark.parametrize("times", [1, 3, 4])
def test_two_people_push_at_once(hub, finished, rows_of, times):
    repo = hub.add_repo("dataset", REPO, {"README.md": b"# Theirs, 0\n"})

    def slip_in():
        number = len(repo.commits)
        repo.commit("Theirs", {"README.md": f"# Theirs, {number}\n".encode(), f"{number}.txt": b"theirs"})

    hub.before_next("/commit/", slip_in, times)
    if times == 4:
        with pytest.raises(HubError, match="412 Precondition Failed") as caught:
            publish(finished, REPO)
        _check_message(caught.value, finished)
        assert {commit.message for commit in repo.commits} == {"initial commit", "Add files", "Theirs"}
        hub.heal()
    publish(finished, REPO)
    assert [path for path in repo.files if path.endswith(".txt")] == [f"{number + 2}.txt" for number in range(times)]
    assert card_of(repo).endswith(f"\n{END}\n\n# Theirs, {times + 1}\n")
    check_loads(rows_of)


@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize("times", [3, 4])
def test_conflicts_are_tried_four_times(hub, finished, status, times):
    hub.fail_next("/commit/", status, times)
    if times == 4:
        with pytest.raises(HubError) as caught:
            publish(finished, REPO)
        _check_message(caught.value, finished)
    else:
        publish(finished, REPO)
    assert sum("/commit/" in request for request in hub.requests) == 4
    assert len(hub.repos["dataset", REPO].commits) == 5 - times


@pytest.mark.parametrize(
    "published",
    [b"---\ntags: a\n---\n\xff\xfe", b"---\n- a\n---\nMine.\n", b"---\nlicense: [mit\n---\nMine.\n",
     b"---\nconfigs: text\n---\nMine.\n"],
)  # fmt: skip
def test_a_published_card_that_cannot_be_read_is_left_alone(hub, finished, published):
    repo = hub.add_repo("dataset", REPO, {"README.md": published})
    with pytest.raises(HubError, match="left as it is"):
        publish(finished, REPO)
    assert repo.files == {"README.md": published}


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, "reset"])
@pytest.mark.parametrize("place", ["/resolve/", "/revision/"])
def test_a_published_card_that_cannot_be_fetched_is_left_alone(hub, finished, status, place):
    repo = hub.add_repo("dataset", REPO, {"README.md": b"# Theirs\n"})
    hub.fail_next(place if place == "/resolve/" else f"/api/datasets/{REPO}", status)
    with pytest.raises(HubError) as caught:
        publish(finished, REPO)
    _check_message(caught.value, finished)
    assert repo.files == {"README.md": b"# Theirs\n"}
    hub.heal()
    publish(finished, REPO)
    assert card_of(repo).endswith("# Theirs\n")


def test_rows_in_another_number_of_files_replace_the_former_ones(hub, transfer, finished):
    make_set(finished, {"selected": ROWS, "round_1": ROWS})
    publish(finished, REPO)
    theirs = {"other/train-00000-of-00001.parquet": b"theirs", "round_1/notes.txt": b"theirs, too"}
    hub.repos["dataset", REPO].commit("More", theirs)
    (finished / "round_1" / "train-00000-of-00001.parquet").unlink()
    for number in range(2):
        (finished / "round_1" / f"train-{number:05}-of-00002.parquet").write_bytes(f"PAR1 part {number}".encode())
    write_provenance(read_provenance(str(finished)), finished)
    publish(finished, REPO)
    assert hub.repos["dataset", REPO].files == content(finished) | theirs
    assert len(hub.repos["dataset", REPO].commits) == 4


def loaded_card(repo=REPO):
    return DatasetCard.load(repo, repo_type="dataset", token=TOKEN).data.to_dict()


def test_what_an_earlier_push_wrote_is_renewed_and_what_people_wrote_stays(hub, finished, rows_of, caplog):
    make_set(finished, rows_of | {"round_3": ROWS, "dropped": ROWS}, title="GSM8K, evolved", license="mit")
    publish(finished, REPO)
    repo = hub.repos["dataset", REPO]
    old = card_of(repo).replace("tags:\n", "tags:\n- by-hand\n").replace("# GSM8K", "Kept.\n\n# GSM8K")
    repo.commit("By hand", {"README.md": (old + "\nMore by hand.\n").encode(), "notes.txt": b"theirs"})
    new = {"title": "Alpaca, evolved", "license": "cc-by-nc-4.0"}
    publish(make_set(finished, rows_of, **new), REPO)
    card, source = loaded_card(), provenance()["source"]["name"]
    assert (card["pretty_name"], card["license"], card["source_datasets"]) == (
        "Alpaca, evolved",
        "cc-by-nc-4.0",
        [source],
    )
    assert "by-hand" in card["tags"] and "Licence of this set: cc-by-nc-4.0" in card_of(repo)
    assert "More by hand." in card_of(repo)
    assert [config["config_name"] for config in card["configs"]] == ["selected", "round_1"]
    assert sorted(repo.files) == sorted([*content(finished), "notes.txt"])
    assert not caplog.records

    changed = (
        card_of(repo)
        .replace("license: cc-by-nc-4.0", "license: other")
        .replace("pretty_name: Alpaca", "pretty_name: Our Alpaca")
    )
    repo.commit("A person decides", {"README.md": changed.encode()})
    publish(make_set(finished, rows_of, title="Code", license="mit"), REPO)
    assert (loaded_card()["license"], loaded_card()["pretty_name"]) == ("other", "Our Alpaca, evolved")
    assert "licence on the published card, other" in caplog.text

    publish(make_set(finished, rows_of, title="Code", license=None), REPO)
    assert loaded_card()["license"] == "other"


def test_a_licence_that_the_new_set_lacks_goes(hub, finished):
    publish(finished, REPO)
    publish(make_set(finished, {"selected": ROWS}, license=None), REPO)
    assert "license" not in loaded_card()


OTHERS = {
    "json": ({"theirs/a.jsonl": b'{"x": 1}\n'}, "theirs/*.jsonl"), "csv": ({"theirs/a.csv": b"x\n1\n"}, "theirs/a.csv"),
}  # fmt: skip


@pytest.mark.parametrize("reader", OTHERS)
@pytest.mark.parametrize("ours", ["parquet", "json"])
def test_configs_of_others_stay_loadable(hub, finished, reader, ours):
    files, pattern = OTHERS[reader]
    head = yaml.safe_dump({"configs": [{"config_name": "theirs", "data_files": pattern}]})
    repo = hub.add_repo("dataset", REPO, files | {"README.md": f"---\n{head}---\nTheirs.\n".encode()})
    before = dict(repo.files)
    make_set(finished, {"selected": ROWS}, file_format=ours)
    if reader == ours:
        publish(finished, REPO)
        check_loads({"selected": ROWS, "theirs": {"x": [1]}})
        return
    advice = "--file-format json" if reader == "json" else "make those files parquet"
    with pytest.raises(HubError, match=rf"config 'theirs' of {reader} files, such as .*{advice}"):
        publish(finished, REPO)
    assert repo.files == before


@pytest.mark.parametrize("name", ["data.csv", "data/train-00000-of-00001.parquet", "train.jsonl"])
def test_rows_that_no_config_names_are_not_hidden(hub, finished, name):
    repo = hub.add_repo("dataset", REPO, {name: b"x\n1\n", "README.md": b"# Theirs\n", "notes.txt": b"mine"})
    with pytest.raises(HubError, match=rf"holds rows that no config of its card names, such as '{name}'"):
        publish(finished, REPO)
    assert len(repo.commits) == 2


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"histogram.png": b"theirs"}, "'histogram.png', which hf_evol has not written, and this set has a file"),
        ({"provenance.json": b"{}"}, r"provenance\.json that is left as it is"),
        ({"selected/train-theirs.parquet": b"PAR1"}, "'selected/train-theirs.parquet', which hf_evol has not written and which would"),
    ],
)  # fmt: skip
def test_files_of_others_are_in_no_ones_way(hub, finished, files, said):
    card = b"---\nconfigs:\n- config_name: theirs\n  data_files: theirs.parquet\n---\n"
    repo = hub.add_repo("dataset", REPO, files | {"README.md": card, "theirs.parquet": b"PAR1"})
    with pytest.raises(HubError, match=said):
        publish(finished, REPO)
    assert len(repo.commits) == 2


def test_a_config_of_others_of_the_same_name_is_not_replaced(hub, finished, rows_of):
    Dataset.from_dict(THEIRS).push_to_hub(REPO, "round_1")
    with pytest.raises(HubError, match="'round_1"):
        publish(finished, REPO)
    check_loads({"round_1": THEIRS})


def test_only_what_the_set_lists_is_sent(hub, finished, tmp_path):
    (tmp_path / "secret").write_text("hf_secret")
    for name in (
        ".env",
        ".DS_Store",
        ".ipynb_checkpoints/a.ipynb",
        ".cache/huggingface/x",
        "notes.md",
        "selected/more.parquet",
    ):
        (finished / name).parent.mkdir(parents=True, exist_ok=True)
        (finished / name).write_text("mine")
    (finished / "link").symlink_to(tmp_path / "secret")
    (finished / "links").symlink_to(tmp_path, target_is_directory=True)
    publish(finished, REPO)
    listed = {"README.md", "provenance.json", "histogram.png", SHARD}
    assert hub.repos["dataset", REPO].files.keys() == listed


def test_a_folder_that_came_from_the_hub_is_pushed_elsewhere(hub, finished, tmp_path):
    publish(finished, REPO)
    for folder in (tmp_path / "down", None):  # a copy, and the cache's links
        down = snapshot_download(REPO, repo_type="dataset", local_dir=folder)
        publish(down, "user/copy")
        assert hub.repos["dataset", "user/copy"].files == content(finished, "user/copy")
    example = re.search(r'load_dataset\("user/copy".*\)', card_of(hub.repos["dataset", "user/copy"]))[0]
    assert eval(example, {"load_dataset": load_dataset})[:] == ROWS


@pytest.mark.parametrize("act", ["change", "remove"])
@pytest.mark.parametrize("name", [SHARD, "histogram.png"])
def test_a_set_whose_files_are_not_as_written_is_not_pushed(hub, finished, name, act):
    (finished / name).write_bytes(b"mine") if act == "change" else (finished / name).unlink()
    with pytest.raises(OutputError, match=rf"'{name}' in .* is missing, or not as it was written.*hf upload"):
        publish(finished, REPO)
    assert hub.requests == []


def test_a_listed_path_cannot_lead_out_of_the_folder(hub, finished, tmp_path):
    (tmp_path / "secret").write_text("hf_secret")
    text = (finished / "provenance.json").read_text().replace('"histogram.png"', '"../secret"')
    (finished / "provenance.json").write_text(text)
    with pytest.raises(OutputError, match="holds no finished set"):
        publish(finished, REPO)
    assert hub.requests == []


def test_the_example_loads_the_branch(hub, finished):
    hub.add_repo("dataset", REPO, {})
    HfApi().create_branch(REPO, branch="v2", repo_type="dataset")
    publish(finished, REPO, revision="v2")
    example = re.search(r"load_dataset\(.*\)", card_of(hub.repos["dataset", REPO], "v2"))[0]
    assert 'revision="v2"' in example and eval(example, {"load_dataset": load_dataset})[:] == ROWS


def test_an_unchanged_push_says_so(hub, finished, caplog):
    publish(finished, REPO)
    assert "Nothing has changed" not in caplog.text
    publish(finished, REPO)
    assert f"Nothing has changed: {REPO} holds this set already" in caplog.text


def test_private_is_not_asked_for_a_public_set(hub, finished):
    repo = hub.add_repo("dataset", REPO, {})
    with pytest.raises(ConfigError, match=r"is public: --private"):
        publish(finished, REPO, private=True)
    assert len(repo.commits) == 1
    repo.private = True
    publish(finished, REPO, private=True)


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ({"name": "me", "orgs": []}, "signed in as 'me', who can't create 'user/evolved-set'. Choose a name under me"),
        ({"name": "me", "orgs": [{"name": "user", "roleInOrg": "read"}]}, "can't create"),
        ({"name": "me", "orgs": [{"name": "user", "roleInOrg": "write"}]}, None),
        ({"name": "user", "auth": {"accessToken": {"role": "read"}}}, "token may not write to 'user'"),
        ({"name": "user", "auth": {"accessToken": {"role": "write"}}}, None),
        ({"name": "user", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": []}}}}, "may not write"),
        ({"name": "user", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {
            "scoped": [{"entity": {"name": "user"}, "permissions": ["repo.write"]}]}}}}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("there", [False, True])
def test_the_right_to_push_is_asked_first(hub, who, said, there):
    hub.who = {"orgs": [], "type": "user"} | who
    if there:  # on a server that can't say who may write there
        hub.add_repo("dataset", REPO, {})
        hub.fail_next("/auth-check", 404)
    if said is None:
        check_push(REPO)
    else:
        with pytest.raises(HubError, match=said):
            check_push(REPO)


@pytest.mark.parametrize("status", [401, 403])
def test_a_set_of_others_is_told_first(hub, status):
    hub.add_repo("dataset", REPO, {})
    hub.fail_next("/auth-check", status)
    with pytest.raises(HubError, match=r"can't be pushed to .*Nothing was done"):
        check_push(REPO)


def test_a_card_that_is_a_link_is_not_published(hub, finished, tmp_path):
    (tmp_path / "id_rsa").write_text("secret")
    (finished / "README.md").unlink()
    (finished / "README.md").symlink_to(tmp_path / "id_rsa")
    with pytest.raises(OutputError, match="is a link to another place"):
        publish(finished, REPO)
    assert main(["card", str(finished)]) == 1
    assert hub.requests == [] and (tmp_path / "id_rsa").read_text() == "secret"


def test_a_card_in_the_cache_of_the_hub_is_not_changed(hub, finished):
    publish(finished, REPO)
    down = Path(snapshot_download(REPO, repo_type="dataset"))
    cached = (down / "README.md").resolve()
    before = cached.read_text()
    assert main(["card", str(down), "--repo-id", "user/other"]) == 0
    assert cached.read_text() == before and "user/other" in (down / "README.md").read_text()


def test_a_gitignore_there_is_told(hub, finished):
    repo = hub.add_repo("dataset", REPO, {".gitignore": b"*.parquet"})
    with pytest.raises(HubError, match=r"holds a \.gitignore"):
        publish(finished, REPO)
    assert len(repo.commits) == 2


@pytest.mark.parametrize(
    "place", ["/repos/create", "whoami", "/preupload/", "/objects/batch", "/commit/", f"/api/datasets/{REPO}"]
)
@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b"<html>", b"{}"])
def test_an_answer_that_makes_no_sense_is_told(hub, finished, place, body):
    repo = hub.add_repo("dataset", REPO, {"README.md": b"# Theirs\n"})
    hub.answer_next(place, body)
    with contextlib.suppress(HubError):
        check_push(REPO)
    with contextlib.suppress(HubError):
        publish(finished, REPO)
    assert "# Theirs" in card_of(repo)


def test_of_what_others_have_is_asked_before_the_work(hub, tmp_path):
    hub.add_repo("dataset", REPO, {"data.csv": b"x\n1\n"})
    with pytest.raises(HubError, match="holds rows that no config"):
        check_push(REPO)
    hub.repos["dataset", REPO].commit("A set", {"data.csv": None, "README.md": b"---\nlicense: [\n---\n"})
    with pytest.raises(HubError, match="can't be read"):
        check_output(f"hf://datasets/{REPO}", overwrite=False)


def test_where_the_hub_refuses_at_the_end_the_result_is_kept(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.add_repo("dataset", REPO, {})
    target = check_output(f"hf://datasets/{REPO}", overwrite=False)
    hub.fail_next("/commit/", 403)
    with pytest.raises(OutputError, match=r"403 Forbidden.*The result of this run is in '.*evolved-set-2'"):
        with set_folder(target, provenance(), [Config("selected", Dataset.from_dict(ROWS), "")], file_format="parquet"):
            pass
    hub.heal()
    publish("evolved-set-2", REPO)
    check_loads({"selected": ROWS})


def test_a_run_whose_requests_failed_exits_with_1_and_is_pushed_only_when_told(
    hub, tmp_path, wide_model, caplog, capsys
):
    rivers, folder = ("Nile", "Po", "Elbe", "Main"), tmp_path / "my set"
    rows = [f'{{"instruction": "How long is the {river}?", "input": "", "output": "Long."}}\n' for river in rivers]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    with ChatServer() as server:
        server.choice = lambda body: {
            "message": {
                "content": f"{body['messages'][-1]['content'].splitlines()[-1]} Say how deep it is in May as well."
            }
        }
        server.fault = lambda prompt, attempt: 400 if "Elbe" in prompt else None
        arguments = ["run", "--dataset", tmp_path / "rows.jsonl", "--engine", "endpoint", "--base-url", server.url]
        arguments += ["--model", "tiny", "--scorer", wide_model, "--methods", "constraint", "--license", "mit"]
        arguments += ["--output", folder, "--push-to", REPO, "--journal", tmp_path / "journal.sqlite", "--overwrite"]
        arguments = list(map(str, arguments))
        assert main(arguments) == 1
        said = capsys.readouterr().out
        assert "Requests failed for 1 rows. Most often: engine_error: HTTP 400" in said
        assert "The same command with --overwrite asks for those again" in said and "On the Hub" not in said
        assert load_dataset(str(folder), "round_1", split="train").num_rows == 3 and ("dataset", REPO) not in hub.repos
        (told,) = [message for message in caplog.messages if "is not pushed" in message]
        assert main(shlex.split(told.partition(": ")[2])[1:]) == 0  # as it is
        assert ("dataset", REPO) in hub.repos

        server.fault = lambda prompt, attempt: None
        server.requests.clear()
        assert main(arguments) == 0
        assert f"On the Hub:  {hub.url}/datasets/{REPO}" in capsys.readouterr().out
        assert {river for prompt in server.prompts for river in rivers if river in prompt} == {"Elbe"}
    assert load_dataset(REPO, "round_1", split="train").num_rows == 4
