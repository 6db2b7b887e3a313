import pytest
from hub_server import HubServer


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub on this machine, which `huggingface_hub` takes for the real one."""
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hub-cache")
        yield server
