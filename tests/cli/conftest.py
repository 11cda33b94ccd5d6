"""The program as a user runs it, on a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests._servers import Server
from tests.cli._program import Program

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program(any_server: Server, tmp_path: Path) -> Program:
    """The program, in a folder of its own, at a shared server."""
    return Program(any_server.url, tmp_path)


@pytest.fixture
def run_on(tmp_path: Path) -> Callable[[Server], Run]:
    """For a server, a function that runs ``boundq`` with words; the server is told by BOUNDQ_URL."""

    def on(server: Server) -> Run:
        def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
            env = {**os.environ, "BOUNDQ_URL": server.url, "NO_COLOR": "1", **environment}
            return subprocess.run(
                [sys.executable, "-m", "boundq", *words],
                input=stdin,
                env=env,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        return run

    return on


@pytest.fixture
def run(any_server: Server, run_on: Callable[[Server], Run]) -> Run:
    """The same on the shared server."""
    return run_on(any_server)
