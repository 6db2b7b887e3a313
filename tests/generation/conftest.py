import pytest
from chat_server import KEY, ChatServer, working

from hf_evol.generation import endpoint


@pytest.fixture
def waits(monkeypatch):
    """Waits that an endpoint engine draws at random take no time; the longest that each could be is kept here."""
    longest = []
    monkeypatch.setattr(endpoint.random, "uniform", lambda low, high: longest.append(high) or 0.0)
    endpoint._probe.cache_clear()
    endpoint._known.clear()
    return longest


@pytest.fixture
def server(waits):
    with ChatServer() as server:
        yield server
    assert not working(), "a thread of an endpoint engine is left"


@pytest.fixture
def key(monkeypatch):
    """The environment variable that holds the server's key."""
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    return "ENDPOINT_KEY"
