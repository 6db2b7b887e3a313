"""Select, describe and write a scored round of many rows, and measure memory and time of each step.

    python benchmarks/scale_finish.py --rows 10000000
    python benchmarks/scale_finish.py --rows 1000000 --text-bytes 1000
    systemd-run --scope --property MemoryMax=2G python benchmarks/scale_finish.py

The rows are synthetic: ids and scores of their own, short texts. They are written as parquet files first, loaded with
`load_dataset`, which maps them into memory, and go through what `hf_evol.run.pipeline.conclude` does, in a process of its own.
Memory is the kernel's mark of the most resident bytes in a step: all (VmHWM), and those that are no pages of mapped
files, which the kernel can drop and read again (sampled every 10 ms). The proof of that is a run whose control group has
little memory: the limit, which holds for files' pages, too, is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SHARD_ROWS = 250_000
GROUP_ROWS = 25_000  # some 100 MB of long texts, as datasets writes them
LOST = {"failed": 0.02, "unanswered": 0.01}  # shares of the rows
UNSCORED = 0.005
TEXT = "Explain to a new colleague, in {} words and with two examples, why the {} of a river changes over the year."


def make_texts(noise: np.random.Generator, count: int, n_bytes: int) -> pa.Array:
    """Short sentences that recur, or pieces of ``n_bytes`` of a long random text of words, hardly any twice the same."""
    import numpy as np
    import pyarrow as pa

    if not n_bytes:
        texts = np.array(
            [TEXT.format(words, what) for words in range(20, 60) for what in ("level", "course", "colour")]
        )
        return pa.array(texts[noise.integers(len(texts), size=count)])
    words = np.array(["".join(letters) for letters in noise.choice(list("etaoinshrdlu"), (5000, 6))])
    text = " ".join(words[noise.integers(len(words), size=2_000_000)])
    return pa.array([text[at : at + n_bytes] for at in noise.integers(len(text) - n_bytes, size=count)])


def make_shard(folder: Path, part: str, number: int, start: int, count: int, text_bytes: int) -> None:
    """Rows ``start`` to ``start + count`` as one parquet file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    noise = np.random.default_rng(number)
    score = noise.lognormal(-1.2, 0.6, count)
    loss_q = noise.normal(3.1, 0.4, count)
    unscored = noise.random(count) < UNSCORED
    columns = {
        "id": pa.array([f"synthetic-{place}" for place in range(start, start + count)]),
        "instruction": pa.array(
            [
                f"{text} Row {place}."
                for place, text in enumerate(make_texts(noise, count, text_bytes).to_pylist(), start)
            ]
        ),
        "input": pa.array([""] * count),
        "output": make_texts(noise, count, text_bytes),
        "seed_instruction": make_texts(noise, count, text_bytes),
        "parent_instruction": make_texts(noise, count, text_bytes),
        "round": pa.array(np.ones(count, dtype="int32")),
        "method": pa.array(
            np.array(["constraint", "deepen", "concretize", "reasoning", "breadth"])[np.arange(count) % 5]
        ),
        "evol_status": pa.array(["ok" if part != "failed" else "unchanged"] * count),
        "elimination": pa.array(["kept"] * count),
        "try": pa.array(np.ones(count, dtype="int32")),
        "rejected": pa.array(
            [[]] * count
            if part != "failed"
            else [[{"try": 1, "instruction": "Explain it.", "status": "unchanged"}]] * count,
            pa.list_(pa.struct({"try": pa.int32(), "instruction": pa.string(), "status": pa.string()})),
        ),
        "evolver": pa.array(["synthetic"] * count),
        "responder": pa.array(["synthetic"] * count),
        "response_status": pa.array(["ok" if part != "unanswered" else "cut_off"] * count),
    }
    if part == "rows":
        columns |= {
            "ic_ifd": pa.array(score / loss_q, mask=unscored),
            "ifd": pa.array(score, mask=unscored),
            "loss_q": pa.array(loss_q, mask=unscored),
            "loss_a": pa.array(noise.normal(2.0, 0.3, count), mask=unscored),
            "loss_a_given_q": pa.array(noise.normal(1.1, 0.3, count), mask=unscored),
            "n_tokens_q": pa.array(noise.integers(20, 40, count).astype("int32")),
            "n_tokens_a": pa.array(noise.integers(20, 40, count).astype("int32")),
            "ic_ifd_status": pa.array(np.where(unscored, "too_long", "ok")),
            "ic_ifd_convention": pa.array(["paper"] * count),
        }
    else:
        reason = {"failed": "unchanged", "unanswered": "response_cut_off"}[part]
        columns["dropped_because"] = pa.array([reason] * count)
    pq.write_table(pa.table(columns), folder / f"{part}-{number:05}.parquet", row_group_size=GROUP_ROWS)


