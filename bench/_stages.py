"""
When this thread last began to write to a server, and when it last had an answer; through boundq or through redis-py.

A handler or a loop that was started with ``BENCH_STAGES`` adds to ``BENCH_STAMPS`` two numbers for a job: how long ago
it was sent, and how long ago the answer came that brought it. In seconds.
"""

from __future__ import annotations

import functools
import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any


class _Last(threading.local):
    written = 0.0
    answered = 0.0


last = _Last()


def watch(stack: ExitStack) -> None:
    """Keep `last` up to date in this process, until the stack is closed."""
    from redis.connection import AbstractConnection

    from boundq.sync._wire import Wire

    _around(stack, Wire, "exchange", before=True, after=True)
    _around(stack, AbstractConnection, "send_packed_command", before=True)
    _around(stack, AbstractConnection, "read_response", after=True)


def _around(stack: ExitStack, owner: Any, name: str, *, before: bool = False, after: bool = False) -> None:
    real: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(real)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if before:
            last.written = time.monotonic()
        answer = real(*args, **kwargs)
        if after:
            last.answered = time.monotonic()
        return answer

    setattr(owner, name, watched)
    stack.callback(setattr, owner, name, real)


def recorder() -> Callable[[float], object]:
    """What notes for a job, given when it was sent: how long ago that was; and with ``BENCH_STAGES`` the pair."""
    # One write appends a stamp, so those of several processes do not mix.
    file = os.open(os.environ.get("BENCH_STAMPS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if "BENCH_STAGES" not in os.environ:
        # The monotonic clock is the same in all processes of a machine.
        return lambda sent: os.write(file, struct.pack("d", time.monotonic() - sent))
    watch(ExitStack())  # for good

    def record(sent: float) -> None:
        now = time.monotonic()
        os.write(file, struct.pack("dd", now - sent, now - last.answered))

    return record
