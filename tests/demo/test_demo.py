import json
from collections import Counter
from itertools import islice

import pytest

from hf_evol.demo.corpus import Corpus
from hf_evol.demo.lexicon import CODE_TASKS
from hf_evol.demo.measure import METHODS_OF, judge_rewriting, measure
from hf_evol.demo.prompts import RESPOND_WITH_INPUT, TRAINED_ON
from hf_evol.formats import to_instructions
from hf_evol.generation import models
from hf_evol.generation.models import EMBEDDED_PATH, ModelSpec
from hf_evol.prompts.evol_instruct import METHODS
from hf_evol.prompts.respond import respond_prompt
from hf_evol.sources import load_seeds


@pytest.mark.parametrize("kind", METHODS_OF)
def test_bundled_seeds(kind):
    rows = to_instructions(load_seeds(f"demo/{kind}"))
    assert len(rows) == 40 == len(set(rows["instruction"]))
    assert all(row["instruction"].strip() and row["output"].strip() for row in rows)


def test_bundled_math_adds_up():
    import re

    for row in load_seeds("demo/gsm8k"):
        steps = re.findall(r"<<([-+*/().\d ]+)=([\d.]+)>>", row["answer"])
        assert steps and all(eval(left) == float(right) for left, right in steps)
        assert row["answer"].endswith(f"#### {steps[-1][1]}")


def test_model_is_small_and_of_the_size_it_states():
    assert sum(file.stat().st_size for file in EMBEDDED_PATH.iterdir()) <= 12 * 10**6
    model = models.load_model(ModelSpec())
    stated = json.loads((EMBEDDED_PATH / "training.json").read_text())["parameters"]
    assert sum(parameter.numel() for parameter in model.parameters()) == stated


def test_model_knows_the_words_that_it_was_trained_on():
    """Words that have changed call for a new training run: python -m hf_evol.demo.train."""
    tokenizer = models.load_tokenizer(ModelSpec())
    for template in [*TRAINED_ON.values(), RESPOND_WITH_INPUT]:
        for literal in template.literals:
            assert len(tokenizer.encode(literal)) == 1, literal


PARENTS = [
    "Describe a lighthouse, {x}.", "Write a Python function that counts the vowels in a string.",
    "A baker bakes 24 loaves in the morning and 15 in the afternoon. How many loaves does she bake in a week?",
]  # fmt: skip


@pytest.mark.parametrize("parent", PARENTS, ids=["general", "code", "math"])
@pytest.mark.parametrize("name", METHODS)
def test_the_chat_template_says_the_prompts_in_those_words(name, parent):
    rendered = rendered_by_embedded(METHODS[name].prompt(parent))
    assert rendered == f"<|user|>{TRAINED_ON[name].fill(instruction=parent)}<|end|><|assistant|>"


@pytest.mark.parametrize("extra", [None, "blue, red"])
def test_the_chat_template_says_the_prompts_for_responses_in_those_words(extra):
    asked = RESPOND_WITH_INPUT.fill(instruction="Sort the colours.", input=extra or "")
    asked = asked if extra else asked.removesuffix("\n\nInput: ")
    assert rendered_by_embedded(respond_prompt("Sort the colours.", extra)) == f"<|user|>{asked}<|end|><|assistant|>"


def test_the_chat_template_leaves_other_chats_as_they_are():
    turns = [("user", "Why?"), ("assistant", "So."), ("user", "How?")]
    chat = [{"role": role, "content": text} for role, text in turns]
    assert rendered_by_embedded(chat) == "<|user|>Why?<|end|><|assistant|>So.<|end|><|user|>How?<|end|><|assistant|>"


def rendered_by_embedded(chat):
    return models.load_tokenizer(ModelSpec()).apply_chat_template(chat, add_generation_prompt=True, tokenize=False)


def test_corpus_is_seeded_and_holds_no_seed_row():
    rows = [example.reply for example in islice(Corpus(1), 3000)]
    assert rows == [example.reply for example in islice(Corpus(1), 3000)]
    seeds = {text for kind in METHODS_OF for text in to_instructions(load_seeds(f"demo/{kind}"))["instruction"]}
    assert not any(seed in row for seed in seeds for row in rows)
    for _, solution in CODE_TASKS:
        compile(solution, "solution", "exec")


def test_noisy_rows_are_encoded_like_others():
    import random

    from hf_evol.demo.train import encode, encode_noisy

    tokenizer = models.load_tokenizer(ModelSpec())
    example = next(example for example in Corpus(3) if example.method)
    unchanged = random.Random(0)
    unchanged.random = iter([0.0, *[0.5] * 999]).__next__  # a share of 0 is replaced
    assert encode_noisy(tokenizer, example, unchanged) == encode(tokenizer, example)


@pytest.mark.parametrize(
    ("method", "child", "verdict"),
    [
        ("reasoning", "Bake fresh bread. Reason step by step.", True),
        ("reasoning", "Bake fresh bread. It is nice.", False),
        ("constraint", "Grow old trees. It must be short.", False),
        ("breadth", "Describe kimchi.", True),
        ("breadth", "Describe a robot.", False),
        ("breadth", "Do it.", False),
    ],
)
def test_measure_by_hand(method, child, verdict):
    assert judge_rewriting(method, "Bake fresh bread.", child, family="cooking") is verdict


@pytest.mark.slow
def test_model_evolves_the_bundled_seeds():
    """At least 75 % of the rows end ok in each round, and at least 80 % of the in-depth ones do what their method
    asks; half of the in-breadth ones stay in their seed's subject family, of twelve."""
    for kind, rounds in measure().items():
        good, judged = Counter(), Counter()
        for number, record in enumerate(rounds, 1):
            assert record["ok"] >= 0.75 * record["rows"], (kind, number, record)
            for method, (fine, all_) in record["methods"].items():
                good[method == "breadth"] += fine
                judged[method == "breadth"] += all_
        assert good[False] >= 0.8 * judged[False], (kind, good, judged)
        assert good[True] >= 0.5 * judged[True], (kind, good, judged)
