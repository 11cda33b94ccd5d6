"""Processes that a bench starts beside itself: workers, bare loops, producers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import psutil

from tests._servers import watch_over

ROOT = Path(__file__).resolve().parent.parent
STOP_S = 20.0


class Process:
    """
    A Python module that runs until it is stopped. Entering starts it; nothing of it outlives this process.

    Args:
        words: The module and its arguments, as after ``python -m``.
        log: A file for what it says.
        python: Another interpreter, with other packages.
        talks: Its stdin and stdout are pipes to us, not the log.
        environment: On top of ours.
    """

    def __init__(
        self, *words: str, log: Path, python: str = sys.executable, talks: bool = False, **environment: str
    ) -> None:
        self._words = [python, "-m", *words]
        self._log = log
        self._talks = talks
        self._environment = environment

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._words,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._environment},
                stdin=subprocess.PIPE if self._talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._talks else log,
                stderr=log,
                start_new_session=True,
            )
        self._release = watch_over(self.process.pid)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> str:
        """End it with SIGTERM, and what it has started; what it has said."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        self._release()
        return self.said

    @property
    def said(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """Raise where it has ended by itself."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{' '.join(self._words)} ended with {self.process.returncode}:\n{self.said[-3000:]}")

    def cpu(self) -> float:
        """Seconds of CPU that it and what it has started have had."""
        total = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.process.pid)
            for member in (leader, *leader.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = member.cpu_times()
                    total += times.user + times.system
        return total
