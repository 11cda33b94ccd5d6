"""
Bulk: ``enqueue_many`` with 100 and with 1,000 jobs a call, beside redis-py pipelines of 100 LPUSH.

One LPUSH of as many values is shown as well: nothing is faster, but values in one command have no ids, no limits and
no answers of their own.
"""

from __future__ import annotations

from typing import NamedTuple

from bench._arms import (
    AsyncCall,
    AsyncCalls,
    Call,
    Calls,
    async_queue_call,
    queue_call,
    redis_asyncio_pipeline,
    redis_lpush_many,
    redis_pipeline,
)
from bench._harness import Column, Group, Options, Result, in_turns
from bench._place import Place
from boundq import AsyncQueue, Queue

COLUMNS = (
    Column("rate", "jobs/s", compared=True),
    Column("client", "client CPU us/job", compared=True, digits=2),
    Column("server", "server CPU us/job", digits=2),
)


class Size(NamedTuple):
    """Jobs of a run, and rounds."""

    jobs: int
    rounds: int


SIZES = {"tiny": Size(1000, 2), "quick": Size(10_000, 7), "full": Size(100_000, 15)}


def measure(place: Place, options: Options) -> Result:
    """All arms."""
    total, rounds = SIZES[options.size]
    payload, text = b"x" * options.payload, "x" * options.payload
    groups = []
    for jobs in (100, 1000):
        calls = max(total // jobs, 1)

        def of_task(queue: Queue, jobs: int = jobs) -> Call:
            @queue.task
            def send(text: str) -> None: ...

            return lambda: queue.enqueue_many(send.call(text) for _ in range(jobs))

        def of_async_task(queue: AsyncQueue, jobs: int = jobs) -> AsyncCall:
            @queue.task
            async def send(text: str) -> None: ...

            return lambda: queue.enqueue_many(send.call(text) for _ in range(jobs))

        def of_bytes(queue: Queue, jobs: int = jobs) -> Call:
            return lambda: queue.enqueue_many([payload] * jobs)

        def of_async_bytes(queue: AsyncQueue, jobs: int = jobs) -> AsyncCall:
            return lambda: queue.enqueue_many([payload] * jobs)

        pipelines = jobs // 100
        sync = [
            Calls("redis-py pipeline of LPUSH", place, redis_pipeline(payload, pipelines), calls, jobs),
            Calls("redis-py LPUSH of all", place, redis_lpush_many(payload, jobs), calls, jobs),
            Calls("boundq enqueue_many, tasks", place, queue_call(of_task), calls, jobs),
            Calls("boundq enqueue_many, bytes", place, queue_call(of_bytes), calls, jobs),
        ]
        asyncio = [
            AsyncCalls("redis.asyncio pipeline", place, redis_asyncio_pipeline(payload, pipelines), calls, jobs),
            AsyncCalls("boundq enqueue_many, tasks", place, async_queue_call(of_async_task), calls, jobs),
            AsyncCalls("boundq enqueue_many, bytes", place, async_queue_call(of_async_bytes), calls, jobs),
        ]
        for kind, arms in (("sync", sync), ("asyncio", asyncio)):
            runs = in_turns(arms, options.of(rounds))
            groups.append(Group(f"{kind}, {jobs:,} jobs a call", runs, arms[0].name, COLUMNS))
    return Result(groups)
