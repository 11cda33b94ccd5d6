"""
What the worker processes of the benches run: ``boundq worker bench._tasks:plain`` or ``:coroutines``.

Both queues are the one named in ``BENCH_QUEUE``; a worker serves one of the two.
"""

from __future__ import annotations

import os
import struct
import time

from bench._place import LIMITS
from boundq import AsyncQueue, Queue

NAME = os.environ.get("BENCH_QUEUE", "bench")
plain = Queue(NAME, limits=LIMITS)
coroutines = AsyncQueue(NAME, limits=LIMITS)

# One write appends a stamp, so those of several processes do not mix.
_STAMPS = os.open(os.environ.get("BENCH_STAMPS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _stamp(sent: float) -> None:
    # The monotonic clock is the same in all processes of a machine.
    os.write(_STAMPS, struct.pack("d", time.monotonic() - sent))


@plain.task(name="noop")
def noop(text: str) -> None:
    """Nothing."""


@plain.task(name="stamp")
def stamp(sent: float) -> None:
    """Note how long ago it was sent."""
    _stamp(sent)


@plain.task(name="work")
def work(seconds: float) -> None:
    """Take some time, and no CPU."""
    time.sleep(seconds)


@coroutines.task(name="noop")
async def noop_async(text: str) -> None:
    """Nothing."""


@coroutines.task(name="stamp")
async def stamp_async(sent: float) -> None:
    """Note how long ago it was sent."""
    _stamp(sent)
