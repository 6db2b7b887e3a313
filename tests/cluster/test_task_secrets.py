"""No secret in the work folder of a cluster's run, its logs, or what is submitted."""

from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from loguru import logger
from test_secrets import KEYS, MARK, found, found_in, secret

from hf_evol.cluster import Execution, run
from hf_evol.errors import ConfigError, TaskError
from hf_evol.scoring.ic_ifd import IcIfd

OPTIONS = {"partition": "gpu", "time": "1:00:00"}


@pytest.fixture
def recipe(recipe):
    """One with secrets: in the address of its rows, in what its model is loaded with, in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        address = f"memory://me:Password{MARK}@host/rows.jsonl"
        fsspec.filesystem("memory").pipe(address, Path(recipe.dataset).read_bytes())
        yield replace(recipe, dataset=address, rounds=1)


def test_a_task_that_fails_shows_none(recipe, within, monkeypatch):
    def refuse(self, batch):
        try:
            raise KeyError(KEYS["DB_PASSWORD"])
        except KeyError as error:
            raise RuntimeError(f"refused: {secret('server')}") from error

    monkeypatch.setattr(IcIfd, "apply", refuse)
    monkeypatch.setattr(type(logger), "disable", lambda *_: None)  # as in a worker's process
    model = {"name": recipe.model, "loading": {"cache_dir": f"/tmp/{MARK}"}}
    with pytest.raises(TaskError) as caught:
        run(replace(recipe, model=model), Execution(tasks=2))
    work = Path(f"{recipe.output}.work")
    logs = [file.read_text() for file in work.glob("logs/shards/logs/*.log")]
    assert len(logs) == 2 and all("KeyError: '***'" in log and "RuntimeError: refused: ***" in log for log in logs)
    assert (work / "plan.json").exists() and not found(str(caught.value)) and not found_in(work)


def test_what_is_submitted_holds_none(recipe, slurm):
    run(recipe, Execution("slurm", tasks=2, workers=1, options=OPTIONS))
    assert (Path(f"{recipe.output}.work") / "logs/shards/executor.json").exists()
    assert not found_in(Path(f"{recipe.output}.work"))
    assert not [text for file in slurm.glob("*.slurm") for text in found(file.read_text())]


def test_what_tasks_would_read_from_files_is_refused(recipe, slurm):
    with pytest.raises(ConfigError, match="response_system must not hold") as caught:
        run(replace(recipe, response_system=f"My token is {secret('system')}."), Execution("slurm", options=OPTIONS))
    assert not found(str(caught.value))
    with pytest.raises(ConfigError, match="env_command must not hold"):
        Execution("slurm", options=OPTIONS | {"env_command": f"export HF_TOKEN={secret('option')}"})
    assert not Path(f"{recipe.output}.work").exists()
