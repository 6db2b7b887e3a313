"""Run the tests that meet other libraries most, and say with which versions they passed.

    make test-newest

There, pip has taken the newest versions that setup.cfg allows, but of torch. What is printed stands in
results/newest-versions.txt as well.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "newest-versions.txt"
TESTS = "cli data generation metrics models scoring training test_private_names.py test_transform.py".split()
LIBRARIES = (
    "torch transformers datasets huggingface_hub evaluate tokenizers accelerate peft trl gguf sentence-transformers "
    "faiss-cpu datatrove fsspec s3fs numpy pandas pyarrow safetensors jinja2 pyyaml typer pytest"
).split()
OUTCOMES = ("passed", "failed", "skipped")


class Tally:
    """A pytest plugin that counts outcomes by the first part of the test's path below tests/."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in TESTS}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:  # what fails or skips may do so before its call, or after
            self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        self.counts[Path(report.nodeid).parts[1].partition("::")[0]][report.outcome] += 1
        if report.failed:
            self.failed.append(report.nodeid)


def main() -> int:
    tally, start = Tally(), time.monotonic()
    os.chdir(ROOT)
    status = pytest.main(["--numprocesses=auto", "--dist=loadfile", *(f"tests/{name}" for name in TESTS)], [tally])
    lines = [
        f"{datetime.date.today()}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, {time.monotonic() - start:.0f} s of tests",
        "make test-newest: torch as in constraints.txt, all else the newest that setup.cfg allows",
        "",
        *(f"{name:22} {version(name)}" for name in LIBRARIES),
        "",
        f"{'tests':22}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES),
        *(
            f"{name:22}" + "".join(f"{count[outcome]:9}" for outcome in OUTCOMES)
            for name, count in [*tally.counts.items(), ("all", sum(tally.counts.values(), Counter()))]
        ),
        *(f"failed: {test}" for test in tally.failed),
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"), end="")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
