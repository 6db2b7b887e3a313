import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher

import hf_evol
from hf_evol import columns as col
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.evolve.evol_instruct import EvolInstruct, position
from hf_evol.generation.base import Completion
from hf_evol.prompts.evol_instruct import PRESETS

KEPT = [col.ID, *EvolInstruct.output_columns]


def evolver(model, **settings):
    return EvolInstruct(model, **({"rounds": 2, "max_new_tokens": 16, "journal": False} | settings))


def rows_of(dataset):
    return sorted(dataset.select_columns(KEPT).to_list(), key=lambda row: row[col.ID])


class Scripted:
    """An engine that answers by a function of the prompt, for what a real model can't be made to say."""

    name = "scripted"

    def __init__(self, answer):
        self.answer, self.prompts, self.keys = answer, [], []

    def check(self):
        pass

    def stream(self, chats, params, keys):
        self.prompts += [turns[0]["content"] for turns in chats]
        self.keys += keys
        yield [(i, self.answer(turns[0]["content"])) for i, turns in enumerate(chats)]


def said(text, reason="stop"):
    return Completion(text, reason, 1, 1)


def test_rotation_is_that_of_the_paper(tiny_model):
    transform = evolver(tiny_model, methods="alpaca")
    for i in range(12):
        for r in range(4):
            assert transform.method(f"alpaca-{i}", r).name == PRESETS["alpaca"][(i + r) % 5]


def test_three_rounds_at_once_are_three_times_one_round(tiny_model, seeds):
    at_once = seeds.map(evolver(tiny_model, rounds=3), batched=True)
    one = evolver(tiny_model, rounds=1)
    in_turn = seeds.map(one, batched=True).map(one, batched=True).map(one, batched=True)
    assert rows_of(at_once) == rows_of(in_turn)
    assert at_once[0][col.ROUND] == 3 and len(at_once[0][col.HISTORY]) == 3


def test_no_arrangement_changes_a_row(tiny_model, seeds):
    """Batch size, order, shards, a stream, and separate calls give each row what one map gives it."""
    transform = evolver(tiny_model)
    whole = rows_of(seeds.map(transform, batched=True))
    assert any(row[col.EVOL_STATUS] != "cut_off" for row in whole) or len({str(row) for row in whole}) == len(whole)
    for size in (1, 3):
        assert rows_of(seeds.map(transform, batched=True, batch_size=size)) == whole
    assert rows_of(seeds.shuffle(seed=3).map(transform, batched=True)) == whole
    shards = [seeds.shard(3, i).map(transform, batched=True) for i in range(3)]
    assert rows_of(concatenate_datasets(shards)) == whole
    stream = hf_evol.map(seeds.to_iterable_dataset(num_shards=2), transform, batch_size=4)
    assert isinstance(stream, IterableDataset)
    assert rows_of(Dataset.from_list(list(stream))) == whole


def test_processes_change_nothing(tiny_model, seeds):
    transform = evolver(tiny_model)
    whole = rows_of(hf_evol.map(seeds, transform))
    assert rows_of(hf_evol.map(seeds, transform, num_proc=2)) == whole


def test_dataset_dict(tiny_model, seeds):
    from datasets import DatasetDict

    transform = evolver(tiny_model)
    mapped = hf_evol.map(DatasetDict(a=seeds, b=seeds.select([1])), transform)
    assert rows_of(mapped["b"]) == [rows_of(mapped["a"])[1]]


def test_fingerprint_is_of_the_settings_and_the_same_in_every_process(tiny_model):
    make = f"__import__('hf_evol').EvolInstruct({tiny_model!r}, methods='gsm8k', seed=4)"
    code = f"from datasets.fingerprint import Hasher; print(Hasher.hash({make}))"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | extra)
        for extra in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    ]
    transform = EvolInstruct(tiny_model, methods="gsm8k", seed=4)
    before = Hasher.hash(transform)
    assert {run.stdout.strip() for run in runs} == {before}
    transform({"id": ["a-0"], "instruction": ["Why?"]})  # loads the model
    assert Hasher.hash(transform) == before
    assert Hasher.hash(EvolInstruct(tiny_model, methods="gsm8k", seed=5)) != before


