"""TaskTiger: its `SyncExecutor`, which does not fork for each job."""

from __future__ import annotations

import logging

from redis import Redis
from tasktiger import TaskTiger
from tasktiger.executor import SyncExecutor

from bench.peers import _handlers

logging.basicConfig(level=logging.ERROR)
_tiger = TaskTiger(connection=Redis.from_url(_handlers.URL, decode_responses=True), setup_structlog=True)


def enqueue(text: str) -> None:
    """One job."""
    _tiger.delay(_handlers.noop, args=[text])


def stamp(sent: float) -> None:
    """One job."""
    _tiger.delay(_handlers.stamp, args=[sent])


def work() -> None:
    """Until SIGTERM."""
    _tiger.run_worker(executor_class=SyncExecutor)
