"""Rewards are those of `transformers` itself, row by row, in any arrangement."""

import json
import pickle
import random
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Value
from datasets.fingerprint import Hasher
from scored_rows import ROWS, batch_of, hooked, unloadable
from tiny_models import build_classifier, build_tokenizer, plain_model
from transformers import LlamaConfig, LlamaForSequenceClassification

import hf_evol
from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ColumnError, ConfigError, ModelError
from hf_evol.models import ModelSpec
from hf_evol.models.journal import Journal
from hf_evol.prompts.evol_instruct import Method
from hf_evol.scoring import losses, reward
from hf_evol.scoring.reward import Reward

PAD, END = 0, 3


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    return build_classifier(tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module", params=["padded", "no pad token", "left", "padded with the end", "out of range"])
def any_reward_model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    settings = {
        "padded": {}, "no pad token": {"pad": None, "pad_token": None}, "left": {"padding_side": "left"},
        "padded with the end": {"pad": END, "pad_token": "<|end|>"}, "out of range": {"pad": -1},
    }  # fmt: skip
    return build_classifier(folder, **settings[request.param])


def plainly(folder, chats):
    """One row at a time, without padding."""
    from transformers import AutoModelForSequenceClassification

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), build_tokenizer()
    rewards = []
    for user, assistant in chats:
        ids = [1, *tokenizer(user, split_special_tokens=True)["input_ids"], END]
        ids += [2, *tokenizer(assistant, split_special_tokens=True)["input_ids"], END]
        with torch.no_grad():
            rewards.append(model(torch.tensor([ids])).logits.item() if len(ids) <= 512 else None)
    return rewards


def close(rewards):
    return [None if value is None else pytest.approx(value, rel=1e-4, abs=1e-5) for value in rewards]


USABLE = [row for row in ROWS if row[0]]
PLACES = [place for place, row in enumerate(ROWS) if row[0]]


@pytest.mark.parametrize("budget", [None, 70])
def test_rewards_are_those_of_the_library_row_by_row(any_reward_model, budget):
    expected = plainly(any_reward_model, USABLE)
    assert len({value for value in expected if value}) == len(set(USABLE)) - 1 and None in expected
    data = Dataset.from_dict(batch_of(ROWS))
    out = hf_evol.map(data, Reward(any_reward_model, batch_tokens=budget, journal=False))
    assert [out[col.REWARD][place] for place in PLACES] == close(expected)
    assert [out[col.REWARD_STATUS][place] for place in PLACES] == ["ok" if value else "too_long" for value in expected]
    assert out[col.REWARD_STATUS][ROWS.index(("", "No question."))] == "invalid_input"
    back = data.select(range(len(ROWS))[::-1])
    turned = back.map(Reward(any_reward_model, batch_tokens=budget, journal=False), batched=True, batch_size=3)
    assert turned[col.REWARD][::-1] == out[col.REWARD][:]  # to the last bit
    assert models.load_model(ModelSpec(any_reward_model), models.CLASSIFIER).config.pad_token_id in (PAD, END, None, -1)


