import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

import pytest
from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher
from talkative import make_talkative
from transformers import AutoModelForCausalLM

import hf_evol
from hf_evol import columns as col
from hf_evol import progress
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.evolve.auto_evol import AutoEvolInstruct
from hf_evol.evolve.evol_instruct import EvolInstruct, position
from hf_evol.evolve.respond import Respond
from hf_evol.generation.base import Completion
from hf_evol.models import n_parameters
from hf_evol.prompts.evol_instruct import METHODS, PRESETS, resolve_methods
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.transform import Transform

KEPT = [col.ID, *EvolInstruct.output_columns]


SHORT = (  # the built-in prompts don't fit the tiny model's context
    hf_evol.Method(
        "more", [{"role": "system", "content": "Be an editor."}, {"role": "user", "content": "More: {instruction}"}]
    ),
    hf_evol.Method("other", "Another than {instruction}", kind="in_breadth"),
    hf_evol.Method("longer", "Lengthen {instruction}"),
)


def evolver(model, **settings):
    return EvolInstruct(model, **({"methods": SHORT, "rounds": 2, "max_new_tokens": 16, "journal": False} | settings))


def rows_of(dataset):
    return sorted(dataset.select_columns(KEPT).to_list(), key=lambda row: row[col.ID])


class Scripted:
    """An engine that answers by a function of the prompt, for what a real model can't be made to say."""

    name = "scripted"

    def identity(self):
        return {"name": self.name}

    def __init__(self, answer):
        self.answer, self.prompts, self.keys, self.sizes = answer, [], [], []

    def check(self, params=None):
        pass

    def stream(self, chats, params, keys):
        prompts = ["\n".join(turn["content"] for turn in turns) for turns in chats]
        self.prompts += prompts
        self.keys += keys
        self.sizes.append(len(chats))
        yield [(i, self.reply(chats[i][-1]["content"], prompts[i], keys[i])) for i in range(len(chats))]

    def reply(self, parent, prompt, key):
        return self.answer(prompt)


class InTurn(Scripted):
    """Answers each parent with its replies in turn."""

    def __init__(self, replies):
        super().__init__(None)
        self.replies = {parent: iter(texts) for parent, texts in replies.items()}

    def reply(self, parent, prompt, key):
        text = next(self.replies[parent])
        return text if isinstance(text, Completion) else said(text)


class Drawn(Scripted):
    """Answers by the key alone: a good text or one of several failures."""

    def reply(self, parent, prompt, key):
        pick = int.from_bytes(sha256(key.encode()).digest()[:2], "little")
        return said(["", parent, "I'm sorry, but I can't help with that.", better(parent, pick)][pick % 4])


@dataclass(frozen=True, kw_only=True)
class Hashed(EvolInstruct):
    """Names as the evolver what the process at work takes for its fingerprint, once the model is loaded."""

    def apply(self, batch):
        done = super().apply(batch)
        return done | {col.EVOLVER: [Hasher.hash(replace(self))] * len(done[col.EVOLVER])}


@dataclass(frozen=True)
class By(Transform):
    """What a function says of each row."""

    function: Callable
    input_columns = (col.INSTRUCTION,)
    output_columns = {"number": "float64"}

    def apply(self, batch):
        return {
            "number": [self.function(dict(zip(batch, row, strict=True))) for row in zip(*batch.values(), strict=True)]
        }


def said(text, reason="stop"):
    return Completion(text, reason, 5, 1)


PARENT, MILL, HARBOUR = "Describe a lighthouse.", "Describe a mill.", "Describe a harbour."
BROKE = Completion("", "error", error="engine_error: broke")


def better(parent, year=1874):
    return f"{parent[:-1]} on the coast of Norway as its owner finds it after a winter storm in {year}."


def test_rotation_is_that_of_the_paper(tiny_model):
    transform = evolver(tiny_model, methods="alpaca")
    for i in range(12):
        for r in range(4):
            assert transform.method(f"alpaca-{i}", r).name == PRESETS["alpaca"][(i + r) % 5]


