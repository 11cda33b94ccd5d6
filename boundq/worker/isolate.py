"""
The worker's side of ``--isolate``: child processes in which plain functions run, so that they can be killed.

A thread of the worker takes a child, gives it a job and waits for the verdict. Children are kept and used again. One
that dies takes the delivery with it that it ran, and nothing else; the next job has another child.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec

from boundq._core.delivery import Delivery
from boundq._runner import DONE, Verdict
from boundq.errors import ConfigError
from boundq.job_control import CurrentJob
from boundq.worker.frames import BEGUN, ENDED, FAILED, KILL, READY, START, STARTED, Note, notes, receive, send

log = logging.getLogger("boundq.worker")

# So many children in a row that die before they take a job, and no more are tried.
MOST_STILLBORN = 3
# A process whose socket is closed is gone within so many seconds, or is killed.
PATIENCE = 1.0

_verdict = msgspec.msgpack.Decoder(tuple[str, float, str, str])


class Crashed(Exception):
    """The child died while it ran the job."""


class NoChildren(Exception):
    """Child processes cannot be started."""


class Child:
    """
    A child process.

    Attributes:
        number: By which its nursery knows it.
        pid: 0 until the nursery has said it.
        job: What it runs.
        doomed: It has been, or is being, killed.
        ended: Set when the process is gone.
        code: Its exit code, negative for a signal; None where nobody knows.
    """

    def __init__(self, nursery: _Nursery, number: int, connection: socket.socket) -> None:
        self._nursery = nursery
        self.number = number
        self.pid = 0
        self.job: CurrentJob | None = None
        self.proven = False  # it has taken a job
        self.doomed = False
        self.ended = threading.Event()
        self.code: int | None = None
        self._socket = connection
        self._stream = connection.makefile("rb")

    def begin(self, queue: str, delivery: Delivery) -> bool:
        """Give it a job; whether it has taken it."""
        # The payload goes in the envelope; the raw bytes would be the same once more.
        message = queue, msgspec.structs.replace(delivery, raw=b"")
        with contextlib.suppress(OSError):
            send(self._socket, message)
        frame = receive(self._stream)
        return frame is not None and msgspec.msgpack.decode(frame, type=bytes) == BEGUN

    def verdict(self) -> Verdict | None:
        """How the run has ended, when it has; None where the child died of it."""
        frame = receive(self._stream)
        return None if frame is None else Verdict(*_verdict.decode(frame))

    def kill(self) -> None:
        """Have it killed, if it lives, by the nursery that it is from: another one has others of this number."""
        self.doomed = True
        self._nursery.tell(Note(KILL, self.number))

    def gone(self, code: int | None) -> None:
        """The nursery has buried it: whoever waits for it waits no more, even where others hold its socket's end."""
        self.code = code
        self.ended.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let it go: it ends by itself when it has nothing to do."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()

    def how(self) -> str:
        """In words, how it ended."""
        if not self.ended.wait(PATIENCE) or self.code is None:
            return "crashed: its process is gone"
        if self.code >= 0:
            return f"crashed: its process ended with exit code {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = "?"
        hint = ", out of memory?" if -self.code == signal.SIGKILL else ""
        return f"crashed: its process was killed by signal {-self.code} ({name}{hint})"


