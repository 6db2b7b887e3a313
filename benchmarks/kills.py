"""Kill a run at random moments, start it again each time, and compare the result with an uninterrupted run's.

    python benchmarks/kills.py --kills 20                                   the demo, both of its sets
    python benchmarks/kills.py rows.jsonl --limit 12 --kills 20 --rounds 1 --max-new-tokens 96 --response-max-new-tokens 128

What it does not know itself goes to ``hf-evol run``. Prints whether every file is byte for byte the same, and how many requests were finished more than once.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTING_S = 10.0  # until imports are done and the model is loaded


def worker(log: str, arguments: list[str]) -> int:
    """The command, noting each request that the engine finishes before anything else hears of it."""
    from hf_evol.cli.main import main
    from hf_evol.generation.transformers_engine import TransformersEngine

    stream = TransformersEngine.stream

    def noted(self, chats, params, keys):
        for finished in stream(self, chats, params, keys):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write("".join(f"{digest(keys[place], chats[place])}\n" for place, _ in finished))
            yield finished

    TransformersEngine.stream = noted
    return main(arguments)


def digest(*request: object) -> str:
    return hashlib.sha256(repr(request).encode()).hexdigest()


def start(log: Path, home: Path, arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, __file__, "--worker", str(log), *arguments]
    env = os.environ | {"HF_HOME": str(home), "HF_EVOL_CACHE": str(home / "hf_evol")}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args, others = parser.parse_known_args()
    generator = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ["--dataset", str(Path(args.rows).resolve()), "--limit", str(args.limit)] if args.rows else []
        options = ["run", *rows, *others, "--output"]
        began = time.monotonic()
        if start(folder / "whole.log", folder / "home1", [*options, str(folder / "whole" / "set")]).wait():
            raise SystemExit("The uninterrupted run failed.")
        seconds = time.monotonic() - began
        log, killed = folder / "killed.log", 0
        # Each start gets on by about its share of the work before it is killed, so that kills fall into every stage.
        share = seconds / args.kills
        for _ in range(args.kills):
            process = start(log, folder / "home2", [*options, str(folder / "killed" / "set"), "--overwrite"])
            try:
                process.wait(generator.uniform(STARTING_S, STARTING_S + 2 * share))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
        if start(log, folder / "home2", [*options, str(folder / "killed" / "set"), "--overwrite"]).wait():
            raise SystemExit("The last run failed.")
        whole, pieces = digests(folder / "whole"), digests(folder / "killed")
        times = collections.Counter(log.read_text(encoding="utf-8").splitlines())
        again = sum(times.values()) - len(times)
        print(f"uninterrupted: {seconds:.0f} s, {len(whole)} files; killed {killed} times in {args.kills} starts")
        differing = sorted(path for path in whole.keys() | pieces.keys() if whole.get(path) != pieces.get(path))
        print("files that differ:", ", ".join(differing) or "none")
        print(f"requests: {len(times)}, of which finished more than once: {again} ({again / len(times):.1%})")
        return len(differing) > 0


if __name__ == "__main__":
    sys.exit(main())