@pytest.mark.parametrize(
    ("place", "names"),
    [
        (1, ["deepen", "concretize", "reasoning", "constraint", "deepen", "concretize"]),
        (4, ["breadth", "constraint", "deepen", "concretize", "reasoning", "constraint"]),
    ],
)
def test_further_tries_are_by_the_methods_that_follow_and_keep_the_task(tiny_model, place, names):
    transform = evolver(tiny_model, methods="alpaca")
    assert [transform.method(f"alpaca-{place}", 0, attempt).name for attempt in range(1, 7)] == names
    first, *_, fifth, _ = [transform.prompt(f"alpaca-{place}", PARENT, 0, attempt) for attempt in range(1, 7)]
    assert (first[0] == fifth[0]) == (place == 1) and first != fifth  # the method again, with other examples
    assert fifth == METHODS[names[4]].prompt(PARENT, 2)


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
    assert not any(row[col.EVOL_STATUS].startswith("too_long") for row in whole)
    assert len({str(row[col.REJECTED]) for row in whole}) == len(whole)
    for size in (1, 3):
        assert rows_of(seeds.map(transform, batched=True, batch_size=size)) == whole
    assert rows_of(seeds.shuffle(seed=3).map(transform, batched=True)) == whole
    shards = [seeds.shard(3, i).map(transform, batched=True) for i in range(3)]
    assert rows_of(concatenate_datasets(shards)) == whole
    stream = hf_evol.map(seeds.to_iterable_dataset(num_shards=2), transform, batch_size=4)
    assert isinstance(stream, IterableDataset)
    streamed = [{name: row[name] for name in KEPT} for row in stream]
    assert sorted(streamed, key=lambda row: row[col.ID]) == whole


def test_processes_change_neither_rows_nor_the_fingerprint_and_tell_what_they_do(tiny_model, seeds, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)  # each process hashes strings in its own way
    settings = {"methods": SHORT, "max_new_tokens": 8, "journal": False}
    transform = Hashed(tiny_model, **settings)
    before = Hasher.hash(transform)
    whole = rows_of(hf_evol.map(seeds, transform))
    assert {row[col.EVOLVER] for row in whole} == {before, Hasher.hash(transform)} == {before}
    assert Hasher.hash(Hashed(tiny_model, seed=5, **settings)) != before
    with progress.times() as times:
        mapped = hf_evol.map(seeds, transform, num_proc=2)
    assert rows_of(mapped) == whole
    assert [time.tokens for time in times] == [sum(history[-1]["n_tokens"] for history in mapped[col.HISTORY])]


def test_dataset_dict(tiny_model, seeds):
    from datasets import DatasetDict

    transform = evolver(tiny_model)
    mapped = hf_evol.map(DatasetDict(a=seeds, b=seeds.select([1])), transform)
    assert rows_of(mapped["b"]) == [rows_of(mapped["a"])[1]]


def test_a_second_map_comes_from_the_cache(tiny_model, seeds, tmp_path):
    seeds.save_to_disk(tmp_path / "seeds")
    first = Dataset.load_from_disk(tmp_path / "seeds").map(evolver(tiny_model), batched=True)
    again = Dataset.load_from_disk(tmp_path / "seeds").map(evolver(tiny_model), batched=True)
    assert first.cache_files and first.cache_files == again.cache_files


