"""pytest fixtures: ``pytest_plugins = ["boundq.testing.plugin"]`` in a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from boundq.testing import MemoryServer


@pytest.fixture
def boundq_server() -> Iterator[MemoryServer]:
    """A new server in memory, with a clock that can be put forward (``boundq_server.advance(60)``)."""
    with MemoryServer() as server:
        yield server
