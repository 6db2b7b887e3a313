import math

import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hf_evol
from hf_evol import columns as col
from hf_evol.errors import ColumnError, ConfigError, ModelError
from hf_evol.generation import models
from hf_evol.generation.models import ModelSpec
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.scoring.losses import TokenSpans, mean_losses
from hf_evol.scoring.summary import summarize

ROWS = [
    ("Write a poem.", "", "The sea is deep and blue."),
    ("List three facts", "about the sea", "It is salty. It is deep. It is old."),
    ("Why?", "", "Because rivers flow to the sea, and the sea is large. " * 5),
    ("How many apples are left? " * 6, "", "4 apples"),
    ("Explain {braces} <|end|> and 👋", "x", "They are <|user|> characters."),
]


def by_the_paper(folder: str, instruction: str, input: str, output: str) -> dict[str, float]:
    """The procedure of the paper, one row at a time: three passes, labels masked with -100, no batching."""
    model, tokenizer = models.load_model(ModelSpec(folder)), models.load_tokenizer(ModelSpec(folder))

    def ids(text):
        return tokenizer(text, split_special_tokens=True, return_tensors="pt").input_ids

    def loss(inputs, labels):
        with torch.no_grad():
            return model(input_ids=inputs, labels=labels).loss.item()

    q = instruction + ("\n" + input if input != "" else "")
    joint, n = ids(q + "\n" + output), ids(q).shape[1]
    of_q, of_a = joint.clone(), joint.clone()
    of_q[:, n:], of_a[:, :n] = -100, -100
    loss_q, loss_a_given_q, loss_a = loss(joint, of_q), loss(joint, of_a), loss(ids(output), ids(output))
    return {
        col.LOSS_Q: loss_q, col.LOSS_A_GIVEN_Q: loss_a_given_q, col.LOSS_A: loss_a,
        col.IFD: loss_a_given_q / loss_a, col.IC_IFD: loss_a_given_q / (loss_q * loss_a),
    }  # fmt: skip


def dataset(rows):
    return Dataset.from_dict({k: [row[i] for row in rows] for i, k in enumerate(("instruction", "input", "output"))})


@pytest.mark.parametrize("fixture", ["tiny_model", "bos_model"])
@pytest.mark.parametrize("batch_tokens", [1, 64, 8192])
def test_scores_are_those_of_the_paper(fixture, batch_tokens, request):
    folder = request.getfixturevalue(fixture)
    out = hf_evol.map(dataset(ROWS), IcIfd(folder, batch_tokens=batch_tokens))
    for row, got in zip(ROWS, out, strict=True):
        assert got[col.IC_IFD_STATUS] == "ok"
        for name, value in by_the_paper(folder, *row).items():
            assert got[name] == pytest.approx(value, abs=1e-4), name


def test_no_arrangement_changes_a_score(tiny_model):
    data, transform = dataset(ROWS), IcIfd(tiny_model)
    whole = [row[col.IC_IFD] for row in hf_evol.map(data, transform)]
    reverse = hf_evol.map(data.select(range(len(data))[::-1]), transform, batch_size=2)
    assert [row[col.IC_IFD] for row in reverse][::-1] == pytest.approx(whole, abs=1e-6)
    assert hf_evol.map(data, transform, num_proc=2)[col.IC_IFD][:] == pytest.approx(whole, abs=1e-6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=5))
def test_any_text_gives_a_score_or_a_reason(tiny_model, pairs):
    batch = {"instruction": [q for q, _ in pairs], "output": [a for _, a in pairs]}
    out = IcIfd(tiny_model)(batch)
    for place in range(len(pairs)):
        values = [out[name][place] for name in (col.IC_IFD, col.IFD)]
        if out[col.IC_IFD_STATUS][place] == "ok":
            assert all(math.isfinite(value) and value > 0 for value in values)
        else:
            assert values == [None, None]


@pytest.mark.parametrize(
    ("instruction", "output", "status"),
    [
        (None, "x y", "invalid_input"), ("q", None, "invalid_input"), (" ", "x", "invalid_input"), (3, "x", "invalid_input"),
        ("q", "long answer", "short_question"), ("question", "x", "short_answer"), ("q" * 600, "ab", "too_long"),
        ("question", "b" * 600, "too_long"),
    ],
)  # fmt: skip
def test_reasons(tiny_model, instruction, output, status):
    out = IcIfd(tiny_model)({"instruction": [instruction, "Write it."], "output": [output, "An answer."]})
    assert out[col.IC_IFD_STATUS] == [status, "ok"]
    assert out[col.IC_IFD][0] is None and out[col.IC_IFD][1] > 0


def test_all_null_scores_keep_their_type(tiny_model):
    out = hf_evol.map(dataset([("", "", "")] * 3), IcIfd(tiny_model), batch_size=1)
    assert out.features[col.IC_IFD].dtype == "float64" and out[col.IC_IFD][:] == [None] * 3


def test_summary_counts_what_it_leaves_out():
    assert summarize("x", [1.0, None, 3.0, float("nan"), 2.0]) == {
        "name": "x", "n": 3, "nulls": 2, "mean": 2.0, "q1": 1.5, "median": 2.0, "q3": 2.5,
    }  # fmt: skip
    assert summarize("x", [None])["mean"] is None


def test_wrong_settings(tiny_model):
    with pytest.raises(ConfigError, match="batch_tokens"):
        IcIfd(tiny_model, batch_tokens=0)
    with pytest.raises(ColumnError, match="'output' not found"):
        IcIfd(tiny_model)({"instruction": ["x"]})
    with pytest.raises(ModelError, match="no-such-folder"):
        hf_evol.map(dataset(ROWS), IcIfd("./no-such-folder"))