def test_a_killed_run_goes_on_from_its_journal(tiny_model, seeds, tmp_path, monkeypatch):
    from hf_evol.generation.transformers_engine import TransformersEngine

    stream, served, asked = TransformersEngine.stream, [], []

    def counting(self, chats, params, keys):
        asked.extend(keys)
        return stream(self, chats, params, keys)

    monkeypatch.setattr(TransformersEngine, "stream", counting)
    whole = rows_of(seeds.map(evolver(tiny_model), batched=True))
    needed = len(asked)
    assert needed >= 2 * len(seeds)
    transform = evolver(tiny_model, journal=str(tmp_path / "j.sqlite"))

    def dying(self, chats, params, keys):
        for finished in stream(self, chats, params, keys):
            yield finished
            served.extend(finished)
            if len(served) >= 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(TransformersEngine, "stream", dying)
    with pytest.raises(KeyboardInterrupt):
        seeds.map(transform, batched=True, load_from_cache_file=False)
    asked.clear()
    monkeypatch.setattr(TransformersEngine, "stream", counting)
    assert rows_of(seeds.map(transform, batched=True, load_from_cache_file=False)) == whole
    assert len(asked) == needed - len(served)


@pytest.mark.parametrize(
    ("completion", "status", "kept"),
    [
        (said(better(PARENT)), "ok", better(PARENT)),
        (said(f'Rewritten Prompt: "{better(PARENT)}"'), "ok", better(PARENT)),
        (said(""), "empty", PARENT),
        (said("<think>hm"), "empty", PARENT),
        (said("describe a LIGHTHOUSE "), "unchanged", PARENT),
        (said("Describe a lighthouse, going deeper and broader in what it asks."), "leak", PARENT),
        (said("I'm sorry, I can't help with that."), "refusal", PARENT),
        (said("Describe a lighthouse on the", "length"), "cut_off", PARENT),
        (said("Explain how volcanoes in Iceland warm the greenhouses near Selfoss."), "off_topic", PARENT),
        (BROKE, "engine_error: broke", PARENT),
    ],
)
def test_statuses_and_the_last_good_instruction(completion, status, kept):
    engine = Scripted(lambda prompt: completion)
    out = EvolInstruct(engine, methods="gsm8k", tries=1, journal=False)({"id": ["a-1"], "instruction": [PARENT]})
    assert out[col.EVOL_STATUS] == [status] and out[col.INSTRUCTION] == [kept]
    assert (
        out[col.PARENT_INSTRUCTION] == [PARENT] and out[col.METHOD] == ["deepen"] and out[col.EVOLVER] == ["scripted"]
    )
    assert out[col.HISTORY][0][0]["status"] == status


def test_the_next_round_starts_from_the_last_good_instruction():
    good = better(PARENT)
    engine = Scripted(lambda prompt: said("" if "deeper and broader" in prompt else good))
    settings = {"methods": "gsm8k", "rounds": 3, "tries": 1, "journal": False}
    out = EvolInstruct(engine, **settings)({"id": ["a-0"], "instruction": [PARENT]})
    assert [entry["status"] for entry in out[col.HISTORY][0]] == ["ok", "empty", "unchanged"]
    assert [entry["parent"] for entry in out[col.HISTORY][0]] == [PARENT, good, good]
    assert out[col.INSTRUCTION] == [good] and out[col.SEED_INSTRUCTION] == [PARENT]


def test_a_new_prompt_may_leave_the_topic_where_the_method_is_in_breadth():
    other = "Explain how volcanoes in Iceland warm the greenhouses near Selfoss."
    own = hf_evol.Method("own", "Another one: {instruction}", kind="in_breadth")
    for methods, status in ((["breadth"], "ok"), ([own], "ok"), (["deepen"], "off_topic")):
        transform = EvolInstruct(Scripted(lambda prompt: said(other)), methods=methods, journal=False)
        assert transform({"id": ["a-0"], "instruction": [PARENT]})[col.EVOL_STATUS] == [status]


# Several tries.


def rejected(number, method, instruction, status):
    return {"try": number, "method": method, "instruction": instruction, "status": status}


