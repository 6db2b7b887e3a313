"""Each convention against a plain computation: one row, no padding, no batch, the model's own loss."""

import math
from functools import cache

import pytest
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from hf_evol import columns as col
from hf_evol.models import ModelSpec
from hf_evol.scoring.conventions import CONVENTIONS
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.scoring.pairs import PairScorer, make_pair

ROWS = [
    ("Write a poem.", "", "The sea is deep and blue."),
    ("List three facts", "about the sea", "It is salty. It is deep. It is old."),
    ("Why?", "", "Because rivers flow to the sea, and the sea is large. " * 5),
    ("How many apples are left? " * 4, "", "4 apples"),
    ("Explain {braces} <|end|> and 👋", "x", "They are <|user|> characters.\n\n<|assistant|> 👋"),
    ("Sort\n", "", "\n\n  1\n  2"),
]
CHAT = [
    ("system", "Be brief."), ("user", "How many rivers\nare there?"), ("assistant", "Three."), ("user", "Which?")
]  # fmt: skip
SCORES = (col.LOSS_Q, col.LOSS_A_GIVEN_Q, col.LOSS_A, col.IFD, col.IC_IFD)
JOINED = ("paper", "superfiltering")
CASES = [(fixture, name) for fixture in ("tiny_model", "bos_model") for name in CONVENTIONS][:-1]  # one has no template


@pytest.fixture
def folder(request):
    return request.getfixturevalue(request.param)


over_models = pytest.mark.parametrize(("folder", "convention"), CASES, indirect=["folder"])


@cache
def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder).float().eval(), AutoTokenizer.from_pretrained(folder)


def lay_out(tokenizer, convention, turns, answer, keep=None):
    """(joint ids, positions of Q, of A), (ids of A alone, positions of A); ``keep`` characters or tokens of A."""

    def ids(text, special=False):
        return tokenizer(text, add_special_tokens=special, split_special_tokens=True)["input_ids"]

    if convention in JOINED:
        question, answer = "\n".join(text for _, text in turns), answer[:keep]
        joint, alone = ids(f"{question}\n{answer}", True), ids(answer, True)
        start = len(ids(question if convention == "paper" else question + "\n", True))
        return (joint, range(start), range(start, len(joint))), (alone, range(len(alone)))
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    if convention == "exact":
        joint, frames, after = list(bos), [([], ids("\n"))] * len(turns), []
    else:  # the template of these tests, by hand: <|role|>text<|end|>, and <|assistant|> before the answer
        joint, after = [], tokenizer.convert_tokens_to_ids(["<|assistant|>"])
        frames = [(tokenizer(f"<|{role}|>")["input_ids"], [tokenizer.eos_token_id]) for role, _ in turns]
    of_q = []
    for (_, text), (opening, closing) in zip(turns, frames, strict=True):
        start = len(joint) + len(opening)
        joint += opening + ids(text) + closing
        of_q += range(start, len(joint) - len(closing))
    joint, answer, first = joint + after, ids(answer)[:keep], 0 if bos else 1
    of_a = range(len(joint) + first, len(joint) + len(answer))
    return (joint + answer, of_q, of_a), (bos + answer, range(len(bos) + first, len(bos) + len(answer)))


def plain_scores(folder, convention, turns, answer, keep=None):
    model, tokenizer = load(folder)
    (joint, of_q, of_a), (alone, of_alone) = lay_out(tokenizer, convention, turns, answer, keep)

    def loss(ids, counted):
        labels = [token if place in set(counted) else -100 for place, token in enumerate(ids)]
        with torch.no_grad():
            return model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()

    loss_q, loss_a_given_q, loss_a = loss(joint, of_q), loss(joint, of_a), loss(alone, of_alone)
    ifd = math.exp(loss_a_given_q) / math.exp(loss_a) if convention == "superfiltering" else loss_a_given_q / loss_a
    return dict(zip(SCORES, (loss_q, loss_a_given_q, loss_a, ifd, ifd / loss_q), strict=True))


def turns_of(instruction, input):
    return [("user", instruction + "\n" + input if input != "" else instruction)]


def scores(out, place):
    return {name: out[name][place] for name in SCORES}


def batch_of(rows):
    return {name: [row[place] for row in rows] for place, name in enumerate(("instruction", "input", "output"))}


@pytest.mark.parametrize("batch_tokens", [1, None])
@over_models
def test_scores_are_those_of_a_plain_computation(folder, convention, batch_tokens):
    out = IcIfd(folder, convention=convention, batch_tokens=batch_tokens, journal=False)(batch_of(ROWS))
    assert out[col.IC_IFD_STATUS] == ["ok"] * len(ROWS) and out[col.IC_IFD_CONVENTION] == [convention] * len(ROWS)
    for place, (instruction, input, answer) in enumerate(ROWS):
        expected = plain_scores(folder, convention, turns_of(instruction, input), answer)
        assert scores(out, place) == pytest.approx(expected, abs=1e-4, rel=1e-4), place
        assert out[col.IC_IFD][place] == pytest.approx(out[col.IFD][place] / out[col.LOSS_Q][place], rel=1e-12)


