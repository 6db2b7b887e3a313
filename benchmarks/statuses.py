"""How true the statuses of evolved texts are, on replies that people have read and labelled.

    python benchmarks/statuses.py FILE [--faults]

FILE is JSON lines with ``parent``, ``prompt`` (the turns sent), ``reply``, ``method``, ``finish_reason``, and of the readers:
``good`` (true, false, or null where they disagree; such rows are left out) and ``text`` (what they would store). Precision is
the share of good ones among those called ``ok``; recall the share called ``ok`` among the good ones; and of the good ones
that are ``ok``, the share whose text is the readers'. ``--faults`` prints the rows where status and readers differ.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from hf_evol import read_evolved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--faults", action="store_true")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [row | {"read": read(row)} for row in rows if row["good"] is not None]
    print(f"{len(rows)} replies, {sum(row['good'] for row in rows)} of them good")
    show("all", rows)
    for field in ("domain", "model", "style"):
        for value in sorted({row[field] for row in rows if row.get(field)}):
            show(f"{field} {value}", [row for row in rows if row.get(field) == value])
    print("\nlabel of the readers: our statuses")
    for label in sorted({label_of(row) for row in rows}):
        counts = Counter(row["read"][1] for row in rows if label_of(row) == label)
        print(f"  {label:12} " + ", ".join(f"{status} {count}" for status, count in counts.most_common()))
    for row in rows if args.faults else ():
        text, status = row["read"]
        if (status == "ok") != row["good"] or (row["good"] and text != row["text"]):
            print(
                f"\n{status}, readers {row.get('labels') or row['good']}, {row.get('method')}\n  parent {row['parent']!r}\n  reply  {row['reply'][:600]!r}\n  read   {text!r}"
            )


def read(row: dict) -> tuple[str | None, str]:
    return read_evolved(
        row["reply"],
        parent=row["parent"],
        prompt=row["prompt"],
        method=row.get("method"),
        finish_reason=row["finish_reason"],
    )


def label_of(row: dict) -> str:
    return " / ".join(dict.fromkeys(row.get("labels") or [str(row["good"])]))


def show(name: str, rows: list[dict]) -> None:
    ok = [row for row in rows if row["read"][1] == "ok"]
    good = [row for row in rows if row["good"]]
    both = [row for row in ok if row["good"]]
    same = sum(row["read"][0] == row["text"] for row in both)
    share = lambda part, whole: f"{part}/{whole}" + (f" = {part / whole:.0%}" if whole else "")  # noqa: E731
    print(
        f"  {name:40} precision {share(len(both), len(ok)):14} recall {share(len(both), len(good)):14} text {share(same, len(both))}"
    )


if __name__ == "__main__":
    main()
