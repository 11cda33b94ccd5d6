"""This queue: `AsyncQueue`, one task that enqueues, and a worker that runs coroutines."""

from __future__ import annotations

from collections.abc import Sequence

from bench._place import LIMITS
from bench.peers import _handlers
from boundq import AsyncQueue

WORKER = ("boundq", "worker", "bench.peers.boundq_async:queue", "--quiet")

queue = AsyncQueue("bench", _handlers.URL, limits=LIMITS)
_noop = queue.task(_handlers.noop_async, name="noop")
_stamp = queue.task(_handlers.stamp_async, name="stamp")


async def enqueue(text: str) -> None:
    """One job."""
    await _noop.aenqueue(text)


async def stamp(sent: float) -> None:
    """One job."""
    await _stamp.aenqueue(sent)


async def bulk(texts: Sequence[str]) -> None:
    """As many jobs."""
    await queue.enqueue_many(_noop.call(text) for text in texts)
