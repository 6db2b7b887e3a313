import fsspec
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, List, Value
from datatrove.data import Document
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import ParquetReader
from talkative import make_talkative

import hf_evol
from hf_evol import columns as col
from hf_evol.cluster import Apply, Keep, ReadRows, ReadShard, WriteParquet
from hf_evol.cluster.steps import columns_of, document_of, row_of
from hf_evol.errors import ColumnError, ConfigError, SourceError
from hf_evol.run.result import REASON, evolution_reasons
from hf_evol.scoring.ic_ifd import IcIfd

FEATURES = Features(
    {
        "id": Value("string"),
        "instruction": Value("string"),
        "reward": Value("float64"),
        "round": Value("int32"),
        "history": List({"round": Value("int32"), "text": Value("string")}),
    }
)
ROWS = [
    {"id": "a-0", "instruction": "Why {x}?\n<|end|> é", "reward": None, "round": 1, "history": []},
    {"id": "a-1", "instruction": None, "reward": None, "round": None, "history": [{"round": 1, "text": None}]},
    {"id": "a-2", "instruction": "", "reward": None, "round": 2**31 - 1, "history": None},
]


def through(steps, rank=0, world_size=1, data=None):
    for step in steps:
        data = step(data, rank, world_size)
    return [row_of(document) for document in data]


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def test_rows_come_back_from_a_store_as_they_were(store):
    path = f"{store}/deep/${{rank}}.parquet"
    passed = through([WriteParquet(path, FEATURES)], rank=3, data=map(document_of, ROWS))
    assert passed == ROWS
    assert through([ReadShard(path)], rank=3) == ROWS
    with fsspec.open(f"{store}/deep/00003.parquet", "rb") as file:
        assert Features.from_arrow_schema(pq.read_schema(file)) == FEATURES  # the all-null column, too
    assert through([WriteParquet(path, FEATURES, first=3)], rank=1, data=[]) == through([ReadShard(path)], rank=4) == []
    with pytest.raises(SourceError, match=r"00005.parquet' is missing"):
        through([ReadShard(path)], rank=5)


def test_a_task_that_fails_leaves_no_file(store):
    def failing():
        yield from map(document_of, ROWS)
        raise RuntimeError("no more")

    path = f"{store}/${{rank}}.parquet"
    through([WriteParquet(path, FEATURES)], data=map(document_of, ROWS[:1]))
    with pytest.raises(RuntimeError, match="no more"):
        through([WriteParquet(path, FEATURES)], data=failing())
    assert through([ReadShard(path)]) == ROWS[:1]  # what was there before
    fs, root = fsspec.url_to_fs(store)
    assert [name.rpartition("/")[2] for name in fs.ls(root, detail=False) if "parquet" in name] == ["00000.parquet"]


@pytest.mark.parametrize("tasks", [1, 3, 9])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "glob", "ours"])
def test_every_row_goes_to_one_task_with_the_id_of_the_whole_set(tmp_path, kind, tasks):
    rows = [{"question": f"How many are {n}?", "answer": f"{n}", "extra": [n, None]} for n in range(7)]
    if kind == "ours":
        rows = [{"id": f"mine-{9 - n}", "reward": None} | row for n, row in enumerate(rows)]
    options = {"format": None} if kind == "ours" else {"keep_columns": ["extra"]}
    file = str(tmp_path / f"rows.{'jsonl' if kind == 'jsonl' else 'parquet'}")
    if kind == "jsonl":
        Dataset.from_list(rows).to_json(file)
    elif kind == "glob":
        Dataset.from_list(rows[:4]).to_parquet(tmp_path / "a.parquet")
        Dataset.from_list(rows[4:]).to_parquet(tmp_path / "b.parquet")
        file = str(tmp_path / "*.parquet")
    else:
        Dataset.from_list(rows).to_parquet(file)
    reader = ReadRows(file, **options)
    read = [row for rank in range(tasks) for row in through([reader], rank, tasks)]
    if kind != "ours":
        rows = hf_evol.to_instructions(hf_evol.load_seeds(file), keep_columns=["extra"]).to_list()
        assert [row["id"] for row in rows] == [f"gsm8k-{n}" for n in range(7)]
    assert read == rows


