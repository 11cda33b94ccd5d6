"""
Fixtures that every test may use: servers, a queue name, a proxy. See README.md in this folder.

A shared server is started when a test first asks for it, and kept for the run (per xdist worker). A test that
breaks or configures its server takes ``fresh_server``.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Protocol

import pytest

from tests._proxy import Proxy
from tests._servers import CHOICE, Kind, Missing, Server, kind_for, kinds, leftovers, nobody_waits


class FreshServer(Protocol):
    def __call__(
        self, kind: Kind | None = None, *, tcp: bool = False, sentinel: bool = False, **config: str | int
    ) -> Server: ...


class NewProxy(Protocol):
    def __call__(self, upstream: Server | str | tuple[str, int], *, tcp: bool = False) -> Proxy: ...


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "everywhere: runs on each kind of server, not only on one of them")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a shell: what is tested would inherit that Ctrl-C is nothing to it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        kinds()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What takes a server of any kind runs on one of them (`kind_for`), and on each where marked ``everywhere``."""
    if "any_kind" in metafunc.fixturenames and metafunc.definition.get_closest_marker("everywhere"):
        metafunc.parametrize("any_kind", kinds(), ids=str, indirect=True)
    if "server_kind" in metafunc.fixturenames:
        metafunc.parametrize("server_kind", kinds(), ids=str, indirect=True)


def _need(kind: Kind) -> None:
    """A missing server is skipped at home, where few have all, and fails in CI, where nobody would see it."""
    try:
        _ = kind.binary
        return
    except Missing as missing:
        why = str(missing)
    if os.environ.get("CI"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


class SharedServers:
    """The servers of this test process, one of each kind, started when first asked for."""

    def __init__(self) -> None:
        self._servers: dict[Kind, Server] = {}

    def get(self, kind: Kind) -> Server:
        if kind not in self._servers:
            _need(kind)
            self._servers[kind] = Server(kind).start()
        return self._servers[kind]

    def give_back(self, server: Server, queue_name: str) -> None:
        """Delete the test's keys. A dead server fails this test, and is replaced for the next."""
        if not server.alive:
            self._servers.pop(server.kind).close()
            pytest.fail(f"left dead or stuck: {server!r}; such a test takes fresh_server", pytrace=False)
        pattern, cursor = f"boundq:{{{queue_name}*", b"0"
        while True:
            cursor, keys = server.cli("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if keys:
                server.cli("UNLINK", *keys)
            if cursor == b"0":
                return

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()


@pytest.fixture(scope="session", autouse=True)
def _no_server_left_behind() -> Iterator[None]:
    """Set up before all other fixtures, so checked after them: every server process has ended."""
    yield
    left = leftovers()
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"server processes left behind (killed now): {left}"


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    servers = SharedServers()
    yield servers
    servers.close()


@pytest.fixture
def server_kind(request: pytest.FixtureRequest) -> Kind:
    """Runs the test once for each server that boundq supports: ``fresh_server(server_kind, ...)``."""
    kind: Kind = request.param
    _need(kind)
    return kind


@pytest.fixture
def any_kind(request: pytest.FixtureRequest) -> Kind:
    """The kind of server for a test whose outcome does not depend on it; a failing test says which it had."""
    kind: Kind = getattr(request, "param", None) or kind_for(request.node.nodeid)
    request.node.add_report_section("setup", "server", f"{kind}; {CHOICE}={kind} runs all tests on this kind")
    return kind


@pytest.fixture
def server(server_kind: Kind, shared_servers: SharedServers, queue_name: str) -> Iterator[Server]:
    """Each supported server in turn, shared: leave it as it was, use only keys of ``queue_name``."""
    server = shared_servers.get(server_kind)
    nobody_waits(server)
    yield server
    shared_servers.give_back(server, queue_name)


@pytest.fixture
def any_server(any_kind: Kind, shared_servers: SharedServers, queue_name: str) -> Iterator[Server]:
    """One shared server of some kind, for a test whose outcome does not depend on which."""
    server = shared_servers.get(any_kind)
    nobody_waits(server)
    yield server
    shared_servers.give_back(server, queue_name)


@pytest.fixture
def fresh_server(any_kind: Kind) -> Iterator[FreshServer]:
    """Start servers of the test's own, to configure, fill and break: ``fresh_server(maxmemory="20mb")``."""
    with ExitStack() as stack:

        def start(
            kind: Kind | None = None, *, tcp: bool = False, sentinel: bool = False, **config: str | int
        ) -> Server:
            kind = kind or any_kind
            _need(kind)
            server = Server(kind, tcp=tcp, sentinel=sentinel, **config)
            stack.callback(server.close)
            return server.start()

        yield start


@pytest.fixture
def queue_name(request: pytest.FixtureRequest) -> str:
    """A name no other test has, with room for a suffix (``f"{queue_name}.b"``, whose keys go as well)."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.name)[:32]
    return f"{readable}-{secrets.token_hex(6)}"


@pytest.fixture
def proxy() -> Iterator[NewProxy]:
    """Put a fault-injecting proxy before a server: ``proxy(any_server)``; ``_proxy.py`` lists the faults."""
    with ExitStack() as stack:

        def start(upstream: Server | str | tuple[str, int], *, tcp: bool = False) -> Proxy:
            address = upstream.socket_path if isinstance(upstream, Server) else upstream
            return stack.enter_context(Proxy(address, tcp=tcp))

        yield start
