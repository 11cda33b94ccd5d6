"""The program as a process of its own: run to its end, or killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests._servers import wait_until


class Program:
    """
    ``boundq`` in a folder, told of its server by BOUNDQ_URL.

    Args:
        url: The server's.
        folder: Where it runs.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._environment = {**os.environ, "BOUNDQ_URL": url, "NO_COLOR": "1"}
        self.folder = folder

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "boundq", *words],
            input=stdin,
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "boundq", *words],
            env=self._environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def killed_when(self, condition: Callable[[], bool], *words: str) -> bool:
        """Kill it with SIGKILL as soon as the condition holds; False where it had come to its end before."""
        with self.start(*words) as process:
            wait_until(lambda: condition() or process.poll() is not None, "a moment to kill it", 100)
            process.kill()
            _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL) or "finished" in errors, errors
        return process.returncode == -signal.SIGKILL
