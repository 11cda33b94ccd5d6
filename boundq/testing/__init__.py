"""
For the tests of services that use boundq.

    from boundq.testing import MemoryServer, eager, forced

    with MemoryServer() as server:
        orders = Queue("orders", server.client())      # the real scripts, in memory: same limits, same leases
        server.advance(3600)                           # an hour passes
    with forced(orders, QueueFull("orders", "jobs")):  # a path that is never used does not work
        ...
    with eager(orders):                                # tasks run where they are enqueued
        ...

Needs the extra ``testing`` (fakeredis with Lua). Fixtures: ``pytest_plugins = ["boundq.testing.plugin"]``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import Any
from unittest import mock

from boundq._core.delivery import Delivery, Lost, Settlement
from boundq._core.queue import BaseQueue
from boundq._envelope import unpack
from boundq._job import Prepared
from boundq._runner import Verdict, prepare_run
from boundq.errors import BoundqError, ConfigError, LeaseLost, Rejected
from boundq.job_control import CURRENT, CurrentJob
from boundq.lease import BaseLease
from boundq.model import Receipt, Rejection

__all__ = ["MemoryServer", "eager", "forced"]


class MemoryServer:
    """
    A server in memory: the library's own scripts on fakeredis, with a clock that a test can put forward.

    As a context manager it sets that clock; outside of the block time goes by as usual. Waiting (``wait=``) works
    between threads, not between the tasks of one event loop.
    """

    def __init__(self) -> None:
        try:
            import fakeredis
        except ImportError as error:
            raise ConfigError(
                "boundq.testing", "fakeredis", "it is not installed: pip install 'boundq[testing]'"
            ) from error
        self._fakeredis: Any = fakeredis
        self._server = fakeredis.FakeServer()
        self._ahead = 0.0
        self._patch: Any = None

    def client(self) -> Any:
        """A client for `Queue`."""
        return self._fakeredis.FakeRedis(server=self._server)

    def async_client(self) -> Any:
        """A client for `AsyncQueue`."""
        return self._fakeredis.FakeAsyncRedis(server=self._server)

    def advance(self, seconds: float) -> None:
        """Let so much time pass: leases end, delays and expiries come."""
        if self._patch is None:
            raise ConfigError("advance", seconds, "the clock can be put forward inside `with MemoryServer()` only")
        self._ahead += seconds

    def __enter__(self) -> MemoryServer:
        from fakeredis.commands_mixins import server_mixin

        clock = SimpleNamespace(time=lambda: time.time() + self._ahead)
        self._patch = mock.patch.object(server_mixin, "time", clock)
        self._patch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patch.stop()
        self._patch = None


@contextmanager
def forced(queue: BaseQueue, error: BoundqError) -> Iterator[None]:
    """
    Make the queue's calls fail as they would in an incident, in both shells: its tasks, bulk calls and payloads.

    Args:
        queue: Of either kind.
        error: A `Rejected` (`QueueFull`, `QueueSealed`, `JobTooLarge`) or `Unavailable`: every enqueue ends so;
            `LeaseLost`: every settlement does. Nothing reaches the server.
    """

    def enqueue(*_: Any, **__: Any) -> Any:
        if not isinstance(error, Rejected):
            raise error
        return [_rejection(error)]
        yield  # a flow is a generator

    def enqueue_waiting(*_: Any, **__: Any) -> Any:
        return (yield from enqueue())[0]

    def settle(work: Settlement, **_: Any) -> Any:
        held = [*work.acks, *(one for one, _ in work.retries), *work.releases, *(one for one, _, _ in work.buries)]
        return [Lost(one, getattr(error, "cancelled", False)) for one in held]
        yield

    if isinstance(error, LeaseLost):
        with mock.patch.object(queue._deliveries, "settle", settle):
            yield
    elif isinstance(error, BoundqError):
        with (
            mock.patch.object(queue._admission, "enqueue", enqueue),
            mock.patch.object(queue._admission, "enqueue_waiting", enqueue_waiting),
        ):
            yield
    else:
        raise ConfigError("error", error, "give an error of boundq, such as QueueFull('orders', 'jobs')")


@contextmanager
def eager(queue: BaseQueue) -> Iterator[None]:
    """
    Run the queue's tasks where and when they are enqueued, in both shells; nothing is stored.

    Arguments go through JSON and the annotated types, as in a worker. What a handler raises, the caller gets. A job
    that a worker would bury without running it (unknown task, wrong arguments) is a `ConfigError`.
    """
    count = 0

    def enqueue(session: Any, jobs: Sequence[Prepared], **_: Any) -> Any:
        nonlocal count
        receipts = []
        for job in jobs:
            count += 1
            _run(queue, str(count), job)
            receipts.append(Receipt(str(count), False, 0, 0))
        return receipts
        yield

    def enqueue_waiting(session: Any, job: Prepared, wait: float) -> Any:
        return (yield from enqueue(session, [job]))[0]

    with (
        mock.patch.object(queue._admission, "enqueue", enqueue),
        mock.patch.object(queue._admission, "enqueue_waiting", enqueue_waiting),
    ):
        yield


def _run(queue: BaseQueue, job_id: str, job: Prepared) -> None:
    raw = job.envelope(round(time.time() * 1000).to_bytes(6, "big"))
    delivery = Delivery(job_id, 1, unpack(queue.name, job_id, raw), raw, None, time.time(), time.time() + 30, 0.0)
    lease = BaseLease(delivery)
    run = prepare_run(queue.tasks, lease)
    if isinstance(run, Verdict):
        raise ConfigError("job", job.task, f"a worker would bury it ({run.reason}): {run.error}")
    current = CurrentJob(queue.name, lease, lambda one, ends: [])
    token = CURRENT.set(current)
    try:
        with queue._around_run(current):
            result = run.task.function(*run.args, **run.kwargs)
            if asyncio.iscoroutine(result):
                _finish(result)
    finally:
        CURRENT.reset(token)


def _finish(coroutine: Any) -> None:
    """Run a coroutine to its end, beside the caller's loop if it is in one."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:  # handed to the caller
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _rejection(error: Rejected) -> Rejection:
    return Rejection(
        error.queue,
        error.reason,
        error.used,
        error.limit,
        error.requested,
        error.oldest_age,
        error.retry_after,
        getattr(error, "since", 0.0),
        getattr(error, "by", ""),
    )
