"""
What the worker processes of the benches run: ``boundq worker bench._tasks:plain`` or ``:coroutines``.

Both queues are the one named in ``BENCH_QUEUE``; a worker serves one of the two.
"""

from __future__ import annotations

import os
import time

from bench._place import LIMITS
from bench._stages import recorder
from boundq import AsyncQueue, Queue

NAME = os.environ.get("BENCH_QUEUE", "bench")
plain = Queue(NAME, limits=LIMITS)
coroutines = AsyncQueue(NAME, limits=LIMITS)

_stamp = recorder()


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
