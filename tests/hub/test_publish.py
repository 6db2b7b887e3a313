import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
import yaml
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetNotFoundError
from hub_server import SIGNATURE, TOKEN
from huggingface_hub import HfApi

from hf_evol.errors import ConfigError, HubError, OutputError
from hf_evol.hub.merge import BEGIN, END
from hf_evol.hub.publish import publish

REPO = "user/evolved-set"


@pytest.fixture
def finished(tmp_path):
    """A folder as a run leaves it, in small; its name needs quoting in a shell."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "my evolved set"
    (folder / "data").mkdir(parents=True)
    card = f"---\nlicense: apache-2.0\n---\n\n{BEGIN}\n\n# Evolved, größer 🌊\n\n{END}\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "provenance.json").write_text(json.dumps({"rows": 2}), encoding="utf-8")
    pq.write_table(pa.table({"instruction": ["Why?", "How?"]}), folder / "data" / "train.parquet")
    (folder / "histogram.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    return folder


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    assert repo.lfs == (set() if transfer == "in the commit" else {"data/train.parquet", "histogram.png"})
    assert [commit.message for commit in repo.commits] == ["initial commit", "Upload an evolved instruction set"]
    assert TOKEN in hub.tokens


def test_a_second_push_makes_no_commit(hub, transfer, finished):
    publish(finished, REPO)
    assert publish(finished, REPO) == f"{hub.url}/datasets/{REPO}"
    assert len(hub.repos["dataset", REPO].commits) == 2


def test_only_what_changed_is_committed(hub, transfer, finished):
    publish(finished, REPO)
    (finished / "histogram.png").write_bytes(b"another picture")
    publish(str(finished), REPO, message="A new figure")
    last = hub.repos["dataset", REPO].commits[-1]
    assert (last.message, last.changed) == ("A new figure", ["histogram.png"])
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
    assert ("'data/train.parquet'" in message or "'histogram.png'" in message) == (place == "/lfs-objects/")


@pytest.mark.parametrize("place", ["/resolve/", *PLACES])
def test_the_message_says_what_got_no_answer(hub, finished, place):
    hub.add_repo("dataset", REPO, {"README.md": b"# Theirs\n"})
    hub.fail_next(place, "reset")
    with pytest.raises(HubError, match=rf"did not finish: .*No answer to [A-Z]+ [^ ]*{place}[^ ]*: ") as caught:
        publish(finished, REPO)
    assert "hf auth login" not in str(caught.value)


def test_a_conflict_without_the_address_of_the_dataset(hub, finished):
    hub.fail_next("/repos/create", 409)
    with pytest.raises(HubError, match="The Hub's answer lacks 'url'") as caught:
        publish(finished, REPO)
    _check_message(caught.value, finished)


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, finished):
    hub.fail_next("/commit/", "lost")
    with pytest.raises(HubError) as caught:
        publish(finished, REPO)
    _check_message(caught.value, finished)
    hub.heal()
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
    from hf_evol.cli.main import main

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
    with pytest.raises(HubError, match=r"Invalid metadata in README\.md"):
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
    tables = {"selected": {"instruction": ["Why?", "How?"]}, "round_1": {"instruction": ["Why?", "How?", "Größer 🌊?"]}}
    configs = []
    for name, rows in tables.items():
        Dataset.from_dict(rows).to_parquet(finished / name / "train-00000-of-00001.parquet")
        data_files = [{"split": "train", "path": f"{name}/*.parquet"}]
        configs.append(
            {"config_name": name, "data_files": data_files} | ({"default": True} if name == "selected" else {})
        )
    (finished / "data" / "train.parquet").unlink()
    head = yaml.safe_dump({"configs": configs})
    (finished / "README.md").write_text(f"---\n{head}---\n\n{BEGIN}\n\n# Evolved\n\n{END}\n", encoding="utf-8")
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
    Dataset.from_dict({"instruction": ["new"]}).to_parquet(finished / "round_1" / "train-00000-of-00001.parquet")
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


@pytest.mark.parametrize(
    ("name", "default"), [("default", None), ("theirs", None), ("theirs", True), ("round_1", True)]
)
def test_into_a_set_that_datasets_made_and_back(hub, finished, rows_of, name, default):
    Dataset.from_dict(THEIRS).push_to_hub(REPO, name, set_default=default)
    publish(finished, REPO)
    theirs = {} if name in rows_of else {name: THEIRS}
    first = THEIRS if name == "default" else rows_of["selected"]  # `datasets` takes a config of that name first
    check_loads(rows_of | theirs | {None: first})
    data = yaml.safe_load(card_of(hub.repos["dataset", REPO]).split("---\n")[1])
    assert [config["config_name"] for config in data["configs"]] == ["selected", "round_1", *theirs]
    assert bool(data.get("dataset_info")) == bool(theirs)

    Dataset.from_dict(THEIRS).push_to_hub(REPO, "later")
    publish(finished, REPO)
    check_loads(rows_of | theirs | {"later": THEIRS, None: first})
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
    assert card_of(repo).endswith(f"# Evolved\n\n{END}\n\n# Theirs, {times + 1}\n")
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
    for config in ("round_1", "selected"):
        (finished / config).mkdir()
        (finished / config / "train-00000-of-00001.parquet").write_bytes(b"PAR1 one " + config.encode())
    publish(finished, REPO)
    theirs = {"other/train-00000-of-00001.parquet": b"theirs", "round_1/test-00000-of-00001.parquet": b"their split"}
    hub.repos["dataset", REPO].commit("More", theirs)
    (finished / "round_1" / "train-00000-of-00001.parquet").unlink()
    for number in range(2):
        (finished / "round_1" / f"train-{number:05}-of-00002.parquet").write_bytes(f"PAR1 part {number}".encode())
    publish(finished, REPO)
    assert hub.repos["dataset", REPO].files == content(finished) | theirs
    assert len(hub.repos["dataset", REPO].commits) == 4