def test_a_reward_is_the_same_to_the_last_bit_in_any_company():
    """In half precision, where products are cut into pieces as the shape decides."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=640, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=900, max_position_embeddings=200, pad_token_id=0, num_labels=1,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config).eval().to(torch.bfloat16)

    def rewards(sequences):
        found = {place: record for batch in reward.rewards(model, sequences) for place, record in batch.items()}
        return [found[place]["reward"] for place in range(len(sequences))]

    draw = random.Random(1)
    sequences = [[draw.randrange(5, 900) for _ in range(length)] for length in range(5, 200, 8)]
    together = rewards(sequences)
    assert len(set(together)) > 15
    assert [rewards([sequence])[0] for sequence in sequences] == together
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert rewards(sequences) == together
    finally:
        torch.set_num_threads(threads)


def test_input_belongs_to_the_user(reward_model):
    rows = {"instruction": ["Sort."] * 5, "input": ["4 2", "", None, 3, "half a pair: \ud83d"], "output": ["2 4"] * 5}
    out = Reward(reward_model, journal=False)(rows)
    with_input, without = plainly(reward_model, [("Sort.\n4 2", "2 4"), ("Sort.", "2 4")])
    assert out[col.REWARD] == close([with_input, without, without, None, None])
    assert out[col.REWARD_STATUS] == ["ok", "ok", "ok", "invalid_input", "invalid_input"]


def test_a_row_whose_turns_the_template_refuses_has_a_status(reward_model):
    strict = "{% for m in messages %}{% if 'stop' in m.content %}{{ raise_exception('no stop') }}{% endif %}{{ m.content }}{% endfor %}"
    spec, batch = (
        ModelSpec(reward_model, chat_template=strict),
        batch_of([("a b", "c"), ("stop", "c"), ("a b", "stop")]),
    )
    found = Reward(spec, journal=False)(batch)
    assert found["reward_status"] == ["ok", "template_error: no stop", "template_error: no stop"]
    assert [value is None for value in found["reward"]] == [False, True, True]


def test_an_evolution_is_scored_as_the_answer_to_its_prompt(reward_model):
    ways = (Method("deepen", "Deepen {instruction}"), Method("mine", "Do {instruction}"))
    rows = {
        "instruction": ["Harder {instruction}", "Rarer", "Same", "New", "x", None, "Harder", "\ud83d", None],
        "parent_instruction": ["easy", "{how}", "Same", "old", None, "easy", "easy", "easy", None],
        "method": ["deepen", "mine", "deepen", "breadth", "deepen", "deepen", None, "deepen", "breadth"],
        "evol_status": ["ok", None, "unchanged", "ok", "ok", "ok", "ok", "ok", "refusal"],
    }
    out = Reward(reward_model, of="evolution", methods=ways, journal=False)(rows)
    expected = plainly(reward_model, [("Deepen easy", "Harder {instruction}"), ("Do {how}", "Rarer")])
    assert out[col.REWARD] == close([*expected, *[None] * 7])
    invalid = ["invalid_input"] * 4
    assert out[col.REWARD_STATUS] == ["ok", "ok", "not_evolved", "unknown_method", *invalid, "not_evolved"]


def test_evolutions_of_a_real_run_are_scored(reward_model, tiny_model, seeds):
    ways = (Method("deepen", "Deepen {instruction}"), Method("mine", "Do {instruction}"))
    evolve = hf_evol.EvolInstruct(tiny_model, methods=ways, max_new_tokens=8, temperature=5.0, journal=False)
    evolved = hf_evol.map(seeds, evolve)
    evolved = evolved.map(lambda row: {"evol_status": "ok", "instruction": row["history"][-1]["instruction"] or "x"})
    scored = Reward(ModelSpec(reward_model), of="evolution", methods=ways, journal=False)(evolved[:])
    begin = {"deepen": "Deepen ", "mine": "Do "}
    chats = [(begin[row["method"]] + row["parent_instruction"], row["instruction"]) for row in evolved]
    expected = plainly(reward_model, chats)
    assert scored[col.REWARD] == close(expected) and any(expected)


def test_a_second_run_is_read_from_the_journal(reward_model, tmp_path, monkeypatch):
    once = Reward(reward_model, journal=tmp_path / "journal")
    expected = once(batch_of(ROWS))
    again = Reward(reward_model, batch_tokens=1, journal=tmp_path / "journal")
    with unloadable():
        assert again(batch_of(USABLE[:5]))[col.REWARD] == [expected[col.REWARD][place] for place in PLACES[:5]]
        monkeypatch.setattr(Journal, "get", lambda self, keys: {key: {"reward": 0.5} for key in keys})
        assert again(batch_of(USABLE[:1])) == {"reward": [0.5], "reward_status": ["ok"]}  # as of earlier versions
        monkeypatch.undo()
    other = Reward(
        ModelSpec(reward_model, chat_template="{% for m in messages %}{{ m.content }}!{% endfor %}"),
        journal=once.journal,
    )
    assert other(batch_of(ROWS[:1]))[col.REWARD] != expected[col.REWARD][:1]


def test_rows_that_do_not_fit_into_memory(reward_model, monkeypatch):
    expected = Reward(reward_model, journal=False)(batch_of(USABLE[:6]))[col.REWARD]
    monkeypatch.setattr(losses, "_budgets", {})
    sizes = []

    def limit(ids):
        sizes.append(ids.numel())
        if sizes[-1] > 90:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with hooked(reward_model, limit, models.CLASSIFIER):
        out = Reward(reward_model, journal=False)(batch_of(USABLE[:6]))
    statuses = out[col.REWARD_STATUS]
    assert "out_of_memory" in statuses and "ok" in statuses and len(sizes) < 20
    assert out[col.REWARD] == close([v if s == "ok" else None for v, s in zip(expected, statuses, strict=True)])


def test_other_errors_are_not_taken_for_memory(reward_model):
    def broken(_):
        raise RuntimeError("a shape is wrong")

    with (
        hooked(reward_model, broken, models.CLASSIFIER),
        pytest.raises(RuntimeError, match="a shape is wrong"),
    ):
        Reward(reward_model, journal=False)(batch_of(ROWS[:1]))


def test_broken_weights_give_no_number(tmp_path):
    from transformers import LlamaForSequenceClassification

    folder = build_classifier(tmp_path)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    out = Reward(folder, journal=False)(batch_of(ROWS[:2]))
    assert out == {col.REWARD: [None, None], col.REWARD_STATUS: ["not_finite"] * 2}


def test_models_that_give_no_reward(tiny_model, bos_model, reward_model, tmp_path):
    data = Dataset.from_dict(batch_of(ROWS))
    with unloadable("_load_model"):
        with pytest.raises(ModelError, match="it has 2 outputs"):
            hf_evol.map(data, Reward(tiny_model))
        with pytest.raises(ModelError, match="it has 3 outputs"):
            Reward(build_classifier(tmp_path / "several", labels=3), journal=False)(batch_of(ROWS))
        with pytest.raises(ConfigError, match="has no chat template"):
            hf_evol.map(data, Reward(build_classifier(tmp_path / "bare", chat_template=None)))
        with pytest.raises(ConfigError, match="can't render two turns"):
            hf_evol.map(data, Reward(ModelSpec(reward_model, chat_template="{{ raise_exception('no') }}")))
        with pytest.raises(ModelError, match="leaves out"):
            hf_evol.map(data, Reward(ModelSpec(reward_model, chat_template="{{ messages[0].content }}")))
        with pytest.raises(ColumnError, match="'parent_instruction', 'method' not found"):
            hf_evol.map(data, Reward(reward_model, of="evolution"))


def test_a_head_that_was_never_trained(tiny_model, tmp_path):
    """transformers makes one of random numbers, with a warning."""
    plain_model(tiny_model).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    config = Path(tmp_path, "config.json")
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"id2label": {"0": "reward"}, "label2id": {"reward": 0}})
    )
    with pytest.raises(ModelError, match=r"no trained classifier: its weights lack score\.weight"):
        Reward(str(tmp_path), journal=False)(batch_of(ROWS))


def test_columns_and_fingerprints(reward_model):
    data = Dataset.from_dict(batch_of(ROWS[:4]))
    scorer = Reward(reward_model, journal=False)
    out = hf_evol.map(data, scorer)
    assert out.features[col.REWARD] == Value("float64") and out.features[col.REWARD_STATUS] == Value("string")
    assert pickle.loads(pickle.dumps(scorer)) == scorer
    assert Hasher.hash(scorer) == Hasher.hash(Reward(reward_model)) != Hasher.hash(Reward(reward_model, of="evolution"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "prompt"}, "of must be"),
        ({"batch_tokens": 0}, "batch_tokens must"),
        ({"methods": "none"}, "Unknown method"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        Reward("no-such-model", **settings)
