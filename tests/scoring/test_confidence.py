"""Top-1 probabilities against the softmax of a model's own logits, row by row."""

import pytest
import torch
from datasets import Dataset
from tiny_models import build_llama, build_tokenizer, plain_model

import hf_evol
from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.generation.base import Completion
from hf_evol.models import encoding
from hf_evol.prompts.auto_evol import AUTO
from hf_evol.scoring.confidence import Confidence

LONGER = ("Be an editor.", "Lengthen: {instruction}")  # a system turn and the user's
METHODS = (
    hf_evol.Method(
        "longer", [{"role": role, "content": text} for role, text in zip(("system", "user"), LONGER, strict=True)]
    ),
    hf_evol.Method("new", "Another than {instruction}, please"),
)
ROWS = [("Write a poem.", "longer"), ("Why?", "new"), ("<|user|>Sort {instruction}", "longer"), ("Why?", "longer")]
BAD = [(None, "new"), (" \n", "new"), ("Why?", None), ("lone \ud800", "new"), ("Why?", "deepen")]
COLUMNS = list(Confidence.output_columns)


def batch_of(rows):
    return {col.PARENT_INSTRUCTION: [parent for parent, _ in rows], col.METHOD: [method for _, method in rows]}


def records(out):
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*(out[name] for name in COLUMNS), strict=True)]


def loaded(folder):
    spec = models.ModelSpec(folder)
    return plain_model(spec), models.load_tokenizer(spec)


def evolving(name, parent):
    """The turns of these methods, written out."""
    if name == "longer":
        return [{"role": "system", "content": LONGER[0]}, {"role": "user", "content": f"Lengthen: {parent}"}]
    return [{"role": "user", "content": f"Another than {parent}, please"}]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """One whose distributions are more peaked than those of the usual one."""
    folder = tmp_path_factory.mktemp("models") / "peaked"
    model = build_llama(seed=2)
    model.lm_head.weight.data *= 2
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def greedy(folder, prompt, count):
    """Probabilities while decoding greedily; the end of the text counts, as it is generated."""
    model, tokenizer = loaded(folder)
    ids, probs = encoding.render_chat(tokenizer, prompt), []
    while len(probs) < count:
        with torch.no_grad():
            prob, token = model(torch.tensor([ids])).logits[0, -1].softmax(-1).max(-1)
        probs.append(prob.item())
        if token.item() == tokenizer.eos_token_id:
            break
        ids = [*ids, token.item()]
    return probs


@pytest.mark.parametrize("settings", [{"positions": 5}, {"max_new_tokens": 12}])
def test_the_papers_measure_is_taken_while_evolving_greedily(tiny_model, settings, tmp_path):
    confidence = Confidence(tiny_model, methods=METHODS, journal=str(tmp_path / "j"), **settings)
    data = Dataset.from_dict(batch_of([ROWS[0], *ROWS, BAD[0], BAD[4]]))
    *got, no_parent, unknown = records(hf_evol.map(data, confidence, batch_size=4))
    for (parent, name), record in zip([ROWS[0], *ROWS], got, strict=True):
        probs = greedy(tiny_model, evolving(name, parent), *settings.values())
        assert record["top1_probs"] == pytest.approx(probs, abs=1e-5)
        assert record["top1_mean"] == pytest.approx(sum(probs) / len(probs), abs=1e-5)
        assert record["share_over_90"] == len([p for p in probs if p > 0.9]) / len(probs)
        assert record["confidence_status"] == "ok"
    statuses = [record["confidence_status"] for record in (no_parent, unknown)]
    assert statuses == ["invalid_input", "unknown_method"] and no_parent["top1_probs"] is None


def test_rows_that_fail_keep_their_place_and_types(tiny_model):
    statuses = [*["invalid_input"] * 4, "unknown_method"]
    confidence = Confidence(tiny_model, methods=METHODS)
    nothing = [dict.fromkeys(COLUMNS) | {"confidence_status": status} for status in statuses]
    assert records(confidence(batch_of(BAD))) == nothing
    out = hf_evol.map(Dataset.from_dict(batch_of(BAD[4:])), confidence)
    assert out.features["top1_probs"].feature.dtype == out.features["top1_mean"].dtype == "float64"


class Answering:
    """An engine whose completions are given."""

    name = "answering"

    def stream(self, chats, params, keys):
        answers = [
            Completion("a b", "stop", top1_probs=[0.95, 0.5]), Completion("a", "stop"), Completion("", "stop", top1_probs=[]),
            Completion("", "error", error="too_long: the prompt has 9 tokens"), Completion("a", "length", top1_probs=[0.9]),
        ]  # fmt: skip
        assert params.temperature == 0 and params.top1_probs == params.max_new_tokens == 2
        assert len(chats) == len(answers)
        yield list(enumerate(answers))


def test_any_engine_that_gives_probabilities():
    out = Confidence(Answering(), positions=2, methods=METHODS, journal=False)(
        {"parent_instruction": [f"Why {n}?" for n in range(5)], "method": ["longer"] * 5}
    )
    assert out["top1_probs"] == [[0.95, 0.5], None, None, None, [0.9]]
    assert out["top1_mean"] == [0.725, None, None, None, 0.9]
    assert out["share_over_90"] == [0.5, None, None, None, 0]
    unknown = "no_probabilities"
    assert out["confidence_status"] == ["ok", unknown, unknown, "too_long: the prompt has 9 tokens", "ok"]


def test_answers_of_auto_evol_instruct():
    confidence = Confidence(Answering(), positions=2, methods=[AUTO], journal=False)
    out = confidence({"parent_instruction": [f"Why {n}?" for n in range(5)], "method": ["auto"] * 5})
    assert out["top1_probs"][0] == [0.95, 0.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positions": 0}, "positions must be 1 or more; got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more"), ({"methods": "harder"}, "Unknown method 'harder'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        Confidence("no-such-model", **settings)


def test_missing_columns(tiny_model):
    with pytest.raises(ColumnError, match="'parent_instruction', 'method' not found"):
        Confidence(tiny_model)({"text": ["x"]})
