"""
Nursery: the process that starts, kills and buries the child processes of ``boundq worker --isolate``.

It has imported the tasks and does nothing else, so a child is a fork of it: there within milliseconds, sharing its
memory. Only a process with one thread and no connections can be forked safely; where importing the tasks started
threads or opened connections, or the system is not Linux, each child is a new process that imports them itself.

It runs no handlers, so it is always there to kill one: when the worker says so, and all of them when the worker is
gone. A child leads a process group, and what it has started is killed with it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import stat
import sys
from collections.abc import Sequence
from typing import NoReturn

from boundq.sync.queue import Queue
from boundq.worker.child import die_with, ignore_signals, leave, serve
from boundq.worker.frames import ENDED, FAILED, KILL, READY, START, STARTED, Note, notes

log = logging.getLogger("boundq.worker")


class Nursery:
    """
    Args:
        control: Our end of the worker's socket.
        queues: Whose tasks the children run.
        command: How to start a child that cannot be forked; its socket is appended as ``--child-socket FD``.
    """

    def __init__(self, control: socket.socket, queues: Sequence[Queue], command: Sequence[str]) -> None:
        self._control = control
        self._queues = queues
        self._command = list(command)
        self._children: dict[int, int] = {}  # the worker's number: process id
        self._unread = b""
        self._sockets: list[int] = []  # that have come, in the order of the notes they came with
        self._forks = can_fork({control.fileno()})
        self._wake_in, self._wake_out = socket.socketpair()

    def run(self) -> NoReturn:
        """Do as the worker says until it is gone."""
        ignore_signals()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        if self._forks:
            gc.collect()
            gc.freeze()  # a collection in a child would copy the pages that it shares with us
        elif sys.platform == "linux":
            log.info("importing the tasks started threads or opened connections: each child process imports them anew")
        self._tell(Note(READY))
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake_out, selectors.EVENT_READ)
            while True:
                selector.select()
                with contextlib.suppress(BlockingIOError):
                    self._wake_out.recv(1024)
                self._reap()
                if not self._hear():
                    break
        for pid in self._children.values():
            _kill(pid)
        leave(0)  # whatever threads the tasks' modules have started

    def _hear(self) -> bool:
        """Do what has been said; False when the worker is gone."""
        try:
            data, sockets, _, _ = socket.recv_fds(self._control, 4096, 32, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for one in sockets:
            os.set_inheritable(one, False)
        self._sockets += sockets
        heard, self._unread = notes(self._unread + data)
        for kind, number, _ in heard:
            if kind == START:
                self._start(number, self._sockets.pop(0))
            elif kind == KILL and number in self._children:
                _kill(self._children[number])
        return bool(data)

    def _start(self, number: int, connection: int) -> None:
        try:
            pid = self._fork(connection) if self._forks else self._spawn(connection)
        except OSError as error:
            log.error("a child process cannot be started: %s", error)
            self._tell(Note(FAILED, number, error.errno or 0))
            return
        finally:
            os.close(connection)
        self._children[number] = pid
        self._tell(Note(STARTED, number, pid))

    def _fork(self, connection: int) -> int:
        parent = os.getpid()
        if pid := os.fork():
            with contextlib.suppress(OSError):  # whichever of us is first; it may be dead already
                os.setpgid(pid, pid)
            return pid
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            for end in (self._control, self._wake_in, self._wake_out):
                end.close()
            die_with(parent)
            serve(socket.socket(fileno=connection), self._queues)
        except BaseException:
            log.exception("a child process failed outside of a handler")
            leave(1)
        leave(0)

    def _spawn(self, connection: int) -> int:
        os.set_inheritable(connection, True)
        command = [*self._command, "--child-socket", str(connection)]
        return os.posix_spawn(sys.executable, command, os.environ, setpgroup=0, setsigdef=[signal.SIGCHLD])

    def _reap(self) -> None:
        """Bury those that have ended. Not with waitpid(-1): the tasks' modules may have processes of their own."""
        for number, pid in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._children[number]
                _kill(pid)  # what it has left behind; the group's number is not given away while somebody is in it
                self._tell(Note(ENDED, number, os.waitstatus_to_exitcode(status)))

    def _tell(self, note: Note) -> None:
        with contextlib.suppress(OSError):  # the worker is gone: so are we soon
            self._control.sendall(note.packed())


def can_fork(ours: set[int]) -> bool:
    """Whether this process has one thread, and no sockets but these: its forks share nothing that they must not."""
    if sys.platform != "linux":
        return False
    if len(os.listdir("/proc/self/task")) > 1:
        return False
    others = {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2} - ours
    return not any(_is_socket(one) for one in others)


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:  # it was the one that listed them
        return False


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
