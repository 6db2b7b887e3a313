"""Put the IC-IFD module where `evaluate` finds it by its bare name, or publish it as a Space."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants

from hf_evol import __version__
from hf_evol.errors import ConfigError
from hf_evol.hub.publish import telling

NAME = "ic_ifd"
_MODULE = (f"{NAME}.py", "app.py", "README.md", "requirements.txt")
# What the package holds, by the folders of an installation, in which no folder lies beside it.
_PACKAGE = {
    "": (
        "**/*.py", "**/*.yaml", "py.typed", "demo/seeds/*.jsonl", "hub/space.toml", "prompts/*.jsonl", "sandbox/allowed.txt",
        "study/*.css", "study/*.html", "study/*.js",
    ),
    "dataset_cards": ("*.md",),
    f"metrics/{NAME}": _MODULE,
}  # fmt: skip
# Where evaluate looks for what neither a folder nor the Hub has under its name.
CACHED_NAME = f"evaluate-metric--{NAME}"


def metric_path() -> Path:
    """The module's folder: beside the package in a checkout, inside it in an installation."""
    return _folder(f"metrics/{NAME}")


def _folder(name: str) -> Path:
    package = Path(__file__).parent.parent
    return package / name if (package / name).is_dir() else package.parent / name


def install() -> Path:
    """Copy the module into evaluate's cache of modules, under the hash of its source. Gives the folder."""
    from evaluate.loading import init_dynamic_modules

    script = metric_path() / f"{NAME}.py"
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    home = Path(init_dynamic_modules()) / "metrics" / CACHED_NAME
    folder = home / digest
    folder.mkdir(parents=True, exist_ok=True)
    for place in (home, folder):
        (place / "__init__.py").touch()
    shutil.copyfile(script, folder / f"{NAME}.py")
    os.utime(folder / f"{NAME}.py")  # evaluate takes the version that changed last
    return folder


def push(repo_id: str, private: bool = False) -> str:
    """Publish the module as a Space with its widget, for ``evaluate.load("user/ic_ifd")``. Gives its address.

    Raises:
        ConfigError: a name that `evaluate` can't load.
        HubError: the Hub refused or could not be reached.
    """
    name = repo_id.rpartition("/")[2]
    if name == "app" or "." in name:  # the script has its name, and is imported by it
        raise ConfigError(f"evaluate can't load a module with the name {name!r}. Choose another, such as user/{NAME}.")
    again = f"hf-evol metric push {shlex.quote(repo_id)}{' --private' if private else ''}"
    with (
        telling(f"The metric could not be pushed to {repo_id!r}", f"Signed in by `hf auth login`, go on with: {again}"),
        tempfile.TemporaryDirectory() as folder,
    ):
        url = HfApi().create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        write_space(Path(folder), url.repo_id)
        HfApi().upload_folder(
            repo_id=url.repo_id,
            repo_type="space",
            folder_path=folder,
            delete_patterns="hf_evol/*",  # modules of an earlier version
            commit_message="Upload the IC-IFD metric",
        )
    return str(url)


def write_space(folder: Path, repo_id: str) -> None:
    """All that the Space of a name holds: the module, and the package, which is on no index, for the widget and for pip."""
    address, name = f"git+{constants.ENDPOINT}/spaces/{repo_id}", repo_id.rpartition("/")[2]
    requirements = [entry for entry in importlib.metadata.requires("hf_evol") or () if "extra ==" not in entry]
    for file in _MODULE:
        text = (metric_path() / file).read_text(encoding="utf-8")
        text = re.sub(rf'(?<=evaluate\.load\(")(user/)?{NAME}(?=")', repo_id, text)
        text = text.replace("hf-evol metric install", f"pip install {address}").replace(f'"{NAME}.py"', f'"{name}.py"')
        # evaluate says so where the package is missing
        text = re.sub(r"^import hf_evol\S*$", rf"\g<0>  # From: {address}", text, flags=re.MULTILINE)
        text = re.sub(r"^hf_evol$", "\n".join(requirements), text, flags=re.MULTILINE)
        (folder / file.replace(f"{NAME}.py", f"{name}.py")).write_text(text, encoding="utf-8")
    for place, source in _package_files():
        (folder / "hf_evol" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / "hf_evol" / place)
    python = importlib.metadata.metadata("hf_evol")["Requires-Python"]
    filled = {
        "version": json.dumps(__version__),
        "python": json.dumps(python),
        "requirements": json.dumps(requirements),
    }
    # What makes a Space that pip installs the package from.
    project = Path(__file__).with_name("space.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(project.format(**filled), encoding="utf-8")


def _package_files() -> Iterator[tuple[Path, Path]]:
    """The package's files, by where they lie in it, without hidden ones and what lies behind links."""
    for place, patterns in _PACKAGE.items():
        folder = _folder(place).resolve()
        for file in (file for pattern in patterns for file in folder.glob(pattern)):
            within = file.relative_to(folder)
            if file.is_file() and file.resolve() == file and not any(part.startswith(".") for part in within.parts):
                yield Path(place, within), file
