"""Middleware around runs: what it is told, what it may decide, and that a broken one costs neither jobs nor slots."""

from __future__ import annotations

import logging
import threading
import time
from contextvars import ContextVar
from typing import Any

import pytest

from boundq import Bury, Middleware, Queue, Retry, Worker, current_job
from boundq.job_control import CurrentJob
from tests._servers import Server, wait_until

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


class Notes(Middleware):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def before_run(self, job: CurrentJob) -> None:
        assert current_job() is job
        self.seen.append(("before", job.task, job.id, job.attempt))
        TENANT.set(job.headers.get("tenant", "unset"))

    def after_run(self, job: CurrentJob, error: BaseException | None) -> None:
        self.seen.append(("after", job.task, TENANT.get(), error))

    def after(self, task: str) -> list[Any]:
        return [one[2:] for one in self.seen if one[:2] == ("after", task)]


def run(queue: Queue, **options: Any) -> None:
    """Until there is nothing ready."""
    assert Worker([queue], **{"threads": 4, "lease": 5.0, "burst": True, **options}).run() == 0


def make(server: Server, name: str, *middleware: Middleware) -> Queue:
    return Queue(name, server.url, middleware=middleware)


def test_hooks_of_plain_and_async_tasks(any_server: Server, queue_name: str) -> None:
    """Both kinds: the job before, the error after; what `before_run` sets in one is the handler's."""
    notes = Notes()
    queue = make(any_server, queue_name, notes)
    tenants: list[str] = []

    @queue.task
    def plain(fail: bool) -> None:
        tenants.append(TENANT.get())
        if fail:
            raise Bury("unwanted")

    @queue.task(timeout=0.05, retries=0)
    async def slow() -> None:
        tenants.append(TENANT.get())
        import asyncio

        await asyncio.sleep(60)

    plain.options(headers={"tenant": "blue"}).enqueue(False)
    plain.enqueue(True)
    slow.options(headers={"tenant": "green"}).enqueue()
    run(queue, threads=1)
    assert sorted(tenants) == ["blue", "green", "unset"]
    assert notes.after("plain")[0] == ("blue", None)
    assert isinstance(notes.after("plain")[1][1], Bury)
    assert isinstance(notes.after("slow")[0][1], TimeoutError)
    assert [one[3] for one in notes.seen if one[0] == "before"] == [1, 1, 1]
    assert TENANT.get() == "nobody"
    queue.close()


def test_a_handler_s_context_is_its_own(any_server: Server, queue_name: str) -> None:
    """What one job sets in a context variable, the next one in the same thread does not see; without middleware too."""
    queue = make(any_server, queue_name)
    seen: list[str] = []

    @queue.task
    def mark() -> None:
        seen.append(TENANT.get())
        TENANT.set("left over")

    for _ in range(3):
        mark.enqueue()
    run(queue, threads=1)
    assert seen == ["nobody"] * 3
    queue.close()


def test_before_run_may_end_the_run(any_server: Server, queue_name: str) -> None:
    """`Bury` and `Retry` out of `before_run` end the job as if the handler had raised them; it is not called."""

    class Guard(Middleware):
        def before_run(self, job: CurrentJob) -> None:
            if job.headers["do"] == "bury":
                raise Bury("stopped", "by the guard")
            raise Retry(after=300)

    notes = Notes()
    queue = make(any_server, queue_name, notes, Guard(), Notes())

    @queue.task
    def work() -> None:
        raise AssertionError("it was called")

    buried = work.options(headers={"do": "bury"}).enqueue()
    work.options(headers={"do": "retry"}).enqueue()
    run(queue, threads=1)
    stats = queue.stats()
    assert (stats.dead, stats.scheduled) == (1, 1)
    (job,) = queue.peek("dead").jobs
    assert (job.id, job.reason) == (buried.id, "stopped")
    assert [type(error) for _, error in notes.after("work")] == [Bury, Retry], "those that had begun are told"
    queue.close()