def make(folder: Path, n: int, text_bytes: int) -> None:
    counts = {part: max(1, round(share * n)) for part, share in LOST.items()}
    start = 0
    for part, count in ({"rows": n - sum(counts.values())} | counts).items():
        for number, offset in enumerate(range(0, count, SHARD_ROWS)):
            size = min(SHARD_ROWS, count - offset)
            make_shard(folder, part, number, start + offset, size, text_bytes)
        start += count


def memory_limit() -> str:
    """The limit of this process's control group (version 2 or 1), as text."""
    groups = [line.rstrip("\n").split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for kinds, path in groups:
        file = {"": f"unified{path}/memory.max", "memory": f"memory{path}/memory.limit_in_bytes"}.get(kinds)
        for limit in (
            (Path("/sys/fs/cgroup", file), Path("/sys/fs/cgroup", file.removeprefix("unified/"))) if file else ()
        ):
            if limit.exists() and (text := limit.read_text().strip()).isdigit() and int(text) < 2**50:
                return f"limited to {int(text) / 2**30:.2f} GiB of memory"
    return "memory not limited"


def resident() -> tuple[int, int]:
    """Most resident bytes since the last reset, and resident bytes now that are of no file."""
    status = Path("/proc/self/status").read_text()
    most, anonymous = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024 for name in ("VmHWM", "RssAnon"))
    return most, anonymous


@contextmanager
def measured(label: str) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    most, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident()[1])

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    everything, now = resident()
    print(f"{label:32}{seconds:9.1f}{everything / 2**30:16.2f}{max(most[0], now) / 2**30:16.2f}", flush=True)


def finish(folder: Path, output: Path) -> None:
    """Load the shards, and finish a run of one round with them."""
    import pyarrow.parquet as pq
    from datasets import load_dataset
    from datasets.utils import disable_progress_bars

    from hf_evol import columns as col
    from hf_evol.data.selection import select
    from hf_evol.hub.target import Target
    from hf_evol.run.pipeline import conclude
    from hf_evol.run.recipe import Recipe
    from hf_evol.run.stages import Stages
    from hf_evol.run.steps import Round, set_columns
    from hf_evol.run.tables import round_table

    disable_progress_bars()
    recipe = Recipe(rounds=1, output=str(output), journal=False)
    stages = Stages.of(recipe)
    print(f"{'step':32}{'seconds':>9}{'resident, GiB':>16}{'of no file, GiB':>16}")
    with measured("load_dataset"):
        parts = {
            part: load_dataset("parquet", data_files=str(folder / f"{part}-*.parquet"), split="train", cache_dir=folder / "cache")
            for part in ("rows", *LOST)
        }  # fmt: skip
    entry = Round(**parts)
    total = sum(map(len, parts.values()))
    with measured("select"):
        select(set_columns(entry.rows), recipe.select_by, top=recipe.select, per=col.ROUND)
    with measured("table of the round"):
        round_table(entry, 1)
    with measured("all of it"):
        made = conclude(recipe, stages, total, [entry], Target(recipe.output))
    files = sorted(output.rglob("*.parquet"))
    size, largest = sum(file.stat().st_size for file in files), max(file.stat().st_size for file in files)
    rows = sum(config["rows"] for config in made.provenance["configs"])
    print(
        f"written: {rows:,} rows in {len(files)} parquet files, {size / 2**30:.2f} GiB, the largest {largest / 2**20:.0f} MiB; "
        f"{sum(pq.read_table(file).nbytes for file in files) / 2**30:.2f} GiB as Arrow data"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--text-bytes", type=int, default=0, help="of each text; by default short sentences")
    parser.add_argument("--folder", help="where the shards and the set are put, and removed again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        (folder / "shards").mkdir()
        start = time.perf_counter()
        make(folder / "shards", args.rows, args.text_bytes)
        size = sum(file.stat().st_size for file in (folder / "shards").iterdir())
        print(f"{args.rows:,} synthetic rows in {len(list((folder / 'shards').iterdir()))} parquet files, {size / 2**30:.2f} GiB, "
              f"made in {time.perf_counter() - start:.0f} s; {platform.machine()}, {os.cpu_count()} cores, {memory_limit()}")  # fmt: skip
        process = multiprocessing.get_context("spawn").Process(
            target=finish, args=(folder / "shards", folder / "set"), name="finish"
        )
        process.start()
        process.join()
        sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
