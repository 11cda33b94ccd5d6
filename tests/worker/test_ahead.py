"""Jobs that are claimed ahead of the threads: only while jobs are short, never kept from others for long."""

from __future__ import annotations

import threading
import time

import pytest

from boundq import Queue, Worker
from boundq.worker import pace
from boundq.worker.pace import AHEAD_SECONDS, MOST_AHEAD, Pace
from tests._servers import wait_until
from tests.worker.conftest import Work


def _warm(pace: Pace, seconds: float) -> None:
    for _ in range(200):
        pace.ran(seconds)


def test_the_shorter_the_jobs_the_more() -> None:
    """None as long as nobody knows; as many as are begun within 10 ms; none where one takes as long itself."""
    one = Pace(allowed=True)
    assert one.ahead == 0
    _warm(one, 0.001)
    assert 8 <= one.ahead <= 10
    _warm(one, 1e-5)
    assert one.ahead == MOST_AHEAD
    _warm(one, 0.0)
    assert one.ahead == MOST_AHEAD
    _warm(one, 2 * AHEAD_SECONDS)
    assert one.ahead == 0


def test_bad_news_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at once after some had to be given back, and for a minute after a lost worker; nor where it is forbidden."""
    now = time.monotonic()
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    one, forbidden = Pace(allowed=True), Pace(allowed=False)
    _warm(one, 1e-5)
    _warm(forbidden, 1e-5)
    assert (one.ahead, forbidden.ahead) == (MOST_AHEAD, 0)
    one.slow()
    assert one.ahead == 0
    _warm(one, 1e-5)
    assert one.ahead == MOST_AHEAD
    one.caution()
    assert one.ahead == 0
    now += pace.CAUTION_SECONDS - 1
    assert one.ahead == 0
    now += 2
    assert one.ahead == MOST_AHEAD


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No-op jobs are short also on a machine that is so busy that some of them take longer than those that are not."""
    monkeypatch.setattr(pace, "AHEAD_SECONDS", 0.5)


def _fill(queue: Queue, gate: threading.Event, began: list[int], *, retries: int = 3) -> None:
    """Short jobs, of which the worker learns that they are short, then two that wait for the gate, then short ones."""

    @queue.task(retries=retries)
    def short(key: int) -> None:
        began.append(key)

    @queue.task(retries=retries)
    def long() -> None:
        gate.wait(30)

    queue.enqueue_many(
        [short.call(key) for key in range(500)] + [long.call()] * 2 + [short.call(key) for key in range(500, 540)]
    )


@pytest.mark.usefixtures("patient")
def test_what_no_thread_begins_is_given_back(queue: Queue, work: Work) -> None:
    """Two long jobs take all threads of a worker that has claimed ahead: the rest is soon there for another one."""
    gate, began, elsewhere = threading.Event(), list[int](), list[int]()
    _fill(queue, gate, began)
    first = work(queue, threads=2)
    wait_until(lambda: first.worker.claimed > 502, "it claims ahead")
    wait_until(lambda: first.worker.running == 2, "it keeps no more than it runs")
    stats = queue.stats()
    assert (stats.active, stats.released) == (2, first.worker.claimed - 502), stats
    again = Queue(queue.name, queue._target.url)

    @again.task(name="short")
    def short(key: int) -> None:
        elsewhere.append(key)

    second = work(again, threads=2)
    wait_until(lambda: len(began) + len(elsewhere) == 540, "another worker has them")
    assert elsewhere == sorted(elsewhere), "in their order"
    gate.set()
    wait_until(lambda: queue.stats().acked == 542, "all are done")
    assert (first.stop(), second.stop()) == (0, 0)
    stats = queue.stats()
    assert (stats.deliveries - stats.released, stats.leases_expired) == (542, 0), "none was run twice"
    again.close()


@pytest.mark.usefixtures("patient")
def test_what_is_not_begun_is_given_back_at_a_stop(queue: Queue, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grace is for what runs: the rest is there for others at once, its delivery not spent."""
    monkeypatch.setattr("boundq.worker.worker.STALE_SECONDS", 60.0)
    gate, began = threading.Event(), list[int]()
    _fill(queue, gate, began)
    running = work(queue, threads=2, grace=20.0)
    wait_until(lambda: running.worker.claimed > 502, "it claims ahead")
    wait_until(lambda: queue.stats().active == 42, "it keeps them")
    running.worker.stop()
    wait_until(lambda: queue.stats().active == 2, "they are given back")
    leases = queue.claim(40)
    assert [lease.attempt for lease in leases] == [1] * 40
    gate.set()
    assert running.stop() == 0
    assert running.worker.done == 502


def test_jobs_with_one_delivery_are_not_claimed_ahead(queue: Queue, work: Work) -> None:
    """Should the worker die, they would be buried, and were never begun."""
    gate, began = threading.Event(), list[int]()
    _fill(queue, gate, began, retries=0)
    running = work(queue, threads=2)
    wait_until(lambda: running.worker.claimed >= 502 and running.worker.running == 2, "the long ones run")
    assert (queue.stats().active, queue.stats().released) == (2, 0)
    gate.set()
    wait_until(lambda: queue.stats().acked == 542, "all are done")
    assert running.stop() == 0


def test_no_more_handlers_at_once_than_threads(queue: Queue, work: Work) -> None:
    """Whatever is claimed ahead, and whoever makes the rounds."""
    lock, at_once, most = threading.Lock(), 0, list[int]()

    @queue.task
    def counted() -> None:
        nonlocal at_once
        with lock:
            at_once += 1
            most.append(at_once)
        queue.stats()  # lets go of the interpreter, so that others could begin
        with lock:
            at_once -= 1

    queue.enqueue_many([counted.call() for _ in range(2000)])
    running = work(queue, threads=3, burst=True)
    running.thread.join(30)
    assert running.code == 0
    assert len(most) == 2000
    assert max(most) <= 3
    for _ in range(50):  # one by one, to a worker that waits
        idle = Worker([queue], threads=1, burst=True)
        queue.enqueue_many([counted.call()])
        assert idle.run() == 0
    assert max(most) <= 3


@pytest.mark.usefixtures("patient")
def test_each_queue_has_a_pace_of_its_own(queue: Queue, work: Work) -> None:
    """Short jobs of one queue are no reason to claim the long ones of another ahead."""
    gate, began = threading.Event(), list[int]()
    slow = Queue(f"{queue.name}.b", queue._target.url)

    @queue.task
    def short(key: int) -> None:
        began.append(key)

    @slow.task
    def long() -> None:
        gate.wait(30)

    queue.enqueue_many([short.call(key) for key in range(500)])
    running = work(queue, slow, threads=2)
    wait_until(lambda: queue.stats().acked == 500, "the worker knows that they are short")
    slow.enqueue_many([long.call() for _ in range(20)])
    wait_until(lambda: slow.stats().active == 2, "two run")
    queue.enqueue_many([short.call(key) for key in range(500, 520)])
    wait_until(lambda: queue.stats().released, "the short ones wait for a thread, and are given back")
    assert (slow.stats().deliveries, slow.stats().released) == (2, 0)
    gate.set()
    wait_until(lambda: (queue.stats().acked, slow.stats().acked) == (520, 20), "all are done")
    assert running.stop() == 0
    slow.close()
