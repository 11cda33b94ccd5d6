"""Arms that make so many calls: one after the other, or by several asyncio tasks at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack

from bench._harness import Arm, Figures
from bench._place import BARE_PUSH, Place
from boundq import AsyncQueue, Queue
from boundq._call import pack

KEY = "bench:list"

Call = Callable[[], object]
Connect = Callable[[Place, ExitStack], Call]
"""Makes the call, with its connection; closing goes onto the stack."""
AsyncCall = Callable[[], Awaitable[object]]
AsyncConnect = Callable[[Place, AsyncExitStack], AsyncCall]


class Calls(Arm):
    """
    Calls, one after the other.

    Args:
        name: Of the arm.
        place: Where.
        connect: Makes the call.
        calls: How many in a run.
        jobs: That a call stores.
    """

    def __init__(self, name: str, place: Place, connect: Connect, calls: int, jobs: int = 1) -> None:
        super().__init__(name)
        self._place, self._connect, self._calls, self._jobs = place, connect, calls, jobs
        self._call: Call

    def set_up(self) -> None:
        self._call = self._connect(self._place, self.stack)

    def run(self) -> Figures:
        call = self._call
        self._place.flush()
        call()  # connects, and after the flush the queue is new
        meter = self._place.meter()
        for _ in range(self._calls):
            call()
        return meter.read(self._calls * self._jobs)


class AsyncCalls(Arm):
    """
    The same by asyncio tasks, each making its share of the calls one after the other.

    Args:
        tasks: How many at once.
    """

    def __init__(
        self, name: str, place: Place, connect: AsyncConnect, calls: int, jobs: int = 1, tasks: int = 1
    ) -> None:
        super().__init__(name)
        self._place, self._connect, self._calls, self._jobs, self._tasks = place, connect, calls, jobs, tasks
        self._runner: asyncio.Runner
        self._call: AsyncCall

    def set_up(self) -> None:
        self._runner = self.stack.enter_context(asyncio.Runner())
        connections = AsyncExitStack()
        self.stack.callback(lambda: self._runner.run(connections.aclose()))
        self._call = self._connect(self._place, connections)

    def run(self) -> Figures:
        self._place.flush()
        return self._runner.run(self._measure())

    async def _measure(self) -> Figures:
        call, each = self._call, max(self._calls // self._tasks, 1)

        async def some(count: int) -> None:
            for _ in range(count):
                await call()

        await some(1)
        await asyncio.gather(*(some(1) for _ in range(self._tasks)))
        meter = self._place.meter()
        await asyncio.gather(*(some(each) for _ in range(self._tasks)))
        return meter.read(each * self._tasks * self._jobs)


# ---------------------------------------------------------------- floors


def redis_lpush(payload: bytes) -> Connect:
    """One value with redis-py."""

    def connect(place: Place, stack: ExitStack) -> Call:
        client = place.redis(stack)
        return lambda: client.lpush(KEY, payload)

    return connect


def redis_evalsha(payload: bytes) -> Connect:
    """A script that pushes one value, with redis-py."""

    def connect(place: Place, stack: ExitStack) -> Call:
        client = place.redis(stack)
        sha = client.script_load(BARE_PUSH)
        return lambda: client.evalsha(sha, 1, KEY, payload)

    return connect


def socket_lpush(payload: bytes) -> Connect:
    """One value through a bare socket."""

    def connect(place: Place, stack: ExitStack) -> Call:
        wire, request = place.new_wire(stack), pack("LPUSH", KEY, payload)
        return lambda: wire.exchange(request)

    return connect


def redis_pipeline(payload: bytes, pipelines: int) -> Connect:
    """A hundred commands a pipeline with redis-py, so many pipelines."""

    def connect(place: Place, stack: ExitStack) -> Call:
        client = place.redis(stack)

        def call() -> None:
            for _ in range(pipelines):
                with client.pipeline(transaction=False) as pipeline:
                    for _ in range(100):
                        pipeline.lpush(KEY, payload)
                    pipeline.execute()

        return call

    return connect


def redis_lpush_many(payload: bytes, jobs: int) -> Connect:
    """One LPUSH of many values with redis-py: they share one list and one command, which jobs with ids cannot."""

    def connect(place: Place, stack: ExitStack) -> Call:
        client = place.redis(stack)
        return lambda: client.lpush(KEY, *[payload] * jobs)

    return connect


def redis_asyncio_lpush(payload: bytes) -> AsyncConnect:
    """One value with redis.asyncio."""

    def connect(place: Place, stack: AsyncExitStack) -> AsyncCall:
        client = place.redis_asyncio()
        stack.push_async_callback(client.aclose)
        return lambda: client.lpush(KEY, payload)

    return connect


def redis_asyncio_pipeline(payload: bytes, pipelines: int) -> AsyncConnect:
    """A hundred commands a pipeline with redis.asyncio, so many pipelines."""

    def connect(place: Place, stack: AsyncExitStack) -> AsyncCall:
        client = place.redis_asyncio()
        stack.push_async_callback(client.aclose)

        async def call() -> None:
            for _ in range(pipelines):
                async with client.pipeline(transaction=False) as pipeline:
                    for _ in range(100):
                        pipeline.lpush(KEY, payload)
                    await pipeline.execute()

        return call

    return connect


# ---------------------------------------------------------------- ours


def queue_call(make: Callable[[Queue], Call]) -> Connect:
    """A call on a `Queue`."""
    return lambda place, stack: make(place.queue(stack))


def async_queue_call(make: Callable[[AsyncQueue], AsyncCall]) -> AsyncConnect:
    """A call on an `AsyncQueue`."""

    def connect(place: Place, stack: AsyncExitStack) -> AsyncCall:
        queue = place.async_queue()
        stack.push_async_callback(queue.close)
        return make(queue)

    return connect
