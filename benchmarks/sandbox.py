"""What isolation costs per call, and which layer of the sandbox stops which attack.

    python benchmarks/sandbox.py
    python benchmarks/sandbox.py --functions 20 --attacks-only

Run from a checkout: the attacks are those of ``tests/autoif/attacks.py``.
"""

from __future__ import annotations

import argparse
import ast
import platform
import sys
import time
from collections import Counter
from pathlib import Path

from hf_evol.sandbox.sandbox import ISOLATIONS, Result, Sandbox
from hf_evol.sandbox.screen import screen_tree
from hf_evol.sandbox.server import why_not

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "autoif"))
from attacks import EVIL, MINES, ODD

FUNCTION = """
import re

def words(text):
    return re.findall(r"\\w+", text)

def evaluate(response):
    return len(words(response)) > {least} and not response.endswith("!")
"""


def bare(sources: list[str], inputs: list[str]) -> float:
    """Seconds to run everything in this process, without any isolation."""
    start = time.perf_counter()
    for source in sources:
        space: dict[str, object] = {}
        exec(source, space)
        for text in inputs:
            space["evaluate"](text)
    return time.perf_counter() - start


def isolated(sources: list[str], inputs: list[str], isolation: str) -> float:
    """Seconds to run everything in a sandbox that has started already."""
    with Sandbox(isolation=isolation) as sandbox:
        sandbox.call(sources[0], inputs[:1])
        start = time.perf_counter()
        for source in sources:
            if any(result.failure for result in sandbox.call(source, inputs)):
                raise RuntimeError("a good function failed: the figures would mean nothing")
        return time.perf_counter() - start


def working() -> list[str]:
    return [isolation for isolation in ISOLATIONS if why_not(isolation) is None]


def speed(functions: int, per_function: int) -> None:
    sources = [FUNCTION.format(least=number % 20) for number in range(functions)]
    inputs = [f"This is response number {number}, of ordinary length." * 5 for number in range(per_function)]
    calls = functions * per_function
    print(f"{functions} functions x {per_function} inputs = {calls} calls\n")
    print(f"{'isolation':<24}{'calls/s':>10}{'ms/call':>10}")
    for name in ("in-process exec", *reversed(working())):
        seconds = bare(sources, inputs) if name == "in-process exec" else isolated(sources, inputs, name)
        print(f"{name:<24}{calls / seconds:>10.0f}{1000 * seconds / calls:>10.3f}")


def screened(source: str) -> str | None:
    try:
        return screen_tree(ast.parse(source))
    except (SyntaxError, ValueError):
        return "syntax error"


def stopped_by(result: Result, refused: str | None) -> str:
    """The layer that decided, with screening off; ``refused`` says whether screening would have, too."""
    failure = result.failure or "-"
    if failure.startswith("refused"):
        layer = "size limit"
    elif failure == "timeout":
        layer = "time limit"
    elif failure in ("memory", "exception: RecursionError"):
        layer = "memory limit"
    elif failure in ("output", "not_bool", "no_evaluate", "syntax_error"):
        layer = "checked result"
    elif failure == "crashed" or failure.startswith("exception"):
        layer = "own process"
    else:
        layer = "own process" if result.value else "filter"  # a mine goes off in its own process; an attempt fails
    return f"screening, {layer}" if refused else layer


def attacks() -> None:
    sources = EVIL | {name: source for name, (source, _) in ODD.items()} | MINES
    for isolation in working():
        print(f"\n{isolation}, screening off, 1 s a call\n")
        print(f"{'attack':<28}{'stopped by':<34}{'result':<32}{'ms':>8}")
        layers: Counter[str] = Counter()
        with Sandbox(seconds=1.0, memory_mb=192, isolation=isolation, screen=False) as sandbox:
            sandbox.call(FUNCTION, [""])
            for name, source in sources.items():
                reason = screened(source) if not name.startswith("deep") else None  # these can crash the parser here
                start = time.perf_counter()
                result = sandbox.call(source.replace("CANARY_FILE", "/etc/hosts"), ["x"])[0]
                taken = 1000 * (time.perf_counter() - start)
                layer = "NOTHING" if name in EVIL and result.value else stopped_by(result, reason)
                layers[layer] += 1
                print(f"{name:<28}{layer:<34}{(result.failure or str(result.value))[:30]:<32}{taken:>8.1f}")
        print("\n" + ", ".join(f"{count} by {layer}" for layer, count in layers.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--attacks-only", action="store_true")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.platform()}, isolations: {', '.join(working())}")
    if not arguments.attacks_only:
        speed(arguments.functions, arguments.inputs)
    attacks()


if __name__ == "__main__":
    main()
