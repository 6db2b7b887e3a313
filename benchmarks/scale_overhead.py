"""What a run of many rows costs beside its models: every step with an engine that answers at once.

    python benchmarks/scale_overhead.py --rows 1000000

Varied seeds of the bundled set are evolved by an engine whose reply is the instruction and a requirement more (one in twenty: the
instruction as it is, so that it is asked again), eliminated, answered, given made-up scores, selected from, and written with
their card, all as `hf_evol.run` does it, with a journal. Each size runs in a process of its own. Beside seconds stands by
which power of the rows a step's processor time grows, from a tenth of the rows to all of them: 1 where each row costs the same.
Memory is the most resident bytes in a step: all (VmHWM), and those that are no pages of mapped files. Then, of the journal, what
a request of some 400 bytes has the process write: requests put one by one, and in batches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import platform
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scale_finish import memory_limit, resident

REPEATS_ITSELF = 20  # one reply in so many
STONES = "agate beryl cinnabar dolomite epidote fluorite galena hematite ilmenite jasper kyanite lazurite".split()
ANSWER = (
    "The first of them, {}, is found in many countries, and {} in few; {} is the hardest of all. Whoever wants to tell them "
    "apart should look at their colour, their weight and their streak, and then ask somebody who knows more about them. "
    "There are books with pictures of each, and collections in most museums, where the labels say where they were found."
)


@dataclass(frozen=True)
class Instant:
    """Answers at once, by the prompt alone."""

    name: str = "instant"

    def check(self, params=None) -> None: ...

    def identity(self):
        return {"model": self.name}

    def stream(self, chats, params, keys):
        from hf_evol.generation.base import Completion

        for start in range(0, len(chats), 64):
            yield [(at, Completion(self.reply(chats[at]), "stop", 150, 90)) for at in range(start, len(chats))[:64]]

    def reply(self, turns) -> str:
        asked = turns[-1]["content"]
        draw = hashlib.sha256(asked.encode()).digest()
        stones = [STONES[(draw[0] + 5 * place) % len(STONES)] for place in range(3)]
        if len(turns) < 3:  # to respond, not to evolve by examples
            return ANSWER.format(*stones)
        more = "" if draw[3] % REPEATS_ITSELF == 0 else " Name {}, {} and {} as well.".format(*stones)
        return asked + more


def make_seeds(rows: int):
    """Rows of a bundled set, each time about something else."""
    import numpy as np
    from datasets import Dataset

    from hf_evol import to_instructions
    from hf_evol.data.sources import load_seeds

    seeds = to_instructions(load_seeds("demo/general"))
    texts, noise = [text.rstrip(".") for text in seeds["instruction"] if text], np.random.default_rng(0)
    words = np.array(["".join(letters) for letters in noise.choice(list("etaoinshrdlu"), (20_000, 7))])

    def made():
        for place in range(rows):
            about = " ".join(noise.choice(words, 2))
            yield {"instruction": f"{texts[place % len(texts)]} about {about}.", "input": "", "output": "It is so."}

    return to_instructions(Dataset.from_generator(made), name="made")


@contextmanager
def measured(figures: dict[str, list[float]], label: str) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    most, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], resident()[1])

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    wall, processor = time.perf_counter(), time.process_time()
    yield
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    done.set()
    thread.join()
    everything, now = resident()
    figures[label] = [wall, processor, everything / 2**30, max(most[0], now) / 2**30]


def steps_of(rows: int, folder: Path) -> dict[str, list[float]]:
    """Wall and processor seconds, and memory in GiB, of each step."""
    import numpy as np
    from datasets import Value
    from datasets.utils import disable_progress_bars

    from hf_evol import columns as col
    from hf_evol.data.selection import select
    from hf_evol.evolve.eliminate import Eliminate
    from hf_evol.evolve.evol_instruct import EvolInstruct
    from hf_evol.evolve.respond import Respond
    from hf_evol.hub.target import Target
    from hf_evol.run import steps
    from hf_evol.run.pipeline import conclude
    from hf_evol.run.recipe import Recipe
    from hf_evol.run.stages import Stages

    disable_progress_bars()
    figures: dict[str, list[float]] = {}
    journal = str(folder / "journal.sqlite")
    recipe = Recipe(rounds=1, output=str(folder / "set"), journal=journal)
    stages = replace(
        Stages.of(recipe),
        evolve=EvolInstruct(Instant(), by_example=False, journal=journal),
        eliminate=Eliminate(keep=True),
        respond=Respond(Instant(), journal=journal),
    )
    apply = steps.mapper(recipe)
    with measured(figures, "make the seeds"):
        seeds = make_seeds(rows)
    with measured(figures, "evolve"):
        evolved = apply(seeds, stages.evolve, "Evolve")
    with measured(figures, "evolve again, from the journal"):
        apply(seeds.select(range(rows)), replace(stages.evolve, prefer=(stages.eliminate,)), "Evolve")
    with measured(figures, "eliminate"):
        evolved = apply(evolved, stages.eliminate, "Eliminate")
    with measured(figures, "respond, and eliminate"):
        entry = steps.respond(evolved, stages.respond, apply, "")
    noise, n = np.random.default_rng(1), len(entry.rows)
    scored = entry.rows
    for name in steps.SCORE_COLUMNS:
        values = noise.integers(20, 200, n) if name.startswith("n_") else noise.lognormal(-1, 0.6, n)
        scored = scored.add_column(name, values)
    scored = scored.add_column(col.IC_IFD_STATUS, [col.OK] * n, feature=Value("string"))
    entry = replace(entry, rows=scored)
    with measured(figures, "select, a tenth per method"):
        select(steps.set_columns(entry.rows), recipe.select_by, top=0.1, per=col.METHOD)
    with measured(figures, "repeats, selection, set and card"):
        made = conclude(recipe, stages, rows, [entry], Target(recipe.output))
    lost = {config["name"]: config["rows"] for config in made.provenance["configs"]}
    print(f"{rows:,} seeds: {', '.join(f'{name} {count:,}' for name, count in lost.items())}", flush=True)
    return figures


def of_size(rows: int, folder: str, results) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        os.environ["HF_DATASETS_CACHE"] = name
        results.put(steps_of(rows, Path(name)))


def written() -> int:
    return int(re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())[1])


def journal_bytes(requests: int, together: int, folder: str | None) -> str:
    from hf_evol.models.journal import Journal

    with tempfile.TemporaryDirectory(dir=folder) as name:
        journal, request = Journal(Path(name) / "journal.sqlite"), {"text": ANSWER[:300], "finish_reason": "stop"}
        before, began = written(), time.process_time()
        for start in range(0, requests, together):
            keys = [journal.key({}, "", str(number)) for number in range(start, min(requests, start + together))]
            journal.put(dict.fromkeys(keys, request))
        journal.flush()
        seconds = time.process_time() - began
        per_row = (written() - before) / requests
        began = time.perf_counter()
        found = Journal(journal.path).get(keys)
        return (
            f"{requests:,} requests of {16 + len(json.dumps(request))} bytes, {together} at a time: {per_row:,.0f} bytes written for each, "
            f"{seconds:.1f} s of processor time; opened anew, {len(found)} found in {1000 * (time.perf_counter() - began):.0f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="where everything is put, and removed again")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {memory_limit()}")
    context = multiprocessing.get_context("spawn")
    found, results = {}, context.Queue()
    for rows in (args.rows // 10, args.rows):
        process = context.Process(target=of_size, args=(rows, args.folder, results))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
        found[rows] = results.get()
    few, many = found.values()
    print(
        f"{'step':34}{'seconds':>9}{'processor':>11}{'power of rows':>15}{'resident, GiB':>15}{'of no file':>12}{'a tenth: of no file':>21}"
    )
    for label, (wall, processor, everything, own) in many.items():
        power = math.log10(max(processor, 0.01) / max(few[label][1], 0.01))
        print(f"{label:34}{wall:9.1f}{processor:11.1f}{power:15.2f}{everything:15.2f}{own:12.2f}{few[label][3]:21.2f}")
    for together in (1, 64, 1000):
        print(journal_bytes(args.rows, together, args.folder), flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
