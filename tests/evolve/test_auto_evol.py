from dataclasses import dataclass

import pytest
from datasets import Dataset

import hf_evol
from hf_evol import columns as col
from hf_evol.evolve.auto_evol import AutoEvolInstruct, TrajectoryKeywords, normalize_phrase
from hf_evol.generation.base import Completion
from hf_evol.prompts.auto_evol import final_instruction

ANSWER = "<think>Hm.</think>\nStep 1: Methods\n- add a limit\nStep 2: Plan\nDo.\nStep 3: Rewriting\nx\nStep 4: Final instruction\n{}"


@dataclass(frozen=True)
class Scripted:
    """Answers by what the prompt holds; (word, answer, finish reason)."""

    answers: tuple[tuple[str, str, str], ...]
    name: str = "scripted"

    def check(self, params=None):
        pass

    def identity(self):
        return {"answers": self.answers}

    def stream(self, chats, params, keys):
        for place, chat in enumerate(chats):
            text, reason = next((a, r) for word, a, r in self.answers if word in chat[-1]["content"])
            yield [(place, Completion(text, reason, 3, 4))]


ENGINE = Scripted(
    (
        ("rivers", ANSWER.format("List three rivers and their length."), "stop"),
        ("sort", ANSWER.format("Sort the numb"), "length"),
        ("poem", "A longer poem, please.", "stop"),
        ("Same", ANSWER.format('"Same."'), "stop"),
        ("nothing", ANSWER.format(""), "stop"),
    )
)


def seeds():
    texts = ["Name rivers.", "Please sort.", "A poem.", "Same.", "Say nothing.", None]
    return Dataset.from_dict({"id": [f"t-{i}" for i in range(6)], "instruction": texts, "output": ["x"] * 6})


def test_final_instructions_statuses_and_trajectories():
    rows = hf_evol.map(seeds(), AutoEvolInstruct(ENGINE, journal=False))
    statuses = ["ok", "cut_off", "no_final_instruction", "unchanged", "empty", "invalid_input"]
    assert rows[col.EVOL_STATUS][:] == statuses
    assert rows[col.INSTRUCTION][0] == "List three rivers and their length."
    assert rows[col.INSTRUCTION][1:] == seeds()["instruction"][1:]  # the last good one
    assert rows[col.TRAJECTORY][:] == [["add a limit"], ["add a limit"], [], ["add a limit"], ["add a limit"], None]
    assert set(rows[col.METHOD]) == {"auto"} and rows[col.HISTORY][2][0]["instruction"] is None


def test_in_a_recipe(tmp_path, tiny_model, monkeypatch):
    from hf_evol.run import pipeline

    stages = pipeline.Stages.of(hf_evol.Recipe(model=tiny_model, methods="auto"))
    assert isinstance(stages.evolve, AutoEvolInstruct) and [method.name for method in stages.evolve.methods] == ["auto"]


def test_keywords():
    engine = Scripted((("limit", "1. **Add Limits**, ask  for steps; add limits.\nother", "stop"),))
    data = Dataset.from_dict({"trajectory": [["add a limit", "steps"], [], None]})
    rows = hf_evol.map(data, TrajectoryKeywords(engine, journal=False))
    assert rows[col.TRAJECTORY_KEYWORDS][:] == [["add limits", "ask for steps", "other"], [], []]
    assert rows[col.TRAJECTORY_STATUS][:] == ["ok", "invalid_input", "invalid_input"]


@pytest.mark.parametrize(
    ("phrase", "normal"), [(" - Add  Limits. ", "add limits"), ("2) “Steps”", "steps"), ("...", "")]
)
def test_normal_phrases(phrase, normal):
    assert normalize_phrase(phrase) == normal


@dataclass(frozen=True)
class Echo:
    """Adds to the instruction what the last worked example adds to its own."""

    name: str = "echo"
    n_parameters: int = 135_000_000
    adds: str | None = None

    def check(self, params=None):
        pass

    def identity(self):
        return {"name": self.name, "adds": self.adds}

    def stream(self, chats, params, keys):
        for place, chat in enumerate(chats):
            given, reply, asked = (turn["content"] for turn in chat[-3:])
            evolved = final_instruction(reply)
            final = f"{asked.rstrip('.')}{self.adds or evolved[len(given) - 1 :]}"
            yield [(place, Completion(ANSWER.format(final[:1].lower() + final[1:]), "stop", 3, 4))]


def test_small_models_add_what_an_example_of_the_same_form_adds():
    texts = ["Explain how a telescope works.", "List the benefits of swimming.", "Write a story about an old bridge."]
    rows = Dataset.from_dict({"id": ["t-0", "t-1", "t-2"], "instruction": texts})
    evolved = hf_evol.map(rows, AutoEvolInstruct(Echo(), journal=False))
    assert set(evolved[col.EVOL_STATUS]) == {"ok"}  # what an example adds is no leak
    for text, before in zip(evolved[col.INSTRUCTION], texts, strict=True):
        assert text.startswith(before[:-1]) and len(text.split()) >= len(before.split()) + 8  # with a capital letter
    own = Echo(adds=", and name a telescope, a bridge and a swimmer that are found in Finland.")
    assert set(hf_evol.map(rows, AutoEvolInstruct(own, journal=False))[col.EVOL_STATUS]) == {"off_example"}
    large = Echo(n_parameters=8_000_000_000, adds=own.adds)
    assert set(hf_evol.map(rows, AutoEvolInstruct(large, journal=False))[col.EVOL_STATUS]) == {"ok"}