def test_only_rows_that_failed_are_asked_again():
    engine = InTurn(
        {
            PARENT: [better(PARENT)],
            MILL: ["", MILL, better(MILL)],
            HARBOUR: ["I'm sorry, but I can't help.", "", HARBOUR, ""],
        }
    )
    batch = {"id": ["a-0", "a-1", "a-2"], "instruction": [PARENT, MILL, HARBOUR]}
    out = EvolInstruct(engine, tries=4, journal=False)(batch)
    assert engine.sizes == [3, 2, 2, 1] and len(set(engine.keys)) == 8
    assert out[col.EVOL_STATUS] == ["ok", "ok", "empty"] and out[col.TRY] == [1, 3, 4]
    assert out[col.INSTRUCTION] == [better(PARENT), better(MILL), HARBOUR]
    assert out[col.REJECTED] == [
        [],
        [rejected(1, "deepen", None, "empty"), rejected(2, "concretize", MILL, "unchanged")],
        [
            rejected(1, "concretize", "I'm sorry, but I can't help.", "refusal"),
            rejected(2, "reasoning", None, "empty"),
            rejected(3, "constraint", HARBOUR, "unchanged"),
            rejected(4, "deepen", None, "empty"),
        ],
    ]
    assert out[col.METHOD] == ["constraint", "reasoning", "deepen"]
    for (entry,), others, number, asked in zip(
        out[col.HISTORY], out[col.REJECTED], out[col.TRY], (1, 3, 4), strict=True
    ):
        assert entry["rejected"] == others and entry["try"] == number
        assert entry["n_tokens"] == asked and entry["n_prompt_tokens"] == 5 * asked


def test_the_last_text_of_a_row_that_failed_is_among_the_rejected():
    engine = InTurn({MILL: ["", MILL]})
    out = EvolInstruct(engine, tries=2, journal=False)({"id": ["a-0"], "instruction": [MILL]})
    assert out[col.REJECTED][0][-1] == rejected(2, "deepen", MILL, "unchanged")
    assert [text["try"] for text in out[col.REJECTED][0]] == [1, 2]
    assert out[col.EVOL_STATUS] == ["unchanged"] and out[col.TRY] == [2]


@pytest.mark.parametrize(
    ("addition", "by_example", "status"),
    [
        (" in at most 120 words, and use only words that a sailor knows", True, "ok"),
        (" near Bergen, and name the ship whose crew it saved from the rocks", True, "off_example"),
        (" near Bergen, and name the ship whose crew it saved from the rocks", False, "ok"),
        (
            " near Bergen, and name the ship whose crew it saved from the rocks",
            None,
            "ok",
        ),  # of an engine of unknown size
    ],
)
def test_additions_by_example_alone(addition, by_example, status):
    engine = Scripted(lambda prompt: said(PARENT[:-1] + addition + "."))
    settings = {"methods": ["constraint"], "tries": 1, "journal": False, "by_example": by_example}
    out = EvolInstruct(engine, **settings)({"id": ["a-0"], "instruction": [PARENT]})
    assert out[col.EVOL_STATUS] == [status]
    assert out[col.INSTRUCTION] == [PARENT if status == "off_example" else PARENT[:-1] + addition + "."]


GERMAN = "Nenne die Aufgaben einer Bibliothek."
BY_EXAMPLE = "Nenne die Aufgaben einer Bibliothek, begründe jeden Punkt, und sage, was daran am wichtigsten ist und was dagegen spricht."
BY_ITSELF = (
    "Nenne die Aufgaben einer Bibliothek in einer Kleinstadt, deren Dach nach einem Sturm drei Monate lang undicht war."
)


@pytest.mark.parametrize(
    ("replies", "by_example", "rejected", "status"),
    [
        ([better(PARENT), BY_ITSELF], False, ["other_language"], "ok"),
        ([f"Sure, here it is:\n\n{BY_EXAMPLE}"], True, [], "ok"),
        ([BY_ITSELF] * 8, True, ["off_example"] * 8, "off_example"),
        ([BY_EXAMPLE.replace("Aufgaben ", "")] * 8, True, ["off_example"] * 8, "off_example"),
    ],
)
def test_rows_keep_their_language(replies, by_example, rejected, status):
    pytest.importorskip("py3langid")
    settings = {"methods": "multilingual", "by_example": by_example, "journal": False}
    out = EvolInstruct(InTurn({GERMAN: replies}), **settings)({"id": ["a-1"], "instruction": [GERMAN]})
    assert [text["status"] for text in out[col.REJECTED][0]] == rejected and out[col.EVOL_STATUS] == [status]
    assert out[col.INSTRUCTION][0] == (replies[-1].split("\n\n")[-1] if status == "ok" else GERMAN)


