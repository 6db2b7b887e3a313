"""Self-Instruct: what is kept and why not, when it ends, and that nothing else decides the rows."""

import random
from itertools import product

import pytest
from datasets import Dataset
from talkative import STONES, make_talkative

import hf_evol
from hf_evol.errors import ConfigError, ModelError
from hf_evol.evolve import self_instruct as module
from hf_evol.evolve.self_instruct import _Pool, self_instruct
from hf_evol.generation.base import Completion
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models import ModelSpec

pytest.importorskip("rapidfuzz")
SEEDS = [f"Name {stone}, and say where it is found." for stone in STONES[:12]]


def rows_of(texts, **more):
    return Dataset.from_dict({"id": [f"t-{place}" for place in range(len(texts))], "instruction": texts, **more})


def whole(made):
    return made.rows.to_list(), made.rejected.to_list(), made.rounds, made.ended


class Teller:
    """An engine that replies by the request's number."""

    name = "teller"

    def __init__(self, reply):
        self.reply, self.asked, self.checked = reply, [], 0

    def check(self, params=None):
        self.checked += 1

    def identity(self):
        return {"name": self.name}

    def stream(self, chats, params, keys):
        for place, (turns, key) in enumerate(zip(chats, keys, strict=True)):
            self.asked.append(turns)
            said = self.reply(int(key.rpartition("-")[2]))
            error = said if said.startswith("engine_error") else None
            yield [(place, Completion("" if error else said, "error" if error else "stop", error=error))]


def numbered(number):
    """Instructions that have nothing in common."""
    words = random.Random(number).sample(["".join(letters) for letters in product("bcdfghjklm", repeat=3)], 8)
    return f"Explain {' '.join(words)}."


def test_the_same_rows_in_any_arrangement(wide_model, monkeypatch):
    make_talkative(monkeypatch, processes=True)
    spec, seeds = ModelSpec(wide_model), rows_of(SEEDS)
    options = {"n": 12, "per_round": 8, "temperature": 1.0, "max_new_tokens": 16, "journal": False}
    made = self_instruct(seeds, TransformersEngine(spec, 1), requests=16, **options)
    assert whole(made) == whole(self_instruct(seeds, TransformersEngine(spec, 8), requests=16, **options))
    assert 0 < len(made.rows) <= 12 and "not_instruction" in made.counts
    first = self_instruct(seeds, TransformersEngine(spec, 8), requests=8, num_proc=2, **options)
    assert first.rounds == made.rounds[:1] and first.rows.to_list() == made.rows.to_list()[: len(first.rows)]
    other = self_instruct(seeds, TransformersEngine(spec, 8), requests=8, seed=1, **options)
    assert other.rows["instruction"] != first.rows["instruction"]


def test_what_is_shown():
    engine = Teller(numbered)
    made = self_instruct(rows_of(SEEDS), engine, 40, per_round=10, journal=False)
    shown = [[turn["content"] for turn in turns if turn["role"] == "assistant"] for turns in engine.asked]
    assert all(len(texts) == len(set(texts)) == 8 and set(texts) <= set(SEEDS) for texts in shown[:10])
    assert all(len(set(texts) & set(SEEDS)) == 6 for texts in shown[10:])
    known = dict(zip(rows_of(SEEDS)["id"], SEEDS, strict=True)) | dict(
        zip(made.rows["id"], made.rows["instruction"], strict=True)
    )
    assert [[known[row_id] for row_id in ids] for ids in made.rows["shown"]] == shown
    assert made.ended == "40 of 40 rows are kept, of 40 requests." and made.rows["id"][-1] == "self-instruct-39"