class Breaks(Middleware):
    """Fails in both hooks, in a way of one's choice."""

    def __init__(self, kind: type[BaseException] = RuntimeError) -> None:
        self.kind = kind
        self.count = 0
        self._lock = threading.Lock()

    def before_run(self, job: CurrentJob) -> None:
        with self._lock:
            self.count += 1
        if job.attempt == 1 and self.count % 2:
            raise self.kind("before is broken")

    def after_run(self, job: CurrentJob, error: BaseException | None) -> None:
        raise self.kind("after is broken")


def test_ten_thousand_failing_hooks_leak_no_slot(
    any_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    R-113: after 10,000 hooks that failed, on threads and on the loop, as many jobs run at once as before.

    Each job is done once, and the log has a line for each hook that is broken, not one for each failure.
    """
    breaks = Breaks()
    queue = make(any_server, queue_name, breaks)
    together = threading.Barrier(8)
    done: list[int] = []

    @queue.task(retries=0)
    def plain(n: int) -> None:
        done.append(n)

    @queue.task(retries=0)
    async def on_loop(n: int) -> None:
        done.append(n)

    @queue.task(retries=0)
    def meet() -> None:
        together.wait(20)  # passes when all eight run at once

    calls = [(plain if n % 2 else on_loop).call(n) for n in range(10_000)]
    assert all(result.ok for result in queue.enqueue_many(calls))
    with caplog.at_level(logging.ERROR, "boundq.middleware"):
        run(queue, threads=8, concurrency=8)
    assert sorted(done) == list(range(10_000))
    assert breaks.count == 10_000
    assert [record.getMessage().split()[4] for record in caplog.records].count("Breaks.before_run") == 1
    assert len(caplog.records) == 2, "one for each broken hook"

    queue.enqueue_many([meet.call() for _ in range(8)])
    worker = Worker([queue], threads=8, concurrency=8, lease=5.0, burst=True)
    assert worker.run() == 0
    assert (worker.done, worker.failed) == (8, 0)
    stats = queue.stats()
    assert (stats.acked, stats.dead, stats.jobs, stats.retried) == (10_008, 0, 0, 0)
    queue.close()


def test_slots_are_whole_in_the_same_worker(any_server: Server, queue_name: str) -> None:
    """The worker that met the failures, not a new one, still runs as many at once."""
    queue = make(any_server, queue_name, Breaks())
    together = threading.Barrier(4)
    met = threading.Event()

    @queue.task(retries=0)
    def plain() -> None: ...

    @queue.task(retries=0)
    def meet() -> None:
        together.wait(20)
        met.set()

    worker = Worker([queue], threads=4, lease=5.0)
    thread = threading.Thread(target=worker.run)
    thread.start()
    queue.enqueue_many([plain.call() for _ in range(500)])
    wait_until(lambda: queue.stats().acked == 500, "all are done", 30)
    queue.enqueue_many([meet.call() for _ in range(4)])
    assert met.wait(20)
    worker.stop()
    thread.join(20)
    queue.close()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_hook_that_raises_what_is_no_exception(
    any_server: Server, queue_name: str, kind: type[BaseException]
) -> None:
    """It ends neither the worker nor the slot: the run has failed, and is tried again."""

    class Leaves(Middleware):
        def before_run(self, job: CurrentJob) -> None:
            if job.attempt == 1:
                raise kind

    queue = make(any_server, queue_name, Leaves())
    ran: list[int] = []

    @queue.task(retries=1)
    def plain() -> None:
        ran.append(current_job().attempt)

    plain.enqueue()
    worker = Worker([queue], threads=1, lease=5.0)
    thread = threading.Thread(target=worker.run)
    began = time.monotonic()
    thread.start()
    wait_until(lambda: queue.stats().acked == 1, "the second run", 30)
    assert ran == [2]
    assert time.monotonic() - began >= 1.0, "after the back-off of a failure"
    worker.stop()
    thread.join(20)
    queue.close()
