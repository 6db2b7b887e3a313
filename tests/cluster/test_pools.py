"""Workers that stay: local processes and, on a real Ray cluster of this machine, actors."""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from shard_files import files_of
from talkative import make_talkative
from worker_steps import Deadly, Located, fail, visible_gpus

import hf_evol
from hf_evol.cluster import Execution, ReadShard, WriteParquet, run
from hf_evol.cluster.executors import executor_for, pool_for, run_tasks
from hf_evol.cluster.stages import Stage
from hf_evol.cluster.steps import document_of
from hf_evol.errors import TaskError

KINDS = ["local", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def ray_cluster():
    """Two CPUs, and two GPUs that Ray takes our word for."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch, processes=True)
        talking = {name: os.environ[name] for name in ("PYTHONPATH", "HF_EVOL_TESTS_TALKATIVE")}
    path = os.pathsep.join([talking["PYTHONPATH"], *filter(None, sys.path)])  # to find worker_steps, too
    environment = {"env_vars": talking | {"PYTHONPATH": path}}
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


def a_pool(executor):
    return pool_for(executor, 2)


def ray_executor(folder, steps=(), tasks=1, **options):
    stage = Stage("try", "Try", tasks, list(steps))
    return stage, executor_for("ray", stage, 2, str(folder), {"mem_per_cpu_gb": 1} | options)


def actors():
    found = []
    for process in psutil.Process().children(recursive=True):  # the cluster is one of this process
        try:
            found += [process] if "ray::Worker" in " ".join(process.cmdline()) else []
        except psutil.Error:
            continue
    return found


def none_stays(within_s=10):
    deadline = time.monotonic() + within_s
    while actors() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not actors()


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_keeps_its_place_and_its_model_over_all_tasks(kind, wide_model, tmp_path, request):
    from datasets import Features, Value

    if kind == "ray":
        request.getfixturevalue("ray_cluster")
    seeds = hf_evol.to_instructions(hf_evol.load_seeds("demo/general")).select(range(8))
    kinds = Features(dict(seeds.features) | {name: Value("int64") for name in ("pid", "place", "loads")})
    path = str(tmp_path / "{}-${{rank}}.parquet")
    for rank in range(8):
        write = WriteParquet(path.format("seeds"), seeds.features)
        list(write(map(document_of, seeds.select([rank])), rank))
    stages = []
    for name in ("one", "two"):
        pipeline = [ReadShard(path.format("seeds")), Located(wide_model), WriteParquet(path.format(name), kinds)]
        stage = Stage(name, name, 8, pipeline)
        stages.append((stage, executor_for(kind, stage, 2, str(tmp_path / name), {})))
    with pool_for(stages[0][1], 2) as pool:
        for stage, executor in stages:
            run_tasks(executor, stage, pool, [1] * 8)
    rows = [row for name in ("one", "two") for row in hf_evol.load_seeds(str(tmp_path / f"{name}-*.parquet")).to_list()]
    places = {(row["pid"], row["place"]) for row in rows}
    assert len(rows) == 16 and os.getpid() not in {pid for pid, _ in places}
    assert len(places) == len({pid for pid, _ in places}) and {place for _, place in places} <= {0, 1}
    assert {row["loads"] for row in rows} == {1}
    assert none_stays()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_task_done_again(ray_cluster, tmp_path):
    tried = tmp_path / "tried"
    tried.mkdir()
    stage, executor = ray_executor(tmp_path / "logs", [Deadly(str(tried), victim=2, times=1)], tasks=5)
    with a_pool(executor) as pool:
        run_tasks(executor, stage, pool, [1] * 5)
    assert Counter(path.name[0] for path in tried.iterdir()) == {"0": 1, "1": 1, "2": 2, "3": 1, "4": 1}


@pytest.mark.slow
def test_a_task_that_kills_every_worker_leaves_the_others(ray_cluster, tmp_path):
    tried = tmp_path / "tried"
    tried.mkdir()
    stage, executor = ray_executor(tmp_path / "logs", [Deadly(str(tried), victim=0, times=9)], tasks=4)
    with a_pool(executor) as pool, pytest.raises(TaskError, match=r"1 of 4 tasks .*Its worker died, 3 times"):
        run_tasks(executor, stage, pool, [1] * 4)
    assert Counter(path.name[0] for path in tried.iterdir()) == {"0": 3, "1": 1, "2": 1, "3": 1}
    assert [path.name for path in sorted((tmp_path / "logs" / "completions").iterdir())] == ["00001", "00002", "00003"]
    assert none_stays()


@pytest.mark.slow
def test_calls_on_ray(ray_cluster, tmp_path, monkeypatch):
    from hf_evol.cluster import ray_pool

    with a_pool(ray_executor(tmp_path, gpus_per_task=1)[1]) as pool:
        seen = [pool.submit(visible_gpus, 5) for _ in range(2)]
        assert {future.result() for future in seen} == {"0", "1"}  # each worker sees the one that is reserved for it
        with pytest.raises(KeyError, match="no more"):
            pool.submit(fail, "no more").result()
    monkeypatch.setattr(ray_pool, "TRIES", 1)
    with a_pool(ray_executor(tmp_path, time=1)[1]) as pool:
        with pytest.raises(TaskError, match=r"took more than 1 s, 1 times"):
            pool.submit(time.sleep, 60).result()
        assert pool.submit(os.getpid).result()
    monkeypatch.setattr(ray_pool, "__version__", "7.0")
    with a_pool(ray_executor(tmp_path)[1]) as pool:
        for future in [pool.submit(os.getpid) for _ in range(4)]:
            with pytest.raises(TaskError, match=r"A worker has hf_evol .*; the launcher has 7\.0\."):
                future.result()


@pytest.mark.slow
def test_workers_that_ray_can_not_place_are_waited_for_and_do_not_outlive_the_run(
    ray_cluster, tmp_path, monkeypatch, capsys
):
    from hf_evol.cluster import ray_pool

    monkeypatch.setattr(ray_pool, "SAY_SO_AFTER_S", 0.1)
    with a_pool(ray_executor(tmp_path, gpus_per_task=2)[1]) as pool:  # one worker at a time
        assert len({pool.submit(os.getpid).result() for _ in range(3)}) == 1
    with a_pool(ray_executor(tmp_path, gpus_per_task=3)[1]) as pool, pytest.raises(KeyboardInterrupt):
        future = pool.submit(os.getpid)
        with pytest.raises(TimeoutError):
            future.result(timeout=2)
        raise KeyboardInterrupt
    assert "Waiting for Ray: 0 of 1 workers run; each needs 1 CPU, 3 GPU and 1.1 GB; " in capsys.readouterr().err
    assert none_stays()


@pytest.mark.slow
def test_a_run_on_ray_gives_the_same_set(ray_cluster, recipe, plain):
    run(recipe, Execution("ray", tasks=2, workers=2, options={"mem_per_cpu_gb": 1}))
    assert files_of(Path(recipe.output)) == plain
    assert none_stays()
