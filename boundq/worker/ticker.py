"""
Periodic tasks: every worker of a queue enqueues each tick, and the queue admits the first.

A tick is a unique key that is held longer than any worker may be late, so there is one job for it however many workers
run, and no leader. The server's clock is the only one that counts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from boundq.errors import BoundqError
from boundq.model import Rejection
from boundq.schedule import Schedule
from boundq.sync.queue import Queue

log = logging.getLogger("boundq.worker")

# A worker that comes later than this, in seconds, leaves a tick alone; its key is held for twice as long.
LATEST = 60.0
# How often the server's clock is read, in seconds.
CLOCK_SECONDS = 60.0


class Ticker:
    """
    Args:
        queues: Those whose tasks may have a schedule.
        stopping: Set when the worker stops.
    """

    def __init__(self, queues: Sequence[Queue], stopping: threading.Event) -> None:
        self._stopping = stopping
        self._periodic: list[tuple[Queue, str, Schedule]] = [
            (queue, task.name, task.schedule) for queue in queues for task in queue.tasks.values() if task.schedule
        ]
        self._next: dict[tuple[str, str], int] = {}
        self._ahead_ms = 0.0
        self._read_at = -CLOCK_SECONDS

    def start(self) -> None:
        """Tick from a thread, where there is anything periodic."""
        if self._periodic:
            threading.Thread(target=self._run, name="boundq-ticker", daemon=True).start()

    def tick(self, now_ms: int) -> int:
        """Enqueue what is due by now, once for each tick; the next tick of all."""
        soonest = now_ms + round(LATEST * 1000)
        for queue, task, schedule in self._periodic:
            due = self._next.setdefault((queue.name, task), schedule.next_after(now_ms))
            if due <= now_ms:
                if now_ms - due <= LATEST * 1000:
                    self._enqueue(queue, task, due)
                due = self._next[queue.name, task] = schedule.next_after(now_ms)
            soonest = min(soonest, due)
        return soonest

    def _enqueue(self, queue: Queue, task: str, due: int) -> None:
        tick = queue.tasks[task].options(unique=f"tick {task} {due}", unique_for=2 * LATEST)
        try:
            outcome = tick.try_enqueue()
        except BoundqError as error:
            log.warning("queue %s: a tick of %s is left out: %s", queue.name, task, error)
            return
        if isinstance(outcome, Rejection):
            # Not queued up for later: a backlog of ticks would be worth nothing.
            log.warning("queue %s: a tick of %s is left out: %s", queue.name, task, outcome.error())

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                self._read_clock()
                now_ms = round(time.monotonic() * 1000 + self._ahead_ms)
                pause = min(max(self.tick(now_ms) - now_ms, 1) / 1000, 1.0)
            except Exception:
                log.exception("periodic tasks: unexpected error; trying on")
                pause = 1.0

    def _read_clock(self) -> None:
        if time.monotonic() - self._read_at > CLOCK_SECONDS:
            self._ahead_ms = self._periodic[0][0]._server_ms() - time.monotonic() * 1000
            self._read_at = time.monotonic()
