"""Fixtures of the verbs' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._servers import Server
from tests.cli._program import Program


@pytest.fixture
def program(any_server: Server, tmp_path: Path) -> Program:
    """The program, in a folder of its own, at a shared server."""
    return Program(any_server.url, tmp_path)
