"""BullMQ for Python: 100 jobs at once, a job removed when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from bullmq import Queue, Worker

from bench.peers import _handlers

_HANDLERS: dict[str, Any] = {"noop": _handlers.noop, "stamp": _handlers.stamp}
_OPTIONS = {"removeOnComplete": True}
_connection = {"connection": _handlers.URL}
_queue: Queue


async def open() -> None:
    """Connect."""
    global _queue
    _queue = Queue("bench", _connection)


async def enqueue(text: str) -> None:
    """One job."""
    await _queue.add("noop", text, _OPTIONS)


async def stamp(sent: float) -> None:
    """One job."""
    await _queue.add("stamp", sent, _OPTIONS)


async def bulk(texts: Sequence[str]) -> None:
    """As many jobs."""
    await _queue.addBulk([{"name": "noop", "data": text, "opts": _OPTIONS} for text in texts])


async def _process(job: Any, token: str) -> None:
    _HANDLERS[job.name](job.data)


async def _work() -> None:
    worker = Worker("bench", _process, {**_connection, "concurrency": 100, "autorun": False})
    await worker.run()


def work() -> None:
    """Until it is killed."""
    asyncio.run(_work())