@pytest.mark.parametrize(("by_example", "status"), [(True, "off_example"), (False, "ok")])
def test_a_small_model_is_not_believed_a_new_task_in_another_language(by_example, status):
    pytest.importorskip("py3langid")
    methods = [method for method in resolve_methods("multilingual") if method.name == "breadth"]
    engine = InTurn({GERMAN: ["Beschreibe, wie ein Uhrmacher eine alte Turmuhr wieder zum Laufen bringt."]})
    evolver = EvolInstruct(engine, methods=methods, by_example=by_example, tries=1, journal=False)
    assert evolver({"id": ["a-0"], "instruction": [GERMAN]})[col.EVOL_STATUS] == [status]


def test_small_models_stay_by_the_examples(tiny_model):
    small = EvolInstruct(hf_evol.ModelSpec(tiny_model), journal=False)
    large = EvolInstruct(hf_evol.ModelSpec(tiny_model, n_parameters=10**9), journal=False)
    of_a_server = EvolInstruct(hf_evol.EndpointEngine("some", base_url="http://localhost:1/v1"), journal=False)
    assert [one.identity()["by_example"] for one in (small, large, of_a_server)] == [True, False, False]
    assert replace(small, by_example=False).identity() == large.identity()
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert n_parameters(small.model) == sum(part.numel() for part in model.parameters())


def drawn_rows(**settings):
    data = Dataset.from_dict({"id": [f"a-{i}" for i in range(24)], "instruction": [PARENT, MILL, HARBOUR] * 8})
    settings = {"rounds": 2, "tries": 4, "journal": False} | settings
    size = settings.pop("batch_size", 24)
    return rows_of(
        data.map(EvolInstruct(Drawn(None), **settings), batched=True, batch_size=size, load_from_cache_file=False)
    )


@pytest.mark.parametrize("best_of", [1, 2])
def test_tries_are_the_same_in_any_batch(best_of):
    settings = {"best_of": best_of, "prefer": (By(lambda row: len(row["instruction"])),)}
    whole = drawn_rows(**settings)
    assert {row[col.TRY] for row in whole} > {1, 2}
    statuses = {entry["status"] for row in whole for entry in (*row[col.HISTORY], *row[col.REJECTED])}
    assert {"ok", "unchanged"} <= statuses
    for size in (1, 5):
        assert drawn_rows(batch_size=size, **settings) == whole


def test_more_tries_change_no_row_that_was_good_before():
    few, many = ({row[col.ID]: row for row in drawn_rows(rounds=1, tries=tries)} for tries in (1, 6))
    good = [row_id for row_id, row in few.items() if row[col.EVOL_STATUS] == "ok"]
    assert 0 < len(good) < sum(row[col.EVOL_STATUS] == "ok" for row in many.values())
    assert all(many[row_id] == few[row_id] for row_id in good)


def test_greedy_rows_are_asked_again_with_other_examples_alone():
    batch = {"id": ["a-0"], "instruction": [PARENT]}
    engine = Scripted(lambda prompt: said(""))
    EvolInstruct(engine, rounds=2, tries=5, journal=False)(batch)
    assert len(set(engine.prompts)) == len(engine.prompts) == 10
    engine = Scripted(lambda prompt: said(""))
    plain = [{"name": "plain", "template": "Make it harder: {instruction}"}]
    out = EvolInstruct(engine, methods=plain, temperature=0, journal=False)(batch)
    assert len(engine.keys) == 1 and out[col.TRY] == [1]
    assert out[col.REJECTED] == [[rejected(1, "plain", None, "empty")]]
    engine = Scripted(lambda prompt: said(""))
    out = AutoEvolInstruct(engine, temperature=0, tries=6, journal=False)(batch)
    assert len(set(engine.prompts)) == len(engine.prompts) == len(out[col.REJECTED][0]) > 1