def test_what_is_rejected():
    replies = [
        numbered(0), numbered(0), f"{numbered(0)[:-1]} again", SEEDS[0], "Why?", "Create a scarf of wool.", "engine_error: no", "",
        numbered(1), numbered(2),
    ]  # fmt: skip
    made = self_instruct(rows_of(SEEDS), Teller(lambda n: replies[n]), 2, requests=10, journal=False)
    assert made.rows["instruction"] == [numbered(0), numbered(1)]
    assert made.rejected["instruction_status"] == [
        "duplicate: of self-instruct-0", "similar: 0.95 to self-instruct-0", "duplicate: of t-0", "too_short", "not_text",
        "engine_error: no", "empty", "not_needed",
    ]  # fmt: skip
    assert made.rejected["instruction"][:5] == replies[1:6] and made.rejected["instruction"][5:7] == [None, None]
    assert made.rows["nearest_seed"] == ["t-0", "t-0"] and made.rows["rouge_l"] == [0.0, 0.0]
    assert made.counts["ok"] == 2 and made.counts.total() == 10


def test_it_ends_early():
    engine = Teller(lambda number: numbered(min(number, 10)))
    made = self_instruct(rows_of(SEEDS), engine, 50, per_round=10, journal=False)
    assert len(made.rows) == 11 and len(engine.asked) == 80
    assert made.ended == "11 of 50 rows are kept: of the last 64 requests, 0 brought one."
    spent = self_instruct(rows_of(SEEDS), Teller(numbered), 50, requests=25, per_round=10, journal=False)
    assert spent.ended == "25 of 50 rows are kept, of 25 requests."


def test_a_round_asks_as_often_as_the_yield_so_far_needs():
    for per_round, sizes in ((64, [8, 3]), (1, [1] * 10)):
        engine = Teller(lambda number: "Why?" if number % 3 else numbered(number))  # one in three is kept
        made = self_instruct(rows_of(SEEDS), engine, 4, per_round=per_round, journal=False)
        asked = [sum(entry["counts"].values()) for entry in made.rounds]
        assert made.rows["id"] == [f"self-instruct-{number}" for number in (0, 3, 6, 9)], asked
        assert asked == sizes, asked


def test_a_model_that_cannot_and_a_server_that_fails():
    with pytest.raises(ModelError, match=r"teller was asked 64 times .* no reply can be kept \(not_instruction 64\)"):
        self_instruct(rows_of(SEEDS), Teller(lambda number: "The sea is blue and green."), journal=False)
    with pytest.raises(ModelError, match=r"Most of the last 8 requests to teller failed \(engine_error: down\)"):
        self_instruct(rows_of(SEEDS), Teller(lambda number: "engine_error: down"), per_round=8, journal=False)


def test_hostile_seeds():
    texts = [
        None,
        " ",
        "?!",
        "Explain {tides} with <|im_end|>.",
        "explain tides, with IM_END",
        "Name a cat. " * 100,
        "Sort it.",
    ]
    seeds = rows_of([*texts, "解释为什么天空是蓝色的。"], input=[None, "", "", "", "", "", "3, 1", ""])
    engine = Teller(numbered)
    made = self_instruct(seeds, engine, 2, journal=False)
    shown = {turn["content"] for turns in engine.asked for turn in turns if turn["role"] == "assistant"}
    assert shown == {texts[3], "解释为什么天空是蓝色的。"} and len(made.rows) == 2
    alone = self_instruct(rows_of(SEEDS[:1]), Teller(numbered), 1, journal=False)
    assert alone.rows["shown"] == [["t-0"]]


