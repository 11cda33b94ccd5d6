"""
Who extends the leases of what runs.

`ThreadKeeper` does it in the worker's own process: enough, unless a handler holds the interpreter lock for longer than
a lease. `boundq worker` uses a process that runs no handlers (supervisor.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from boundq.errors import BoundqError
from boundq.lease import BaseLease
from boundq.sync._link import Hub
from boundq.sync.queue import Queue
from boundq.worker.ledger import LedgerReader, bare_lease
from boundq.worker.started import Key, key_of

log = logging.getLogger("boundq.worker")

OnLost = Callable[[str, str, int, bool], None]


class Keeper(Protocol):
    """Keeps leases alive."""

    def start(self, on_lost: OnLost) -> None:
        """
        Begin. ``on_lost(queue, job_id, fence, timed_out)`` is called, from any thread, for each lease that turns out
        to be gone, or whose time is over.
        """

    def hold(self, queue: Queue, leases: Sequence[tuple[BaseLease, float | None]]) -> None:
        """Extend these from now on, each until so many seconds from now (its task's timeout), None: without end."""

    def drop(self, queue: str, leases: Sequence[BaseLease]) -> None:
        """These are settled."""

    def stop(self) -> None:
        """Extend nothing any more."""


class ThreadKeeper:
    """
    Extends leases from threads, one for each server: while one is away, the leases on the others are kept.

    Args:
        lease: Seconds.
        ledger: What is written there is held as well.
        queues: Those that are known by now, and all that the ledger may speak of: the threads for their servers begin
            with `start`, and not with the first lease.
    """

    def __init__(self, lease: float, ledger: LedgerReader | None = None, queues: Iterable[Queue] = ()) -> None:
        self.lease = lease
        self._ledger = ledger
        self._servers: dict[Hub, ServerKeeper] = {}
        self._of_queue: dict[str, ServerKeeper] = {}
        self._lock = threading.Lock()
        self._on_lost: OnLost | None = None
        self._stopped = False
        for queue in queues:
            self._keeper_of(queue)

    def start(self, on_lost: OnLost) -> None:
        with self._lock:
            self._on_lost = on_lost
            for one in self._servers.values():
                one.start(on_lost)

    def hold(self, queue: Queue, leases: Sequence[tuple[BaseLease, float | None]]) -> None:
        one = self._of_queue.get(queue.name) or self._keeper_of(queue)
        one.hold(queue, leases)

    def drop(self, queue: str, leases: Sequence[BaseLease]) -> None:
        if one := self._of_queue.get(queue):
            one.drop(queue, leases)

    def stop(self, *, wait: bool = True) -> None:
        with self._lock:
            self._stopped = True
            servers = list(self._servers.values())
        for one in servers:
            one.stop(wait=False)
        for one in servers:
            one.stop(wait=wait)

    def _keeper_of(self, queue: Queue) -> ServerKeeper:
        with self._lock:
            one = self._servers.get(queue._hub)
            if one is None:
                one = self._servers[queue._hub] = ServerKeeper(self.lease, self._ledger)
                if self._on_lost is not None and not self._stopped:
                    one.start(self._on_lost)
            one.queues[queue.name] = queue
            self._of_queue[queue.name] = one
            return one


class ServerKeeper:
    """
    Extends leases on one server from a thread, three times in the length of one.

    Args:
        lease: Seconds.
        ledger: See `ThreadKeeper`.

    Attributes:
        queues: On this server, by name.
    """

    def __init__(self, lease: float, ledger: LedgerReader | None = None) -> None:
        self.lease = lease
        self.queues: dict[str, Queue] = {}
        self._ledger = ledger
        self._held: dict[Key, tuple[Queue, BaseLease, float | None]] = {}
        self._lock = threading.Lock()
        self._told: set[Key] = set()  # lines of the ledger that are lost, until the worker strikes them out
        self._failing: set[str] = set()  # queues whose leases could not be extended the last time
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._on_lost: OnLost = lambda queue, job_id, fence, timed_out: None

    def start(self, on_lost: OnLost) -> None:
        self._on_lost = on_lost
        self._thread = threading.Thread(target=self._run, name="boundq-leases", daemon=True)
        self._thread.start()

    def hold(self, queue: Queue, leases: Sequence[tuple[BaseLease, float | None]]) -> None:
        now = time.monotonic()
        with self._lock:
            for lease, seconds in leases:
                self._held[key_of(queue.name, lease)] = (queue, lease, None if seconds is None else now + seconds)

    def drop(self, queue: str, leases: Sequence[BaseLease]) -> None:
        with self._lock:
            for lease in leases:
                self._held.pop(key_of(queue, lease), None)

    def stop(self, *, wait: bool = True) -> None:
        self._stopped.set()
        if self._thread is not None and wait:
            self._thread.join()

    def _run(self) -> None:
        extend_at = time.monotonic() + self.lease / 3
        while not self._stopped.wait(min(self.end_overdue(), max(extend_at - time.monotonic(), 0.0), 0.5)):
            if time.monotonic() >= extend_at:
                try:
                    self.extend_all()
                except Exception:  # without a keeper every job would run twice
                    log.exception("leases could not be extended")
                extend_at = time.monotonic() + self.lease / 3

    def extend_all(self) -> None:
        """One round."""
        by_queue: dict[Queue, list[BaseLease]] = {}
        with self._lock:
            for queue, lease, _ in self._held.values():
                by_queue.setdefault(queue, []).append(lease)
        written = self._written()
        self._told &= written
        for name, job_id, fence in written - self._told:
            by_queue.setdefault(self.queues[name], []).append(bare_lease(job_id, fence))
        for queue, leases in by_queue.items():
            try:
                lost = queue.extend(leases, self.lease)
            except BoundqError as error:
                if queue.name not in self._failing:  # once for each outage
                    self._failing.add(queue.name)
                    log.warning(
                        "leases of %d jobs could not be extended: %s", len(leases), error, extra={"queue": queue.name}
                    )
                continue
            if queue.name in self._failing:
                self._failing.discard(queue.name)
                log.info("queue %s: leases are extended again", queue.name, extra={"queue": queue.name})
            if self._stopped.is_set():
                return
            still = self._written() if lost else set()
            self._told |= still.intersection(key_of(queue.name, lease) for lease in lost)
            for lease in lost:
                key = key_of(queue.name, lease)
                with self._lock:
                    known = self._held.pop(key, None)
                if known or key in still:  # else it has been settled meanwhile
                    self._on_lost(*key, False)

    def _written(self) -> set[Key]:
        """What the ledger says of this server's queues."""
        return set() if self._ledger is None else {key for key in self._ledger.read() if key[0] in self.queues}

    def end_overdue(self) -> float:
        """Let go of what is past its time; seconds until the next one is, or until the next round."""
        now = time.monotonic()
        with self._lock:
            overdue = [key for key, (_, _, ends) in self._held.items() if ends is not None and ends <= now]
            for key in overdue:
                del self._held[key]
            left = [ends - now for _, _, ends in self._held.values() if ends is not None]
        for key in overdue:
            self._on_lost(*key, True)
        return max(min(left, default=self.lease), 0.01)