@pytest.mark.parametrize(
    ("replies", "status", "number"),
    [([BROKE], "engine_error: broke", 1), (["", BROKE], "engine_error: broke", 2), ([better(MILL), BROKE], "ok", 1)],
)
def test_an_engines_error_is_not_tried_again(replies, status, number):
    engine = InTurn({MILL: replies})
    out = EvolInstruct(engine, best_of=2, prefer=(By(len),), journal=False)({"id": ["a-0"], "instruction": [MILL]})
    assert out[col.EVOL_STATUS] == [status] and out[col.TRY] == [number] and len(engine.keys) == len(replies)
    assert out[col.INSTRUCTION] == [better(MILL) if status == "ok" else MILL]


def test_tries_come_from_the_journal(tmp_path):
    options, batch = {"journal": str(tmp_path / "j")}, {"id": ["a-0"], "instruction": [MILL]}
    first = EvolInstruct(InTurn({MILL: ["", MILL, better(MILL)]}), **options)(batch)
    again = InTurn({MILL: []})
    assert EvolInstruct(again, **options)(batch) == first and first[col.TRY] == [3] and not again.keys


def test_the_text_that_is_preferred_is_taken():
    texts, seen = [better(MILL, 1800), "", better(MILL, 1950), better(MILL, 1870)], []

    def late(row):
        seen.append(row)
        return int(row["instruction"][-5:-1])

    batch = {"id": ["a-1"], "instruction": [MILL]}
    settings = {"methods": "gsm8k", "journal": False, "prefer": (By(late),)}
    engine = InTurn({MILL: texts})
    out = EvolInstruct(engine, best_of=2, **settings)(batch)
    assert out[col.INSTRUCTION] == [texts[2]] and out[col.TRY] == [3] and len(engine.keys) == 3
    assert out[col.REJECTED][0] == [
        rejected(1, "deepen", texts[0], "ok"), rejected(2, "concretize", None, "empty"),
    ]  # fmt: skip
    assert out[col.METHOD] == ["reasoning"]
    known = {"id": "a-1", "input": None, "parent_instruction": MILL, "round": 1}
    methods = [{"instruction": texts[0], "method": "deepen"}, {"instruction": texts[2], "method": "reasoning"}]
    assert seen == [known | one for one in methods]
    assert EvolInstruct(InTurn({MILL: texts}), best_of=3, **settings)(batch)[col.TRY] == [3]
    assert EvolInstruct(InTurn({MILL: texts}), best_of=1, **settings)(batch)[col.TRY] == [1]


def test_transforms_choose_by_what_the_last_of_them_gives(wide_model, monkeypatch):
    make_talkative(monkeypatch)
    texts = [better(MILL, 1800), better(MILL, 1950), better(MILL, 1870)]
    batch = {"id": ["a-1"], "instruction": [MILL], "input": ["It grinds barley."]}
    respond = Respond(wide_model, max_new_tokens=8, journal=False)
    score = IcIfd(wide_model, journal=False)
    settings = {"methods": "gsm8k", "journal": False, "best_of": 3}
    evolver = EvolInstruct(InTurn({MILL: texts}), prefer=(respond, score), **settings)
    candidates = {"id": ["a-1"] * 3, "instruction": texts, "input": ["It grinds barley."] * 3}
    scores = score(candidates | respond(candidates))["ic_ifd"]
    assert len(set(scores)) == 3 and max(scores) != scores[0]
    assert evolver(batch)[col.INSTRUCTION] == [texts[scores.index(max(scores))]]
    assert evolver.identity() != EvolInstruct(InTurn({MILL: texts}), **settings | {"best_of": 1}).identity()

    lowest_is_null = By(lambda row: None if "1950" in row["instruction"] else -1.0)
    out = EvolInstruct(InTurn({MILL: texts}), prefer=(lowest_is_null,), **settings)(batch)
    assert out[col.INSTRUCTION] == [texts[0]]


