"""The transform: datasets in any arrangement, messages, columns, errors."""

import pytest
from datasets import Dataset, Features, Value
from scored_rows import CHAT, CONVENTIONS, ROWS, batch_of, chat, close, records, unloadable
from tiny_models import build_tokenizer

import hf_evol
from hf_evol import columns as col
from hf_evol.errors import ColumnError, ConfigError, ModelError
from hf_evol.scoring import pairs
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.scoring.pairs import SCORES


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_arrangement_changes_a_score(tiny_model, convention, monkeypatch):
    alone = [records(IcIfd(tiny_model, convention=convention, journal=False)(batch_of([row])))[0] for row in ROWS]
    assert [record[col.IC_IFD_STATUS] for record in alone].count("ok") == len(ROWS) - 2
    for window, size, budget, step in ((512, 10, None, 1), (3, 10, 1, -1), (1, 4, 64, 3), (4, 7, 100, 7)):
        monkeypatch.setattr(pairs, "_WINDOW", window)
        places = [place * step % 10 for place in range(10)]
        data = Dataset.from_dict(batch_of([ROWS[place] for place in places]))
        scorer = IcIfd(tiny_model, convention=convention, batch_tokens=budget, journal=False)
        out = hf_evol.map(data, scorer, batch_size=size)
        assert records(out) == [close(alone[place]) for place in places]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_turn_is_scored_like_the_last_of_the_chat_so_far(tiny_model, convention):
    chats = [CHAT, CHAT[1:], CHAT[:3], CHAT[:4]]
    out = IcIfd(tiny_model, convention=convention, turns="each", journal=False)({"messages": chats})
    so_far = IcIfd(tiny_model, convention=convention, turns="last", journal=False)(
        {"messages": [CHAT[:3], CHAT, CHAT[1:3], CHAT[1:]]}
    )
    first, last, first_bare, last_bare = (close(record) for record in records(so_far))
    assert out[col.IC_IFD_TURNS] == [
        [{"turn": 2} | first, {"turn": 4} | last], [{"turn": 1} | first_bare, {"turn": 3} | last_bare],
        [{"turn": 2} | first], [{"turn": 2} | first],
    ]  # fmt: skip
    *scored, unscored = records(out)
    assert scored == [last, last_bare, first]
    assert unscored == dict.fromkeys(SCORES) | {col.IC_IFD_STATUS: "invalid_input"}  # a user's turn is the last
    assert out[col.IC_IFD_CONVENTION] == [convention] * 4


def test_one_turn_is_scored_like_a_row(tiny_model):
    row, turns = ROWS[0], chat(("user", ROWS[0][0]), ("assistant", ROWS[0][1]))
    expected = records(IcIfd(tiny_model, journal=False)(batch_of([row])))
    assert records(IcIfd(tiny_model, turns="last", journal=False)({"messages": [turns]})) == expected


USER, REPLY = {"role": "user", "content": "Which river?"}, {"role": "assistant", "content": "The Nile."}
UNUSABLE = {
    "none": None, "no turns": [], "a text": "Which river?", "a number": 3, "a turn that is none": [None, REPLY],
    "no user": [REPLY], "no reply": [USER], "a user last": [USER, REPLY, USER], "blank": [{**USER, "content": " \n"}, REPLY],
    "content none": [{**USER, "content": None}, REPLY], "reply none": [USER, {**REPLY, "content": None}],
    "reply blank": [USER, {**REPLY, "content": " "}], "no content": [{"role": "user"}, REPLY],
    "half a pair": [{**USER, "content": "\ud83d"}, REPLY], "no role": [{"content": "Which river?"}, REPLY], "parts": [{**USER, "content": [{"text": "Which?"}]}, REPLY],
}  # fmt: skip


@pytest.mark.parametrize("convention", ["paper", "exact_chat"])
def test_unusable_messages_have_a_status(tiny_model, convention):
    for turns in ("last", "each"):
        scorer = IcIfd(tiny_model, convention=convention, turns=turns, journal=False)
        out = scorer({"messages": [*UNUSABLE.values(), [USER, REPLY]]})
        *unusable, usable = records(out)
        assert unusable == [dict.fromkeys(SCORES) | {col.IC_IFD_STATUS: "invalid_input"}] * len(UNUSABLE)
        assert usable[col.IC_IFD_STATUS] == "ok" and usable[col.IC_IFD] > 0
    scored = [[turn["turn"] for turn in row if turn[col.IC_IFD_STATUS] == "ok"] for row in out[col.IC_IFD_TURNS]]
    assert dict(zip(UNUSABLE, scored, strict=False)) == {
        name: [1] if name == "a user last" else [] for name in UNUSABLE
    }


def test_columns_without_a_score_keep_their_types(tiny_model):
    turn = {"role": Value("string"), "content": Value("string")}
    data = Dataset.from_dict({"messages": [[], None, [USER]]}, features=Features({"messages": [turn]}))
    out = hf_evol.map(data, IcIfd(tiny_model, turns="each", journal=False), batch_size=1)
    scores = {name: Value(kind) for name, kind in SCORES.items()}
    expected = {
        "messages": [turn],
        col.IC_IFD_CONVENTION: Value("string"),
        col.IC_IFD_TURNS: [{"turn": Value("int32")} | scores],
    }
    assert out.features == Features(scores | expected)
    assert out[col.IC_IFD_TURNS][:] == [[]] * 3 and out[col.IC_IFD][:] == [None] * 3
    rows = Dataset.from_dict({"instruction": [""] * 3, "output": [""] * 3})
    out = hf_evol.map(rows, IcIfd(tiny_model, journal=False), batch_size=1)
    assert out.features[col.IC_IFD].dtype == "float64" and out[col.IC_IFD][:] == [None] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"convention": "alpaca"}, "convention must be one of paper, superfiltering, exact, exact_chat; got 'alpaca'"),
        ({"turns": "first"}, "turns must be None, 'last' or 'each'; got 'first'"), ({"max_length": 0}, "max_length must"),
        ({"max_length": -1}, "max_length must be 1 or more; got -1"), ({"batch_tokens": 0}, "batch_tokens must be 1 or more"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        IcIfd("no-such-model", **settings)


def test_errors_come_before_the_weights_are_loaded(tiny_model, bos_model):
    data, chats = Dataset.from_dict(batch_of(ROWS)), Dataset.from_dict({"messages": [CHAT]})
    with unloadable("_load_model"):
        with pytest.raises(ConfigError, match=r"has no chat template\..*chat_template= in hf_evol\.ModelSpec"):
            hf_evol.map(data, IcIfd(bos_model, convention="exact_chat"))
        with pytest.raises(ColumnError, match="'messages' not found"):
            hf_evol.map(data, IcIfd(tiny_model, turns="last"))
        with pytest.raises(ColumnError, match="'instruction', 'output' not found"):
            hf_evol.map(chats, IcIfd(tiny_model))
        with pytest.raises(ColumnError, match="'output' not found"):
            IcIfd(tiny_model)({"instruction": ["x"]})
        with pytest.raises(ModelError, match="no-such-folder"):
            hf_evol.map(data, IcIfd("./no-such-folder"))


def test_a_model_that_is_not_causal(tmp_path):
    from transformers import BertConfig, BertLMHeadModel

    small = {
        "vocab_size": 320,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    BertLMHeadModel(BertConfig(**small, initializer_range=0.3)).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="BertLMHeadModel is not causal"):
        IcIfd(str(tmp_path), journal=False)(batch_of(ROWS))
