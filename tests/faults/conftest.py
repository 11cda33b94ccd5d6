"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from boundq import Queue
from boundq._gate import Gate
from boundq._retry import Attempts
from boundq.errors import BoundqError
from tests._servers import Server
from tests.faults._shell import SHELLS, SMALL, Shell


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    """Each of the two shells."""
    shell = Shell(request.param)
    yield shell
    shell.close()


@pytest.fixture
def direct(any_server: Server, queue_name: str) -> Iterator[Queue]:
    """The test's queue, without the proxy."""
    queue = Queue(queue_name, any_server.url, limits=SMALL)
    yield queue
    queue.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts are a twentieth of what they are; for tests of hundreds of faults."""
    pause = Attempts._pause
    monkeypatch.setattr(Attempts, "_pause", lambda *args: pause(*args) / 20)


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call behaves as if its deadline passed right after its first failure; what others met is not asked."""

    def give_up(_attempts: Attempts, error: BoundqError, cause: Exception) -> Any:
        raise error from cause

    monkeypatch.setattr(Attempts, "_pause", give_up)
    monkeypatch.setattr(Gate, "open", lambda _: True)
