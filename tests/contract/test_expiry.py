"""Expiry: what is not started any more, and what that frees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from boundq import Limits
from tests.contract._env import Env, claim_one, take, until_claimed


@pytest.mark.everywhere
def test_expired_job_is_never_given_out(env: Env) -> None:
    """A job past its ``expires`` is gone at the next claim: counted, its bytes free, not run (R-36)."""
    queue = env.queue()
    queue.enqueue_bytes(b"old", expires=0.05)
    queue.enqueue_bytes(b"good")
    env.elapse(0.1)
    assert take(queue) == [b"good"]
    stats = queue.stats()
    assert (stats.expired, stats.jobs, stats.bytes, stats.acked, stats.deliveries) == (1, 0, 0, 1, 1)


@pytest.mark.parametrize("kind", ["seconds", "timedelta", "datetime"])
def test_expiry_of_every_kind(env: Env, kind: str) -> None:
    """``expires`` is seconds from now, a timedelta, or an aware datetime; it is shown as an instant."""
    queue = env.queue()
    given = {
        "seconds": 3600,
        "timedelta": timedelta(hours=1),
        "datetime": datetime.fromtimestamp(env.now() + 3600, UTC),
    }[kind]
    job = queue.get(queue.enqueue_bytes(b"x", expires=given).id)
    assert job.expires == pytest.approx(env.now() + 3600, abs=5)
    assert job.state == "ready"


def test_expiry_is_to_the_millisecond(fake: Env) -> None:
    """Until the very instant the job is given out, from it on it is not."""
    queue = fake.queue()
    receipt = queue.enqueue_bytes(b"x", expires=100)
    assert queue.get(receipt.id).expires - queue.get(receipt.id).created == pytest.approx(100, abs=1)
    fake.elapse(99)
    lease = claim_one(queue)
    lease.release()
    fake.elapse(2)
    assert queue.claim() == []
    assert queue.stats().expired == 1


def test_expired_in_the_past(env: Env) -> None:
    """A datetime that has passed is taken, and the job ends at the next claim."""
    queue = env.queue()
    queue.enqueue_bytes(b"x", expires=datetime(2024, 1, 1, tzinfo=UTC))
    assert queue.stats().jobs == 1
    assert queue.claim() == []
    assert (queue.stats().expired, queue.stats().jobs) == (1, 0)


def test_scheduled_job_expires_too(fake: Env) -> None:
    """A job whose expiry is before its time never runs; one that is retried past its expiry neither."""
    queue = fake.queue()
    queue.enqueue_bytes(b"never", delay=20, expires=10)
    queue.enqueue_bytes(b"retried", expires=10)
    claim_one(queue).retry(15)
    fake.elapse(30)
    assert queue.claim(10) == []
    stats = queue.stats()
    assert (stats.expired, stats.jobs, stats.bytes) == (2, 0, 0)


def test_active_job_does_not_expire(fake: Env) -> None:
    """``expires`` is about being started: what runs may go on and be acked."""
    queue = fake.queue()
    queue.enqueue_bytes(b"x", expires=5)
    lease = claim_one(queue, lease=60)
    fake.elapse(30)
    lease.extend(60)
    lease.ack()
    assert (queue.stats().acked, queue.stats().expired) == (1, 0)


@pytest.mark.everywhere
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "general"])
def test_expired_heads_give_room_at_a_full_queue(env: Env, plain: bool) -> None:
    """Without any worker, an enqueue at a full queue takes the place of jobs that have expired (R-36)."""
    queue = env.queue(max_jobs=3)
    for level in ("low", "normal", "critical"):
        queue.enqueue_bytes(b"old", expires=0.05, priority=level)
    env.elapse(0.1)
    options = {} if plain else {"delay": 0.01}
    for _ in range(3):
        queue.enqueue_bytes(b"new", **options)
    assert queue.try_enqueue_bytes(b"x").reason == "jobs"
    assert (queue.stats().expired, queue.stats().jobs) == (3, 3)
    found: list[bytes] = []
    while len(found) < 3:
        found += take(queue) or [until_claimed(queue)[0].payload]
    assert found == [b"new"] * 3


def test_expired_heads_give_bytes(env: Env) -> None:
    """Likewise where it is bytes that are short."""
    queue = env.queue()
    charge = queue.enqueue_bytes(b"x" * 1000, expires=0.05).bytes
    queue.configure(Limits(max_bytes=charge + 100))
    env.elapse(0.1)
    queue.enqueue_bytes(b"y" * 500)
    assert take(queue) == [b"y" * 500]


def test_live_head_is_not_dropped(env: Env) -> None:
    """Only what has expired gives way: a full queue of live jobs stays as it is."""
    queue = env.queue(max_jobs=2)
    queue.enqueue_bytes(b"1", expires=3600)
    queue.enqueue_bytes(b"2", expires=3600)
    assert queue.try_enqueue_bytes(b"3").reason == "jobs"
    assert take(queue) == [b"1", b"2"]
    assert queue.stats().expired == 0


def test_bulk_takes_the_room_of_expired_jobs(env: Env) -> None:
    """Expired heads give room to a batch, all or nothing too, and its keys are free."""
    queue = env.queue(max_jobs=4)
    for number in range(4):
        queue.enqueue_bytes(b"old", expires=0.05, unique=f"k{number}")
    env.elapse(0.1)
    results = queue.enqueue_many([b"new"] * 4, atomic=True)
    assert all(result.ok for result in results)
    assert (queue.stats().unique_keys, queue.stats().expired) == (0, 4)
