"""
Enqueue: one job at a time, beside what redis-py and a bare socket take for a push.

A job is a call of a typed task with one argument of 200 bytes (``task.enqueue``), or those bytes as they are
(``enqueue_bytes``). For asyncio: one task that makes all calls, and 50 tasks that share the client.
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
    redis_asyncio_lpush,
    redis_evalsha,
    redis_lpush,
    socket_lpush,
)
from bench._harness import Arm, Column, Group, Options, Result, in_turns
from bench._place import Place
from boundq import AsyncQueue, Queue

MANY = 50
COLUMNS = (
    Column("rate", "jobs/s", compared=True),
    Column("wall", "wall us/job", digits=1),
    Column("client", "client CPU us", compared=True, digits=1),
    Column("kernel", "of it in the kernel", digits=1),
    Column("server", "server CPU us", digits=1),
)


class Size(NamedTuple):
    """Calls of a run, and rounds."""

    calls: int
    rounds: int


SIZES = {"tiny": Size(50, 2), "quick": Size(1000, 7), "full": Size(10_000, 15)}


def measure(place: Place, options: Options) -> Result:
    """All arms."""
    calls, rounds = SIZES[options.size]
    payload, text = b"x" * options.payload, "x" * options.payload

    def of_task(queue: Queue) -> Call:
        @queue.task
        def send(text: str) -> None: ...

        return lambda: send.enqueue(text)

    def of_async_task(queue: AsyncQueue) -> AsyncCall:
        @queue.task
        async def send(text: str) -> None: ...

        return lambda: send.aenqueue(text)

    of_bytes = queue_call(lambda queue: lambda: queue.enqueue_bytes(payload))
    of_async_bytes = async_queue_call(lambda queue: lambda: queue.enqueue_bytes(payload))
    lpush = redis_asyncio_lpush(payload)
    arms: dict[str, list[Arm]] = {
        "sync, one call at a time": [
            Calls("redis-py LPUSH", place, redis_lpush(payload), calls),
            Calls("redis-py EVALSHA of a push", place, redis_evalsha(payload), calls),
            Calls("bare socket LPUSH", place, socket_lpush(payload), calls),
            Calls("boundq task.enqueue", place, queue_call(of_task), calls),
            Calls("boundq enqueue_bytes", place, of_bytes, calls),
        ]
    }
    for tasks in (1, MANY):
        arms[f"asyncio, {tasks} task{'s' if tasks > 1 else ''}"] = [
            AsyncCalls("redis.asyncio LPUSH", place, lpush, calls, tasks=tasks),
            AsyncCalls("boundq task.aenqueue", place, async_queue_call(of_async_task), calls, tasks=tasks),
            AsyncCalls("boundq enqueue_bytes", place, of_async_bytes, calls, tasks=tasks),
        ]
    groups = [Group(title, in_turns(some, options.of(rounds)), some[0].name, COLUMNS) for title, some in arms.items()]
    return Result(groups)
