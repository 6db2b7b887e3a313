"""What every transform keeps: plain `Dataset.map`, one row, fingerprints, removed columns, processes."""

from __future__ import annotations

import shutil

import pytest
from datasets import Dataset, IterableDataset, Value
from datasets.fingerprint import Hasher
from tiny_models import build_llama

import hf_evol
from hf_evol import ModelSpec
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.models import loading
from hf_evol.transform import values_of


@pytest.fixture
def rows():
    return Dataset.from_dict(
        {"id": ["a-0", "a-1"], "instruction": ["Name a river.", "Why?"], "output": ["The Nile.", "So."]}
    )


@pytest.fixture
def respond(tiny_model):
    return hf_evol.Respond(tiny_model, max_new_tokens=4, journal=False)


def test_one_row_is_no_batch(rows, respond):
    for call in (lambda: respond(rows[0]), lambda: rows.map(respond)):
        with pytest.raises(ColumnError, match=r"Respond takes a batch.*'id' is 'a-0'.*batched=True"):
            call()
    with pytest.raises(ColumnError, match="batched=True"):
        respond({"instruction": None})
    with pytest.raises(ConfigError, match="takes a dataset of the datasets library, not list"):
        hf_evol.map(rows.to_list(), respond)


def test_columns_that_are_not_read_are_not_converted(rows, monkeypatch):
    from datasets.formatting.formatting import LazyBatch

    read, form = [], LazyBatch.format
    monkeypatch.setattr(LazyBatch, "format", lambda batch, name: read.append(name) or form(batch, name))
    rows = rows.add_column("parent_instruction", ["Name it.", "Why?"]).add_column("history", [[{"round": 1}], []])
    flagged = hf_evol.map(rows, hf_evol.Eliminate(keep=True))
    assert {"instruction", "parent_instruction"} <= set(read) and "history" not in read
    assert flagged.remove_columns("elimination").to_list() == rows.to_list()


@pytest.mark.parametrize("removed", ["id", ["id", "output"], ["instruction", "output"]])
def test_columns_are_removed_as_by_dataset_map(rows, respond, removed):
    mapped = hf_evol.map(rows, respond, remove_columns=removed)
    plain = rows.map(respond, batched=True, remove_columns=removed)
    assert mapped.to_list() == plain.to_list() and mapped.features == plain.features
    empty = hf_evol.map(rows.select([]), respond, remove_columns=removed)
    assert empty.features == mapped.features
    streamed = hf_evol.map(rows.to_iterable_dataset(), respond, remove_columns=removed)
    assert isinstance(streamed, IterableDataset) and set(streamed.column_names) == set(mapped.column_names)
    assert [dict(row) for row in streamed] == mapped.to_list()


def test_a_rewritten_column_stays_though_it_is_removed(rows, tiny_model):
    evolve = hf_evol.EvolInstruct(
        tiny_model, methods=[hf_evol.Method("as_it_is", "{instruction}")], max_new_tokens=4, journal=False
    )
    mapped = hf_evol.map(rows, evolve, remove_columns=["output", "id"])
    plain = rows.map(evolve, batched=True, remove_columns=["output", "id"], features=mapped.features)
    assert mapped.to_list() == plain.to_list() and mapped["output"][:] == [None, None]
    assert mapped.features["output"] == Value("string") and "id" not in mapped.features


def test_the_fingerprint_holds_what_decides_and_nothing_else(rows, tiny_model, tmp_path):
    base = hf_evol.Respond(tiny_model, max_new_tokens=4)
    engine = hf_evol.TransformersEngine(ModelSpec(tiny_model, device="cpu"), batch_size=3)
    alike = [
        hf_evol.Respond(tiny_model, max_new_tokens=4, journal=False),
        hf_evol.Respond(tiny_model, max_new_tokens=4, journal=tmp_path / "own.sqlite"),
        hf_evol.Respond(engine, max_new_tokens=4),
    ]
    others = [
        hf_evol.Respond(tiny_model, max_new_tokens=5), hf_evol.Respond(tiny_model, max_new_tokens=4, system="Be kind."),
        hf_evol.Respond(ModelSpec(tiny_model, dtype="bfloat16"), max_new_tokens=4),
        hf_evol.Respond(ModelSpec(tiny_model, chat_template="{{ messages[-1].content }}!"), max_new_tokens=4),
    ]  # fmt: skip
    hashes = [Hasher.hash(transform) for transform in (base, *alike, *others)]
    assert len(set(hashes[:4])) == 1 and len(set(hashes)) == 5
    first = rows.map(base, batched=True)
    assert rows.map(alike[0], batched=True)._fingerprint == first._fingerprint  # of the plain map, too
    elsewhere = shutil.copytree(tiny_model, tmp_path / "elsewhere", copy_function=shutil.copy2)
    assert (
        Hasher.hash(hf_evol.Respond(str(elsewhere), max_new_tokens=4)) == hashes[0]
    )  # a folder's name decides nothing


