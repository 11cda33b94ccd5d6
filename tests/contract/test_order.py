"""Order: what is claimed first."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from tests.contract._env import Env, claim_one, payloads, take, until_claimed

LEVELS = ("low", "normal", "high", "critical")


@pytest.mark.everywhere
def test_first_in_first_out_within_a_priority(env: Env) -> None:
    """Jobs of one priority come in the order of their admission, through any way in."""
    queue, other = env.queue(), env.queue()
    for number in range(0, 20, 4):
        queue.enqueue_bytes(b"%d" % number)
        other.enqueue_bytes(b"%d" % (number + 1), unique=f"key {number}")
        queue.enqueue_many([b"%d" % (number + 2), b"%d" % (number + 3)])
    assert take(queue) == [b"%d" % number for number in range(20)]


@pytest.mark.everywhere
def test_higher_priority_comes_first(env: Env) -> None:
    """critical, high, normal, low; first in first out within each; `normal` is the default."""
    queue = env.queue()
    given = [(level, number) for level in LEVELS for number in range(3)]
    random.Random(1).shuffle(given)
    for level, number in given:
        options = {} if level == "normal" else {"priority": level}
        queue.enqueue_bytes(f"{level} {number}".encode(), **options)
    expected = [
        f"{level} {number}".encode() for wanted in reversed(LEVELS) for level, number in given if level == wanted
    ]
    assert take(queue, 5) + take(queue, 5) + take(queue, 5) == expected


def test_lease_and_job_know_their_priority(env: Env) -> None:
    """The level is there again at a worker and in an inspection, also of a scheduled job."""
    queue = env.queue()
    for level in LEVELS:
        for options in ({}, {"delay": 0.05}):
            assert queue.get(queue.enqueue_bytes(level.encode(), priority=level, **options).id).priority == level
    leases: list = []
    while len(leases) < 8:
        leases += until_claimed(queue, 8)
    assert all(lease.priority == lease.payload.decode() for lease in leases)


@pytest.mark.everywhere
def test_released_comes_before_fresh(env: Env) -> None:
    """A job that was given back, retried or whose lease ran out is next in its priority (R-93)."""
    queue = env.queue()
    queue.enqueue_many([b"1", b"2", b"3"])
    first, second = queue.claim(2)
    second.release()
    first.retry()
    assert set(take(queue, 2)) == {b"1", b"2"}
    assert take(queue) == [b"3"]


def test_expired_lease_comes_before_fresh(env: Env) -> None:
    """A job whose worker died is given to the next one before new jobs."""
    queue = env.queue()
    queue.enqueue_bytes(b"1", priority="high")
    queue.claim(1, lease=0.1)
    queue.enqueue_bytes(b"2", priority="high")
    env.elapse(0.3)
    assert take(queue) == [b"1", b"2"]


def test_delayed_job_is_scheduled(env: Env) -> None:
    """A job with a delay is scheduled, not ready, and no claim gives it out; what comes next is known."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(b"x", delay=3600)
    assert queue.claim(1) == []
    job, stats = queue.get(receipt.id), queue.stats()
    assert (job.state, stats.scheduled, stats.ready) == ("scheduled", 1, 0)
    assert 3500 < stats.next_event <= 3600


@pytest.mark.everywhere
def test_delayed_job_is_not_claimed_early(env: Env) -> None:
    """A job is claimable when the server's clock has reached its time, and not before (R-101)."""
    queue = env.queue()
    before = env.now()
    job = queue.get(queue.enqueue_bytes(b"x", delay=0.3).id)
    early = queue.claim(1)
    assert early == [] or env.now() >= job.due
    lease = (early or until_claimed(queue))[0]
    assert lease.deadline - 30 >= before + 0.3, "claimed early"
    assert (lease.payload, lease.attempt) == (b"x", 1)


def test_scheduled_jobs_come_in_order_of_time(fake: Env) -> None:
    """Of several that are due, the earliest comes first, whenever it was enqueued."""
    queue = fake.queue()
    for seconds in (30, 10, 20, 15):
        queue.enqueue_bytes(b"%d" % seconds, delay=seconds)
    at = datetime.fromtimestamp(fake.now(), UTC) + timedelta(seconds=12)
    queue.enqueue_bytes(b"12", at=at)
    fake.elapse(11)
    assert take(queue) == [b"10"]
    fake.elapse(20)
    assert take(queue) == [b"12", b"15", b"20", b"30"]


def test_due_jobs_come_before_fresh_ones_of_their_priority(fake: Env) -> None:
    """A scheduled job that is due waits behind no ready job of its priority, nor of a lower one."""
    queue = fake.queue()
    queue.enqueue_bytes(b"due", delay=10)
    queue.enqueue_many([b"ready"] * 3)
    queue.enqueue_bytes(b"low", priority="low")
    fake.elapse(11)
    assert take(queue) == [b"due", b"ready", b"ready", b"ready", b"low"]


def test_due_jobs_of_higher_priority_come_first(fake: Env) -> None:
    """Among those that are due, priority counts before time."""
    queue = fake.queue()
    queue.enqueue_bytes(b"low", delay=1, priority="low")
    queue.enqueue_bytes(b"critical", delay=5, priority="critical")
    fake.elapse(10)
    assert take(queue) == [b"critical", b"low"]


def test_an_earlier_event_is_noticed(env: Env) -> None:
    """A job due before all others is found, although a later one was there first."""
    queue = env.queue()
    queue.enqueue_bytes(b"later", delay=3600)
    assert queue.claim(1) == []
    queue.enqueue_bytes(b"sooner", delay=0.05)
    assert payloads(until_claimed(queue)) == [b"sooner"]


def test_retry_delay_is_a_floor(env: Env) -> None:
    """A retried job is scheduled for at least its delay, whatever the lease was (R-10)."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue, lease=0.1)
    before = env.now()
    lease.retry(0.4)
    job = queue.get(lease.id)
    assert (job.state, job.deliveries, job.failures, job.expired_leases) == ("scheduled", 1, 1, 0)
    assert job.due >= before + 0.399
    env.elapse(0.2)  # the old lease would have ended
    early = queue.claim(1)
    assert early == [] or env.now() >= job.due
    assert (early or until_claimed(queue))[0].attempt == 2


@pytest.mark.everywhere
def test_order_survives_holes(env: Env) -> None:
    """Cancelled jobs leave holes that no claim stumbles over, not even a thousand of them."""
    queue = env.queue()
    results = queue.enqueue_many([b"%d" % number for number in range(1300)])
    inner = getattr(queue, "inner", queue)
    flow = inner._control.cancel([result.receipt.id for result in results[1:-1]])  # many at once
    call = next(flow)
    with suppress(StopIteration):
        while True:
            call = flow.send(env.answer(call))
    assert take(queue, 1) == [b"0"]
    assert take(queue, 5) == [b"1299"]
