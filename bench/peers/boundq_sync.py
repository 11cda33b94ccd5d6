"""This queue: `Queue`, and a worker that runs plain functions."""

from __future__ import annotations

from collections.abc import Sequence

from bench._place import LIMITS
from bench.peers import _handlers
from boundq import Queue

WORKER = ("boundq", "worker", "bench.peers.boundq_sync:queue", "--quiet")

queue = Queue("bench", _handlers.URL, limits=LIMITS)
_noop = queue.task(_handlers.noop, name="noop")
_stamp = queue.task(_handlers.stamp, name="stamp")


def enqueue(text: str) -> None:
    """One job."""
    _noop.enqueue(text)


def stamp(sent: float) -> None:
    """One job."""
    _stamp.enqueue(sent)


def bulk(texts: Sequence[str]) -> None:
    """As many jobs."""
    queue.enqueue_many(_noop.call(text) for text in texts)
