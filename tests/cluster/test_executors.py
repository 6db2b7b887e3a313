"""What is handed to HF Jobs and Ray, and what happens there."""

import sys
from pathlib import Path

import dill
import huggingface_hub
import pytest

from hf_evol import __version__
from hf_evol.cluster import Execution, run
from hf_evol.errors import MissingExtraError


def test_jobs_get_a_pickled_pipeline_and_all_they_need(recipe, bucket, monkeypatch):
    calls, stages = [], {}

    class Job:
        url = "https://huggingface.co/jobs/user/1"

        def __init__(self, number):
            self.id = f"job-{number}"

    def submit(script, **options):
        calls.append((script, options))
        return Job(len(calls))

    def inspect(job_id, **_):
        """The job has ended; its tasks are done here, as there."""
        if job_id not in stages:
            _, options = calls[int(job_id.rpartition("-")[2]) - 1]
            import fsspec

            with pytest.MonkeyPatch.context() as patch, fsspec.open(options["script_args"][0], "rb") as file:
                patch.setenv("DATATROVE_JOB_ARRAY_INDEX", options["env"]["DATATROVE_JOB_ARRAY_INDEX"])
                dill.load(file).run()
            stages[job_id] = "COMPLETED"
        status = type("Status", (), {"stage": stages[job_id]})
        return type("Info", (), {"status": status})

    monkeypatch.setattr(huggingface_hub, "run_uv_job", submit)
    monkeypatch.setattr(huggingface_hub, "inspect_job", inspect)
    options = {"flavor": "a10g-small", "timeout": "6h", "poll_interval": 0, "token": "hf_secret", "namespace": "us"}
    execution = Execution("jobs", tasks=4, workers=2, options=options, work_folder=f"{bucket}/work")
    result = run(recipe, execution)
    assert result.provenance["n_seeds"] == 12 and (Path(recipe.output) / "README.md").exists()
    assert len(calls) == 2  # each with half of the tasks
    for script, given in calls:
        assert script.endswith("launch_pickled_pipeline.py") and given["script_args"][0].startswith(
            f"{bucket}/work/logs/"
        )
        assert given["dependencies"] == [f"hf_evol[cluster]=={__version__}"]
        assert given["flavor"] == "a10g-small" and given["timeout"] == "6h" and given["namespace"] == "us"
        assert given["secrets"] == {"HF_TOKEN": "hf_secret"} and "hf_secret" not in str(given["env"])


def test_ray_is_an_extra(monkeypatch):
    module = sys.modules[Execution.__module__]
    monkeypatch.setattr(module, "require_extra", lambda *_: (_ for _ in ()).throw(MissingExtraError("ray")))
    with pytest.raises(MissingExtraError, match="ray"):
        Execution("ray")
