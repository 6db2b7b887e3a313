"""Draw texts that ended `ok` from finished runs, for people to read against their parents; count what they said.

    python benchmarks/verdicts.py draw 60 14 RUN [RUN …] > rows.jsonl     60 texts, by the seed 14
    python benchmarks/verdicts.py count rows.jsonl                        after each line has got its "verdict"

A run is a folder that ``hf-evol run`` has written. A text is drawn whether or not its row was answered later. A verdict
is ``good`` (a careful curator would put the text into a set as an instruction), or a word for what is wrong.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

from datasets import get_dataset_config_names, load_dataset

from hf_evol import columns as col

FIELDS = (col.ID, col.ROUND, col.METHOD, col.TRY)


def draw(n: int, seed: int, folders: list[str]) -> None:
    found = []
    for folder in folders:
        for config in get_dataset_config_names(folder):
            if config != "selected":
                rows = load_dataset(folder, config, split="train")
                good = rows[col.EVOL_STATUS] if col.EVOL_STATUS in rows.column_names else [col.OK] * len(rows)
                found += [
                    {"set": Path(folder).name} | {name: row[name] for name in FIELDS}
                    | {"parent": row[col.PARENT_INSTRUCTION], "text": row[col.INSTRUCTION], "verdict": ""}
                    for row, status in zip(rows, good, strict=True)
                    if status == col.OK
                ]  # fmt: skip
    found.sort(key=lambda row: (row["set"], row[col.ROUND], row[col.ID]))
    random.Random(seed).shuffle(found)
    print(f"{len(found)} texts are ok, {min(n, len(found))} drawn", file=sys.stderr)
    for row in found[:n]:
        print(json.dumps(row, ensure_ascii=False))


def count(file: str) -> None:
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    unread = sum(not row["verdict"] for row in rows)
    print(f"{len(rows)} texts" + (f", {unread} of them without a verdict" if unread else ""))
    for field in ("set", col.ROUND, col.METHOD):
        for value in sorted({row[field] for row in rows}, key=str):
            said = [row["verdict"] for row in rows if row[field] == value]
            print(f"  {field} {value}: {said.count('good')} of {len(said)} good")
    verdicts = Counter(row["verdict"] for row in rows)
    print(
        f"  all: {verdicts['good']} of {len(rows)} good = {verdicts['good'] / len(rows):.0%}; {dict(verdicts.most_common())}"
    )


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "draw":
        draw(int(given[0]), int(given[1]), given[2:])
    else:
        count(given[0])