class Children:
    """
    Runs jobs in child processes; as many as there are threads that call `run` at once. As a context manager: the
    processes are there at the beginning and gone at the end.

    Args:
        words: Words for ``boundq worker`` by which children find the tasks: targets, and options for logging.
        stopping: Set when the worker stops: then nobody waits for a start.
        give_up: Called where the processes cannot be started; they have said why.
    """

    def __init__(self, words: Sequence[str], stopping: threading.Event, give_up: Callable[[], None]) -> None:
        if not isinstance(words, (list, tuple)):
            raise ConfigError("isolate", words, "give a list of targets, as for boundq worker: ['shop:emails']")
        if os.name != "posix":
            raise ConfigError("isolate", list(words), f"{sys.platform} has no sockets that pass descriptors on")
        self._command = [sys.executable, "-m", "boundq", "worker", *words]
        self._stopping = stopping
        self._give_up = give_up
        self._lock = threading.Lock()
        self._nursery: _Nursery | None = None
        self._idle: list[Child] = []
        self._closed = False

    def __enter__(self) -> Children:
        try:
            with self._lock:
                self._start()
        except (NoChildren, OSError) as error:
            if not self._stopping.is_set():
                log.error("%s", error)
                self._give_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            nursery, idle = self._nursery, self._idle
            self._nursery, self._idle = None, []
        for child in idle:
            child.close()
        for child in idle:
            child.ended.wait(PATIENCE)
        if nursery is not None:
            nursery.close()

    def run(self, queue: str, delivery: Delivery, job: CurrentJob, began: Callable[[], None]) -> Verdict:
        """
        Run a job, and wait for it. ``began`` is called when its handler starts. Where the job is cancelled its child is
        killed, and what comes back does not count.

        Raises:
            Crashed: The child died of it.
            NoChildren: No child took it: it has not been run.
        """
        stillborn = 0
        while stillborn < MOST_STILLBORN:
            child = self._take(job)
            job.ender = functools.partial(self._end, child, job)
            try:
                if job.cancelled:
                    return DONE
                if not child.begin(queue, delivery):
                    child.kill()
                    stillborn += not child.proven
                    continue
                child.proven = True
                began()
                verdict = child.verdict()
                if verdict is None:
                    child.kill()  # where it has only closed its socket
                    raise Crashed(child.how())
                return verdict
            finally:
                job.ender = None
                self._give(child)
        raise NoChildren("child processes die before they take a job; they have said why")

    def _take(self, job: CurrentJob) -> Child:
        with self._lock:
            try:
                # The one that ran last: its memory is warm.
                child = self._idle.pop() if self._idle else self._start().start_child()
            except OSError as error:
                raise NoChildren(f"a child process cannot be started: {error}") from error
            child.job = job
            return child

    def _give(self, child: Child) -> None:
        with self._lock:
            child.job = None
            if not (child.doomed or child.ended.is_set() or self._closed):
                self._idle.append(child)
                return
        child.close()

    def _end(self, child: Child, job: CurrentJob) -> None:
        """Kill the child, if it is still this job that it runs."""
        with self._lock:
            if child.job is job:
                child.kill()

    def _start(self) -> _Nursery:
        """The nursery; a new one where there is none any more."""
        if self._closed:
            raise NoChildren("the worker has stopped")
        if self._nursery is None or self._nursery.gone.is_set():
            if self._nursery is not None:
                log.error("the process that starts the children is gone; it is replaced")
                self._nursery.close()
            self._nursery = _Nursery(self._command, self._buried)
            self._nursery.wait_until_ready(self._stopping)
        return self._nursery

    def _buried(self, child: Child) -> None:
        """A child is gone."""
        with self._lock:
            was_idle = child in self._idle
            if was_idle:
                self._idle.remove(child)
        if was_idle:
            child.close()


class _Nursery:
    """The worker's end of nursery.py, and a thread that listens to it."""

    def __init__(self, command: Sequence[str], on_buried: Callable[[Child], None]) -> None:
        self._command = command
        self._on_buried = on_buried
        self._children: dict[int, Child] = {}
        self._numbers = 0
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self.gone = threading.Event()
        self._control, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C is the worker's to understand.
            self._process = subprocess.Popen(
                [*command, "--nursery-socket", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        threading.Thread(target=self._listen, name="boundq-children", daemon=True).start()

    def wait_until_ready(self, stopping: threading.Event) -> None:
        while not self._ready.wait(0.05):
            if self.gone.is_set():
                raise NoChildren(f"the process that starts the children ended with {self._process.wait()}")
            if stopping.is_set():
                raise NoChildren("the worker was stopped before its children could start")

    def start_child(self) -> Child:
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            self._numbers += 1
            child = self._children[self._numbers] = Child(self, self._numbers, ours)
            with contextlib.suppress(OSError):  # the listener notices
                socket.send_fds(self._control, [Note(START, child.number).packed()], [theirs.fileno()])
        if self.gone.is_set():  # the listener may have seen its last
            self._children.pop(child.number, child).gone(None)
        return child

    def tell(self, note: Note) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._control.sendall(note.packed())

    def close(self) -> None:
        """The nursery kills what is left of the children, and ends."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        unread = b""
        while True:
            try:
                data = self._control.recv(4096)
            except OSError:
                data = b""
            if not data:
                break
            heard, unread = notes(unread + data)
            for kind, number, value in heard:
                if kind == READY:
                    self._ready.set()
                elif kind == STARTED:
                    self._children[number].pid = value
                elif kind in (ENDED, FAILED):
                    self._bury(number, value if kind == ENDED else None)
        self.gone.set()
        with self._lock:
            self._control.close()
        for child in list(self._children.values()):
            # The nursery was killed. On Linux its children die with it; this is for the others.
            if child.pid:
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, signal.SIGKILL)
            self._bury(child.number, None)

    def _bury(self, number: int, code: int | None) -> None:
        if (child := self._children.pop(number, None)) is not None:
            child.gone(code)
            self._on_buried(child)
