"""Put the IC-IFD module where `evaluate` finds it by its bare name."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from pathlib import Path

from hf_evol.hub.publish import telling

NAME = "ic_ifd"
CACHED_NAME = (
    f"evaluate-metric--{NAME}"  # where evaluate looks for what neither a folder nor the Hub has under its name
)


def metric_path() -> Path:
    """The module's folder: beside the package in a checkout, inside it in an installation."""
    package = Path(__file__).parent.parent
    inside = package / "metrics" / NAME
    return inside if inside.is_dir() else package.parent / "metrics" / NAME


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
    """Publish the module as a Space with its widget, for ``evaluate.load("user/ic_ifd")``. Gives its address."""
    from huggingface_hub import HfApi

    again = f"hf-evol metric push {shlex.quote(repo_id)}{' --private' if private else ''}"
    with telling(
        f"The metric could not be pushed to {repo_id!r}", f"Signed in by `hf auth login`, go on with: {again}"
    ):
        url = HfApi().create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        HfApi().upload_folder(
            repo_id=url.repo_id,
            repo_type="space",
            folder_path=metric_path(),
            ignore_patterns=["__pycache__/*", "*.pyc"],
            commit_message="Upload the IC-IFD metric",
        )
    return str(url)
