"""Top-1 probabilities and entropies against the softmax of a model's own logits, row by row."""

import math
from itertools import pairwise

import pytest
import torch
from datasets import Dataset
from scored_rows import hooked
from tiny_models import build_llama, build_tokenizer

import hf_evol
from hf_evol import columns as col
from hf_evol import models
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.generation.base import Completion
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.models import encoding
from hf_evol.prompts.auto_evol import AUTO
from hf_evol.prompts.respond import respond_prompt
from hf_evol.scoring import token_losses
from hf_evol.scoring.confidence import Confidence
from hf_evol.scoring.token_losses import split_model

LONGER = ("Be an editor.", "Lengthen: {instruction}")  # a system turn and the user's
METHODS = (
    hf_evol.Method(
        "longer", [{"role": role, "content": text} for role, text in zip(("system", "user"), LONGER, strict=True)]
    ),
    hf_evol.Method("new", "Another than {instruction}, please"),
)
ROWS = [
    ("Write a poem.", "longer", "Write a short poem about the sky.", "ok"),
    ("Why?", "new", "Explain why {rivers} flow to <|end|> the sea. " * 5, "ok"),
    ("<|user|>Sort {instruction}", "longer", "Sort numbers", "ok"),
    ("Write a poem.", "longer", "👋", "ok"),
    ("Why?", "longer", "List three facts", "ok"),
]
BAD = [
    (None, "new", "List three facts", "ok"), ("Why?", "new", " \n", "ok"), ("Why?", None, "List three facts", "ok"),
    ("Why?", "new", "lone \ud800", "ok"), ("Why?", "deepen", "List", "ok"), ("Why?", "new", "Why?", "refusal"),
    ("Why?", "new", "too long " * 300, "ok"),
]  # fmt: skip
BAD_STATUSES = [*["invalid_input"] * 4, "unknown_method", "not_evolved", "too_long"]
COLUMNS = list(Confidence.output_columns)


def batch_of(rows):
    names = (col.PARENT_INSTRUCTION, col.METHOD, col.INSTRUCTION, col.EVOL_STATUS)
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def of_texts(folder, **settings):
    return Confidence(folder, methods=METHODS, of="evolution", **settings)


def records(out):
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*(out[name] for name in COLUMNS), strict=True)]


def close(record, tolerance=3e-6):
    return {
        name: value if value is None or isinstance(value, str) else pytest.approx(value, abs=tolerance)
        for name, value in record.items()
    }


def loaded(folder):
    spec = models.ModelSpec(folder)
    return models.load_model(spec), models.load_tokenizer(spec)


def evolving(name, parent):
    """The turns of these methods, written out."""
    if name == "longer":
        return [{"role": "system", "content": LONGER[0]}, {"role": "user", "content": f"Lengthen: {parent}"}]
    return [{"role": "user", "content": f"Another than {parent}, please"}]


def plain(folder, prompt, text, positions=None):
    """Each position of the text by itself: the softmax of all logits after all that stands before."""
    model, tokenizer = loaded(folder)
    before = encoding.render_chat(tokenizer, prompt)
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    probs, entropies = [], []
    for place in range(len(ids[:positions])):
        with torch.no_grad():
            logits = model(torch.tensor([before + ids[:place]])).logits[0, -1].double()
        distribution = logits.softmax(-1)
        probs.append(distribution.max().item())
        entropies.append(-sum(p * math.log(p) for p in distribution.tolist() if p))
    return {
        "top1_probs": probs,
        "top1_mean": sum(probs) / len(probs),
        "entropy_mean": sum(entropies) / len(probs),
        "share_over_90": len([p for p in probs if p > 0.9]) / len(probs),
        "confidence_status": "ok",
    }


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """One whose distributions are more peaked than those of the usual one."""
    folder = tmp_path_factory.mktemp("models") / "peaked"
    model = build_llama(seed=2)
    model.lm_head.weight.data *= 2
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def expected(tiny_model):
    return [plain(tiny_model, evolving(name, parent), text) for parent, name, text, _ in ROWS]


@pytest.mark.parametrize("block", [(1024, 1024), (7, 50)])
def test_texts_after_their_evolving_prompts(tiny_model, expected, block, monkeypatch):
    monkeypatch.setattr(token_losses, "_BLOCK", {"cpu": block})
    out = of_texts(tiny_model)(batch_of(ROWS))
    assert records(out) == [close(record) for record in expected]
    probs = [prob for record in expected for prob in record["top1_probs"]]
    assert min(probs) < 0.2 and max(record["share_over_90"] for record in expected) > 0  # some flat, some peaked
    assert all(isinstance(prob, float) for prob in out["top1_probs"][0])


