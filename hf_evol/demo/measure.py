"""Measure the embedded model on the bundled seeds, and write the figures into its card.

    python -m hf_evol.demo.measure

Measured in each of three rounds: the share of rows that end ``ok``; for in-depth rewritings, the share that
keeps at least half of the parent's content words, and the share whose added words fit the method; for in-breadth
rewritings, the share that stays in the seed's subject family.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from hf_evol.demo import lexicon as lex
from hf_evol.evolve.evol_instruct import EvolInstruct
from hf_evol.formats import to_instructions
from hf_evol.generation.models import EMBEDDED, EMBEDDED_PATH
from hf_evol.prompts.words import STOP_WORDS
from hf_evol.sources import load_seeds
from hf_evol.transform import map

# Bundled seed set: the methods that the paper uses for its kind.
METHODS_OF = {"general": "alpaca", "gsm8k": "gsm8k", "code": "code"}
ROUNDS = 3
# The general seeds are four of each of these families, in this order.
FAMILIES = (
    "cooking", "health", "travel", "gardening", "money", "learning", "history", "culture", "animals", "technology",
)  # fmt: skip

# Words one of which an addition by the method holds.
_FITS = {
    "constraint": r"must|only|least|most|exactly|under|more|not|without|avoid|limit|keep|include|contain|shorter|however|kept",
    "deepen": r"why|how|explain|compare|discuss|examine|explore|also|addition|further",
    "concretize": r"\d|specific|specifically|concrete|example|each|case",
    "reasoning": r"steps?|first|then|finally|reason(ing)?|thinking|before",
}


def content_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - STOP_WORDS


def fits(method: str, parent: str, child: str) -> bool:
    """Whether a word that the child has and the parent lacks is one of the method's, or the child's new tail is."""
    tail = child[len(parent) :] if child.startswith(parent) else " ".join(set(child.split()) - set(parent.split()))
    return re.search(rf"\b(?:{_FITS[method]})", tail.lower()) is not None


def family_of_text(text: str) -> str | None:
    """The subject family whose things ``text`` names most; a rare thing counts twice. None where it names none."""
    padded = " " + re.sub(r"[.,?:;!]", " ", text.lower()) + " "

    def named(things: tuple[str, ...]) -> int:
        return sum(" " + re.sub(r"^(?:an?|the) ", "", thing.lower()) + " " in padded for thing in things)

    counts = {family: named(lex.THINGS[family]) + 2 * named(lex.RARE[family]) for family in lex.FAMILIES}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def judge_rewriting(method: str, parent: str, child: str, family: str | None = None) -> bool:
    """Whether an ok rewriting does what its method asks; ``family`` is the subject family of the seed."""
    if method == "breadth":
        return family_of_text(child) == family
    words = content_words(parent)
    return len(words & content_words(child)) >= len(words) / 2 and fits(method, parent, child)


def measure(model: str = EMBEDDED) -> dict[str, list[dict[str, Any]]]:
    """One record a round for each bundled seed set: rows, ok, and (good, judged) by method."""
    results = {}
    for kind, methods in METHODS_OF.items():
        seeds = to_instructions(load_seeds(f"demo/{kind}"))
        evolved = map(seeds, EvolInstruct(model, methods=methods, rounds=ROUNDS, journal=False), desc=f"Evolve {kind}")
        rounds = [{"rows": len(seeds), "ok": 0, "methods": defaultdict(lambda: [0, 0])} for _ in range(ROUNDS)]
        for place, history in enumerate(evolved["history"]):
            family = FAMILIES[place // 4] if kind == "general" else None
            for entry in history:
                record = rounds[entry["round"] - 1]
                if entry["status"] == "ok":
                    record["ok"] += 1
                    counts = record["methods"][entry["method"]]
                    counts[0] += judge_rewriting(entry["method"], entry["parent"], entry["instruction"], family)
                    counts[1] += 1
        results[kind] = rounds
    return results


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The figures as a Markdown table."""
    names = ("constraint", "deepen", "concretize", "reasoning", "breadth")
    lines = [
        f"| Seeds | Round | Rows | ok | {' | '.join(names)} |",
        f"| --- | ---: | ---: | ---: |{' ---: |' * len(names)}",
    ]
    for kind, rounds in results.items():
        for number, record in enumerate(rounds, 1):
            pairs = [record["methods"].get(name, (0, 0)) for name in names]
            cells = [f"{good} of {judged}" if judged else "–" for good, judged in pairs]
            lines.append(f"| {kind} | {number} | {record['rows']} | {record['ok']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_card(results: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Write the model's README.md from its training figures and these results."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    last = training["loss"][-1]
    runs = "\n".join(
        f"| {number} | {run['steps']:,} | {run['tokens']:,} | {run['minutes']} | {run['seed']} | {run['breadth']} | "
        f"{run['learning_rate']} | {run['hardware']}, torch {run['torch']} |"
        for number, run in enumerate(training["runs"], 1)
    )
    text = _CARD.format(table=table(results), runs=runs, last_loss=last["loss"], parameters=training["parameters"])
    (folder / "README.md").write_text(text, encoding="utf-8")


_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The embedded model of hf_evol

A Llama of {parameters:,} parameters with a tokenizer and a chat template of its own. It is for trying `hf_evol` without a
network, not for making data: it adds stock phrases to an instruction and answers with empty ones.

Trained from nothing by `python -m hf_evol.demo.train`, on text that `hf_evol.demo.corpus` generates; no dataset and no
other model was used, and the bundled seeds are not in its training text. The second run went on from the first with
more in-breadth rows; the first was made with the generator as it was before in-breadth rows became a share of their own.
The mean loss of the last hundred steps is {last_loss} nats per learned token; `training.json` has the curve.

| Run | Steps | Tokens | Minutes | Seed | In-breadth share | Peak learning rate | Hardware |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
{runs}

## On the bundled seeds

Rows that end `ok` in each round, and, of these, those whose rewriting does what its method asks: an in-depth one keeps
at least half of its parent's content words and adds words that fit the method, an in-breadth one names a thing of its
seed's subject family. Made by `python -m hf_evol.demo.measure`.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=EMBEDDED, help="a folder; by default the bundled model, whose card is written"
    )
    model = parser.parse_args().model
    results = measure(model)
    print(table(results))
    if model == EMBEDDED:
        write_card(results, EMBEDDED_PATH)


if __name__ == "__main__":
    main()