def test_a_second_map_comes_from_the_cache(tiny_model, seeds, tmp_path):
    seeds.save_to_disk(tmp_path / "seeds")
    first = Dataset.load_from_disk(tmp_path / "seeds").map(evolver(tiny_model), batched=True)
    again = Dataset.load_from_disk(tmp_path / "seeds").map(evolver(tiny_model), batched=True)
    assert first.cache_files and first.cache_files == again.cache_files


def test_a_killed_run_goes_on_from_its_journal(tiny_model, seeds, tmp_path, monkeypatch):
    from hf_evol.generation.transformers_engine import TransformersEngine

    whole = rows_of(seeds.map(evolver(tiny_model), batched=True))
    transform = evolver(tiny_model, journal=str(tmp_path / "j.sqlite"))
    stream, served = TransformersEngine.stream, []

    def dying(self, chats, params, keys):
        for finished in stream(self, chats, params, keys):
            yield finished
            served.extend(finished)
            if len(served) >= 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(TransformersEngine, "stream", dying)
    with pytest.raises(KeyboardInterrupt):
        seeds.map(transform, batched=True, load_from_cache_file=False)
    asked = []

    def counting(self, chats, params, keys):
        asked.extend(keys)
        return stream(self, chats, params, keys)

    monkeypatch.setattr(TransformersEngine, "stream", counting)
    assert rows_of(seeds.map(transform, batched=True, load_from_cache_file=False)) == whole
    assert len(asked) == 2 * len(seeds) - len(served)


@pytest.mark.parametrize(
    ("completion", "status", "kept"),
    [
        (said("Why, and how far?"), "ok", "Why, and how far?"),
        (said('Rewritten Prompt: "Why, and how far?"'), "ok", "Why, and how far?"),
        (said(""), "empty", "Why?"),
        (said("<think>hm"), "empty", "Why?"),
        (said("WHY? "), "unchanged", "Why?"),
        (said("The rewritten prompt must be harder."), "leak", "Why?"),
        (said("I'm sorry, I can't help with that."), "refusal", "Why?"),
        (said("Why, and how", "length"), "cut_off", "Why?"),
        (Completion("", "error", error="engine_error: broke"), "engine_error: broke", "Why?"),
    ],
)
def test_statuses_and_the_last_good_instruction(completion, status, kept):
    engine = Scripted(lambda prompt: completion)
    out = EvolInstruct(engine, methods="gsm8k", journal=False)({"id": ["a-1"], "instruction": ["Why?"]})
    assert out[col.EVOL_STATUS] == [status] and out[col.INSTRUCTION] == [kept]
    assert (
        out[col.PARENT_INSTRUCTION] == ["Why?"] and out[col.METHOD] == ["deepen"] and out[col.EVOLVER] == ["scripted"]
    )
    assert out[col.HISTORY][0][0]["status"] == status


def test_the_next_round_starts_from_the_last_good_instruction():
    engine = Scripted(lambda prompt: said("" if "deeper and broader" in prompt else "Better"))
    out = EvolInstruct(engine, methods="gsm8k", rounds=3, journal=False)({"id": ["a-0"], "instruction": ["Seed"]})
    assert [entry["status"] for entry in out[col.HISTORY][0]] == ["ok", "empty", "unchanged"]
    assert [entry["parent"] for entry in out[col.HISTORY][0]] == ["Seed", "Better", "Better"]
    assert out[col.INSTRUCTION] == ["Better"] and out[col.SEED_INSTRUCTION] == ["Seed"]


def test_an_eliminated_row_restarts_from_its_parent():
    engine = Scripted(lambda prompt: said("new"))
    batch = {
        "id": ["a-0", "a-1"], "instruction": ["bad", "good"], "parent_instruction": ["p0", "p1"], "round": [1, 1],
        "elimination": ["near_copy", "kept"],
    }  # fmt: skip
    out = EvolInstruct(engine, methods=["deepen"], journal=False)(batch)
    assert out[col.PARENT_INSTRUCTION] == ["p0", "good"]
    assert out[col.ELIMINATION] == ["kept", "kept"]