def test_the_first_positions(tiny_model, expected):
    for positions in (1, 5):
        for got, whole in zip(
            of_texts(tiny_model, positions=positions)(batch_of(ROWS))["top1_probs"], expected, strict=True
        ):
            assert got == pytest.approx(whole["top1_probs"][:positions], abs=3e-6)
    long = batch_of([("Why?", "new", "too long " * 300, "ok")])  # its beginning fits the context
    assert len(of_texts(tiny_model, positions=5)(long)["top1_probs"][0]) == 5


def test_a_response_after_its_prompt(tiny_model):
    rows = {
        "instruction": ["Why?", "Sort {numbers}", "Why?", None, "Why?", "Why?", "Why?"],
        "input": ["", "3 <|end|> 1", None, "", 4, "lone \ud83d", ""],
        "output": ["Because rivers flow.", "1 3", "The sea.", "x", "x", "x", ""],
    }
    *good, no_instruction, wrong_input, half, no_output = records(Confidence(tiny_model, of="response")(rows))
    for row, got in enumerate(good):
        prompt = respond_prompt(rows["instruction"][row], rows["input"][row])
        assert got == close(plain(tiny_model, prompt, rows["output"][row]))
    nothing = dict.fromkeys(COLUMNS) | {"confidence_status": "invalid_input"}
    assert no_instruction == wrong_input == half == no_output == nothing


def test_a_text_has_no_special_tokens_of_its_own(tmp_path):
    """The tokenizer would put one before each text; here the text goes on after the prompt."""
    build_llama().save_pretrained(tmp_path)
    build_tokenizer(bos=True).save_pretrained(tmp_path)
    got = records(of_texts(str(tmp_path))(batch_of(ROWS[:1])))
    assert got == [close(plain(str(tmp_path), evolving(ROWS[0][1], ROWS[0][0]), ROWS[0][2]))]


def test_rows_that_fail_keep_their_place(tiny_model, expected):
    mixed = [row for pair in zip(BAD, [*ROWS, *ROWS[:2]], strict=True) for row in pair]
    got = records(of_texts(tiny_model)(batch_of(mixed)))
    assert got[::2] == [dict.fromkeys(COLUMNS) | {"confidence_status": status} for status in BAD_STATUSES]
    assert got[1::2] == [close(record) for record in [*expected, *expected[:2]]]
    data = hf_evol.map(Dataset.from_dict(batch_of(BAD[4:])), of_texts(tiny_model), batch_size=1)
    assert data.features["top1_probs"].feature.dtype == data.features["top1_mean"].dtype == "float64"
    assert of_texts(tiny_model)(batch_of([BAD[4]]))["top1_probs"] == [None]


@pytest.mark.parametrize(("size", "budget", "step"), [(5, None, 1), (2, None, 3), (5, 1, -1), (2, 100, 3), (1, 7, 2)])
def test_no_arrangement_changes_a_number(tiny_model, size, budget, step):
    alone = [records(of_texts(tiny_model)(batch_of([row])))[0] for row in ROWS]
    places = [place * step % 5 for place in range(5)]
    data = Dataset.from_dict(batch_of([ROWS[place] for place in places]))
    out = hf_evol.map(data, of_texts(tiny_model, batch_tokens=budget), batch_size=size)
    found = records({name: out[name][:] for name in COLUMNS})
    assert found == [close(alone[place], 1e-6) for place in places]
    assert budget or found == [alone[place] for place in places]  # to the last bit


def test_batches_are_halved_when_memory_runs_out(tiny_model, expected):
    tried = []
    split_model(loaded(tiny_model)[0])  # its check is not what is limited here

    def limit(ids):
        tried.append(tuple(ids.shape))
        if ids.numel() > 150:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with hooked(tiny_model, limit):
        got = records(of_texts(tiny_model, batch_tokens=10_000)(batch_of(ROWS * 4)))
    assert tried[0][0] >= 4 and max(rows for rows, width in tried if rows * width <= 150) > 1
    assert got == got[: len(ROWS)] * 4
    statuses = [record["confidence_status"] for record in got]
    assert statuses[:5] == ["ok", "out_of_memory", "ok", "ok", "ok"]  # the second is too long even alone
    assert [got[0], *got[2:5]] == [close(record) for record in [expected[0], *expected[2:]]]
    assert got[1] == dict.fromkeys(COLUMNS) | {"confidence_status": "out_of_memory"}


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
    for (parent, name, *_), record in zip([ROWS[0], *ROWS], got, strict=True):
        probs = greedy(tiny_model, evolving(name, parent), *settings.values())
        assert record["top1_probs"] == pytest.approx(probs, abs=1e-5)
        assert record["top1_mean"] == pytest.approx(sum(probs) / len(probs), abs=1e-5)
        assert record["share_over_90"] == len([p for p in probs if p > 0.9]) / len(probs)
        assert record["entropy_mean"] is None and record["confidence_status"] == "ok"
    statuses = [record["confidence_status"] for record in (no_parent, unknown)]
    assert statuses == ["invalid_input", "unknown_method"] and no_parent["top1_probs"] is None


