"""`hf_evol.map` by many tasks."""

from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import ChatServer
from datasets import Dataset

import hf_evol
from hf_evol.cluster import Execution, map
from hf_evol.errors import ColumnError, ConfigError, ModelError, TaskError
from hf_evol.evolve.eliminate import Eliminate
from hf_evol.evolve.respond import Respond
from hf_evol.scoring.ic_ifd import IcIfd


@pytest.fixture
def rows(seeds):
    from datasets import Value

    return seeds.add_column("nothing", [None] * len(seeds), feature=Value("string"))


@pytest.fixture
def execution(tmp_path):
    return Execution(tasks=3, work_folder=str(tmp_path / "work"))


def folders(execution):
    return {path.name for path in Path(execution.work_folder, "maps").glob("*")}


@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_the_same_rows_in_order(rows, execution, within, tasks, wide_model):
    score = IcIfd(wide_model, journal=False)
    mapped, plain = map(rows, score, replace(execution, tasks=tasks)), hf_evol.map(rows, score)
    assert mapped.to_list() == plain.to_list()
    assert mapped.features == plain.features and mapped.column_names == plain.column_names


def test_the_same_rows_on_an_object_store(rows, execution, within, bucket, wide_model):
    score = IcIfd(wide_model, journal=False)
    for _ in range(2):  # the second from the shards
        mapped = map(rows, score, replace(execution, work_folder=f"{bucket}/work"))
        assert mapped.to_list() == hf_evol.map(rows, score).to_list()


def test_each_call_has_a_folder_of_its_own(rows, execution, within, monkeypatch, wide_model):
    apply, batches = Respond.apply, []
    monkeypatch.setattr(Respond, "apply", lambda self, batch: batches.append(batch["id"]) or apply(self, batch))
    respond = Respond(wide_model, max_new_tokens=4, journal=False)
    first = map(rows, respond, execution).to_list()
    assert map(Dataset.from_list(rows.to_list(), features=rows.features), respond, execution).to_list() == first
    assert len(folders(execution)) == 1 and len(batches) == 3
    map(rows, respond, replace(execution, tasks=2))
    map(rows, replace(respond, max_new_tokens=5), execution)
    map(rows.select(range(6)), respond, execution)
    assert len(folders(execution)) == 4 and len(batches) == 3 + 2 + 3 + 3


def test_what_a_server_refused_is_asked_for_again(rows, execution, within):
    with ChatServer() as server:
        engine = hf_evol.EndpointEngine("far", base_url=server.url)
        respond = Respond(engine, journal=False)
        server.fault = lambda prompt, attempt: 400 if rows["instruction"][4] in prompt else None
        first = map(rows, respond, execution)
        asked = len(server.requests)
        server.fault = lambda prompt, attempt: None
        second = map(rows, respond, execution)
        assert first["output"][:].count(None) == 1 and first["output"][4] is None
        assert None not in second["output"][:]
        assert len(server.requests) - asked == 3  # of the task with the refused row
        map(rows, respond, execution)
        assert len(server.requests) - asked == 3


def test_what_has_no_model_is_done_here(rows, execution, wide_model):
    parents = rows.rename_column("nothing", "parent_instruction")
    assert map(parents, Eliminate(keep=True), execution)["elimination"][:] == ["not_evolved"] * len(rows)
    assert not Path(execution.work_folder).exists()
    score = IcIfd(wide_model)
    assert map(rows.select([]), score, execution).features == score.features(rows.features)


def test_errors_are_those_of_the_transform(rows, execution, within, monkeypatch, wide_model):
    def gone(self, batch):
        raise ModelError("The weights are gone.")

    with pytest.raises(ConfigError, match="work_folder"):
        map(rows, IcIfd(wide_model), Execution(tasks=2))
    with pytest.raises(ColumnError, match="'output' not found"):
        map(rows.remove_columns("output"), IcIfd(wide_model), execution)
    with pytest.raises(ModelError, match="no model folder"):
        map(rows, IcIfd("./none"), execution)
    assert not folders(execution)
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="The weights are gone"):
        patch.setattr(IcIfd, "apply", gone)
        map(rows, IcIfd(wide_model), execution)
    with monkeypatch.context() as patch, pytest.raises(TaskError, match="3 of 3 tasks of the stage 'my-scores'"):
        patch.setattr(IcIfd, "apply", lambda self, batch: 1 / 0)
        map(rows, IcIfd(wide_model), execution, desc="My scores")
