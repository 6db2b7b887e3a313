"""A small recipe, what a run without datatrove makes of it, and workers within this process."""

import json
import os
import sys
from concurrent.futures import Future
from contextlib import nullcontext

import pytest

pytest.importorskip("datatrove")

from shard_files import files_of
from talkative import make_talkative

import hf_evol
from hf_evol.run.recipe import Recipe


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Rows of which some can't be evolved."""
    texts = [row["instruction"] for row in hf_evol.load_seeds("demo/general").select(range(9))]
    texts[4:4] = ["Sort {numbers} with <|end|> in it, and say why.", "x " * 3000, ""]
    file = tmp_path_factory.mktemp("seeds") / "rows.jsonl"
    file.write_text("".join(json.dumps({"instruction": text, "output": "So."}) + "\n" for text in texts))
    return str(file)


@pytest.fixture
def talkative(monkeypatch):
    """The tiny model's tokens are read as instructions, here and in all processes that the test starts."""
    make_talkative(monkeypatch, processes=True)


@pytest.fixture
def recipe(source, wide_model, talkative, tmp_path):
    return make_recipe(source, wide_model, tmp_path)


def make_recipe(source, model, folder):
    return Recipe(
        dataset=source, model=model, rounds=2, max_new_tokens=24, response_max_new_tokens=24,
        journal=str(folder / "journal.sqlite"), output=str(folder / "set"),
    )  # fmt: skip


@pytest.fixture
def command(recipe):
    """The recipe's run as a command."""
    command = [sys.executable, "-m", "hf_evol.cli.main", "run", "--dataset", recipe.dataset, "--model", recipe.model]
    command += ["--rounds", "2", "--max-new-tokens", "24", "--response-max-new-tokens", "24"]
    return [*command, "--journal", recipe.journal, "--output", recipe.output]


@pytest.fixture(scope="session")
def plain(source, wide_model, tmp_path_factory):
    """The files of a run without datatrove."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        result = hf_evol.run(make_recipe(source, wide_model, folder))
    assert all(table["in_set"] and table["dropped"] for table in result.provenance["rounds"])
    return files_of(folder / "set")


@pytest.fixture
def within(monkeypatch):
    """Tasks run in this process, one after the other: quick, and what a test patches holds for them."""
    from hf_evol.cluster import local

    class Pool:
        def submit(self, function, *args):
            future = Future()
            try:
                future.set_result(function(*args))
            except Exception as error:
                future.set_exception(error)
            return future

    monkeypatch.setattr(local, "worker_pool", lambda workers: nullcontext(Pool()))


SBATCH = """#!{python} -I
# Notes the script, its options and variables, and gives a job id; refuses what is over the limit.
import json, os, shutil, sys
from pathlib import Path

folder = Path({folder!r})
number = len(list(folder.glob("*.slurm"))) + 1
limit = folder / "limit"
if limit.exists() and number > int(limit.read_text()):
    sys.exit(1)
shutil.copy(sys.argv[-1], folder / f"{{number}}.slurm")
(folder / f"{{number}}.options").write_text(" ".join(sys.argv[1:-1]))
(folder / f"{{number}}.env").write_text(json.dumps(dict(os.environ)))
print("Submitted batch job", number)
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands, which note what they are given; gives the folder of the notes."""
    commands, folder = tmp_path / "bin", tmp_path / "submitted"
    commands.mkdir()
    folder.mkdir()
    scripts = {
        "sbatch": SBATCH.format(python=sys.executable, folder=str(folder)),
        "squeue": f"#!/bin/sh\ncat {tmp_path}/queue 2>/dev/null; exit 0\n",
        "scontrol": "#!/bin/sh\necho node-1\n",
        "srun": '#!/bin/sh\nwhile [ "$1" != launch_pickled_pipeline ]; do shift; done\nexec "$@"\n',
        "launch_pickled_pipeline": f'#!/bin/sh\nexec {sys.executable} -m datatrove.tools.launch_pickled_pipeline "$@"\n',
    }
    for name, text in scripts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    return folder
