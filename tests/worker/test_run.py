"""A worker in this process: how runs end, what handlers may ask and say, whose turn it is, how it stops."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from boundq import Bury, Queue, Retry, Worker, current_job
from boundq.errors import BoundqError, ConfigError, Unavailable
from tests._servers import Server, wait_until
from tests.worker.conftest import Work


@pytest.fixture
def other(any_server: Server, queue_name: str) -> Iterator[Queue]:
    """A second queue."""
    queue = Queue(f"{queue_name}.b", any_server.url)
    yield queue
    queue.close()


def test_plain_and_async_tasks_in_one_worker(queue: Queue, work: Work) -> None:
    """Plain functions run in threads, async ones together on one loop; both are acked."""
    seen: dict[str, set[int]] = {"plain": set(), "async": set()}
    together: list[int] = []
    at_once = 0

    @queue.task
    def plain() -> None:
        seen["plain"].add(threading.get_ident())

    @queue.task
    async def waiting() -> None:
        nonlocal at_once
        seen["async"].add(threading.get_ident())
        at_once += 1
        together.append(at_once)
        await asyncio.sleep(0.05)
        at_once -= 1

    queue.enqueue_many([task.call() for _ in range(20) for task in (plain, waiting)])
    running = work(queue, threads=4, concurrency=50)
    wait_until(lambda: queue.stats().acked == 40, "all are done")
    assert len(seen["async"]) == 1
    assert not seen["async"] & seen["plain"]
    assert max(together) > 1
    assert running.stop() == 0
    assert (running.worker.claimed, running.worker.done, running.worker.failed) == (40, 40, 0)


def test_async_tasks_do_not_wait_for_threads(queue: Queue, other: Queue, work: Work) -> None:
    """With every thread taken by a plain handler, async jobs of another queue are run, settled and make room."""
    opened = threading.Event()

    @queue.task
    def long() -> None:
        opened.wait(30)

    @other.task
    async def quick() -> None: ...

    running = work(queue, other, threads=2, concurrency=5)
    queue.enqueue_many([long.call() for _ in range(2)])
    wait_until(lambda: queue.stats().active == 2, "all threads are taken")
    other.enqueue_many([quick.call() for _ in range(30)])
    try:
        wait_until(lambda: other.stats().acked == 30, "the async jobs are done", 5)
    finally:
        opened.set()
    assert running.stop() == 0


def test_arguments_arrive_as_their_types(queue: Queue, work: Work) -> None:
    """What JSON cannot hold comes back as the annotations say."""
    seen: list[object] = []

    @queue.task
    def take(when: datetime, key: UUID, price: Decimal, *, words: tuple[str, ...] = ()) -> None:
        seen.extend((when, key, price, words))

    args = (datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), UUID(int=7), Decimal("0.10"))
    take.enqueue(*args, words=("a", "b"))
    work(queue)
    wait_until(lambda: queue.stats().acked == 1, "it is done")
    assert seen == [*args, ("a", "b")]


def test_current_job_tells_the_handler_what_it_runs(queue: Queue, work: Work) -> None:
    """Id, task, attempt, headers and deadline, in a thread and on the loop; outside of a handler it is an error."""
    seen: dict[str, tuple[object, ...]] = {}

    def look() -> None:
        job = current_job()
        job.extend(5)
        seen[job.task] = (job.id, job.attempt, job.headers, job.cancelled, job.queue)
        assert abs(job.deadline - time.time()) < 60

    @queue.task
    def plain() -> None:
        look()

    @queue.task
    async def waiting() -> None:
        await asyncio.to_thread(look)  # context travels along

    first = plain.options(headers={"a": "1"}).enqueue().id
    second = waiting.enqueue().id
    work(queue)
    wait_until(lambda: queue.stats().acked == 2, "both are done")
    assert seen == {"plain": (first, 1, {"a": "1"}, False, queue.name), "waiting": (second, 1, {}, False, queue.name)}
    with pytest.raises(BoundqError, match="outside"):
        current_job()


def test_failures_are_retried_after_a_pause_and_then_buried(queue: Queue, work: Work) -> None:
    """1 + retries runs; the first pause is a second at least; the dead letter says why; both counts are kept."""
    began: list[float] = []

    @queue.task(retries=1)
    def fail() -> None:
        began.append(time.monotonic())
        raise ValueError("not today")

    fail.enqueue()
    running = work(queue)
    wait_until(lambda: queue.stats().dead == 1, "it is buried", 8)
    assert len(began) == 2
    assert began[1] - began[0] >= 1.0
    (job,) = queue.peek("dead").jobs
    assert (job.reason, job.deliveries, job.failures, job.expired_leases) == ("retries", 2, 2, 0)
    assert "ValueError: not today" in job.error
    running.stop()
    assert (running.worker.done, running.worker.failed) == (0, 2)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_retry_after_is_a_floor(queue: Queue, work: Work, kind: str) -> None:
    """Retry(after=) comes back at that time or a little later, never earlier, whatever the usual back-off is."""
    began: list[float] = []

    def once() -> None:
        began.append(time.monotonic())
        if len(began) == 1:
            raise Retry(after=0.3, error="in a moment")

    if kind == "plain":
        task: Any = queue.task(name="once")(once)
    else:

        async def once_async() -> None:
            once()

        task = queue.task(name="once")(once_async)
    task.enqueue()
    work(queue)
    wait_until(lambda: queue.stats().acked == 1, "it is done")
    assert 0.3 <= began[1] - began[0] < 1.0
    assert queue.stats().retried == 1


def test_bury_says_why(queue: Queue, work: Work) -> None:
    """Bury(reason, error) ends the job at once, retries or not."""
    runs: list[int] = []

    @queue.task(retries=9)
    def refuse() -> None:
        runs.append(1)
        raise Bury("unwanted", "x" * 10_000)

    refuse.enqueue()
    work(queue)
    wait_until(lambda: queue.stats().dead == 1, "it is buried")
    (job,) = queue.peek("dead").jobs
    assert (job.reason, len(runs)) == ("unwanted", 1)
    assert 0 < len(job.error) <= 2000


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit], ids=lambda error: error.__name__)
def test_what_is_no_exception_is_a_failure_too(queue: Queue, work: Work, error: type[BaseException]) -> None:
    """A handler that ends with SystemExit or the like has not done its job: it is not acked."""

    @queue.task(retries=0)
    def leave() -> None:
        raise error

    leave.enqueue()
    work(queue)
    wait_until(lambda: queue.stats().jobs == 0, "it has ended")
    stats = queue.stats()
    assert (stats.acked, stats.dead) == (0, 1)


def test_a_cancelled_error_of_the_handler_s_own_is_a_failure(queue: Queue, work: Work) -> None:
    """An async handler that lets a CancelledError out which nobody asked for: retried, not left to its lease."""

    @queue.task(retries=0)
    async def cancelled() -> None:
        raise asyncio.CancelledError

    cancelled.enqueue()
    work(queue, lease=30.0)
    wait_until(lambda: queue.stats().jobs == 0, "it has ended")
    assert queue.stats().dead == 1


def test_a_function_that_returns_a_coroutine_is_not_done(queue: Queue, work: Work) -> None:
    """A plain wrapper around an async function has run nothing: acked without a word would be a job lost."""
    ran: list[int] = []

    async def inner() -> None:
        ran.append(1)

    @queue.task(retries=0)
    def wrapped() -> Any:
        made = inner()
        made.close()  # so that Python does not warn: the point is that it comes back unawaited
        return made

    wrapped.enqueue()
    work(queue)
    wait_until(lambda: queue.stats().jobs == 0, "it has ended")
    assert ran == [1] or queue.stats().dead == 1


def test_a_thread_past_its_timeout_is_told_and_its_job_retried(
    queue: Queue, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be ended: ``cancelled`` says so, its job is retried, what it still does counts for nothing."""
    told = threading.Event()
    runs: list[int] = []

    @queue.task(retries=1, timeout=0.3)
    def slow() -> None:
        job = current_job()
        runs.append(job.attempt)
        if job.attempt == 1:
            wait_until(lambda: job.cancelled, "it is told")
            told.set()

    slow.enqueue()
    with caplog.at_level(logging.INFO, "boundq.worker"):
        running = work(queue)
        wait_until(lambda: queue.stats().acked == 1, "the second run is done", 8)
        running.stop()
    assert told.is_set()
    assert runs == [1, 2]
    stats = queue.stats()
    assert (stats.retried, stats.leases_expired, stats.leases_lost) == (1, 0, 0)
    assert sum("longer than 0.3 s" in record.getMessage() for record in caplog.records) == 1
    assert (running.worker.done, running.worker.failed) == (1, 1)


