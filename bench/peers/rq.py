"""rq: `SimpleWorker`, which does not fork for each job and is its fastest; results are not kept."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis
from rq import Queue, SimpleWorker

from bench.peers import _handlers

_queue = Queue("bench", connection=Redis.from_url(_handlers.URL))


def enqueue(text: str) -> None:
    """One job."""
    _queue.enqueue(_handlers.noop, text, result_ttl=0)


def stamp(sent: float) -> None:
    """One job."""
    _queue.enqueue(_handlers.stamp, sent, result_ttl=0)


def bulk(texts: Sequence[str]) -> None:
    """As many jobs."""
    _queue.enqueue_many([Queue.prepare_data(_handlers.noop, (text,), result_ttl=0) for text in texts])


def work() -> None:
    """Until SIGTERM."""
    SimpleWorker([_queue], connection=_queue.connection).work(logging_level="WARNING")