def test_rows_as_they_are_need_an_id(tmp_path):
    Dataset.from_list([{"instruction": "Why?"}]).to_json(tmp_path / "rows.jsonl")
    with pytest.raises(ColumnError, match="'id' not found"):
        through([ReadRows(str(tmp_path / "rows.jsonl"), format=None)])


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_transform_gives_what_map_gives(seeds, tmp_path, tiny_model, tasks, monkeypatch):
    make_talkative(monkeypatch)
    as_it_is = [hf_evol.Method("as_it_is", "{instruction}")]  # which the model's context holds
    transforms = [
        hf_evol.EvolInstruct(tiny_model, methods=as_it_is, rounds=1, max_new_tokens=8, journal=False),
        hf_evol.Respond(tiny_model, max_new_tokens=8, journal=False),
    ]
    mapped = seeds
    for transform in transforms:
        mapped = hf_evol.map(mapped, transform)
    assert col.OK in mapped[col.RESPONSE_STATUS]
    seeds.to_parquet(tmp_path / "seeds.parquet")
    path = str(tmp_path / "out-${rank}.parquet")
    steps = [
        ReadRows(str(tmp_path / "seeds.parquet"), format=None),
        *(Apply(each, batch_size=2) for each in transforms),
    ]
    steps.append(WriteParquet(path, mapped.features))
    for rank in range(tasks):
        through(steps, rank, tasks)
    files = [str(tmp_path / f"out-{rank:05d}.parquet") for rank in range(tasks)]
    written = hf_evol.load_seeds(str(tmp_path / "out-*.parquet"))
    assert written.features == mapped.features and written.to_list() == mapped.to_list() and len(files) == tasks


def test_each_task_has_its_own_journal(seeds, tmp_path, tiny_model):
    step = Apply(hf_evol.Respond(tiny_model, max_new_tokens=4), journal=str(tmp_path / "journal-${rank}.sqlite"))
    for rank in (0, 1):
        through([step], rank, data=map(document_of, seeds.to_list()[:2]))
    assert {path.name for path in tmp_path.glob("*.sqlite")} == {"journal-00000.sqlite", "journal-00001.sqlite"}
    off = Apply(
        hf_evol.Respond(tiny_model, max_new_tokens=4, journal=False), journal=str(tmp_path / "off-${rank}.sqlite")
    )
    through([off], data=map(document_of, seeds.to_list()[:2]))
    assert not list(tmp_path.glob("off*"))


def test_with_datatroves_own_blocks(tmp_path, tiny_model):
    Dataset.from_list([{"text": text, "id": f"web-{n}"} for n, text in enumerate("abc")]).to_parquet(
        tmp_path / "a.parquet"
    )
    steps = [
        ParquetReader(str(tmp_path), glob_pattern="*.parquet"),
        LambdaFilter(lambda document: document.text != "b"),
    ]
    steps.append(Apply(hf_evol.Respond(tiny_model, max_new_tokens=4, journal=False)))
    rows = through(steps)
    assert [(row["id"], row["instruction"]) for row in rows] == [("web-0", "a"), ("web-2", "c")]
    assert all(row[col.RESPONDER] == "tiny" for row in rows)


def test_a_text_that_another_block_changes_is_the_instruction():
    document = document_of(ROWS[0])
    document.text = document.text.upper()
    assert row_of(document)["instruction"] == "WHY {X}?\n<|END|> É"
    assert row_of(document_of(ROWS[1]))["instruction"] is None and row_of(document_of(ROWS[2]))["instruction"] == ""
    assert columns_of([{"a": 1}, {"b": 2}]) == {"a": [1, None], "b": [None, 2]}
    assert row_of(Document("", "x-1", metadata={"messages": []})) == {"id": "x-1", "messages": []}


def test_rows_left_out_go_to_their_own_place_with_the_reason(tmp_path):
    rows = [
        {"id": f"a-{n}", col.EVOL_STATUS: status, col.ELIMINATION: why}
        for n, (status, why) in enumerate([("ok", "kept"), ("too_long: 9", "kept"), ("ok", "copy"), ("ok", "kept")])
    ]
    features = Features({name: Value("string") for name in (*rows[0], REASON)})
    path = str(tmp_path / "${rank}.parquet")
    kept = through([Keep(evolution_reasons, WriteParquet(path, features))], data=map(document_of, rows))
    assert kept == [rows[0], rows[3]]
    assert through([ReadShard(path)]) == [rows[1] | {REASON: "too_long"}, rows[2] | {REASON: "copy"}]


def test_a_path_without_the_task_is_refused(tmp_path, tiny_model):
    for wrong in (
        lambda: WriteParquet("out.parquet", FEATURES),
        lambda: ReadShard("out.parquet"),
        lambda: Apply(hf_evol.Respond(tiny_model), journal="journal.sqlite"),
    ):
        with pytest.raises(ConfigError, match=r"\$\{rank\}"):
            wrong()


def test_the_example_runs(wide_model, monkeypatch):
    """With another model in the place of the demo's, which takes its time."""
    import doctest

    from hf_evol.cluster import shards, steps

    monkeypatch.setattr(hf_evol, "IcIfd", lambda name: IcIfd({"demo": wide_model}[name], journal=False))
    names = vars(steps) | vars(shards)
    found = doctest.DocTestFinder().find(steps.Apply, "Apply", globs=names)
    assert sum(len(test.examples) for test in found) == 6
    for test in found:
        assert doctest.DocTestRunner().run(test).failed == 0
