import pytest
import torch
from datasets import Dataset

import hf_evol
from hf_evol import columns as col
from hf_evol import models
from hf_evol.evolve.respond import Respond
from hf_evol.generation.base import Completion
from hf_evol.models import encoding
from hf_evol.prompts.respond import respond_prompt


def test_responses_are_greedy_and_cut_off_ones_are_marked(tiny_model, seeds):
    out = hf_evol.map(seeds, Respond(tiny_model, max_new_tokens=8, journal=False), batch_size=3)
    model, tokenizer = (load(models.ModelSpec(tiny_model)) for load in (models.load_model, models.load_tokenizer))
    for row in out.select(range(4)):
        ids = encoding.render_chat(tokenizer, respond_prompt(row["instruction"], ""))
        text = tokenizer.decode(
            model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0][len(ids) :],
            skip_special_tokens=True,
        )
        assert (row[col.OUTPUT] or "") == text.strip()
    assert set(out[col.RESPONDER]) == {"tiny"} and "cut_off" in out[col.RESPONSE_STATUS]


class Echo:
    name = "echo"

    def __init__(self):
        self.asked = []

    def check(self, params=None):
        pass

    def stream(self, chats, params, keys):
        answers = {
            "empty": "<think>x</think> ",
            "long": "half",
            "broken": "",
            "echo": "**ECHO**!",
            "fine": "<think>x</think>Fine.",
        }
        for place, turns in enumerate(chats):
            self.asked.append((turns, keys[place], params.temperature))
            word = turns[-1]["content"].split()[-1]
            error = "engine_error: no" if word == "broken" else None
            yield [(place, Completion(answers[word], "length" if word == "long" else "stop", error=error))]


def test_statuses():
    out = Respond(Echo(), journal=False)(
        {"instruction": ["be fine", "be empty", "be long", "be broken", "echo", None, " "]}
    )
    assert out[col.OUTPUT] == ["Fine.", None, "half", None, "**ECHO**!", None, None]
    assert out[col.RESPONSE_STATUS] == [
        "ok", "empty", "cut_off", "engine_error: no", "repeats_instruction", "invalid_input", "invalid_input",
    ]  # fmt: skip


def test_rows_whose_evolution_failed_are_not_answered():
    engine, statuses = Echo(), ["ok", "near_copy", None, "leak", "invalid_input"]
    out = Respond(engine, journal=False)(
        {"instruction": ["be fine", "be fine", "be fine", None, None], "evol_status": statuses}
    )
    assert out[col.RESPONSE_STATUS] == ["ok", "not_evolved", "ok", "not_evolved", "not_evolved"]
    assert out[col.OUTPUT] == ["Fine.", None, "Fine.", None, None] and len(engine.asked) == 2
    flags = {"evol_status": ["leak", "ok"], "elimination": ["kept", "blow_up"], "response_status": ["ok", "ok"]}
    again = Respond(engine, journal=False)({"instruction": ["be fine"] * 2, **flags})
    assert again[col.RESPONSE_STATUS] == ["not_evolved", "eliminated"] and len(engine.asked) == 2
    once_more = Respond(engine, journal=False)({"instruction": ["be fine"], "response_status": ["cut_off"]})
    assert once_more[col.RESPONSE_STATUS] == ["ok"]  # an earlier answer's status does not count


def test_the_system_turn():
    for system, roles in ((None, ["user"]), ("Be brief.", ["system", "user"])):
        engine = Echo()
        Respond(engine, system=system, journal=False)({"instruction": ["be fine"]})
        turns = engine.asked[0][0]
        assert [turn["role"] for turn in turns] == roles
        assert system is None or turns[0]["content"] == system


def test_sampled_responses_have_noise_of_their_own():
    batch = {"instruction": ["be fine"] * 3, "id": ["a-0", "a-1", "a-0"], "round": [1, 1, 2]}

    def keys(**settings):
        engine = Echo()
        Respond(engine, journal=False, **settings)(batch)
        assert {temperature for *_, temperature in engine.asked} == {settings.get("temperature", 0)}
        return [key for _, key, _ in engine.asked]

    assert len(set(keys())) == 1
    assert len(set(keys(temperature=0.7))) == 3 and keys(temperature=0.7) == keys(temperature=0.7)
    assert not set(keys(temperature=0.7)) & set(keys(temperature=0.7, seed=1))
    with pytest.raises(hf_evol.errors.ColumnError, match="'id' not found"):
        Respond(Echo(), temperature=0.7, journal=False)({"instruction": ["be fine"]})


def test_equal_prompts_are_answered_once(tmp_path, tiny_model):
    data = Dataset.from_dict({"instruction": ["why", "why", "how"]})
    out = hf_evol.map(data, Respond(tiny_model, max_new_tokens=4, journal=str(tmp_path / "j")))
    assert out[0] == out[1]


def test_wrong_settings(tiny_model):
    for name, value in (("max_new_tokens", 0), ("temperature", -1), ("top_p", 0)):
        with pytest.raises(hf_evol.errors.ConfigError, match=name):
            Respond(tiny_model, **{name: value})
