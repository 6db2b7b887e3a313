import os
import subprocess
import sys
from pathlib import Path

import dill
import pytest

from hf_evol.cluster import Execution
from hf_evol.cluster.folder import LOCK, WorkFolder
from hf_evol.errors import ConfigError, OutputError


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    if request.param == "s3":
        return WorkFolder(request.getfixturevalue("bucket") + "/deep/work")
    return WorkFolder(str(tmp_path / "work") if request.param == "local" else f"memory://{tmp_path.name}/work")


def test_a_second_launcher_is_refused(folder):
    with folder.locked():
        with pytest.raises(OutputError, match=r"Another launcher works in .* on this machine"):
            with WorkFolder(folder.url).locked():
                pass
        assert folder._read(LOCK)["pid"] == os.getpid()  # still the first one's
    assert folder._read(LOCK) is None
    with folder.locked():
        pass


HOLDS = """
import sys
from hf_evol.cluster.folder import WorkFolder
with WorkFolder(sys.argv[1]).locked():
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_killed_launcher_leaves_no_lock(tmp_path):
    """Whoever comes next is let in, and of many that find what it left, one."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "work")]

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        return subprocess.Popen(command, **pipes)

    for _ in range(2):
        first = start()
        assert first.stdout.readline() == "in\n"
        first.kill()
        first.wait()
        assert (tmp_path / "work" / LOCK).exists()
        others = [start() for _ in range(4)]
        said = [other.stdout.readline() for other in others]
        assert sorted(said) == ["", "", "", "in\n"]
        for other in others:
            other.communicate()
        assert not (tmp_path / "work").exists()


def test_the_lock_of_another_host_is_left_alone(folder):
    folder._write(LOCK, {"host": "elsewhere", "pid": 1, "started": "then", "jobs": []})
    with pytest.raises(OutputError, match=r"host elsewhere, pid 1, started then, .* If it has ended, delete"):
        with folder.locked():
            pass


@pytest.mark.parametrize(("script", "refused"), [("echo 12_0 RUNNING", True), ("exit 0", False)])
def test_submitted_jobs_keep_the_lock_as_long_as_they_live(tmp_path, monkeypatch, script, refused):
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{script}\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}{os.pathsep}{os.environ['PATH']}")
    folder = WorkFolder(str(tmp_path / "work"))
    with folder.locked() as jobs:
        jobs += ["12", "13"]
    assert folder._read(LOCK)["jobs"] == ["12", "13"]
    if refused:
        with pytest.raises(OutputError, match=r"jobs \['12', '13'\]"):
            with folder.locked():
                pass
    else:
        with folder.locked():
            pass
    assert (tmp_path / "asked").read_text().split() == ["--noheader", "--jobs", "12,13"]


def test_a_folder_is_claimed_once_and_cleared(folder):
    with folder.locked():
        folder.claim({"seed": 1, "rows": 3})
        folder.makedirs("rows", exist_ok=True)
        folder._write("rows/00000.parquet", {})
        folder.claim({"seed": 1, "rows": 3})
        assert folder._read("rows/00000.parquet") == {}
        with pytest.raises(OutputError, match=r"another plan; it differs in rows, seed\."):
            folder.claim({"seed": 2})
        folder.clear()
        assert folder._read("rows/00000.parquet") is None
        folder.claim({"seed": 2})
        folder.clear()
    if folder.is_local():
        assert not Path(folder.path).exists()


def test_a_folder_with_other_things_is_left_alone(folder):
    folder._write("thesis.txt", {"mine": True})
    with pytest.raises(OutputError, match="holds something else"), folder.locked():
        folder.claim({"seed": 1})
    assert folder._read("thesis.txt") == {"mine": True} and folder._read(LOCK) is None


@pytest.mark.parametrize("name", ["seeds/mine.jsonl", "logs/diary.txt", "rows/00000.parquet"])
def test_folders_of_the_same_names_are_left_alone(tmp_path, name):
    """What a run may clear is told by its plan, not by names."""
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="holds something else"), WorkFolder(str(tmp_path)).locked() as _:
        WorkFolder(str(tmp_path)).claim({"seed": 1})
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_has_one_lock_by_whatever_name(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "work")
    with WorkFolder(str(tmp_path / "work")).locked():
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        with pytest.raises(OutputError, match="Another launcher"), WorkFolder(str(tmp_path / "link")).locked():
            pass


def test_a_damaged_lock_says_what_to_do(tmp_path):
    folder = WorkFolder(str(tmp_path))
    (tmp_path / LOCK).write_text("{")
    with pytest.raises(OutputError, match="can't be read"), folder.locked():
        pass


def test_a_folder_is_the_same_in_a_process_that_works_elsewhere(tmp_path, monkeypatch):
    here, folder = Path.cwd(), Execution().folder("set")
    packed = dill.dumps(folder)
    monkeypatch.chdir(tmp_path)
    assert dill.loads(packed).url == folder.url == str(here / "set.work")


def test_a_store_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"can't be 'nothing://work': Protocol not known.*--work-folder"):
        Execution(work_folder="nothing://work").folder("out")


def test_an_error_of_the_store_itself_is_told_with_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(type(folder.fs), "makedirs", refuse)
    with pytest.raises(OutputError, match=r"can't be used: no credentials.*--work-folder"):
        with folder.locked():
            pass


def refuse(*_, **__):
    raise Exception("no credentials")  # as botocore's NoCredentialsError, which is nothing more special