def test_a_thread_past_its_timeout_with_no_retries_is_buried(queue: Queue, work: Work) -> None:
    """Likewise buried where it may not be tried again, while the thread still runs."""
    opened = threading.Event()

    @queue.task(retries=0, timeout=0.2)
    def slow() -> None:
        opened.wait(20)

    slow.enqueue()
    work(queue)
    try:
        wait_until(lambda: queue.stats().dead == 1, "it is buried", 3)
    finally:
        opened.set()
    (job,) = queue.peek("dead").jobs
    assert "longer than 0.2 s" in job.error


def test_an_async_task_past_its_timeout_is_cancelled(queue: Queue, work: Work) -> None:
    """It gets a CancelledError where it waits; the job is retried, then buried."""
    ends: list[str] = []

    @queue.task(retries=1, timeout=0.2)
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    slow.enqueue()
    work(queue)
    wait_until(lambda: queue.stats().dead == 1, "it is buried", 8)
    assert ends == ["cancelled", "cancelled"]
    (job,) = queue.peek("dead").jobs
    assert (job.reason, job.failures, job.expired_leases) == ("retries", 2, 0)
    assert "TimeoutError" in job.error


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_cancelled_job_s_handler_is_told(
    queue: Queue, work: Work, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """cancel() of an active job: the handler learns it within a lease, the log says it once, nothing is settled."""
    ended: list[str] = []

    @queue.task(name="plain")
    def plain() -> None:
        wait_until(lambda: current_job().cancelled, "it is told")
        ended.append("told")
        raise RuntimeError("so we end")

    @queue.task(name="async")
    async def waiting() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("told")
            raise

    with caplog.at_level(logging.INFO, "boundq.worker"):
        running = work(queue, lease=0.5)
        job = queue.named(kind).enqueue().id
        wait_until(lambda: queue.stats().active == 1, "it runs")
        wait_until(lambda: running.worker.running == 1, "the worker knows")
        assert queue.cancel(job)
        wait_until(lambda: ended == ["told"], "it is told", 3)
        wait_until(lambda: running.worker.running == 0, "it has ended")
        running.stop()
    assert sum("LeaseLost" in record.getMessage() for record in caplog.records) == 1
    assert not any("retried in" in record.getMessage() for record in caplog.records), "it is not retried"
    stats = queue.stats()
    assert (stats.cancelled, stats.acked, stats.retried, stats.dead, stats.imbalance) == (1, 0, 0, 0, 0)


def test_leases_are_kept_while_handlers_run(queue: Queue, work: Work) -> None:
    """Jobs of several leases' length run once, in threads and on the loop, with another worker asking."""
    runs: list[str] = []

    @queue.task
    def plain() -> None:
        runs.append("plain")
        time.sleep(1.8)

    @queue.task
    async def waiting() -> None:
        runs.append("async")
        await asyncio.sleep(1.8)

    plain.enqueue()
    waiting.enqueue()
    work(queue, lease=0.6)
    work(queue, lease=0.6)
    wait_until(lambda: queue.stats().acked == 2, "both are done")
    assert sorted(runs) == ["async", "plain"]
    assert queue.stats().leases_expired == 0


def test_scarce_slots_go_by_weight(queue: Queue, other: Queue, work: Work) -> None:
    """Two queues with work enough, weights 3 and 1: while both have jobs, about three of four runs are the first's."""
    order: list[str] = []

    def record(name: str) -> Callable[[], None]:
        def job() -> None:
            order.append(name)
            time.sleep(0.025)  # long beside a claim: while one queue claims, the other has no rival

        return job

    first, second = queue.task(name="a")(record("a")), other.task(name="b")(record("b"))
    queue.enqueue_many([first.call() for _ in range(200)])
    other.enqueue_many([second.call() for _ in range(200)])
    work(queue, other, threads=1, weights={queue.name: 3})
    wait_until(lambda: len(order) >= 80, "enough have run")
    assert 50 <= order[:80].count("a") <= 68


def test_time_spent_idle_is_no_debt(queue: Queue, other: Queue, work: Work) -> None:
    """Queues of weights 3 and 1 that both had nothing for a while: then work comes to both, and neither starves."""
    order: list[str] = []

    def record(name: str) -> Callable[[], None]:
        def job() -> None:
            order.append(name)
            time.sleep(0.05)

        return job

    first, second = queue.task(name="a")(record("a")), other.task(name="b")(record("b"))
    work(queue, other, threads=4, weights={queue.name: 3})
    before = time.monotonic()
    wait_until(lambda: time.monotonic() - before > 4.5, "they have idled")
    other.enqueue_many([second.call() for _ in range(60)])
    queue.enqueue_many([first.call() for _ in range(120)])
    wait_until(lambda: order.count("a") >= 30, "one of them has run for a while")
    assert order.count("b") >= 6, "10 are its share"


def test_an_idle_queue_does_not_hold_up_another(queue: Queue, other: Queue, work: Work) -> None:
    """One queue empty, one thread: the other's jobs run one after another without waiting for it."""
    done: list[float] = []

    @queue.task
    def quick() -> None:
        done.append(time.monotonic())

    @other.task
    def never() -> None: ...

    work(queue, other, threads=1)
    queue.enqueue_many([quick.call() for _ in range(100)])
    wait_until(lambda: len(done) == 100, "all are done")
    assert done[-1] - done[0] < 3
    began = time.monotonic()
    never.enqueue()
    wait_until(lambda: other.stats().acked == 1, "and so is the other's")
    assert time.monotonic() - began < 1.5


def test_a_stop_claims_no_more(queue: Queue, work: Work) -> None:
    """After stop() a slot that comes free is not filled, though jobs are ready."""
    opened = threading.Event()

    @queue.task
    def wait() -> None:
        opened.wait(20)

    queue.enqueue_many([wait.call() for _ in range(3)])
    running = work(queue, threads=1)
    wait_until(lambda: running.worker.running == 1, "one runs")
    running.worker.stop()
    opened.set()
    assert running.stop() == 0
    stats = queue.stats()
    assert (stats.acked, stats.ready, stats.deliveries) == (1, 2, 1)


def test_a_stop_gives_back_what_does_not_end(queue: Queue, work: Work, caplog: pytest.LogCaptureFixture) -> None:
    """In threads and on the loop: told, released with the delivery not spent; run() returns within grace + 1 s."""
    opened = threading.Event()
    told: list[str] = []

    @queue.task
    def plain() -> None:
        opened.wait(20)
        told.append(f"plain {current_job().cancelled}")

    @queue.task
    async def waiting() -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            told.append("async")
            raise

    running = work(queue, grace=0.3)
    plain.enqueue()
    waiting.enqueue()
    wait_until(lambda: running.worker.running == 2, "both run")
    began = time.monotonic()
    try:
        assert running.stop() == 0
        assert time.monotonic() - began < 0.3 + 1.0
        stats = queue.stats()
        assert (stats.released, stats.active, stats.jobs) == (2, 0, 2)
        wait_until(lambda: "async" in told, "the coroutine is told")
    finally:
        opened.set()
    wait_until(lambda: "plain True" in told, "the thread is told")
    assert {job.deliveries for job in queue.peek("scheduled").jobs} == {0}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert queue.stats().acked == 0


def test_max_jobs_and_burst_end_a_worker(queue: Queue, work: Work) -> None:
    """max_jobs: about so many, the rest stays; burst: until nothing is ready."""

    @queue.task
    def quick() -> None: ...

    queue.enqueue_many([quick.call() for _ in range(50)])
    first = work(queue, threads=2, max_jobs=10)
    first.thread.join(10)
    assert first.code == 0
    assert 10 <= first.worker.done <= 12
    second = work(queue, threads=2, burst=True)
    second.thread.join(10)
    assert second.code == 0
    assert queue.stats().acked == 50
    assert first.worker.done + second.worker.done == 50


def test_unexpected_errors_in_a_row_end_the_worker(
    queue: Queue, work: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten errors that nobody foresaw: exit code 70. Fewer: it goes on."""

    @queue.task
    def quick() -> None: ...

    claim, errors = Queue._claim_or_register, [ZeroDivisionError()] * 3

    def sometimes(*args: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return claim(*args, **options)

    monkeypatch.setattr(Queue, "_claim_or_register", sometimes)
    quick.enqueue()
    running = work(queue)
    wait_until(lambda: queue.stats().acked == 1, "it has gone on")
    assert running.stop() == 0
    errors += [ZeroDivisionError()] * 100
    broken = work(queue)
    broken.thread.join(10)
    assert broken.code == 70
    assert sum("unexpected error" in record.getMessage() for record in caplog.records) == 13


def test_an_unexpected_error_outside_the_claim_does_not_end_it_in_silence(
    queue: Queue, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claimer that cannot start what it claimed ends with 70, not with 0: a broken worker exits non-zero."""

    @queue.task
    def quick() -> None: ...

    monkeypatch.setattr("boundq.worker.worker.prepare_run", lambda *_: 1 / 0)
    queue.enqueue_many([quick.call() for _ in range(100)])
    broken = work(queue)
    broken.thread.join(15)
    assert broken.code == 70


def test_what_handlers_raise_of_the_wrong_type_settles_the_job(queue: Queue, work: Work) -> None:
    """Bury(404), the longest of delays, a Retry without its fields: each job is settled, and none else held up."""

    class Forgetful(Retry):
        def __init__(self) -> None:
            pass

    @queue.task(retries=0)
    def numbered() -> None:
        raise Bury(404)  # type: ignore[arg-type]  # that is the point

    @queue.task
    def late() -> None:
        raise Retry(after=60 * 365 * 86400)

    @queue.task(retries=0)
    async def forgetful() -> None:
        raise Forgetful

    @queue.task
    def good() -> None: ...

    queue.enqueue_many([task.call() for _ in range(5) for task in (numbered, late, forgetful, good)])
    running = work(queue)
    wait_until(lambda: queue.stats().active == queue.stats().ready == 0, "all are settled")
    stats = queue.stats()
    assert (stats.acked, stats.buried, stats.retried, stats.scheduled) == (5, 10, 5, 5)
    assert {job.reason for job in queue.peek("dead", 20).jobs} == {"404", "retries"}
    assert running.stop() == 0


def test_a_handler_that_stops_the_event_loop_stops_nobody_else(
    queue: Queue, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop runs on, and says so; one that is stopped again and again has the worker give up."""

    @queue.task(retries=0)
    async def stops() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)

    @queue.task
    async def good() -> None: ...

    queue.enqueue_many([stops.call(), good.call(), stops.call(), good.call()])
    running = work(queue)
    wait_until(lambda: queue.stats().acked == 4, "all are done")
    assert "a handler has stopped the worker's event loop" in caplog.text
    assert running.stop() == 0
    broken = work(queue, concurrency=1)
    queue.enqueue_many([stops.call() for _ in range(30)])
    broken.thread.join(20)
    assert broken.code == 70


def test_a_job_that_comes_back_while_it_runs_is_another_delivery(queue: Queue, work: Work) -> None:
    """
    Its lease ended while the handler was at it, and this very worker gets it again: the old run's end neither counts
    nor takes away the new one's lease.
    """
    began: list[int] = []
    gates = [threading.Event(), threading.Event()]

    @queue.task(retries=5)
    def twice() -> None:
        job = current_job()
        began.append(job.attempt)
        gates[min(job.attempt, 2) - 1].wait(30)

    twice.enqueue()
    running = work(queue, lease=1.0)
    wait_until(lambda: began == [1], "it runs")
    (first,) = running.worker._running.values()
    wait_until(lambda: first.key in running.worker._keeper._keeper_of(queue)._held, "its lease is kept")  # type: ignore[attr-defined]  # of a ThreadKeeper
    running.worker._keeper.drop(queue.name, [first.lease])  # nobody extends it: as after a pause of the keeper
    wait_until(lambda: began == [1, 2], "it runs again")
    gates[0].set()
    wait_until(lambda: queue.stats().leases_lost == 1, "the first run's end is refused")
    second = queue.get(first.lease.id)
    assert second is not None
    assert second.due is not None
    ends = second.due
    wait_until(lambda: (queue.get(first.lease.id) or second).due > ends, "the second is still extended")  # type: ignore[operator]  # an active job has one
    gates[1].set()
    wait_until(lambda: queue.stats().acked == 1, "it is done")
    assert running.stop() == 0
    stats = queue.stats()
    assert (stats.leases_expired, stats.jobs, began) == (1, 0, [1, 2])


def test_settings_that_make_no_sense_are_refused(queue: Queue, other: Queue) -> None:
    """No queue, one twice, a weight for nobody, impossible numbers."""
    bad: list[tuple[list[Queue], dict[str, Any]]] = [
        ([], {}),
        ([queue, queue], {}),
        ([queue], {"weights": {"nosuch": 1}}),
        ([queue], {"weights": {queue.name: 0}}),
        ([queue], {"threads": 0}),
        ([queue], {"concurrency": -1}),
        ([queue], {"lease": 0.01}),
        ([queue], {"grace": -1}),
        ([queue], {"max_jobs": 0}),
        ([queue], {"isolate": "shop:emails"}),
        ([queue], {"isolate": True}),
        ([queue, other], {"threads": True}),
    ]
    for queues, options in bad:
        with pytest.raises(ConfigError):
            Worker(queues, **options)
    with pytest.raises(ConfigError):
        Worker(queue)  # type: ignore[arg-type]


def test_unavailable_is_raised_to_nobody(work: Work) -> None:
    """A worker whose server is not there runs on, and stops when told."""
    away = Queue("away", "redis://127.0.0.1:1/0", deadline=0.2)

    @away.task
    def never() -> None: ...

    with pytest.raises(Unavailable):
        never.enqueue()
    running = work(away)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 0.5, "it has tried")
    assert running.thread.is_alive()
    assert running.stop(3) == 0
