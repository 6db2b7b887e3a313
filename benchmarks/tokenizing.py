"""What scoring needs to tokenize a row, beside a fast tokenizer in batches on the same texts.

    python benchmarks/tokenizing.py rows.jsonl other.jsonl --rows 20000

Rows with ``instruction``, ``input`` and ``output`` (or ``question`` and ``answer``) are repeated, each time with another number
in front. All run on one thread, in batches of 512 rows and in turns, and the least processor time of several runs counts. The
tokenizer itself is measured on what a row says, question and answer (``once``), and on what the ``paper`` convention is made of:
these two, and both in one text. Its ids are compared with those of the conventions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
BATCH = 512  # rows


def read_pairs(files: list[str], rows: int):
    from hf_evol.scoring.pairs import make_pair

    read = [json.loads(line) for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    texts = [
        (row.get("instruction") or row.get("question"), row.get("output") or row.get("answer"), row.get("input"))
        for row in read
    ]
    texts, pairs = [text for text in texts if text[0] and text[1]], []
    for place in range(rows):
        question, answer, extra = texts[place % len(texts)]
        pairs.append(make_pair(f"{place}. {question}", f"{place}: {answer}", extra))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", default="demo", help="whose tokenizer")
    args = parser.parse_args()
    import tokenizers
    import transformers

    from hf_evol import models
    from hf_evol.scoring.conventions import CONVENTIONS

    tokenizer = models.load_tokenizer(models.as_spec(args.model))
    pairs = read_pairs(args.files, args.rows)
    parts = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]

    def alone(part):
        questions, answers = ["\n".join(turn["content"] for turn in turns) for turns, _ in part], [a for _, a in part]
        return tokenizer(questions)["input_ids"], tokenizer(answers)["input_ids"]

    def all_three(part):
        joint = ["\n".join([*(turn["content"] for turn in turns), answer]) for turns, answer in part]
        return *alone(part), tokenizer(joint)["input_ids"]

    ways = {"tokenizer, once": alone, "tokenizer, three texts": all_three}
    ways |= {
        name: (lambda part, convention=convention: convention.encode(tokenizer, part, 1_000_000, False))
        for name, convention in CONVENTIONS.items()
    }
    for part in parts[:4]:
        layouts = CONVENTIONS["paper"].encode(tokenizer, part, 1_000_000, False)
        given = zip(*all_three(part), strict=True)
        assert [(one.n_tokens_q, list(one.alone.ids), list(one.joint.ids)) for one in layouts] == [
            (len(question), answer, joint) for question, answer, joint in given
        ]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; transformers {transformers.__version__}, tokenizers "
        f"{tokenizers.__version__}, {type(tokenizer).__name__} of {args.model}, {len(tokenizer):,} tokens; {len(pairs):,} rows of "
        f"{sum(len(answer) + sum(len(turn['content']) for turn in turns) for turns, answer in pairs) / len(pairs):.0f} characters"
    )
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(args.runs):
        for name, way in ways.items():
            began = time.process_time()
            for part in parts:
                way(part)
            least[name] = min(least[name], time.process_time() - began)
    print(f"{'':24}{'s per million rows':>20}{'beside once':>13}{'beside three texts':>20}")
    once, three, *_ = least.values()
    for name, seconds in least.items():
        print(f"{name:24}{seconds / len(pairs) * 1e6:20.0f}{seconds / once:13.2f}{seconds / three:20.2f}")


if __name__ == "__main__":
    main()
