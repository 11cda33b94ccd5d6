"""arq: 100 jobs at once, a poll every 10 ms instead of 500, results not kept or logged."""

from __future__ import annotations

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker

from bench.peers import _handlers

_settings = RedisSettings.from_dsn(_handlers.URL)
_pool: ArqRedis


async def noop(context: object, text: str) -> None:
    """A handler; arq's take a context first."""
    _handlers.noop(text)


async def stamped(context: object, sent: float) -> None:
    """A handler."""
    _handlers.stamp(sent)


async def open() -> None:
    """Connect."""
    global _pool
    _pool = await create_pool(_settings)


async def enqueue(text: str) -> None:
    """One job."""
    await _pool.enqueue_job("noop", text)


async def stamp(sent: float) -> None:
    """One job."""
    await _pool.enqueue_job("stamped", sent)


def work() -> None:
    """Until SIGTERM."""
    Worker(
        [noop, stamped], redis_settings=_settings, max_jobs=100, poll_delay=0.01, keep_result=0, log_results=False
    ).run()
