"""
Supervisor: the process that `boundq worker` starts its workers from. It runs no handlers.

It keeps their leases: a worker lets it know, in a ledger that they share (ledger.py), what it holds, so a handler that
holds the interpreter lock for minutes does not lose its job to another worker. It replaces workers that die, with
back-off, and passes signals on. When it dies itself, its workers finish what they run and stop.

On a socket they talk. Messages are JSON, one to a line: ``["queue", name, number]`` goes up before that number is
used in the ledger; ``["hold", queue, [[id, fence, seconds], ...]]`` and ``["drop", queue, [[id, fence], ...]]`` of jobs
that the ledger does not do for; and ``["pulse", "", report]`` where there is a health file.
``["lost", queue, id, fence, timed_out]`` and ``["quiet", whether]`` come down.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from boundq.sync.queue import Queue
from boundq.worker.health import HealthFile
from boundq.worker.keeper import ThreadKeeper
from boundq.worker.ledger import LedgerReader, bare_lease, new_ledger
from boundq.worker.worker import quieting

log = logging.getLogger("boundq.worker")

# A worker that died is replaced after 1, 2, 4, ... seconds, at most 30; one that lived for a minute begins anew.
FIRST_PAUSE, LONGEST_PAUSE, GOOD_LIFE = 1.0, 30.0, 60.0
# Workers that gave up so often in a row: so does the supervisor.
MOST_GIVEN_UP = 3
OK, GAVE_UP = 0, 70


class Child:
    """
    A worker process.

    Args:
        command: How to start it; its ends of the socket and of the ledger are appended: ``--socket FD --ledger FD``.
        place: Its number, from 1.
    """

    def __init__(self, command: Sequence[str], place: int) -> None:
        self.place = place
        self._command = command
        self._failures = 0
        self.given_up = 0
        self.start_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None
        self.ledger: LedgerReader
        self._unread = b""
        self._started = 0.0

    def start(self) -> socket.socket:
        """Start it; our end of the socket."""
        ours, theirs = socket.socketpair()
        memory = new_ledger()
        try:
            self.ledger = LedgerReader(memory)
            command = [*self._command, f"--socket={theirs.fileno()}", f"--ledger={memory}"]
            # A session of its own: Ctrl-C reaches the supervisor, which tells its workers once.
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno(), memory], start_new_session=True)
        finally:
            theirs.close()
            os.close(memory)
        self.socket, self._unread, self._started = ours, b"", time.monotonic()
        return ours

    def ended(self, code: int) -> None:
        """It ended: plan the next start."""
        if code == OK or time.monotonic() - self._started > GOOD_LIFE:
            self._failures = 0
        pause = 0.0 if code == OK else min(FIRST_PAUSE * 2.0**self._failures, LONGEST_PAUSE)
        self._failures += code != OK
        self.given_up = self.given_up + 1 if code == GAVE_UP else 0
        self.start_at = time.monotonic() + pause
        self.process = None

    def read(self) -> list[list[Any]]:
        """The messages that have come; none and the socket closed where it is gone."""
        assert self.socket is not None
        try:
            data = self.socket.recv(1 << 20)
        except (ConnectionError, InterruptedError):
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [msgspec.json.decode(line) for line in lines]

    def lost(self, queue: str, job_id: str, fence: int, timed_out: bool) -> None:
        """Tell it that a lease is gone, if it is there."""
        self._tell(["lost", queue, job_id, fence, timed_out])

    def quiet(self, whether: bool) -> None:
        """Tell it to claim nothing, or to claim again. No signal: before its handler is there, one would kill it."""
        self._tell(["quiet", whether])

    def _tell(self, message: list[Any]) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.sendall(msgspec.json.encode(message) + b"\n")


class Supervisor:
    """
    Keeps ``processes`` workers running until it is told to stop.

    Args:
        queues: Whose leases there will be.
        command: How to start a worker.
        processes: How many.
        lease: Seconds.
        grace: Seconds that workers have to finish after a stop.
        restart: Start a worker again that ended by itself with 0 (``--max-jobs``); False for ``--burst``.
        health: The file to write for all workers.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        command: Sequence[str],
        *,
        processes: int,
        lease: float,
        grace: float,
        restart: bool,
        health: HealthFile | None = None,
    ) -> None:
        self._queues = {queue.name: queue for queue in queues}
        self._children = [Child(command, place) for place in range(1, processes + 1)]
        self._lease = lease
        self._keepers: dict[int, ThreadKeeper] = {}
        self._grace = grace
        self._restart = restart
        self._health = health
        self._signals = 0
        self._quiet = False
        self._quiet_wanted = False
        self._stop_by: float | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()

    def run(self) -> int:
        """
        Supervise until SIGTERM, SIGINT, or until all workers have ended. SIGUSR1 makes the workers quiet, SIGUSR2 has
        them claim again.

        Returns:
            The exit code: 0, or 70 when workers gave up three times in a row.
        """
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        handlers: dict[signal.Signals, Callable[..., None]] = {
            **dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._on_signal),
            **quieting(lambda: self._want_quiet(True), lambda: self._want_quiet(False)),
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        code = OK
        try:
            while code == OK and (self._stop_by is None or self._alive()):
                self._start_due()
                if not self._alive() and self._next_start() is None:
                    break
                for key, _ in self._selector.select(self._pause()):
                    self._hear(key.data)
                code = self._reap()
                self._pass_signals_on()
                self._pass_quiet_on()
                if self._health:
                    self._health.write(self._state)
        finally:
            self._end_all()
            if self._health:
                self._health.remove()
            for number, handler in before.items():
                signal.signal(number, handler)
        return code

    def _start_due(self) -> None:
        if self._stop_by is not None:
            return
        for child in self._children:
            if child.process is None and 0 <= child.start_at <= time.monotonic():
                ours = child.start()
                self._selector.register(ours, selectors.EVENT_READ, child)
                keeper = ThreadKeeper(self._lease, child.ledger, self._queues.values())
                self._keepers[child.place] = keeper
                keeper.start(child.lost)
                assert child.process is not None
                log.info("worker %d is process %d", child.place, child.process.pid)
                child.quiet(self._quiet)  # it claims nothing before it has heard this
                if self._health:
                    self._health.started(child.place, child.process.pid)

    def _hear(self, child: Child | None) -> None:
        if child is None:
            with contextlib.suppress(BlockingIOError):
                self._wake_out.recv(1024)
            return
        messages = child.read()
        if not messages and self._is_closed(child):
            self._forget(child)
        keeper = self._keepers[child.place]
        for kind, queue, items in messages:
            if kind == "queue":
                child.ledger.names[items] = queue
            elif kind == "drop":
                keeper.drop(queue, [bare_lease(job, fence) for job, fence in items])
            elif kind == "pulse":
                if self._health:
                    self._health.heard(child.place, items)
            else:
                keeper.hold(self._queues[queue], [(bare_lease(job, fence), seconds) for job, fence, seconds in items])

    def _is_closed(self, child: Child) -> bool:
        try:
            return child.socket is None or child.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _forget(self, child: Child) -> None:
        """Its socket is closed: it is ending, or dead. Its leases end by themselves."""
        if child.socket is not None:
            self._selector.unregister(child.socket)
            child.socket.close()
            child.socket = None
            self._keepers[child.place].stop(wait=False)  # it may be waiting for the server

    def _reap(self) -> int:
        for child in self._children:
            if child.process is None or (code := child.process.poll()) is None:
                continue
            self._forget(child)
            place, pid = child.place, child.process.pid
            child.ended(code)
            if self._health:
                self._health.ended(
                    child.place, for_good=self._stop_by is not None or (code == OK and not self._restart)
                )
            if self._stop_by is not None:
                continue
            if code == OK and not self._restart:
                child.start_at = -1.0  # done for good
                continue
            how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            pause = max(child.start_at - time.monotonic(), 0)
            say = log.info if code == OK else log.error
            say("worker %d (process %d) %s; it is replaced in %.1f s", place, pid, how, pause)
            if child.given_up >= MOST_GIVEN_UP:
                log.error("workers gave up %d times in a row: so do we", child.given_up)
                return GAVE_UP
        return OK

    def _pass_signals_on(self) -> None:
        while self._signals:
            self._signals -= 1
            if self._stop_by is None:
                log.info("stopping: running jobs have %g s", self._grace)
                self._stop_by = time.monotonic() + self._grace
            else:
                self._stop_by = min(self._stop_by, time.monotonic())
            for child in self._alive():
                assert child.process is not None
                child.process.send_signal(signal.SIGTERM)
        if self._stop_by is not None and time.monotonic() > self._stop_by + 0.8:
            for child in self._alive():
                assert child.process is not None
                log.error("worker %d does not stop; it is killed", child.place)
                child.process.kill()

    def _pass_quiet_on(self) -> None:
        if self._quiet == self._quiet_wanted:
            return
        self._quiet = self._quiet_wanted
        log.info("quiet: nothing more is claimed" if self._quiet else "no longer quiet: jobs are claimed again")
        for child in self._alive():
            child.quiet(self._quiet)

    @property
    def _state(self) -> str:
        return "stopping" if self._stop_by is not None else "quiet" if self._quiet else "running"

    def _alive(self) -> list[Child]:
        return [child for child in self._children if child.process is not None]

    def _next_start(self) -> float | None:
        times = [child.start_at for child in self._children if child.process is None and child.start_at >= 0]
        return min(times, default=None)

    def _pause(self) -> float:
        if self._stop_by is not None:
            return 0.05
        due = self._next_start()
        return 0.5 if due is None else min(max(due - time.monotonic(), 0.0), 0.5)

    def _end_all(self) -> None:
        for child in self._alive():
            assert child.process is not None
            child.process.kill()
            child.process.wait()
        for child in self._children:
            self._forget(child)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _on_signal(self, *_: Any) -> None:
        self._signals += 1
        self._wake()

    def _want_quiet(self, whether: bool) -> None:
        self._quiet_wanted = whether
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_in.send(b".")
