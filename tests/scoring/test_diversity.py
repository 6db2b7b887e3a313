"""Embeddings, nearest neighbours by brute force, and figures of a set counted by hand."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import build_tokenizer

import hf_evol
from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ColumnError, ConfigError, MissingExtraError, ModelError
from hf_evol.scoring import diversity as diversities
from hf_evol.scoring.diversity import diversity, nearest_distances, self_similarity
from hf_evol.scoring.embed import Embed


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """A tiny sentence-transformers model: mean pooling and unit length, as all-mpnet-base-v2; at most 24 tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("embedder")
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertModel(
        BertConfig(**sizes, intermediate_size=48, max_position_embeddings=24, initializer_range=0.3)
    ).save_pretrained(folder / "bert")
    tokenizer = build_tokenizer(bos=True, template=None)
    tokenizer.model_max_length = 24
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(32), Normalize()]
    SentenceTransformer(modules=modules).save(str(folder / "model"))
    return str(folder / "model")


TEXTS = {
    "instruction": ["Why?", "Write a poem.", "<s>Why?", "list three facts " * 20, "Why?", None, " ", "Why?", "Why?"],
    "input": ["", "the sea", None, "", "", "x", "", 3, "\ud800"],
}


def by_hand(folder, text):
    """One text alone: the mean of BERT's last states, of unit length."""
    model = models.load_embedder(models.ModelSpec(folder))
    ids = model.tokenizer(text, split_special_tokens=True)["input_ids"][:24]
    with torch.no_grad():
        mean = model[0].auto_model(torch.tensor([ids])).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


def test_embeddings_are_the_models(embedder):
    out = Embed(embedder)(TEXTS)
    texts = ["Why?", "Write a poem.\nthe sea", "<s>Why?", "list three facts " * 20, "Why?"]
    for vector, text in zip(out["embedding"], texts, strict=False):
        assert vector.dtype == np.float32 and vector == pytest.approx(by_hand(embedder, text), abs=1e-6)
    assert (out["embedding"][0] == out["embedding"][4]).all()
    assert np.abs(out["embedding"][0] - out["embedding"][2]).max() > 0.01
    assert out["embedding"][5:] == [None] * 4
    assert out["embedding_status"] == ["ok", "ok", "ok", "truncated", "ok", *["invalid_input"] * 4]


def test_a_special_token_in_a_text_is_text(embedder):
    tokenizer = models.load_embedder(models.ModelSpec(embedder)).tokenizer
    assert tokenizer("<s>", add_special_tokens=False)["input_ids"] != [tokenizer.bos_token_id]
    assert len(tokenizer("<s>", add_special_tokens=False)["input_ids"]) == 3


def test_a_text_of_just_the_length_is_not_truncated(embedder):
    """BOS and so many digits, each a token."""
    out = Embed(embedder)({"instruction": ["7" * 23, "7" * 24]})
    assert out["embedding_status"] == ["ok", "truncated"]
    assert (out["embedding"][0] == out["embedding"][1]).all()


@pytest.mark.parametrize(("size", "rows"), [(1, 9), (2, 4), (64, 2)])
def test_no_arrangement_changes_an_embedding(embedder, size, rows):
    data = Dataset.from_dict({"instruction": TEXTS["instruction"]})
    whole = Embed(embedder)({"instruction": TEXTS["instruction"]})
    out = hf_evol.map(data.select(range(8, -1, -1)), Embed(embedder, batch_size=size), batch_size=rows)
    assert out["embedding_status"][::-1] == whole["embedding_status"]
    for got, expected in zip(out["embedding"][::-1], whole["embedding"], strict=True):
        assert got is expected is None or got == pytest.approx(expected.tolist(), abs=1e-6)


def test_columns_without_an_embedding_keep_their_types(embedder):
    out = hf_evol.map(Dataset.from_dict({"instruction": [None, "", " "]}), Embed(embedder))
    assert out.features["embedding"].feature.dtype == "float32" and out["embedding"][:] == [None] * 3


