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
from boundq.worker.started import Key, key_of

log = logging.getLogger("boundq.worker")


class RemoteKeeper:
    """
    Tells the supervisor what to hold. When the supervisor is gone, a thread of this process keeps the leases, and the
    worker is told to stop.

    Args:
        connection: Our end of the socket.
        lease: Seconds.
        on_orphaned: Called once when the supervisor is gone.
        on_quiet: Called when the supervisor wants the worker quiet (True), or to claim again (False).
    """

    def __init__(
        self,
        connection: socket.socket,
        lease: float,
        on_orphaned: Callable[[], None],
        on_quiet: Callable[[bool], None],
    ) -> None:
        self._socket = connection
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
            now = time.monotonic()
            for lease, seconds in leases:
                self._held[key_of(queue.name, lease)] = (queue, lease, None if seconds is None else now + seconds)
            if self._orphaned:
                self._local.hold(queue, leases)
            else:
                self._send(["hold", queue.name, [[one.id, one.delivery.fence, seconds] for one, seconds in leases]])

    def drop(self, queue: str, leases: Sequence[BaseLease]) -> None:
        with self._lock:
            for lease in leases:
                self._held.pop(key_of(queue, lease), None)
            if self._orphaned:
                self._local.drop(queue, leases)
            else:
                self._send(["drop", queue, [[one.id, one.delivery.fence] for one in leases]])

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

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                kind, *rest = msgspec.json.decode(line)
                if kind == "quiet":
                    self._on_quiet(*rest)
                else:
                    self._on_lost(*rest)
                self._heard.set()
        self._heard.set()
        if self._stopped:
            return
        with self._lock:
            self._orphaned = True
            now = time.monotonic()
            self._local.start(self._on_lost)
            for queue, lease, ends in self._held.values():
                self._local.hold(queue, [(lease, None if ends is None else max(ends - now, 0.0))])
        self._on_orphaned()
