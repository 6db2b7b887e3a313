"""The pages are those of the code, and what they show type-checks."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import hf_evol

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "guide.md", ROOT / "docs" / "domains.md"]


def test_the_reference_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.REFERENCE.read_text(encoding="utf-8") == generate.reference(), "run python docs/generate.py"
    assert all(
        f"`{name}`" in generate.reference() for name in ("evol_status", "off_example", "hf_evol.IcIfd", "push_to")
    )


def test_the_methods_of_the_page_on_domains_work(tmp_path, monkeypatch, capsys):
    """The file is one of methods, its ten examples are evolved as replies should be, and the code finds what they lack."""
    page = PAGES[-1].read_text(encoding="utf-8")
    block, code = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("yaml", "python"))
    (tmp_path / "kitchen.yaml").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    method, breadth = hf_evol.EvolInstruct("model", methods="kitchen.yaml").methods
    assert len(method.prompt("Bake a cake.")) == 8 and breadth.kind == "in_breadth"
    _, *turns, _ = replace(method, shots=None).prompt("Bake a cake.")
    texts = [turn["content"] for turn in turns]
    assert len(texts) == 20
    for given, evolved in zip(texts[::2], texts[1::2], strict=True):
        prompt = [{"role": "user", "content": given}]
        assert hf_evol.read_evolved(evolved, parent=given, prompt=prompt, method=method.name) == (evolved, "ok")
    exec(code, {})
    assert capsys.readouterr().out == "Draft a letter to a restaurant.\n"


def test_editors_and_python_see_the_same_names():
    """The block for type checkers names what loads lazily, and from where."""
    source = (ROOT / "hf_evol" / "__init__.py").read_text(encoding="utf-8")
    block = source[source.index("if TYPE_CHECKING:") : source.index("_NAMES = {")]
    imports = re.findall(r"from (\S+) import (\([^)]*\)|[^\n]+)", block)
    typed = {name: module for module, names in imports for name in re.findall(r"\w+ as (\w+)", names)}
    assert typed == hf_evol._HOME


def test_the_code_of_the_pages_type_checks(tmp_path):
    """As a user's editor sees it: mypy knows every public name, argument and result."""
    pytest.importorskip("mypy")
    blocks = [
        code
        for page in PAGES
        for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(blocks) >= 3
    wrong = 'import hf_evol\n\nhf_evol.EvolInstruct("model", "alpaca")\nhf_evol.run("recipe")\nhf_evol.nothing\n'
    for number, code in enumerate([*blocks, wrong]):
        (tmp_path / f"page_{number}.py").write_text(code, encoding="utf-8")
    others = (
        "torch",
        "transformers",
        "datasets",
        "huggingface_hub",
        "evaluate",
        "numpy",
        "pyarrow",
        "fsspec",
        "sentence_transformers",
    )
    config = "[mypy]\nignore_missing_imports = True\nfollow_imports = silent\n"
    config += f"[mypy-{','.join(f'{name}.*' for name in others)}]\nfollow_imports = skip\n"  # which would take minutes
    (tmp_path / "mypy.ini").write_text(config, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "."]
    said = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"MYPYPATH": str(ROOT), "PATH": ""}
    ).stdout
    lines = [line for line in said.splitlines() if ": error:" in line]
    assert [line for line in lines if not line.startswith(f"page_{len(blocks)}.py")] == []
    assert [line.split(":")[1] for line in lines] == ["3", "4", "5"], said  # what is wrong is seen
