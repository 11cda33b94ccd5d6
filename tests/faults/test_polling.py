"""Busy polling on a connection: a call looks for its answer for a moment, then sleeps; nothing else is different."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from boundq import AsyncQueue, Queue
from boundq import _poll as poll
from boundq.aio import _wire as aio_wire
from boundq.sync import _wire as sync_wire
from tests._servers import Server, wait_until
from tests.conftest import FreshServer
from tests.faults._shell import SHELLS, SMALL, Shell


class Looks:
    """Who looked how often, and how often looking ended."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.ended = threading.Semaphore(0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Looking goes on for 0.2 s: time enough for some looks on a busy machine."""
    found = Looks()
    monkeypatch.setattr(poll, "MOST_MICROSECONDS", 100_000)
    monkeypatch.setenv(poll.VARIABLE, "99999")
    monkeypatch.setattr(poll, "_possible", lambda: True)
    monkeypatch.setattr(poll, "RECENT_SECONDS", 60.0)
    look_aside: Callable[[], None] = poll.look_aside

    def look() -> None:
        found.threads.append(threading.get_ident())
        look_aside()

    looked = poll.BusyPoll.looked

    def ended(self: poll.BusyPoll, seconds: float) -> None:
        looked(self, seconds)
        found.ended.release()

    monkeypatch.setattr(sync_wire, "look_aside", look)
    monkeypatch.setattr(aio_wire, "look_aside", look)
    monkeypatch.setattr(poll.BusyPoll, "looked", ended)
    return found


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def server(fresh_server: FreshServer) -> Server:
    return fresh_server(appendonly="yes")  # a producer that is known to it is so after a restart


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class Producer:
    """Enqueues in a thread of its own; it is connected and known to the server."""

    def __init__(self, pool: ThreadPoolExecutor, shell: str, server: Server, name: str) -> None:
        self.ident = 0
        self._go, connected = threading.Event(), threading.Event()

        def work() -> str:
            self.ident = threading.get_ident()
            mine = Shell(shell)
            try:
                queue: Any = mine.queue(name, server.url, limits=SMALL, deadline=20)
                queue.enqueue_bytes(b"first")
                connected.set()
                assert self._go.wait(10)
                return str(queue.enqueue_bytes(b"second").id)
            finally:
                connected.set()
                mine.close()

        self.receipt = pool.submit(work)
        assert connected.wait(10)

    def go(self) -> None:
        self._go.set()


def test_a_late_answer_is_waited_for(
    shell: str, server: Server, queue_name: str, looks: Looks, pool: ThreadPoolExecutor
) -> None:
    producer = Producer(pool, shell, server, queue_name)
    with server.paused():
        looks.threads.clear()
        producer.go()
        assert looks.ended.acquire(timeout=10)
        count = len(looks.threads)
        assert count > 1
        assert not producer.receipt.done()
    assert producer.receipt.result(10)
    assert len(looks.threads) == count, "it slept from then on"
    assert Queue(queue_name, server.url, limits=SMALL).stats().jobs == 2


def test_nobody_looks_where_it_is_switched_off(
    shell: str, server: Server, queue_name: str, looks: Looks, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(poll.VARIABLE, "0")
    producer = Producer(pool, shell, server, queue_name)
    producer.go()
    assert producer.receipt.result(10)
    assert not looks.threads


def test_nobody_looks_after_a_pause(
    shell: str, server: Server, queue_name: str, looks: Looks, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "RECENT_SECONDS", 1e-9)
    producer = Producer(pool, shell, server, queue_name)
    producer.go()
    assert producer.receipt.result(10)
    assert not looks.threads


def test_of_threads_that_enqueue_together_the_second_does_not_look(
    server: Server, queue_name: str, looks: Looks, pool: ThreadPoolExecutor
) -> None:
    first, second = (Producer(pool, "sync", server, queue_name) for _ in range(2))
    with server.paused():
        looks.threads.clear()
        first.go()
        wait_until(lambda: first.ident in looks.threads, "the first one looks")
        second.go()
        assert looks.ended.acquire(timeout=10)
    assert first.receipt.result(10) != second.receipt.result(10)
    assert second.ident not in looks.threads


def test_a_connection_that_breaks_while_somebody_looks(
    shell: str, server: Server, queue_name: str, looks: Looks, pool: ThreadPoolExecutor
) -> None:
    producer = Producer(pool, shell, server, queue_name)
    with server.paused():
        producer.go()
        wait_until(lambda: looks.threads, "it looks")
        server.kill()
        server.start()
    assert producer.receipt.result(10)


def test_an_event_loop_does_what_else_there_is_while_it_stays_awake(
    server: Server, queue_name: str, looks: Looks
) -> None:
    async def main() -> tuple[int, int]:
        queue = AsyncQueue(queue_name, server.url, limits=SMALL, deadline=20)
        await queue.enqueue_bytes(b"first")
        steps = 0
        with server.paused():
            looks.threads.clear()
            call = asyncio.create_task(queue.enqueue_bytes(b"second"))
            while not looks.ended.acquire(blocking=False):
                await asyncio.sleep(0)
                steps += 1
        await call
        await queue.close()
        return steps, len(looks.threads)

    steps, count = asyncio.run(main())
    assert steps >= count > 1
