"""SAQ: 100 jobs at once, results not kept. Its `map` and `batch` enqueue one job after the other."""

from __future__ import annotations

from saq import Queue

from bench.peers import _handlers

WORKER = ("saq", "bench.peers.saq.settings", "--quiet")

_queue = Queue.from_url(_handlers.URL, name="bench")
_KEEP = {"ttl": -1}  # its word for: drop the job with its result when it is done


async def noop(context: object, *, text: str) -> None:
    """A handler; SAQ's take a context, and their arguments by name."""
    _handlers.noop(text)


async def stamped(context: object, *, sent: float) -> None:
    """A handler."""
    _handlers.stamp(sent)


settings = {"queue": _queue, "functions": [noop, stamped], "concurrency": 100}


async def enqueue(text: str) -> None:
    """One job."""
    await _queue.enqueue("noop", text=text, **_KEEP)


async def stamp(sent: float) -> None:
    """One job."""
    await _queue.enqueue("stamped", sent=sent, **_KEEP)