def reciting(folder, text):
    """A model that says a text whatever it is asked; what it is asked changes how sure it is of each token."""
    tokenizer, model = build_tokenizer(), build_llama(context=4096, spread=0.05)
    known, said = model.model.embed_tokens.weight, tokenizer(f"<|assistant|>{text}<|end|>")["input_ids"]
    assert len(set(said)) == len(said)  # each token tells the next
    with torch.no_grad():
        known *= 4
        for now, then in pairwise(said):
            model.lm_head.weight[then] += 1.2 * known[now] / known[now].norm()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_text_that_was_evolved_greedily_gives_the_same_either_way(tmp_path):
    """The model tokenizes its own text as it generated it; the end of the text counts while generating."""
    model = reciting(tmp_path / "model", "Write a short poem about the sky.")
    seeds = {"id": ["t-0", "t-1"], "instruction": ["Write a poem.", "Write a text."]}
    evolved = hf_evol.EvolInstruct(model, temperature=0, by_example=False, journal=False)(seeds)
    assert evolved["evol_status"] == ["ok", "ok"]
    generated = Confidence(model, journal=False)(evolved)["top1_probs"]
    forced = Confidence(model, of="evolution")(evolved)["top1_probs"]
    for got, text in zip(generated, forced, strict=True):
        assert len(text) > 8 and got == pytest.approx([*text, got[-1]], abs=1e-4)
    assert generated[0] != pytest.approx(generated[1], abs=1e-3)


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


def test_peaked_and_flat_distributions():
    """Certain, evenly split over two blocks, flat, a token ruled out; and broken weights."""
    model = build_llama()
    split = split_model(model)
    logits = torch.tensor([[200.0, 0, 0, 0], [-50, 7, 7, -60], [3, 3, 3, 3], [2, -math.inf, 2, 2], [math.nan, 1, 2, 3]])
    split._logits = lambda states: iter(logits.clone().split(2, dim=1))
    got = split.confidences(torch.zeros(5, 4), torch.zeros(5)).tolist()
    assert got[:4] == [
        pytest.approx(pair, abs=1e-6)
        for pair in [(1, 0), (0.5, math.log(2)), (0.25, math.log(4)), (1 / 3, math.log(3))]
    ]
    assert all(math.isnan(value) for value in got[4])


def test_broken_weights_have_a_status(tmp_path, tiny_model):
    model = build_llama()
    model.lm_head.weight.data[7] = math.nan
    model.save_pretrained(tmp_path)
    loaded(tiny_model)[1].save_pretrained(tmp_path)
    out = of_texts(str(tmp_path))(batch_of(ROWS[:2]))
    assert out["confidence_status"] == ["not_finite"] * 2 and out["top1_probs"] == [None] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "text"}, "of must be 'greedy', 'evolution' or 'response'; got 'text'"),
        ({"positions": 0}, "positions must be 1 or more; got 0"), ({"batch_tokens": 0}, "batch_tokens must be 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more"), ({"methods": "harder"}, "Unknown method 'harder'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        Confidence("no-such-model", **settings)


def test_texts_need_a_model_in_this_process():
    engine = EndpointEngine("a-model", base_url="http://localhost:1/v1")
    assert Confidence(engine).model is engine
    with pytest.raises(ConfigError, match="give its name, folder or ModelSpec, not a EndpointEngine"):
        Confidence(engine, of="response")


def test_missing_columns(tiny_model):
    for of, missing in (
        ("greedy", "'parent_instruction', 'method'"),
        ("evolution", "'instruction', 'parent_instruction', 'method'"),
        ("response", "'instruction', 'output'"),
    ):
        with pytest.raises(ColumnError, match=f"{missing} not found"):
            Confidence(tiny_model, of=of)({"text": ["x"]})
