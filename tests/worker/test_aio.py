"""AsyncWorker: ``async def`` tasks on the caller's own loop, plain ones in threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from boundq import AsyncQueue, AsyncWorker, ConfigError
from tests._servers import Server


def test_async_tasks_share_the_callers_loop(any_server: Server, queue_name: str) -> None:
    """Both kinds of one queue are done, each where it belongs, and settled."""
    queue = AsyncQueue(queue_name, any_server.url)
    seen: dict[str, object] = {}

    @queue.task
    async def on_loop() -> None:
        seen["loop"] = asyncio.get_running_loop()

    @queue.task
    def in_thread() -> None:
        seen["thread"] = threading.current_thread()

    async def main() -> None:
        await on_loop.aenqueue()
        await in_thread.aenqueue()
        assert await AsyncWorker([queue], burst=True).run() == 0
        assert seen["loop"] is asyncio.get_running_loop()
        assert seen["thread"] is not threading.current_thread()
        stats = await queue.stats()
        assert (stats.acked, stats.jobs) == (2, 0)
        await queue.close()

    asyncio.run(main())


def test_cancelled_run_lets_running_jobs_finish(any_server: Server, queue_name: str) -> None:
    """Cancelling `run` is a stop: what runs has the grace, and is acked."""
    queue = AsyncQueue(queue_name, any_server.url)

    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        @queue.task
        async def patient() -> None:
            begun.set()
            await go_on.wait()

        await patient.aenqueue()
        running = asyncio.create_task(AsyncWorker([queue], grace=30).run())
        await begun.wait()
        running.cancel()
        asyncio.get_running_loop().call_later(0.2, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await queue.stats()).acked == 1
        await queue.close()

    asyncio.run(main())


def test_needs_a_list_of_queues(any_server: Server, queue_name: str) -> None:
    """A queue that is not in a list is a mistake that says so."""
    with pytest.raises(ConfigError):
        AsyncWorker(AsyncQueue(queue_name, any_server.url))
