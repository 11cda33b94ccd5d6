"""
The health file of a worker, written; `boundq._health` says what is in it, and reads it.

It is written by who runs no handlers, once a second, whole or not at all: a supervisor writes one file for all of its
workers, from what they tell it. Each worker has a thread that tells how its loops are: when each of them last ended a
round, not merely that the process is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from boundq._health import FORMAT, WRITE_SECONDS
from boundq.errors import ConfigError

log = logging.getLogger("boundq.worker")

Report = dict[str, Any]
"""``state``; ``loop``: seconds since the event loop turned, or None; ``queues``: name -> [seconds since its last round,
whether the server is away]."""


class HealthFile:
    """
    Args:
        path: Where. Its folder exists.
        places: Of the workers, from 1.

    Raises:
        ConfigError: It cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], places: int = 1) -> None:
        self.path = os.fspath(path)
        now = time.monotonic()
        self._workers: dict[int, dict[str, Any]] = {
            place: {"pid": None, "heard": now, "state": "running", "loop": None, "queues": {}}
            for place in range(1, places + 1)
        }
        self._written = 0.0
        self._failing = False
        try:
            self._replace("running")
        except OSError as error:
            raise ConfigError("health_file", self.path, f"it cannot be written: {error.strerror}") from error

    def started(self, place: int, pid: int) -> None:
        """A worker process was started. What was last heard of this place stays: one that dies again and again ages."""
        worker = self._workers[place]
        worker.update(pid=pid, state="running", loop=None)
        for queue in worker["queues"].values():
            queue["away"] = None

    def ended(self, place: int, *, for_good: bool) -> None:
        """It ended; ``for_good``: and none will take its place."""
        if for_good:
            self._workers.pop(place, None)
        else:
            self._workers[place].update(pid=None, loop=None)

    def heard(self, place: int, report: Report) -> None:
        """It told how it is."""
        now = time.monotonic()
        worker = self._workers[place]
        worker["heard"], worker["state"] = now, report["state"]
        worker["loop"] = None if report["loop"] is None else now - report["loop"]
        worker["queues"] = {name: {"round": now - age, "away": away} for name, (age, away) in report["queues"].items()}

    def write(self, state: str) -> None:
        """Write what is known, if it is time to."""
        if time.monotonic() - self._written < WRITE_SECONDS * 0.9:
            return
        try:
            self._replace(state)
        except OSError as error:
            if not self._failing:
                log.error("the health file %s cannot be written: %s", self.path, error.strerror)
            self._failing = True
        else:
            self._failing = False

    def remove(self) -> None:
        """The worker has stopped."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _replace(self, state: str) -> None:
        self._written = time.monotonic()
        record = {"boundq": FORMAT, "pid": os.getpid(), "at": self._written, "state": state, "workers": self._workers}
        beside = f"{self.path}.{os.getpid()}"
        try:
            with open(beside, "w", encoding="ascii") as file:
                json.dump(record, file)
            os.replace(beside, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise


class Pulse:
    """
    Tells once a second how a worker is, from a thread.

    Args:
        state: Of the worker.
        queues: Name -> when its loop last ended a round, and whether the server is away; None where it has ended.
        loop: Its event loop, if it has one.
        tell: Whom.
    """

    def __init__(
        self,
        state: Callable[[], str],
        queues: Mapping[str, Callable[[], tuple[float, bool | None] | None]],
        loop: asyncio.AbstractEventLoop | None,
        tell: Callable[[Report], None],
    ) -> None:
        self._state = state
        self._queues = queues
        self._loop = loop
        self._tell = tell
        self._turned = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="boundq-health", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Tell nothing any more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._tell(self.report())
            except Exception:
                log.exception("the worker's health could not be told; trying on")
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # it is closed: it will age
                    self._loop.call_soon_threadsafe(self._turn)
            self._ended.wait(WRITE_SECONDS)

    def _turn(self) -> None:
        self._turned = time.monotonic()

    def report(self) -> Report:
        """How it is now."""
        now = time.monotonic()
        loops = {name: loop() for name, loop in self._queues.items()}
        return {
            "state": self._state(),
            "loop": None if self._loop is None else now - self._turned,
            "queues": {name: [now - loop[0], loop[1]] for name, loop in loops.items() if loop is not None},
        }
