"""Run the tests that use other libraries most, and write the outcomes and the versions to results/<name>-versions.txt.

    make test-newest
    make test-oldest

Each has an environment of its own, with the newest versions that setup.cfg allows, or the oldest that it names.
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
RESULTS = ROOT / "benchmarks" / "results"
TESTS = "cli data generation metrics models scoring training test_private_names.py test_transform.py".split()
LIBRARIES = (
    "torch transformers datasets huggingface_hub evaluate tokenizers accelerate peft trl gguf sentence-transformers "
    "faiss-cpu datatrove fsspec s3fs numpy pandas pyarrow safetensors jinja2 pyyaml typer pytest"
).split()
OUTCOMES = ("passed", "failed", "skipped")


class Tally:
    """A pytest plugin that counts outcomes by the first part of the test's path below tests/."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {test: Counter() for test in TESTS}
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


def main(name: str) -> int:
    tally, start = Tally(), time.monotonic()
    os.chdir(ROOT)
    status = pytest.main(["--numprocesses=auto", "--dist=loadfile", *(f"tests/{test}" for test in TESTS)], [tally])
    lines = [
        f"{datetime.date.today()}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, {time.monotonic() - start:.0f} s of tests",
        f"make test-{name}: the {name} versions within setup.cfg, and torch of constraints.txt",
        "",
        *(f"{library:22} {version(library)}" for library in LIBRARIES),
        "",
        f"{'tests':22}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES),
        *(
            f"{part:22}" + "".join(f"{count[outcome]:9}" for outcome in OUTCOMES)
            for part, count in [*tally.counts.items(), ("all", sum(tally.counts.values(), Counter()))]
        ),
        *(f"failed: {test}" for test in tally.failed),
    ]
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}-versions.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
