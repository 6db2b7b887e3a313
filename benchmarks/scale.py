"""One, two and four workers against a run without datatrove, and workers and launchers killed at random.

    python benchmarks/scale.py rows.jsonl --limit 1000 --kills 20

What it does not know itself goes to ``hf-evol run``. Every run begins with empty caches. Prints wall times, the speed-up over one worker, what the executor costs beside a plain
run, whether the sets are the same, and, of the killed run, how many rows are missing and how many requests were finished
more than once.
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

LOG = "HF_EVOL_BENCHMARK_LOG"
STARTING_S = 12.0  # until the workers' imports are done


def note_requests(log: str) -> None:
    """Note each request that the engine finishes, before anything else hears of it."""
    from hf_evol.generation.transformers_engine import TransformersEngine

    stream = TransformersEngine.stream

    def noted(self, chats, params, keys):
        for finished in stream(self, chats, params, keys):
            lines = (repr((keys[place], chats[place], params)).encode() for place, done in finished if not done.error)
            with Path(log).open("a", encoding="utf-8") as file:
                file.write("".join(f"{hashlib.sha256(line).hexdigest()}\n" for line in lines))
            yield finished

    TransformersEngine.stream = noted


if LOG in os.environ:  # in the launcher, and in the workers, which import this file
    note_requests(os.environ[LOG])


def start(home: Path, output: Path, options: list[str], log: Path | None = None) -> subprocess.Popen:
    home.mkdir(exist_ok=True)
    env = os.environ | {"HF_HOME": str(home), "HF_EVOL_CACHE": str(home / "hf_evol")} | ({LOG: str(log)} if log else {})
    command = [sys.executable, __file__, "--run", "run", *options, "--output", str(output)]
    with (home / "errors.txt").open("a") as errors:
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=errors)


def timed(home: Path, output: Path, options: list[str]) -> float:
    began = time.monotonic()
    if start(home, output, options).wait():
        raise SystemExit((home / "errors.txt").read_text()[-2000:])
    return time.monotonic() - began


def rows_of(folder: Path) -> dict[tuple, dict]:
    """All rows of a set, by config, id and round."""
    import pyarrow.parquet as pq

    return {
        (file.parent.name, row["id"], row["round"]): row
        for file in folder.glob("*/*.parquet")
        for row in pq.read_table(file).to_pylist()
    }


def compared(whole: Path, other: Path) -> str:
    """What differs between two sets: files, rows, texts, and by how much scores do."""
    files = {path.relative_to(whole) for path in whole.glob("*/*.parquet")}
    differing = [str(file) for file in files if (whole / file).read_bytes() != (other / file).read_bytes()]
    a, b = rows_of(whole), rows_of(other)
    pairs = [(a[key], b[key]) for key in a.keys() & b.keys()]
    values = [(x[name], y[name]) for x, y in pairs for name in x]
    floats = [abs(x - y) for x, y in values if isinstance(x, float) and isinstance(y, float)]
    texts = sum(x != y for x, y in values if not (isinstance(x, float) and isinstance(y, float)))
    return (
        f"rows missing: {len(a.keys() - b.keys())}, rows added: {len(b.keys() - a.keys())}, values other than scores that "
        f"differ: {texts}, largest difference of a score: {max(floats, default=0):.1e}, parquet files not the same byte for "
        f"byte: {len(differing)} of {len(files)}"
    )


def kill_one(process: subprocess.Popen, generator: random.Random) -> str:
    """Kill the launcher or one of its workers."""
    import psutil

    children = psutil.Process(process.pid).children()
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    victim = generator.choice([None, *workers])
    os.kill(victim.pid if victim else process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(workers, timeout=60)
    return "worker" if victim else "launcher"


def killed(
    folder: Path, options: list[str], seconds: float, kills: int, seed: int
) -> tuple[collections.Counter, list[str]]:
    """Start a run again and again, each time killed, and in the end to its end; who was killed, and finished requests."""
    generator, victims, log = random.Random(seed), collections.Counter(), folder / "requests.log"
    while sum(victims.values()) < kills:
        process = start(folder / "home-killed", folder / "killed" / "set", [*options, "--overwrite"], log)
        try:
            # Each start gets on by about its share of the work, so that kills fall into every stage.
            process.wait(generator.uniform(STARTING_S, STARTING_S + 2 * seconds / kills))
            raise SystemExit(f"The run ended before {kills} kills: {dict(victims)}. Give more rows.")
        except subprocess.TimeoutExpired:
            victims[kill_one(process, generator)] += 1
    if start(folder / "home-killed", folder / "killed" / "set", [*options, "--overwrite"], log).wait():
        raise SystemExit((folder / "home-killed" / "errors.txt").read_text()[-2000:])
    return victims, log.read_text().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args, others = parser.parse_known_args()
    options = [
        "--dataset",
        str(Path(args.rows).resolve()),
        "--limit",
        str(args.limit),
        "--rounds",
        str(args.rounds),
        *others,
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = timed(folder / "home-plain", folder / "plain" / "set", options)
        print(f"{args.limit} rows, {args.rounds} rounds, {os.cpu_count()} cores; plain run: {plain:.0f} s", flush=True)
        seconds = {}
        for workers in args.workers:
            more = ["--executor", "local", "--tasks", str(args.tasks), "--workers", str(workers)]
            output = folder / f"of-{workers}" / "set"
            seconds[workers] = timed(folder / f"home-{workers}", output, options + more)
            speed_up = seconds[args.workers[0]] / seconds[workers] * args.workers[0]
            cores = min(workers, os.cpu_count() or 1)
            print(
                f"{workers} workers, {args.tasks} tasks: {seconds[workers]:.0f} s, {speed_up:.2f} times one worker "
                f"({speed_up / cores:.0%} of {cores} cores), {seconds[workers] / plain - 1:+.0%} beside the plain run\n  "
                f"{compared(folder / 'plain' / 'set', output)}",
                flush=True,
            )
        if args.kills:
            more = ["--executor", "local", "--tasks", str(args.tasks), "--workers", "2"]
            expected = seconds.get(2, plain)
            victims, log = killed(folder, options + more, expected, args.kills, args.seed)
            again = len(log) - len(set(log))
            print(f"killed: {', '.join(f'{who} {n} times' for who, n in victims.items())}")
            print(f"  {compared(folder / 'plain' / 'set', folder / 'killed' / 'set')}")
            print(
                f"  requests: {len(set(log))}, of which finished more than once: {again} ({again / len(set(log)):.1%})"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        from hf_evol.cli.main import main as command

        sys.exit(command(sys.argv[2:]))
    main()
