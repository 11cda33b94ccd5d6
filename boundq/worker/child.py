"""
Child: the process that runs the handlers of plain functions for ``boundq worker --isolate``, one at a time.

The handler runs in the main thread, and nobody else runs here: whoever wants to end it kills the process.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from boundq._core.delivery import Delivery
from boundq._runner import Run, Verdict, perform, prepare_run
from boundq.job_control import CURRENT, CurrentJob
from boundq.sync.lease import Lease
from boundq.sync.queue import Queue
from boundq.worker.frames import BEGUN, receive, send

# An error's text is cut to so many characters on its way; the server keeps less of it.
MOST_TEXT = 20_000
PR_SET_PDEATHSIG = 1


def serve(connection: socket.socket, queues: Sequence[Queue]) -> None:
    """Run what comes until the worker closes the socket, or is gone."""
    by_name = {queue.name: queue for queue in queues}
    decoder = msgspec.msgpack.Decoder(tuple[str, Delivery])
    with connection, connection.makefile("rb") as stream, contextlib.suppress(BrokenPipeError, ConnectionError):
        while (frame := receive(stream)) is not None:
            name, delivery = decoder.decode(frame)
            send(connection, BEGUN)
            queue = by_name[name]
            # A context for each job: what one handler sets the next one does not see.
            verdict = contextvars.copy_context().run(_run, queue, Lease(queue, delivery))
            _flush()  # what it printed is out, whatever happens to the next one
            send(connection, (verdict.kind, verdict.delay, _text(verdict.reason), _text(verdict.error)))


def serve_alone(connection: socket.socket, queues: Sequence[Queue]) -> NoReturn:
    """`serve`, in a process that was started for it and not forked."""
    ignore_signals()
    die_with(os.getppid())
    serve(connection, queues)
    leave(0)


def _run(queue: Queue, lease: Lease) -> Verdict:
    run = prepare_run(queue.tasks, lease)
    if not isinstance(run, Run):
        return run
    job = CurrentJob(queue.name, lease, lambda one, ends: queue.extend([one], ends))
    CURRENT.set(job)
    return perform(run, lease.attempt, queue._around_run(job))


def _text(value: object) -> str:
    """Text that can be sent, whatever a handler has made of it."""
    return str(value)[:MOST_TEXT].encode("utf-8", "backslashreplace").decode()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def ignore_signals() -> None:
    """
    The worker says when we end, not a SIGTERM for the whole control group; nor a SIGUSR1 that makes workers quiet.

    By a function and not by SIG_IGN: that one would be inherited by the programs that handlers start.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)


def die_with(parent: int) -> None:
    """Be killed when the parent process dies. Only Linux can do it; elsewhere we notice when the job is over."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            leave(1)


def leave(code: int) -> NoReturn:
    """End at once: no exit handlers of modules that were imported in another process."""
    _flush()
    os._exit(code)
