import shutil
from pathlib import Path

import pytest
from hub_server import HubServer
from talkative import make_talkative


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub on this machine, which `huggingface_hub` takes for the real one."""
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hub-cache")
        monkeypatch.setattr(
            "datasets.config.USE_PARQUET_EXPORT", False
        )  # it has no viewer, whose name takes seconds to miss
        yield server


@pytest.fixture(scope="session")
def licensed_model(wide_model, tmp_path_factory):
    """A copy of the model with a card that states a licence."""
    folder = shutil.copytree(wide_model, tmp_path_factory.mktemp("models") / "licensed")
    (Path(folder) / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    return str(folder)


@pytest.fixture
def talkative(monkeypatch):
    make_talkative(monkeypatch)
