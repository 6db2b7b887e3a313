"""What it saves to end texts that only repeat themselves, in one run on the same rows.

    python benchmarks/loops.py rows.jsonl --limit 40    # the demo's model, greedily, with the paper's limit of 2,048 tokens

Each row is evolved once and answered, with the engine's rule and without. Statuses must be the same: a text that is ended so
counts as cut off, as it would at its limit. Rows whose status differs are printed, with how the text goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import transformers
from ic_ifd import hardware, read  # the benchmark beside this one

from hf_evol import EvolInstruct, Respond
from hf_evol.generation import batches


def run(transform: Any, rows: dict[str, list[Any]], status: str) -> tuple[float, list[int], list[str], list[str]]:
    """Seconds, and of each row the generated tokens, the status and the text."""
    made: dict[int, int] = {}
    original = batches.generate_tokens

    def counted(model: Any, requests: Any, *args: Any) -> Any:
        for place, tokens, probs in original(model, requests, *args):
            made[place] = len(tokens)
            yield place, tokens, probs

    batches.generate_tokens = counted
    start = time.perf_counter()
    out = transform(rows)
    seconds = time.perf_counter() - start
    batches.generate_tokens = original
    texts = out["output"] if "output" in out else [(r or [{}])[-1].get("instruction") for r in out["rejected"]]
    return seconds, [made.get(place, 0) for place in range(len(rows["id"]))], out[status], texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="JSON lines of alpaca rows")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit", type=int, default=40, help="rows")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    questions = [question for question, _ in read(args.rows)[args.first : args.first + args.limit]]
    rows = {"id": [f"alpaca-{place}" for place in range(len(questions))], "instruction": questions}
    print(
        f"{args.model}, float32, {len(questions)} rows; {hardware('cpu')}, load {os.getloadavg()[0]:.1f}\n", flush=True
    )
    EvolInstruct(args.model, tries=1, max_new_tokens=4, journal=False)(rows)  # warm up
    settings = {"temperature": 0, "max_new_tokens": 2048, "journal": False}
    jobs = {
        "evolve": (EvolInstruct(args.model, tries=1, **settings), "evol_status"),
        "respond": (Respond(args.model, **settings), "response_status"),
    }
    rule = batches._loops
    print(f"{'':10}{'':14}{'seconds':>9}{'tokens':>9}{'at the limit':>14}{'ended early':>13}")
    for name, (transform, status) in jobs.items():
        batches._loops = lambda tokens: False
        seconds, tokens, before, whole = run(transform, rows, status)
        print(f"{name:10}{'without':14}{seconds:9.1f}{sum(tokens):9,}{sum(n >= 2048 for n in tokens):14}", flush=True)
        batches._loops = rule
        quick, fewer, after, _ = run(transform, rows, status)
        early = sum(few < many for few, many in zip(fewer, tokens, strict=True))
        print(f"{'':10}{'with':14}{quick:9.1f}{sum(fewer):9,}{sum(n >= 2048 for n in fewer):14}{early:13}")
        print(
            f"{'':10}{seconds / quick:.2f} times as quick, {sum(tokens) / sum(fewer):.2f} times fewer tokens",
            flush=True,
        )
        for place, (was, became) in enumerate(zip(before, after, strict=True)):
            if was != became:
                print(f"row {place}: {was} without, {became} with; ends in {(whole[place] or '')[-300:]!r}")


if __name__ == "__main__":
    sys.exit(main())
