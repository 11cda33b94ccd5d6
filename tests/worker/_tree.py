"""Worker process trees: ``boundq worker`` with all that it starts, in a folder of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from boundq import Queue
from tests._servers import wait_until

ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("BOUNDQ_LONG"))
"""Whether tests are as large as the promises they check, and take minutes."""

START_S = 20.0
"""How long a process may take to be at work, on a machine that has much else to do."""


class Run(NamedTuple):
    """A line that a handler wrote."""

    what: str
    key: int
    id: str
    attempt: int
    pid: int
    at: float


class Folder:
    """Where workers work: the tasks module, and what its handlers wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copy(Path(__file__).with_name("_tasks.py"), path / "tasks.py")

    def runs(self, what: str = "start") -> list[Run]:
        """The lines of one kind so far; not one that is being written."""
        path = self.path / "runs"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [run for run in (Run(*json.loads(line)) for line in lines) if run.what == what]

    def keys(self, what: str = "done") -> Counter[int]:
        """How often each key was there."""
        return Counter(run.key for run in self.runs(what))

    def open(self, name: str = "go") -> None:
        """Let the handlers that wait for this go on."""
        (self.path / name).touch()


class Tree:
    """
    A supervisor and its workers.

    Args:
        folder: Where.
        url: The server.
        queue: The name of the queue in ``tasks.py``.
        words: For ``boundq worker``.
        environment: On top of ours.
    """

    def __init__(self, folder: Folder, url: str, queue: str, *words: str, **environment: str) -> None:
        self._mark = f"BQ_TREE={secrets.token_hex(8)}"
        name, _, value = self._mark.partition("=")
        self._log = folder.path / f"log-{value}"
        env = {**os.environ, "BOUNDQ_URL": url, "BQ_QUEUE": queue, "PYTHONPATH": str(ROOT), name: value, **environment}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "boundq", "worker", *words],
                env=env,
                cwd=folder.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What all of them have said."""
        return self._log.read_text(errors="replace")

    def said(self, text: str) -> int:
        """How many lines of the log hold this."""
        return sum(text in line for line in self.log.splitlines())

    @property
    def changes(self) -> tuple[int, int]:
        """How often the log says that the server went, and that it came back."""
        return self.said("trying on"), self.said("server is back")

    @property
    def pids(self) -> list[int]:
        """All of them that live, whoever their parent is by now."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (self._mark.encode() + b"\0") in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return sorted(found)

    @property
    def workers(self) -> list[int]:
        """Those that run handlers."""
        return [pid for pid in self.pids if pid != self.process.pid]

    def signal(self, number: signal.Signals, *pids: int) -> None:
        """Send a signal to these, or to all."""
        for pid in pids or self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """As a power cut would: all at once. Returns when they are gone."""
        end = time.monotonic() + 10
        # The supervisor first, frozen: it must not replace a worker that we have not seen.
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGSTOP)
        while left := self.pids:
            assert time.monotonic() < end, f"cannot kill {left}"
            self.signal(signal.SIGKILL, *left)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
        self.process.wait(10)  # dead, but perhaps not waited for: Python warns of that later, in another test

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM to the supervisor; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def gone(self) -> bool:
        """Whether all have ended."""
        return self.process.poll() is not None and not self.pids

    def until(self, condition: Callable[[], object], what: str, timeout: float = START_S) -> None:
        """`wait_until` that shows the log where it was in vain."""
        try:
            wait_until(condition, what, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log[-4000:]}") from None


def freeze(pids: list[int]) -> Callable[[], None]:
    """Stop these with SIGSTOP; returns when they are, with what lets them go on."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(_state(pid) == "T" for pid in pids), "they are frozen")
    return lambda: [os.kill(pid, signal.SIGCONT) for pid in pids] and None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def balanced(queue: Queue) -> bool:
    """Whether counters and stored jobs agree."""
    return queue.stats().imbalance == 0 and queue.recount().ok