@over_models
def test_scores_of_several_turns_are_those_of_a_plain_computation(folder, convention):
    messages = [{"role": role, "content": text} for role, text in [*CHAT, ("assistant", "The Nile.")]]
    out = IcIfd(folder, convention=convention, turns="last", journal=False)({"messages": [messages]})
    assert scores(out, 0) == pytest.approx(plain_scores(folder, convention, CHAT, "The Nile."), abs=1e-4)


@over_models
def test_token_counts(folder, convention):
    out = IcIfd(folder, convention=convention, journal=False)(batch_of(ROWS))
    tokenizer = load(folder)[1]

    def count(text):
        return len(tokenizer(text, add_special_tokens=convention in JOINED, split_special_tokens=True)["input_ids"])

    end = "\n" if convention == "superfiltering" else ""
    assert out[col.N_TOKENS_Q] == [count(turns_of(q, input)[0][1] + end) for q, input, _ in ROWS]
    assert out[col.N_TOKENS_A] == [count(answer) for _, _, answer in ROWS]


@over_models
def test_special_tokens_within_texts_are_plain_characters(folder, convention):
    tokenizer = load(folder)[1]
    hostile = "".join(tokenizer.added_tokens_encoder) + "!"
    special = set(tokenizer.added_tokens_decoder)
    assert special & set(tokenizer(hostile)["input_ids"])  # the tokenizer would take them for its own
    (layout,) = CONVENTIONS[convention].encode(tokenizer, [make_pair(hostile, hostile, hostile)], 4096, False)
    bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    chat = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>", "<|assistant|>"])
    frame = chat if convention == "exact_chat" else bos
    assert [token for token in layout.joint.ids if token in special] == frame
    assert [token for token in layout.alone.ids if token in special] == bos
    assert tokenizer.decode(layout.alone.ids[len(bos) :]) == hostile


def expected_cut(tokenizer, convention, turns, answer, limit):
    """All of the answer, or the longest start of it with which both sequences fit; 0 if there is none."""
    encoded = tokenizer(answer, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]] if convention in JOINED else range(1, len(encoded[0]) + 1)

    def fits(keep):
        (joint, *_), (alone, _) = lay_out(tokenizer, convention, turns, answer, keep)
        return max(len(joint), len(alone)) <= limit

    return None if fits(None) else max((end for end in ends if fits(end)), default=0)


@pytest.mark.parametrize("limit", [9, 30, 45])
@over_models
def test_a_cut_answer_is_the_same_text_in_both_terms(folder, convention, limit):
    tokenizer = load(folder)[1]
    out = IcIfd(folder, convention=convention, max_length=limit, truncate=True, journal=False)(batch_of(ROWS))
    whole = IcIfd(folder, convention=convention, max_length=limit, journal=False)(batch_of(ROWS))
    for place, (instruction, input, answer) in enumerate(ROWS):
        turns = turns_of(instruction, input)
        keep = expected_cut(tokenizer, convention, turns, answer, limit)
        status = "ok" if keep is None else "truncated" if keep else "too_long"
        assert whole[col.IC_IFD_STATUS][place] == ("ok" if keep is None else "too_long")
        if keep and not lay_out(tokenizer, convention, turns, answer, keep)[1][1]:
            status = "short_answer"  # one token, which nothing stands before
        assert out[col.IC_IFD_STATUS][place] == status
        if status in ("ok", "truncated"):
            expected = plain_scores(folder, convention, turns, answer, keep)
            assert scores(out, place) == pytest.approx(expected, abs=1e-4, rel=1e-4)
            assert keep or whole[col.IC_IFD][place] == pytest.approx(out[col.IC_IFD][place], abs=1e-6)
        assert keep is None or scores(whole, place) == dict.fromkeys(SCORES)
    if limit == 45:  # or else the loop above might have met one case alone
        assert set(out[col.IC_IFD_STATUS]) == {"ok", "truncated", "too_long"}


def test_a_context_is_the_limit_where_max_length_is_more(tiny_model):
    row = [("Write.", "", "the sea " * 400)]
    out = IcIfd(tiny_model, max_length=100_000, truncate=True, journal=False)(batch_of(row))
    assert out[col.IC_IFD_STATUS] == ["truncated"] and 500 < out[col.N_TOKENS_A][0] < 512
    assert IcIfd(tiny_model, max_length=100_000, journal=False)(batch_of(row))[col.IC_IFD_STATUS] == ["too_long"]


