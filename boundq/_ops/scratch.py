"""A queue to measure on, that is gone afterwards, however the measurement ends (but for SIGKILL)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from boundq import Limits, Queue, Server
from boundq._keys import PARTS

# Windows has no SIGHUP.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def scratch(where: str | None, purpose: str, limits: Limits) -> Iterator[Queue]:
    """A queue of its own; SIGTERM and SIGHUP end the program as an exception does, so that it is deleted then too."""
    queue = Queue(f"boundq-{purpose}-{os.urandom(6).hex()}", where, limits=limits)
    with _signals_raise():
        try:
            yield queue
        finally:
            # All keys at once, and nothing before it that could fail: jobs are in whatever state they were left.
            Server(where).command("UNLINK", *queue._core.keys.of(*PARTS))


@contextmanager
def _signals_raise() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        del frame
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # a second one must not end the clearing away
        sys.exit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        # One that is ignored (nohup) stays so.
        before = {one: signal.getsignal(one) for one in _ENDING if signal.getsignal(one) is not signal.SIG_IGN}
    try:
        for one in before:
            signal.signal(one, end)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
