"""Periodic tasks: one job a tick, however many workers; nothing piles up."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

import pytest

from boundq import ConfigError, Limits, Queue, Worker
from boundq.schedule import make_schedule
from boundq.worker.ticker import Ticker
from tests._servers import Server, wait_until


def ms(*when: int) -> int:
    """Unix milliseconds of a time in UTC."""
    return round(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]  # year, month, day, ...


@pytest.mark.parametrize(
    ("every", "cron", "after", "then"),
    [
        (60, None, ms(2026, 5, 1, 10, 0, 30), ms(2026, 5, 1, 10, 1)),
        (60, None, ms(2026, 5, 1, 10, 1), ms(2026, 5, 1, 10, 2)),
        (None, "*/5 * * * *", ms(2026, 5, 1, 10, 0, 30), ms(2026, 5, 1, 10, 5)),
        (None, "*/5 * * * *", ms(2026, 5, 1, 10, 5), ms(2026, 5, 1, 10, 10)),
        (None, "0 3 * * 1", ms(2026, 5, 1), ms(2026, 5, 4, 3)),
    ],
)
def test_next_tick(every: float | None, cron: str | None, after: int, then: int) -> None:
    """Ticks are the same instants for everybody, and always later than the time asked about."""
    schedule = make_schedule(every, cron)
    assert schedule is not None
    assert schedule.next_after(after) == then


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"every": 0.5},
        {"cron": "every day"},
        {"cron": "0 0 30 2 *"},
        {"cron": 5},
        {"every": 1, "cron": "* * * * *"},
    ],
)
def test_schedule_that_makes_no_sense(options: dict) -> None:
    """It is an error at the declaration."""
    with pytest.raises(ConfigError):
        Queue("q").task(**options)(lambda: None)


def periodic(server: Server, name: str) -> Queue:
    """A queue with a task that is due each minute."""
    queue = Queue(name, server.url)

    @queue.task(every=60)
    def report() -> None: ...

    return queue


def test_one_job_a_tick_however_many_workers(any_server: Server, queue_name: str) -> None:
    """Three workers come to the same ticks, also when the job of a tick is done already; late ones leave it alone."""
    queues = [periodic(any_server, queue_name) for _ in range(3)]
    tickers = [Ticker([queue], threading.Event()) for queue in queues]
    start = ms(2026, 5, 1, 10, 0, 30)
    for ticker in tickers:
        assert ticker.tick(start) == start + 30_000
    for minute in (1, 2, 3):
        for late, ticker in enumerate(tickers):
            ticker.tick(ms(2026, 5, 1, 10, minute) + late * 500)
            for lease in queues[0].claim():
                lease.ack()
    assert queues[0].stats().acked == 3
    tickers[0].tick(ms(2026, 5, 1, 10, 5, 30))  # a minute and a half late: left out
    assert queues[0].stats().admitted == 3


def test_a_full_queue_leaves_the_tick_out(
    any_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted as refused, and not made up for."""
    queue = periodic(any_server, queue_name)
    queue.enqueue_bytes(b"x")
    queue.configure(Limits(max_jobs=1))
    ticker = Ticker([queue], threading.Event())
    ticker.tick(ms(2026, 5, 1, 10, 0, 30))
    with caplog.at_level(logging.WARNING):
        ticker.tick(ms(2026, 5, 1, 10, 1))
    assert "left out" in caplog.text
    assert queue.stats().rejected["jobs"] == 1
    queue.purge()
    ticker.tick(ms(2026, 5, 1, 10, 1, 1))
    assert queue.stats().jobs == 0


def test_worker_runs_what_it_ticks(any_server: Server, queue_name: str) -> None:
    """A worker alone keeps a task going that is due each second."""
    queue = Queue(queue_name, any_server.url)
    runs: list[int] = []

    @queue.task(every=1)
    def beat() -> None:
        runs.append(1)

    worker = Worker([queue], threads=1)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: len(runs) >= 2, "two beats", 20)
    finally:
        worker.stop()
        thread.join()
    assert queue.stats().imbalance == 0
