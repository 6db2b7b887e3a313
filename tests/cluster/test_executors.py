"""What is handed to HF Jobs and Ray, and what happens there."""

import os
from pathlib import Path

import dill
import huggingface_hub
import pytest
from shard_files import files_of

from hf_evol import __version__
from hf_evol.cluster import Apply, Execution, ReadShard, WriteParquet, executors, run
from hf_evol.cluster.executors import executor_for, run_local, worker_pool
from hf_evol.cluster.stages import Stage


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
    assert len(calls) == 6  # three stages of two jobs, each with half of the tasks
    for script, given in calls:
        assert script.endswith("launch_pickled_pipeline.py") and given["script_args"][0].startswith(
            f"{bucket}/work/logs/"
        )
        assert given["dependencies"] == [f"hf_evol[cluster]=={__version__}"]
        assert given["flavor"] == "a10g-small" and given["timeout"] == "6h" and given["namespace"] == "us"
        assert given["secrets"] == {"HF_TOKEN": "hf_secret"} and "hf_secret" not in str(given["env"])


class Located(Apply):
    """Notes, for each row, the process, its place among the workers and how many models it has loaded."""

    def __init__(self):
        from hf_evol.scoring.ic_ifd import IcIfd

        super().__init__(IcIfd("embedded", journal=False))

    def run(self, data, rank=0, world_size=1):
        from hf_evol.generation import models

        for document in super().run(data, rank, world_size):
            misses = models._load_model.cache_info().misses
            document.metadata |= {"pid": os.getpid(), "place": models._rank, "loads": misses}
            yield document


def test_a_worker_keeps_its_place_and_its_model_over_all_tasks(tmp_path):
    from datasets import Features, Value

    import hf_evol
    from hf_evol.cluster.steps import document_of

    seeds = hf_evol.to_instructions(hf_evol.load_seeds("demo/general")).select(range(8))
    kinds = Features(dict(seeds.features) | {name: Value("int64") for name in ("pid", "place", "loads")})
    path = str(tmp_path / "{}-${{rank}}.parquet")
    for rank in range(8):
        write = WriteParquet(path.format("seeds"), seeds.features)
        list(write(map(document_of, seeds.select([rank])), rank))
    with worker_pool(2) as pool:
        for name in ("one", "two"):
            pipeline = [ReadShard(path.format("seeds")), Located(), WriteParquet(path.format(name), kinds)]
            stage = Stage(name, name, 8, pipeline)
            run_local(executor_for("local", stage, 2, str(tmp_path / name), {}), stage, pool, [1] * 8)
    rows = [row for name in ("one", "two") for row in hf_evol.load_seeds(str(tmp_path / f"{name}-*.parquet")).to_list()]
    places = {(row["pid"], row["place"]) for row in rows}
    assert len(rows) == 16 and os.getpid() not in {pid for pid, _ in places}
    assert len(places) == len({pid for pid, _ in places}) and {place for _, place in places} <= {0, 1}
    assert {row["loads"] for row in rows} == {1}


def test_ray_is_an_extra(monkeypatch):
    from hf_evol import errors

    monkeypatch.setattr(executors, "require_extra", lambda *_: (_ for _ in ()).throw(errors.MissingExtraError("ray")))
    with pytest.raises(errors.MissingExtraError, match="ray"):
        Execution("ray")


@pytest.mark.slow
def test_a_real_ray_cluster_gives_the_same_set(recipe, plain, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir="/tmp/ray-hf-evol")
    try:
        run(recipe, Execution("ray", tasks=2, workers=2, options={"mem_per_cpu_gb": 1}))
    finally:
        ray.shutdown()
    assert files_of(Path(recipe.output)) == plain
