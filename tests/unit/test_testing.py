"""boundq.testing: what services test themselves with does what it says."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from boundq import (
    AsyncQueue,
    BoundqError,
    ConfigError,
    JobTooLarge,
    LeaseLost,
    Queue,
    QueueFull,
    QueueSealed,
    Rejection,
    Unavailable,
    current_job,
)
from boundq.testing import MemoryServer, eager, forced
from boundq.testing.plugin import boundq_server  # noqa: F401  # the fixture under test


def test_memory_server_has_the_real_limits_and_leases(boundq_server: MemoryServer) -> None:  # noqa: F811  # as a fixture
    """The bound holds, and time passes when the test says so."""
    queue = Queue("q", boundq_server.client(), max_jobs=1)
    queue.enqueue_bytes(b"x", delay=3600)
    with pytest.raises(QueueFull):
        queue.enqueue_bytes(b"y")
    assert queue.claim() == []
    boundq_server.advance(3601)
    (lease,) = queue.claim(lease=10)
    boundq_server.advance(11)
    assert queue.claim()[0].attempt == 2
    with pytest.raises(LeaseLost):
        lease.ack()


def test_memory_server_serves_asyncio(boundq_server: MemoryServer) -> None:  # noqa: F811  # as a fixture
    """The same server through the other shell."""

    async def main() -> int:
        await AsyncQueue("q", boundq_server.async_client()).enqueue_bytes(b"x")
        return (await AsyncQueue("q", boundq_server.async_client()).stats()).jobs

    assert asyncio.run(main()) == 1


def test_clock_outside_of_the_block() -> None:
    """Putting the clock forward where it is not ours is a mistake that says so."""
    with pytest.raises(ConfigError):
        MemoryServer().advance(1)


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("q", "jobs", 5, 5, 1, 2.0, 3.0),
        QueueSealed("q", 1.0, "ops"),
        JobTooLarge("q", "job_bytes"),
        Unavailable("q", "not_sent", "refused"),
        Unavailable("q", "unknown", "timeout"),
    ],
    ids=repr,
)
def test_forced_errors_reach_every_way_in(error: BoundqError) -> None:
    """Tasks, payloads, waiting ones, both shells: all end so, without a server; afterwards all is as before."""
    queue = Queue("q", "redis://127.0.0.1:1/0", deadline=0.05)

    @queue.task
    def task() -> None: ...

    ways = (
        task.enqueue,
        lambda: queue.enqueue_bytes(b"x"),
        lambda: queue.enqueue_bytes(b"x", wait=5),
        lambda: asyncio.run(task.aenqueue()),
    )
    with forced(queue, error):
        for way in ways:
            with pytest.raises(type(error)) as raised:
                way()
            assert raised.value.args == error.args
        if not isinstance(error, Unavailable):
            assert isinstance(task.try_enqueue(), Rejection)
            assert not queue.enqueue_many([b"x", b"y"])[1].ok
    with pytest.raises(Unavailable):
        task.enqueue()


def test_forced_loss_of_a_lease(boundq_server: MemoryServer) -> None:  # noqa: F811  # as a fixture
    """Settlements find their lease gone, and the job is untouched."""
    queue = Queue("q", boundq_server.client())
    queue.enqueue_bytes(b"x")
    (lease,) = queue.claim()
    with forced(queue, LeaseLost("q", lease.id)), pytest.raises(LeaseLost):
        lease.ack()
    assert queue.stats().active == 1


def test_eager_runs_tasks_on_the_spot() -> None:
    """Arguments are converted as in a worker, errors are the caller's, nothing is sent."""
    queue = Queue("q", "redis://127.0.0.1:1/0", deadline=0.05)
    seen: list[object] = []

    @queue.task
    def note(day: datetime.date) -> None:
        seen.append((day, current_job().task, current_job().attempt))

    @queue.task
    async def note_later(word: str) -> None:
        seen.append(word)

    @queue.task
    def fail() -> None:
        raise ZeroDivisionError

    with eager(queue):
        assert note.enqueue(datetime.date(2026, 5, 1)).id == "1"
        note_later.enqueue("a")
        asyncio.run(note_later.aenqueue("b"))
        queue.enqueue_many([note_later.call("c")])
        with pytest.raises(ZeroDivisionError):
            fail.enqueue()
        with pytest.raises(ConfigError, match="bad_arguments"):
            queue.named("note").enqueue("no date")
    assert seen == [(datetime.date(2026, 5, 1), "note", 1), "a", "b", "c"]