def test_among_equals_the_first_is_taken_and_one_needs_no_preference():
    batch = {"id": ["a-0"], "instruction": [MILL]}
    engine = InTurn({MILL: [better(MILL, 1800), better(MILL, 1900)]})
    assert EvolInstruct(engine, best_of=2, prefer=(By(lambda row: 0),), journal=False)(batch)[col.TRY] == [1]
    alone = InTurn({MILL: ["", better(MILL), "", ""]})
    out = EvolInstruct(alone, tries=4, best_of=2, prefer=(By(lambda row: 1 / 0),), journal=False)(batch)
    assert out[col.EVOL_STATUS] == ["ok"] and out[col.TRY] == [2] and len(alone.keys) == 4
    assert [text["try"] for text in out[col.REJECTED][0]] == [1, 3, 4]


def test_an_eliminated_row_restarts_from_its_parent():
    engine = Scripted(lambda prompt: said("new"))
    batch = {
        "id": ["a-0", "a-1"], "instruction": ["bad", "good"], "parent_instruction": ["p0", "p1"], "round": [1, 1],
        "elimination": ["near_copy", "kept"],
    }  # fmt: skip
    out = EvolInstruct(engine, methods=["deepen"], journal=False)(batch)
    assert out[col.PARENT_INSTRUCTION] == ["p0", "good"]
    assert out[col.ELIMINATION] == ["kept", "kept"]


def test_constraints_of_an_earlier_answer_are_cleared():
    batch = {
        "id": ["a-0"], "instruction": ["old"], "output": ["answer to old"], "constraints": [["Use no commas."]], "checks": [[{}]],
        "functions": [["def evaluate(response): ..."]], "back_translate_status": ["ok"],
    }  # fmt: skip
    evolver = EvolInstruct(Scripted(lambda p: said("new")), journal=False)
    out = evolver(batch)
    assert out["constraints"] == out["checks"] == out["functions"] == [[]] and out["back_translate_status"] == [None]
    others = {name: values for name, values in batch.items() if name != "back_translate_status"}
    assert not {"constraints", "checks", "functions"} & evolver(others).keys()  # not ours


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
    engine = Scripted(lambda p: said(better(PARENT)))
    out = EvolInstruct(engine, journal=False)({"id": ["a-0", "a-1"], "instruction": [nothing, PARENT]})
    assert out[col.EVOL_STATUS] == ["invalid_input", "ok"] and out[col.INSTRUCTION] == [nothing, better(PARENT)]
    assert out[col.TRY] == [None, 1] and out[col.REJECTED] == [[], []] and len(engine.keys) == 1


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
    [({"rounds": 0}, "rounds"), ({"tries": 0}, "best_of must be from 1 to tries"), ({"best_of": 0}, "best_of must be from 1"),
     ({"best_of": 9, "prefer": (By(len),)}, "best_of=9, tries=8"), ({"best_of": 2}, "needs prefer="),
     ({"best_of": 2, "prefer": "length"}, "prefer must be transforms"), ({"prefer": len}, "prefer must be transforms"), ({"top_p": 2}, "top_p"),
     ({"temperature": -1}, "temperature"), ({"methods": "odd"}, "Unknown method"),
     ({"model": 3}, "model must be")],
)  # fmt: skip
def test_wrong_settings_fail_at_construction(tiny_model, settings, fragment):
    with pytest.raises(ConfigError, match=fragment):
        EvolInstruct(**({"model": tiny_model} | settings))


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