def test_batches_are_halved_when_memory_runs_out(embedder):
    sizes, rows = [], {"instruction": [f"text {place}" for place in range(8)]}
    expected = Embed(embedder)(rows)["embedding"]

    def limit(module, args):
        sizes.append(len(args[0]["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = models.load_embedder(models.ModelSpec(embedder))[0].register_forward_pre_hook(limit)
    try:
        got = Embed(embedder)(rows)["embedding"]
    finally:
        handle.remove()
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert np.abs(np.array(got) - np.array(expected)).max() < 1e-6


def test_the_model_is_let_go(embedder):
    spec = models.ModelSpec(embedder)
    first = models.load_embedder(spec)
    assert models.load_embedder(spec) is first
    models.release()
    assert models.load_embedder(spec) is not first


def test_wrong_settings(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="batch_size must be 1 or more; got 0"):
        Embed(batch_size=0)
    with pytest.raises(ModelError, match="no model folder"):
        hf_evol.map(Dataset.from_dict({"instruction": ["x"]}), Embed(str(tmp_path / "none")))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"Embed needs sentence_transformers.*pip install 'hf_evol\[embeddings\]'"
    ):
        Embed()
    with pytest.raises(MissingExtraError, match=r"needs faiss.*pip install 'hf_evol\[embeddings\]'"):
        nearest_distances(np.eye(3), exact_up_to=2)
    assert nearest_distances(np.eye(3), exact_up_to=3) == pytest.approx([math.sqrt(2)] * 3)


def brute_force(rows):
    """Every pair by itself."""
    return [min((math.dist(a, b) for j, b in enumerate(rows) if j != i), default=math.inf) for i, a in enumerate(rows)]


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_nearest_distances_are_those_of_brute_force(block, monkeypatch):
    monkeypatch.setattr(diversities, "_BLOCK", block)
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    rows[17] = rows[4]
    got = nearest_distances(rows)
    assert got.dtype == np.float64 and got == pytest.approx(brute_force(rows.astype(float)), abs=1e-12)
    assert got[4] == got[17] == 0 and (np.delete(got, [4, 17]) > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=0, max_size=20), st.randoms())
def test_no_order_changes_a_distance(rows, order):
    array = np.array(rows, dtype=np.float32).reshape(-1, 3)
    got = nearest_distances(array)
    assert got == pytest.approx(brute_force(rows))
    places = order.sample(range(len(rows)), len(rows))
    assert nearest_distances(array[places]) == pytest.approx(got[places])


def test_hardly_different_rows_far_from_the_origin():
    """Squares and products of float32, or without centring, would lose these differences."""
    base = np.random.default_rng(0).normal(size=64) + 1000
    rows = np.stack([base, base, base + 1e-6, base + 3e-6, base + 1])
    expected = [0, 0, 8e-6, 16e-6, 8 * (1 - 3e-6)]
    assert nearest_distances(rows) == pytest.approx(expected, rel=1e-6)


def test_none_one_and_two_rows():
    assert nearest_distances(np.zeros((0, 4))).tolist() == [] and nearest_distances(np.zeros((0, 0))).tolist() == []
    assert nearest_distances([[1, 2]]).tolist() == [math.inf]
    assert nearest_distances([[1, 2], [4, 6]]).tolist() == [5, 5] and nearest_distances([[1, 2]] * 2).tolist() == [0, 0]


def test_faiss_finds_the_nearest_of_clustered_rows():
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(200, 48))
    rows = (centres[draw.integers(0, 200, 5000)] + 0.5 * draw.normal(size=(5000, 48))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[100:110] = rows[:10]
    exact, found = nearest_distances(rows), nearest_distances(rows, exact_up_to=1000)
    right = np.isclose(found, exact, rtol=1e-5)
    assert right.mean() > 0.99 and not (found < exact * (1 - 1e-5)).any()  # too large, or right
    assert (found[:10] == 0).all() and (found[100:110] == 0).all() and (found > 0).sum() == 4980


def test_faiss_with_few_rows():
    rows = np.array([[0, 0], [0, 1], [5, 5], [5, 7], [5, 7]], dtype=np.float32)
    assert nearest_distances(rows, exact_up_to=0)[3:].tolist() == [0, 0]
    assert nearest_distances(rows[:2], exact_up_to=0).tolist() == [1, 1]


def rows_with(embeddings, instructions=None, **columns):
    texts = instructions or [f"text {place}" for place in range(len(embeddings))]
    kinds = {"instruction": Value("string"), "embedding": List(Value("float32"))}
    kinds |= {name: Value("string") for name in columns}
    return Dataset.from_dict({"instruction": texts, "embedding": embeddings} | columns, features=Features(kinds))


def test_the_summary_of_a_set_by_hand():
    data = rows_with(
        [[3, 4], None, [0, 1], [0, 1.04], [1, 0], None, None],
        ["Why do rivers flow", None, "why do", "Why?", "a b a b", "not counted", None],
        input=["", "", None, "do rivers", "", "", "x"],
        embedding_status=["ok", "invalid_input", "ok", "truncated", "ok", "not_finite", "invalid_input"],
    )
    out, summary = diversity(data)
    distances = [math.hypot(3, 2.96), 0.04, 0.04, math.sqrt(2)]
    assert out["mnd"][:] == [
        value and pytest.approx(value, abs=1e-6)
        for value in [distances[0], None, distances[1], distances[2], distances[3], None, None]
    ]
    assert out.features["mnd"].dtype == "float64" and out.column_names == [*data.column_names, "mnd"]
    # why do rivers flow | why do | why? do rivers | a b a b: 13 words, of which 7 differ; 9 bigrams: why do, do rivers,
    # rivers flow, why? do, a b, b a differ; 5 trigrams, all of them different.
    expected = {"mean_words": 13 / 4, "distinct_1": 7 / 13, "distinct_2": 6 / 9, "distinct_3": 5 / 5}
    cosines = [0.8, 0.8, 0.6, 1, 0, 0]
    expected |= {"n": 4, "mean_mnd": sum(distances) / 4, "median_mnd": (0.04 + math.sqrt(2)) / 2}
    expected |= {"repeats": 2, "repeat_share": 0.5, "self_similarity": sum(cosines) / 6, "truncated": 1}
    left_out = summary.pop("left_out")
    assert summary == pytest.approx(expected, abs=1e-6) and left_out == {"invalid_input": 2, "not_finite": 1}
    assert diversity(data, repeat_below=2)[1]["repeats"] == 3


def test_n_grams_are_those_of_sets_of_tuples():
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(list("ABcd"), draw.integers(1, 9))) for _ in range(60)]
    _, summary = diversity(rows_with(draw.normal(size=(60, 3)).tolist(), texts))
    for n in (1, 2, 3):
        rows = [text.lower().split() for text in texts]
        grams = [tuple(row[start : start + n]) for row in rows for start in range(len(row) - n + 1)]
        assert summary[f"distinct_{n}"] == len(set(grams)) / len(grams)


