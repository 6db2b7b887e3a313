import fsspec
import pytest
from datasets import Dataset, Features, List, Value
from datatrove.data import Document
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import ParquetReader
from talkative import make_talkative

import hf_evol
from hf_evol import columns as col
from hf_evol.cluster import Apply
from hf_evol.cluster.folder import WorkFolder
from hf_evol.cluster.steps import row_of
from hf_evol.errors import SourceError
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


def document_of(row):
    return Document(row["instruction"] or "", row["id"], metadata=row)


def through(steps, rank=0, world_size=1, data=None):
    for step in steps:
        data = step(data, rank, world_size)
    return [row_of(document) for document in data]


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def test_shards_come_back_from_a_store_as_they_were(store):
    folder, rows = WorkFolder(f"{store}/deep"), Dataset.from_list(ROWS, features=FEATURES)
    for rank in (0, 1):
        folder.put_shard(rows.select([0] if rank == 0 else [1, 2]), "seeds", rank)
    parts = [folder.load_shards("seeds", [rank]) for rank in (0, 1)]
    assert [part.to_list() for part in parts] == [ROWS[:1], ROWS[1:]]
    assert folder.load_shards("seeds", range(2)).to_list() == ROWS
    assert parts[0].features == FEATURES  # the all-null column, too
    folder.put_shard(rows.select([]), "rows", 5)
    assert folder.load_shards("rows", [5]).features == FEATURES
    with pytest.raises(SourceError, match=r"seeds/00005.arrow is missing"):
        folder.load_shards("seeds", [5])


def test_a_shard_is_there_whole_or_not_at_all(store, monkeypatch):
    folder, rows = WorkFolder(store), Dataset.from_list(ROWS, features=FEATURES)
    folder.put_shard(rows.select([0]), "rows", 0)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Dataset, "iter", lambda self, size: (1 / 0 for _ in range(1)))
        folder.put_shard(rows, "rows", 0)
    assert folder.load_shards("rows", [0]).to_list() == ROWS[:1]  # what was there before
    fs, root = fsspec.url_to_fs(store)
    assert [name.rpartition("/")[2] for name in fs.ls(f"{root}/rows", detail=False)] == ["00000.arrow"]


def test_a_transform_gives_what_map_gives(seeds, tiny_model, monkeypatch):
    make_talkative(monkeypatch)
    as_it_is = [hf_evol.Method("as_it_is", "{instruction}")]  # which the model's context holds
    mapped, steps = seeds, []
    for transform in (
        hf_evol.EvolInstruct(tiny_model, methods=as_it_is, rounds=1, max_new_tokens=8, journal=False),
        hf_evol.Respond(tiny_model, max_new_tokens=8, journal=False),
    ):
        mapped = hf_evol.map(mapped, transform)
        steps.append(Apply(transform, batch_size=2))
    assert col.OK in mapped[col.RESPONSE_STATUS]
    assert through(steps, data=map(document_of, seeds)) == mapped.to_list()


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
    assert row_of(Document("", "x-1", metadata={"messages": []})) == {"id": "x-1", "messages": []}


def test_the_example_runs(wide_model, monkeypatch):
    """With another model in the place of the demo's, which takes its time."""
    import doctest

    from hf_evol.cluster import steps

    monkeypatch.setattr(hf_evol, "IcIfd", lambda name: IcIfd({"demo": wide_model}[name], journal=False))
    names = vars(steps)
    found = doctest.DocTestFinder().find(steps.Apply, "Apply", globs=names)
    assert sum(len(test.examples) for test in found) == 5
    for test in found:
        assert doctest.DocTestRunner().run(test).failed == 0
