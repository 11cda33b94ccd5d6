"""The worker's side of the supervisor's socket: a keeper that has the leases kept by the supervisor."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from boundq.lease import BaseLease
from boundq.sync.queue import Queue
from boundq.worker.health import Report
from boundq.worker.keeper import OnLost, ThreadKeeper
from boundq.worker.ledger import LedgerWriter
from boundq.worker.started import Key, key_of

log = logging.getLogger("boundq.worker")


class RemoteKeeper:
    """
    Lets the supervisor know what to hold: by the ledger, and in so many words where a job has a time of its own, or the
    ledger is full. When the supervisor is gone, a thread of this process keeps the leases, and the worker is told to
    stop.

    Args:
        connection: Our end of the socket.
        ledger: Our end of it.
        lease: Seconds.
        on_orphaned: Called once when the supervisor is gone.
        on_quiet: Called when the supervisor wants the worker quiet (True), or to claim again (False).
    """

    def __init__(
        self,
        connection: socket.socket,
        ledger: LedgerWriter,
        lease: float,
        on_orphaned: Callable[[], None],
        on_quiet: Callable[[bool], None],
    ) -> None:
        self._socket = connection
        self._ledger = ledger
        self._numbers: dict[str, int] = {}  # of queues, in the ledger
        self._local = ThreadKeeper(lease)
        self._on_orphaned = on_orphaned
        self._on_quiet = on_quiet
        self._lock = threading.Lock()
        self._held: dict[Key, tuple[Queue, BaseLease, float | None]] = {}
        self._orphaned = False
        self._stopped = False
        self._heard = threading.Event()
        self._on_lost: OnLost = lambda queue, job_id, fence, timed_out: None

    def start(self, on_lost: OnLost) -> None:
        self._on_lost = on_lost
        threading.Thread(target=self._listen, name="boundq-supervisor", daemon=True).start()
        self._heard.wait()  # whether to be quiet; or the supervisor is gone

    def hold(self, queue: Queue, leases: Sequence[tuple[BaseLease, float | None]]) -> None:
        with self._lock:
            if self._orphaned:
                self._local.hold(queue, leases)
                return
            number = self._numbers.get(queue.name) or self._introduce(queue.name)
            aloud = []
            for lease, seconds in leases:
                if seconds is not None:
                    self._ledger.strike(lease)  # now that it has begun in a child process, its time runs
                elif self._ledger.enter(number, queue, lease):
                    continue
                aloud.append((lease, seconds))
            if aloud:
                now = time.monotonic()
                for lease, seconds in aloud:
                    self._held[key_of(queue.name, lease)] = (queue, lease, None if seconds is None else now + seconds)
                self._send(["hold", queue.name, [[one.id, one.delivery.fence, seconds] for one, seconds in aloud]])

    def drop(self, queue: str, leases: Sequence[BaseLease]) -> None:
        with self._lock:
            if self._orphaned:
                self._local.drop(queue, leases)
                return
            aloud = [lease for lease in leases if not self._ledger.strike(lease)]
            known = [one for one in aloud if self._held.pop(key_of(queue, one), None) is not None]
            if known:
                self._send(["drop", queue, [[one.id, one.delivery.fence] for one in known]])

    def _introduce(self, queue: str) -> int:
        number = self._numbers[queue] = len(self._numbers) + 1
        self._send(["queue", queue, number])
        return number

    def tell_health(self, report: Report) -> None:
        """For the health file."""
        with self._lock:
            if not self._orphaned:
                self._send(["pulse", "", report])

    def stop(self) -> None:
        self._stopped = True
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._orphaned:
            self._local.stop()

    def _send(self, message: list[Any]) -> None:
        with contextlib.suppress(OSError):  # the listener notices, and takes over
            self._socket.sendall(msgspec.json.encode(message) + b"\n")

    def _lost(self, queue: str, job_id: str, fence: int, timed_out: bool) -> None:
        key = (queue, job_id, fence)
        with self._lock:
            self._held.pop(key, None)
            if lease := self._ledger.find(key):
                self._ledger.strike(lease)
        self._on_lost(queue, job_id, fence, timed_out)

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                kind, *rest = msgspec.json.decode(line)
                if kind == "quiet":
                    self._on_quiet(*rest)
                else:
                    self._lost(*rest)
                self._heard.set()
        self._heard.set()
        if self._stopped:
            return
        with self._lock:
            self._orphaned = True
            now = time.monotonic()
            self._local.start(self._on_lost)
            for queue, lease in self._ledger:
                self._local.hold(queue, [(lease, None)])
            for queue, lease, ends in self._held.values():
                self._local.hold(queue, [(lease, None if ends is None else max(ends - now, 0.0))])
        self._on_orphaned()