def test_self_similarity_is_the_mean_over_pairs():
    rows = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    rows[3] = 0
    cosines = [
        float(rows[i] @ rows[j] / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[j]))) if 3 not in (i, j) else 0
        for i in range(20)
        for j in range(i)
    ]
    assert self_similarity(rows) == pytest.approx(sum(cosines) / len(cosines), abs=1e-7)


NOTHING = {
    "n": 0, "mean_mnd": None, "median_mnd": None, "repeats": 0, "repeat_share": None, "mean_words": None, "distinct_1": None,
    "distinct_2": None, "distinct_3": None, "self_similarity": None, "truncated": 0, "left_out": {},
}  # fmt: skip


def test_sets_of_no_row_one_row_and_two_rows():
    out, summary = diversity(rows_with([]))
    assert out["mnd"][:] == [] and out.features["mnd"].dtype == "float64" and summary == NOTHING
    out, summary = diversity(rows_with([None, None]))
    assert out["mnd"][:] == [None, None] and summary == NOTHING | {"left_out": {"no_embedding": 2}}
    out, summary = diversity(rows_with([[1, 0]], ["one word or two"]))
    assert out["mnd"][:] == [None]
    assert summary == NOTHING | {"n": 1, "mean_words": 4.0, "distinct_1": 1.0, "distinct_2": 1.0, "distinct_3": 1.0}
    out, summary = diversity(rows_with([[0, 2], [0, 2]], ["one", "one"]))
    assert out["mnd"][:] == [0, 0] and summary["repeats"] == 2 and summary["self_similarity"] == pytest.approx(1)
    assert (summary["distinct_1"], summary["distinct_2"]) == (0.5, None)


def test_a_second_measure_takes_the_place_of_the_first():
    out, _ = diversity(rows_with([[1, 0], [3, 0], [0, 2]]))
    again, summary = diversity(out.select([0, 1]), repeat_below=3)
    assert again["mnd"][:] == [2, 2] and summary["repeats"] == 2 and again.column_names == out.column_names


def test_rows_selected_and_shuffled():
    data = rows_with([[0, 0], [0, 3], None, [4, 0], [9, 9]])
    out, summary = diversity(data.select([3, 2, 1, 0]))
    assert out["mnd"][:] == [4, None, 3, 3] and summary["n"] == 3
    chunks = diversity(concatenate_datasets([data, data]))[0]["mnd"][:]
    assert chunks == [0, 0, None, 0, 0, 0, 0, None, 0, 0]


@pytest.mark.parametrize("embeddings", [[[1, 2], [1]], [[], []], [[1, math.nan]], [[1, None]]])
def test_embeddings_that_can_not_be_compared(embeddings):
    with pytest.raises(ColumnError, match="must hold lists of finite numbers, all of one length"):
        diversity(rows_with(embeddings))


def test_a_set_without_embeddings():
    with pytest.raises(ColumnError, match="'embedding' not found"):
        diversity(Dataset.from_dict({"instruction": ["x"]}))


def test_from_instructions_to_the_summary(embedder):
    data = Dataset.from_dict({"instruction": ["write a poem", "list three facts", "write a poem", None, "why"]})
    out, summary = hf_evol.diversity(hf_evol.map(data, hf_evol.Embed(embedder)))
    vectors = [by_hand(embedder, text).astype(float) for text in data["instruction"] if text]
    expected = brute_force(vectors)
    assert out[col.MND][3] is None and out[col.MND][0] == out[col.MND][2] == 0
    assert [value for value in out[col.MND] if value is not None] == pytest.approx(expected, abs=1e-5)
    assert summary["repeats"] == 2 and summary["left_out"] == {"invalid_input": 1}