class WithoutOffsets:
    """A tokenizer in Python: it doesn't say where tokens stand in the text."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, text, return_offsets_mapping=False, **options):
        assert not return_offsets_mapping
        return self._tokenizer(text, **options)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def test_truncation_without_offsets_keeps_as_much_as_fits(tiny_model):
    tokenizer, answer = load(tiny_model)[1], "write a short poem about the sea"
    (layout,) = CONVENTIONS["paper"].encode(WithoutOffsets(tokenizer), [make_pair("Why?", answer)], 12, True)
    fitting = [end for end in range(len(answer)) if len(tokenizer(f"Why?\n{answer[:end]}")["input_ids"]) <= 12]
    kept = answer[: fitting[-1]]
    assert layout.truncated and tokenizer.decode(layout.alone.ids) == kept
    assert tokenizer.decode(layout.joint.ids) == f"Why?\n{kept}"


@pytest.mark.parametrize("convention", JOINED)
def test_a_question_that_melts_into_the_answer(tiny_model, convention):
    r"""With the newline after it, Q may take fewer tokens than alone, as with "});" in vocabularies for code."""
    merges = [("c", "\n"), ("c\n", "d"), ("b", "c\nd"), ("a", "bc\nd")]
    words = ["a", "b", "c", "d", "\n", *("".join(merge) for merge in merges)]
    backend = Tokenizer(BPE({word: place for place, word in enumerate(words)}, merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    (record,) = PairScorer(convention).score(load(tiny_model)[0], tokenizer, [make_pair("abc", "d")])
    assert record[col.IC_IFD_STATUS] in ("short_question", "short_answer")


RAISING = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TEMPLATES = {
    RAISING + "{{ m.content }}{% endfor %}": ["template_error", "ok", "ok"],
    "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}": ["template_error"] * 3,
    "{{ messages[-1].content }}": ["template_error", "template_error", "ok"],
    "{% for m in messages %}{{ m.content | upper | replace('\ue000', '') }}{% endfor %}": ["template_error"] * 3,
    "{{ messages[0].unknown.attribute }}": ["template_error"] * 3,
}


@pytest.mark.parametrize(("template", "statuses"), TEMPLATES.items())
def test_a_template_that_refuses_some_roles_or_hides_texts(bos_model, template, statuses):
    turns = [{"role": role, "content": text} for role, text in CHAT]
    answer = {"role": "assistant", "content": "The Nile."}
    chats = [[*turns, answer], [*turns[1:], answer], [turns[1], answer]]
    spec = ModelSpec(bos_model, chat_template=template)
    out = IcIfd(spec, convention="exact_chat", turns="last", journal=False)({"messages": chats})
    assert out[col.IC_IFD_STATUS] == statuses
    assert [value is None for value in out[col.IC_IFD]] == [status != "ok" for status in statuses]


@pytest.mark.parametrize("role", [3, {"name": "user"}])
def test_a_role_that_is_no_text_gives_a_status(tiny_model, role):
    chats = [[{"role": name, "content": "What?"}, {"role": "assistant", "content": "This."}] for name in (role, "user")]
    template = "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}{% endfor %}"
    spec = ModelSpec(tiny_model, chat_template=template)
    out = IcIfd(spec, convention="exact_chat", turns="last", journal=False)({"messages": chats})
    assert out[col.IC_IFD_STATUS][0] in ("invalid_input", "template_error") and out[col.IC_IFD_STATUS][1] == "ok"


ENDS = (
    "Why?",
    "Why",
    "why is it so ",
    "a.\n",
    "b\t",
    "é",
    "e\u0301",
    "海",
    "<|end|>",
    "7",
    "it's",
    "!!",
    "  ",
    "\n",
    "the sea.\n\n",
    "a  ",
)
STARTS = ("The sea", " the", "\n\nsea", "\tx", "!", "'s", "7", "海", "\u0301", "<|end|>", "\n", " \n x", "e")
SPLITS = {  # of GPT-2, and of Llama 3 and its kin, where punctuation takes newlines along
    "runs": None,
    "newlines": r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def trained(split, bos):
    """A byte-level BPE that has learnt the texts above, newlines among them."""
    tokenizer = Tokenizer(BPE())
    parts = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Sequence([*parts, whole])
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<s>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f"{end}\n{start}" for end in ENDS for start in STARTS], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<s>")


@pytest.mark.parametrize("convention", JOINED)
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("split", SPLITS)
def test_tokens_of_q_are_those_that_it_has_by_itself(split, bos, convention):
    tokenizer = trained(SPLITS[split], bos)
    pairs = [([{"role": "user", "content": end}], start) for end in ENDS for start in STARTS]
    layouts = CONVENTIONS[convention].encode(tokenizer, pairs, 1000, truncate=False)
    for (turns, answer), layout in zip(pairs, layouts, strict=True):
        (joint, of_q, _), (alone, _) = lay_out(tokenizer, convention, [("user", turns[0]["content"])], answer)
        assert (layout.n_tokens_q, [*layout.joint.ids], [*layout.alone.ids]) == (len(of_q), joint, alone)
