"""
Where the contract runs: on real servers and on fakeredis, through `Queue` and through `AsyncQueue`.

After every test the books are checked, whatever it did: see `Env.audit`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests._servers import Kind, kind_for, kinds
from tests.conftest import SharedServers
from tests.contract._env import Env, FakeClock, patch_clock

SHELLS = ("sync", "async")
FAKE = [(None, shell) for shell in SHELLS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Every test runs on one kind of server and on fakeredis; those marked ``everywhere``, on the other kinds too: the
    scripts are the same there, so it takes one test of each kind of command and of charge to see that they agree.
    ``BOUNDQ_EVERYWHERE=1`` runs all of them on all kinds.
    """
    marked = metafunc.definition.get_closest_marker("everywhere") or os.environ.get("BOUNDQ_EVERYWHERE")
    chosen = kinds() if marked else (kind_for(metafunc.definition.nodeid),)
    real = [(kind, shell) for kind in chosen for shell in SHELLS]
    for name, places in (("env", [*real, *FAKE]), ("fake", FAKE), ("real", real)):
        if name in metafunc.fixturenames:
            ids = [f"{kind or 'fake'}-{shell}" for kind, shell in places]
            metafunc.parametrize(name, places, ids=ids, indirect=True)


def _make(request: pytest.FixtureRequest, servers: SharedServers, name: str) -> Iterator[Env]:
    kind: Kind | None
    kind, shell = request.param
    server = servers.get(kind) if kind is not None else None
    clock = FakeClock()
    with patch_clock(clock):
        env = Env(name, shell, server, clock)
        try:
            yield env
            env.audit()
        finally:
            env.close()
            if server is not None:
                servers.give_back(server, name)


@pytest.fixture
def env(request: pytest.FixtureRequest, shared_servers: SharedServers, queue_name: str) -> Iterator[Env]:
    """Everywhere."""
    yield from _make(request, shared_servers, queue_name)


@pytest.fixture
def fake(request: pytest.FixtureRequest, shared_servers: SharedServers, queue_name: str) -> Iterator[Env]:
    """
    Fakeredis, both shells, for two kinds of test: time passes as the test likes (a real server would need the
    seconds, or hours, themselves); or a mistake is found before anything is sent, so no server matters.
    """
    yield from _make(request, shared_servers, queue_name)


@pytest.fixture
def real(request: pytest.FixtureRequest, shared_servers: SharedServers, queue_name: str) -> Iterator[Env]:
    """Where fakeredis is no use; the test says why."""
    yield from _make(request, shared_servers, queue_name)
