"""Ctrl-C and SIGTERM: the command ends with a message, and the same command goes on from there."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from talkative import make_talkative
from tiny_models import build_llama, build_tokenizer

OPTIONS = ["run", "--dataset", "demo/general", "--rounds", "1", "--limit", "16", "--batch-size", "1", "--overwrite"]
OPTIONS += ["--max-new-tokens", "32", "--response-max-new-tokens", "32"]
FOLDERS = {"HF_EVOL_CACHE": "cache", "HF_HOME": "home", "HF_DATASETS_CACHE": "datasets"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that talks in all processes that this module starts."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    build_llama(context=4096).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch, processes=True)
        yield str(folder)


def start(folder, model):
    env = os.environ | {name: str(folder / part) for name, part in FOLDERS.items()}
    command = [sys.executable, "-m", "hf_evol.cli.main", *OPTIONS, "--model", model, "--output", str(folder / "set")]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished_requests(folder):
    file = folder / "cache" / "journal.sqlite"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT COUNT(*) FROM requests").fetchall()[0][0]
    except sqlite3.Error:
        return 0


def test_an_interrupted_run_goes_on(tmp_path, model):
    """Whatever ends it, and however often, the files are those of a run that nothing interrupts."""
    done = 0
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process, deadline = start(tmp_path, model), time.monotonic() + 100
        while finished_requests(tmp_path) < done + 4 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code and finished_requests(tmp_path) >= done + 4
        done = finished_requests(tmp_path)
        told = "the same command goes on from there" in errors
        assert told == (sent != signal.SIGKILL) and "Traceback" not in errors
        assert not (tmp_path / "set").exists()
    assert start(tmp_path, model).wait(timeout=300) == 0
    assert start(tmp_path / "whole", model).wait(timeout=300) == 0
    whole = tmp_path / "whole" / "set"
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names
    for name in names:
        assert (tmp_path / "set" / name).read_bytes() == (whole / name).read_bytes()


def test_a_crash_in_native_code_says_where():
    code = "import os; from hf_evol.cli import main; main.main = lambda: os.kill(os.getpid(), 11); main.entry_point()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGSEGV and "Fatal Python error: Segmentation fault" in done.stderr
    assert "cli/main.py" in done.stderr