class Longer(hf_evol.Transform):
    """A user's own, which is no dataclass."""

    output_columns = {"longer": "string"}

    def __init__(self, model, journal=True):
        self.model, self.journal = model, journal

    def apply(self, batch):
        return {"longer": [text + self.model for text in batch["instruction"]]}


def test_a_transform_of_ones_own(rows):
    mapped = hf_evol.map(rows, Longer("!"))
    assert (
        mapped["longer"][:] == ["Name a river.!", "Why?!"]
        and rows.map(Longer("!"), batched=True)["longer"][:] == mapped["longer"][:]
    )
    hashes = [Hasher.hash(transform) for transform in (Longer("!"), Longer("!", journal=False), Longer("?"))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_other_weights_under_a_name_are_another_model(rows, tiny_model, tmp_path):
    """Within one process, and without a word to it."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    score = hf_evol.IcIfd(str(folder))
    rows = rows.add_column("input", ["", ""])
    before, old = score(rows[:]), Hasher.hash(score)
    build_llama(seed=7).save_pretrained(folder)
    assert Hasher.hash(score) != old
    after = score(rows[:])
    assert (
        after["loss_a"] != before["loss_a"]
        and after["loss_a"] == hf_evol.IcIfd(str(folder), journal=False)(rows[:])["loss_a"]
    )
    assert len([spec for spec, _ in loading._models if spec.name == str(folder)]) == 1  # the old weights are gone


def test_a_model_on_the_hub_is_told_by_its_commit(monkeypatch):
    """Without a revision, too: the library no longer says which commit a configuration is of."""
    from hf_evol.models import identity

    commits = iter(["1" * 40, "2" * 40])
    monkeypatch.setattr(identity, "base_of_adapter", lambda spec: None)
    monkeypatch.setattr(identity, "hf_hub_download", lambda *_, **__: f"/cache/snapshots/{next(commits)}/config.json")
    identity._commit.cache_clear()
    first = identity.weights_identity(ModelSpec("user/model"))
    assert first["revision"] == "1" * 40 and identity.weights_identity(ModelSpec("user/model")) == first
    identity._commit.cache_clear()
    assert identity.weights_identity(ModelSpec("user/model"))["revision"] == "2" * 40


@pytest.mark.parametrize("first", [True, False])
def test_arguments_of_the_map_that_decide_are_in_the_fingerprint(rows, respond, first):
    rows = rows.select([0, 1, 0])
    kept = {drop: len(hf_evol.map(rows, respond, batch_size=2, drop_last_batch=drop)) for drop in (first, not first)}
    assert kept == {True: 2, False: 3}


def test_leading_nulls_need_the_features(tiny_model):
    """A column whose first thousand values are null is taken for one of nulls by `datasets`; `hf_evol.map` says what it is."""
    rows = Dataset.from_dict({"instruction": [None] * 3 + ["Name a river."] * 2})
    respond = hf_evol.Respond(tiny_model, max_new_tokens=4, journal=False)
    expected = hf_evol.map(rows, respond)
    assert expected.features["output"] == Value("string") and expected["response_status"][0] == "invalid_input"
    plain = rows.map(respond, batched=True, batch_size=1, writer_batch_size=1, features=respond.features(rows.features))
    assert plain.to_list() == expected.to_list()


def test_a_journal_serves_several_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    journal = hf_evol.Journal(tmp_path / "journal.sqlite")

    def work(number):
        journal.put({f"{number}-{k}": {"text": str(k)} for k in range(20)})
        return len(journal.get([f"{number}-{k}" for k in range(20)]))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [20] * 24
    assert journal.stats().requests == 24 * 20


def test_rows_whose_sampling_noise_would_be_the_same_are_refused(tiny_model):
    rows = Dataset.from_dict({"id": ["a-0", "a-1", "a-0"], "instruction": ["x", "y", "z"]})
    with pytest.raises(ColumnError, match=r"'a-0' stands in 2 rows.*name="):
        hf_evol.map(rows, hf_evol.EvolInstruct(tiny_model))


@pytest.mark.parametrize("layout", ["arrow", "pandas", "numpy"])
def test_a_formatted_dataset_is_mapped_and_keeps_its_format(layout):
    rows = Dataset.from_dict({"instruction": ["Write a poem."], "parent_instruction": ["Write."]})
    flag = hf_evol.Eliminate(keep=True)
    mapped = hf_evol.map(rows.with_format(layout), flag)
    assert mapped.format["type"] == layout
    assert mapped.with_format(None).to_list() == hf_evol.map(rows, flag).to_list()
    assert list(values_of(rows.with_format(layout), "instruction")) == [("Write a poem.",)]


def test_a_table_in_place_of_a_batch_says_what_to_do():
    rows = Dataset.from_dict({"instruction": ["Write a poem."], "parent_instruction": ["Write."]}).with_format("arrow")
    with pytest.raises(ColumnError, match=r"takes a dict of lists, not a Table.*with_format\(None\)"):
        rows.map(hf_evol.Eliminate(keep=True), batched=True)
