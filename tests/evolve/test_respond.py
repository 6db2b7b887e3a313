import pytest
import torch
from datasets import Dataset

import hf_evol
from hf_evol import columns as col
from hf_evol.evolve.respond import Respond
from hf_evol.generation import encoding, models
from hf_evol.generation.base import Completion
from hf_evol.prompts.respond import respond_prompt


def test_responses_are_greedy_and_cut_off_ones_are_marked(tiny_model, seeds):
    out = hf_evol.map(seeds, Respond(tiny_model, max_new_tokens=8, journal=False), batch_size=3)
    model, tokenizer = (load(models.ModelSpec(tiny_model)) for load in (models.load_model, models.load_tokenizer))
    for row in out.select(range(4)):
        ids = encoding.render_chat(tokenizer, [{"role": "user", "content": respond_prompt(row["instruction"], "")}])
        text = tokenizer.decode(
            model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0][len(ids) :],
            skip_special_tokens=True,
        )
        assert (row[col.OUTPUT] or "") == text.strip()
    assert set(out[col.RESPONDER]) == {"tiny"} and "cut_off" in out[col.RESPONSE_STATUS]


class Echo:
    name = "echo"

    def check(self):
        pass

    def stream(self, chats, params, keys):
        answers = {"empty": "<think>x</think> ", "long": "half", "broken": "", "fine": "<think>x</think>Fine."}
        for place, turns in enumerate(chats):
            word = turns[0]["content"].split()[-1]
            error = "engine_error: no" if word == "broken" else None
            yield [(place, Completion(answers[word], "length" if word == "long" else "stop", error=error))]


def test_statuses():
    out = Respond(Echo(), journal=False)({"instruction": ["fine", "empty", "long", "broken", None, " "]})
    assert out[col.OUTPUT] == ["Fine.", None, "half", None, None, None]
    assert out[col.RESPONSE_STATUS] == ["ok", "empty", "cut_off", "engine_error: no", "invalid_input", "invalid_input"]


def test_equal_prompts_are_answered_once(tmp_path, tiny_model):
    data = Dataset.from_dict({"instruction": ["why", "why", "how"]})
    out = hf_evol.map(data, Respond(tiny_model, max_new_tokens=4, journal=str(tmp_path / "j")))
    assert out[0] == out[1]


def test_wrong_settings():
    with pytest.raises(hf_evol.errors.ConfigError, match="max_new_tokens"):
        Respond("embedded", max_new_tokens=0)
