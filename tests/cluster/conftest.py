"""A small recipe, what a run without datatrove makes of it, and workers within this process."""

import json
import os
import sys
from concurrent.futures import Future
from contextlib import nullcontext

import pytest

pytest.importorskip("datatrove")

from shard_files import files_of

import hf_evol
from hf_evol.recipe import Recipe


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Rows of which some can't be evolved."""
    texts = [row["instruction"] for row in hf_evol.load_seeds("demo/general").select(range(9))]
    texts[4:4] = ["", "x " * 3000, "Sort {numbers} with <|end|> in it, and say why."]
    file = tmp_path_factory.mktemp("seeds") / "rows.jsonl"
    file.write_text("".join(json.dumps({"instruction": text, "output": "So."}) + "\n" for text in texts))
    return str(file)


@pytest.fixture
def recipe(source, tmp_path):
    return make_recipe(source, tmp_path)


def make_recipe(source, folder):
    return Recipe(
        dataset=source, rounds=2, max_new_tokens=96, response_max_new_tokens=96, journal=str(folder / "journal.sqlite"),
        output=str(folder / "set"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def plain(source, tmp_path_factory):
    """The files of a run without datatrove."""
    folder = tmp_path_factory.mktemp("plain")
    result = hf_evol.run(make_recipe(source, folder))
    assert all(table["in_set"] and table["dropped"] for table in result.provenance["rounds"])
    return files_of(folder / "set")


@pytest.fixture
def within(monkeypatch):
    """Tasks run in this process, one after the other: quick, and what a test patches holds for them."""
    from hf_evol.cluster import executors

    class Pool:
        def submit(self, function, *args):
            future = Future()
            try:
                future.set_result(function(*args))
            except Exception as error:
                future.set_exception(error)
            return future

    monkeypatch.setattr(executors, "worker_pool", lambda workers: nullcontext(Pool()))


SBATCH = """#!{python}
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
