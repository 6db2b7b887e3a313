"""The house's own rules: what imports what, and what an import costs."""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_evol"
ANYONE = {"columns", "errors", "progress", "secrets"}
# room: the rooms that it may import
ARROWS = {
    "prompts": set(),
    "reading": {"prompts"},
    "models": set(),
    "constraints": {"prompts"},
    "data": {"transform"},
    "generation": {"models"},
    "transform": {"generation", "models"},
    "evolve": {"prompts", "reading", "constraints", "models", "generation", "transform"},
    "scoring": {"prompts", "reading", "models", "generation", "transform"},
    "hub": {"data", "models", "run"},
    "run": {"prompts", "data", "models", "generation", "transform", "evolve", "scoring", "hub"},
    "sandbox": set(),
    "autoif": {"sandbox", "prompts", "reading", "data", "models", "generation", "transform", "evolve", "run", "hub"},
    "study": {"prompts", "data", "models", "generation", "transform", "evolve", "scoring", "run", "hub"},
    "training": {"data", "hub"},
    "cluster": {"data", "models", "generation", "transform", "evolve", "scoring", "run", "hub", "study"},
    "demo": set(),
}


def imported_rooms(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "hf_evol" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("hf_evol.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_what_the_house_allows(room):
    files = list((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    for file in files:
        extra = imported_rooms(file) - ARROWS[room] - ANYONE - {room}
        assert not extra, f"{file.relative_to(ROOT)} imports {extra}"


def test_every_room_has_its_arrows():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms == set(ARROWS) | ANYONE | {"__init__", "cli"}


def test_import_is_light():
    code = (
        "import sys, hf_evol, hf_evol.cli.main, hf_evol.errors;"
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy') if name in sys.modules])"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}  # without what other tests have put there
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_loads():
    import hf_evol

    for name in hf_evol.__all__:
        assert getattr(hf_evol, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hf_evol.nothing  # noqa: B018
    assert callable(hf_evol.map) and callable(hf_evol.select) and callable(hf_evol.run)


def test_setup_lists_every_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert listed == found | {"hf_evol.dataset_cards", "hf_evol.metrics.ic_ifd"}


def test_setup_lists_every_file_beside_the_code():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set()
    for package, patterns in setup["options.package_data"].items():
        for folder in [PACKAGE, *PACKAGE.rglob("*/")] if package == "*" else [ROOT.joinpath(*package.split("."))]:
            listed.update(file for pattern in patterns.replace(",", " ").split() for file in folder.glob(pattern))
    found = {file for file in PACKAGE.rglob("*.*") if file.suffix not in (".py", ".pyc") and file.is_file()}
    assert found and found <= listed, found - listed


def test_errors_survive_pickling():
    import pickle

    from hf_evol import errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.HfEvolError):
            assert str(pickle.loads(pickle.dumps(kind("what to do")))) == "what to do"
