"""streaQ: 100 jobs at once, results not kept, no log of tasks, a worker on uvloop."""

from __future__ import annotations

from collections.abc import Sequence

from streaq import Worker

from bench.peers import _handlers

worker = Worker(_handlers.URL, queue_name="bench", concurrency=100, anyio_kwargs={"use_uvloop": True})
_noop = worker.task(_handlers.noop_async, name="noop", ttl=0, silent=True)
_stamp = worker.task(_handlers.stamp_async, name="stamp", ttl=0, silent=True)
open = worker.__aenter__


async def enqueue(text: str) -> None:
    """One job."""
    await _noop.enqueue(text)


async def stamp(sent: float) -> None:
    """One job."""
    await _stamp.enqueue(sent)


async def bulk(texts: Sequence[str]) -> None:
    """As many jobs."""
    await worker.enqueue_many([_noop.enqueue(text) for text in texts])


def work() -> None:
    """Until SIGTERM."""
    worker.run_sync()