def test_inputs():
    """A responder makes them up where they are needed, for what nothing like it is there."""
    asks = [
        "Describe the given planet.", "Write a riddle about the given animal.", "Write a riddle about this animal.", numbered(0),
        "Tell some jokes about the following town.", "Plan some lessons for the given team.",
    ]  # fmt: skip
    given = {"an animal": "The lynx", "a town": "Bruges <name>", "a team": "engine_error: no"}

    class Giver(Teller):
        def stream(self, chats, params, keys):
            for place, turns in enumerate(chats):
                self.asked.append(turns)
                said = given[turns[-1]["content"].removeprefix("Give me ").removesuffix(".")]
                error = said if said.startswith("engine_error") else None
                yield [(place, Completion("" if error else said, "error" if error else "stop", error=error))]

    seeds, giver = rows_of([*SEEDS, "Sort the following words."], input=[*[""] * len(SEEDS), "b, a"]), Giver(None)
    options = {"requests": 6, "per_round": 6, "journal": False}
    made = self_instruct(seeds, Teller(lambda n: asks[n]), 6, responder=giver, **options)
    assert made.rows["instruction"] == [asks[1], numbered(0)] and made.rows["input"] == ["The lynx", ""]
    assert made.rows["input_generator"] == ["teller", None] and made.n_inputs == 1
    assert made.rejected["instruction_status"] == [
        "needs_input", "similar: 0.77 to self-instruct-1", "no_input: placeholder", "engine_error: no",
    ]  # fmt: skip
    assert len(giver.asked) == 4  # both riddles are of one round
    teller = Teller(lambda n: asks[n])
    alone = self_instruct(seeds, teller, 6, **options)
    assert alone.rows["instruction"] == [numbered(0)] and alone.counts["needs_input"] == 5
    assert not any("Sort the following" in turn["content"] for turns in teller.asked for turn in turns)


@pytest.mark.parametrize(
    ("seeds", "options", "error"),
    [
        (
            rows_of(["Sort it."], input=["3, 1"]),
            {},
            r"None of the 1 seeds can be shown .*\(with an input 1\)",
        ),
        (rows_of([None, ""]), {}, r"None of the 2 seeds can be shown to the model \(without text 2\)"),
        (rows_of(SEEDS), {"n": 0}, "n must be 1 or more; got 0"),
        (rows_of(SEEDS), {"per_round": 0}, "per_round must be 1 or more"),
        (rows_of(SEEDS), {"top_p": 0}, "top_p must be over 0"),
    ],
)
def test_wrong_arguments_are_refused_before_a_model_is_asked(seeds, options, error):
    engine = Teller(numbered)
    with pytest.raises(ConfigError, match=error):
        self_instruct(seeds, engine, **options, journal=False)
    assert not engine.checked and not engine.asked


def test_the_filter_finds_what_comparing_with_all_finds():
    """And the score is that of a longest common subsequence, counted here by its recursion."""
    pick, pool = random.Random(0), _Pool()
    texts = [" ".join(pick.choices("abcdefgh", k=pick.randint(3, 12))) for _ in range(300)]
    for place, text in enumerate(texts):
        pool.add(str(place), text)

    def rouge_l(first, second):
        lengths = [0] * (len(second) + 1)
        for word in first:
            before = 0
            for place, other in enumerate(second, 1):
                before, lengths[place] = (
                    lengths[place],
                    before + 1 if word == other else max(lengths[place], lengths[place - 1]),
                )
        return 2 * lengths[-1] / (len(first) + len(second))

    for _ in range(40):
        text = " ".join(pick.choices("abcdefghij", k=pick.randint(3, 12)))
        found = pool.nearest(text, module._SIMILAR)
        assert found == pool.nearest_of(range(300), text, module._SIMILAR)
        best = max(rouge_l(text.split(), other.split()) for other in texts)
        assert pool.nearest_of(range(300), text)[0] == pytest.approx(best)
        assert found[0] == pytest.approx(best if best >= module._SIMILAR else 0)


def test_the_rows_evolve(wide_model, monkeypatch):
    make_talkative(monkeypatch)
    made = self_instruct(rows_of(SEEDS), Teller(numbered), 3, journal=False)
    evolved = hf_evol.map(made.rows, hf_evol.EvolInstruct(wide_model, max_new_tokens=8, journal=False))
    assert evolved["id"] == made.rows["id"] and evolved["seed_instruction"] == made.rows["instruction"]
    answered = hf_evol.map(made.rows, hf_evol.Respond(wide_model, max_new_tokens=8, journal=False))
    assert answered["responder"] == ["wide"] * 3
