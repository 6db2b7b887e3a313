"""Put the IC-IFD module where `evaluate` finds it by its bare name."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

NAME = "ic_ifd"
# evaluate looks here for a metric that neither a local folder nor the Hub has under its name.
CACHED_NAME = f"evaluate-metric--{NAME}"


def metric_path() -> Path:
    """The module's folder: beside the package in a checkout, inside it in an installation."""
    package = Path(__file__).parent
    inside = package / "metrics" / NAME
    return inside if inside.is_dir() else package.parent / "metrics" / NAME


def install() -> Path:
    """Copy the module into evaluate's cache of modules, under the hash of its source.

    Returns:
        The folder it was copied to.
    """
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