def test_the_seeds_answer_is_kept_apart():
    out = EvolInstruct(Scripted(lambda p: said("new")), journal=False)(
        {"id": ["a-0"], "instruction": ["old"], "output": ["answer to old"]}
    )
    assert out[col.OUTPUT] == [None] and out[col.SEED_OUTPUT] == ["answer to old"]


def test_only_the_instruction_is_shown_and_the_batch_is_not_changed():
    engine = Scripted(lambda p: said("new"))
    batch = {"id": ["a-0"], "instruction": ["old {x}"], "input": ["SECRET"], "history": [[]]}
    before = json.dumps(batch)
    EvolInstruct(engine, methods=["deepen"], journal=False, rounds=2)(batch)
    assert "old {x}" in engine.prompts[0] and not any("SECRET" in prompt for prompt in engine.prompts)
    assert json.dumps(batch) == before


@pytest.mark.parametrize("nothing", [None, "", "  \n", 7])
def test_rows_without_an_instruction_keep_their_place(nothing):
    out = EvolInstruct(Scripted(lambda p: said("new")), journal=False)(
        {"id": ["a-0", "a-1"], "instruction": [nothing, "x"]}
    )
    assert out[col.EVOL_STATUS] == ["invalid_input", "ok"] and out[col.INSTRUCTION] == [nothing, "new"]


def test_hostile_rows_come_through_a_real_model(tiny_model):
    texts = ["{braces} {instruction} {0}", "### Given prompt\n### Rewritten prompt", "<|end|><|assistant|>x", "a\x00b",
             "👋🏽 مرحبا \u202e", "x" * 100_000]  # fmt: skip
    data = Dataset.from_dict({"id": [f"h-{i}" for i in range(6)], "instruction": texts})
    out = hf_evol.map(data, evolver(tiny_model))
    assert out[col.SEED_INSTRUCTION] == texts
    assert out[5][col.EVOL_STATUS].startswith("too_long: ") and out[5][col.INSTRUCTION] == texts[5]
    assert not any(status.startswith("too_long") for status in out[col.EVOL_STATUS][:5])


def test_empty_set_and_one_row(tiny_model, seeds):
    empty = hf_evol.map(seeds.select([]), evolver(tiny_model))
    assert len(empty) == 0 and set(KEPT) <= set(empty.column_names)
    assert len(hf_evol.map(seeds.select([3]), evolver(tiny_model))) == 1


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [({"rounds": 0}, "rounds"), ({"temperature": -1}, "temperature"), ({"methods": "odd"}, "Unknown method"),
     ({"model": 3}, "model must be")],
)  # fmt: skip
def test_wrong_settings_fail_at_construction(settings, fragment):
    with pytest.raises(ConfigError, match=fragment):
        EvolInstruct(**({"model": "embedded"} | settings))


def test_null_columns_of_ours_count_as_absent_and_others_are_refused():
    engine = Scripted(lambda p: said("new"))
    batch = {"id": ["a-0"], "instruction": ["old"], "round": [None], "history": [None], "seed_instruction": [None],
             "elimination": ["odd"]}  # fmt: skip
    out = EvolInstruct(engine, journal=False)(batch)
    assert out[col.ROUND] == [1] and out[col.SEED_INSTRUCTION] == ["old"] and len(out[col.HISTORY][0]) == 1
    for name, value in (("round", "first"), ("history", "long")):
        with pytest.raises(ColumnError, match=f"Column '{name}' holds"):
            EvolInstruct(engine, journal=False)({"id": ["a-0"], "instruction": ["old"], name: [value]})


def test_missing_columns_and_ids(tiny_model, seeds):
    with pytest.raises(ColumnError, match=r"'instruction' not found. Columns present: 'id'.*to_instructions"):
        evolver(tiny_model)({"id": ["a-0"]})
    with pytest.raises(ColumnError, match="'id' not found"):
        hf_evol.map(seeds.remove_columns("id"), evolver(tiny_model))
    with pytest.raises(ColumnError, match="does not end in the row's position"):
        evolver(tiny_model)({"id": ["abc"], "instruction": ["x"]})
    assert position("alpaca-00017") == 17
