"""The bound is exact: to the job, to the byte, for one job and for many."""

from __future__ import annotations

import pytest

from boundq import JobTooLarge, Limits, QueueFull
from tests.contract._env import Env, claim_one, take


@pytest.mark.everywhere
def test_exact_to_the_job(env: Env) -> None:
    """The last place is given, the next is refused with what is held, the limit and what was asked for."""
    queue = env.queue(max_jobs=3)
    for _ in range(3):
        queue.enqueue_bytes(b"x")
    with pytest.raises(QueueFull) as raised:
        queue.enqueue_bytes(b"x")
    full = raised.value
    assert (full.queue, full.reason, full.used, full.limit, full.requested) == (env.name, "jobs", 3, 3, 1)
    assert queue.stats().jobs == 3
    assert queue.stats().rejected["jobs"] == 1


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("size", "option"),
    [
        *((size, {}) for size in (0, 1, 119, 120, 1000, 4000, 262_135)),
        *((1000, option) for option in ({"delay": 60}, {"unique": "k"}, {"expires": 60}, {"headers": {"a": "b"}})),
    ],
    ids=str,
)
def test_exact_to_the_byte(env: Env, size: int, option: dict) -> None:
    """With room for exactly this job it is taken; with one byte less it is refused, and the numbers say so."""
    charge = env.charge(b"x" * size, **option)
    queue = env.queue(limits=Limits(max_bytes=10 * 2**20))
    held = queue.enqueue_bytes(b"first").bytes
    queue.configure(Limits(max_bytes=held + charge - 1))
    with pytest.raises(QueueFull) as raised:
        queue.enqueue_bytes(b"x" * size, **option)
    full = raised.value
    assert (full.reason, full.used, full.limit, full.requested) == ("bytes", held, held + charge - 1, charge)
    queue.configure(Limits(max_bytes=held + charge))
    assert queue.enqueue_bytes(b"x" * size, **option).bytes == held + charge
    stats = queue.stats()
    assert (stats.bytes, stats.fill) == (stats.limits.max_bytes, 1.0)


@pytest.mark.everywhere
def test_one_byte_free(env: Env) -> None:
    """Where one size of payload fits, one that is charged more does not (R-02)."""
    queue = env.queue()
    held = queue.enqueue_bytes(b"first").bytes
    small, size = env.charge(b"x"), 2
    while (larger := env.charge(b"x" * size)) == small:
        size += 1
    queue.configure(Limits(max_bytes=held + larger - 1))
    with pytest.raises(QueueFull):
        queue.enqueue_bytes(b"x" * size)
    assert queue.enqueue_bytes(b"x" * (size - 1)).bytes == held + small


@pytest.mark.everywhere
@pytest.mark.parametrize("extra", [{}, {"delay": 60}], ids=["plain", "general"])
def test_job_bytes_exact(env: Env, extra: dict) -> None:
    """An envelope of ``max_job_bytes`` is taken, one byte more is not, from the client's check or the script's."""
    queue = env.queue(limits=Limits(max_job_bytes=5000))
    other = env.queue(limits=Limits(max_job_bytes=5000))
    other.enqueue_bytes(b"x")  # it knows the limit now
    queue.enqueue_bytes(b"x" * (5000 - 9), **extra)
    with pytest.raises(JobTooLarge) as raised:
        queue.enqueue_bytes(b"x" * (5000 - 8), **extra)
    assert (raised.value.requested, raised.value.limit) == (5001, 5000)
    queue.configure(Limits(max_job_bytes=4000))
    with pytest.raises(JobTooLarge) as raised:
        other.enqueue_bytes(b"x" * (4500 - 9), **extra)  # the client's knowledge is old; the script's is not
    assert (raised.value.requested, raised.value.limit) == (4500, 4000)
    queue.configure(Limits(max_job_bytes=6000))
    other.enqueue_bytes(b"x" * (6000 - 9), **extra)  # and a raised limit holds at once


@pytest.mark.everywhere
@pytest.mark.parametrize("size", [0, 10, 247, 248, 65_527, 65_528, 262_135])
def test_charge_returns_to_zero(env: Env, size: int) -> None:
    """What a job was charged is given back whole, whatever its size."""
    queue = env.queue(limits=Limits(max_job_bytes=262_144))
    queue.enqueue_bytes(b"x" * size)
    assert queue.stats().bytes > size
    take(queue)
    assert queue.stats().bytes == 0


@pytest.mark.everywhere
def test_every_state_counts(env: Env) -> None:
    """Ready, scheduled, retrying, released and active jobs fill the queue; dead ones have their own bound (R-13)."""
    queue = env.queue(max_jobs=5)
    for _ in range(4):
        queue.enqueue_bytes(b"x")
    queue.enqueue_bytes(b"later", delay=3600)
    assert queue.try_enqueue_bytes(b"x").reason == "jobs"
    retried, released, active, buried = queue.claim(4)
    assert queue.try_enqueue_bytes(b"x").reason == "jobs"
    retried.retry(3600)
    released.release()
    assert queue.try_enqueue_bytes(b"x").reason == "jobs"
    buried.bury("bad")
    assert queue.stats().jobs == 4
    queue.enqueue_bytes(b"x")
    assert queue.try_enqueue_bytes(b"x").reason == "jobs"
    active.ack()
    queue.enqueue_bytes(b"x")


@pytest.mark.everywhere
def test_full_queue_can_fail_every_job(env: Env) -> None:
    """Claim, retry, release and bury of a queue at its bound never need room, and lose nothing (R-16)."""
    queue = env.queue(limits=Limits(max_jobs=20, max_dead_jobs=20))
    for number in range(20):
        queue.enqueue_bytes(b"%d" % number)
    used = queue.stats().bytes
    queue.configure(Limits(max_jobs=20, max_bytes=used, max_dead_jobs=20))
    for lease in queue.claim(20):
        lease.retry()
    for lease in queue.claim(20):
        lease.release()
    assert (queue.stats().jobs, queue.stats().bytes) == (20, used)
    for lease in queue.claim(20):
        lease.bury("failed")
    stats = queue.stats()
    assert (stats.jobs, stats.bytes, stats.dead) == (0, 0, 20)
    assert stats.dead_bytes >= used


def test_lower_limit_stops_admission_only(env: Env) -> None:
    """A limit below what is held refuses new jobs and touches no old one (R-60)."""
    queue, other = env.queue(max_jobs=10), env.queue(max_jobs=10)
    for _ in range(5):
        queue.enqueue_bytes(b"x")
    other.stats()
    assert queue.configure(Limits(max_jobs=2))
    with pytest.raises(QueueFull) as raised:
        other.enqueue_bytes(b"x")
    assert (raised.value.used, raised.value.limit) == (5, 2)
    lease = claim_one(other)
    lease.retry()
    assert len(take(queue, 4)) == 4
    other.enqueue_bytes(b"x")
    assert other.try_enqueue_bytes(b"x").reason == "jobs"


def test_refusal_tells_the_age_of_the_backlog(fake: Env) -> None:
    """``oldest_age`` is that of the oldest ready job: a spike is not a backlog (C8)."""
    queue = fake.queue(max_jobs=2)
    queue.enqueue_bytes(b"x")
    fake.elapse(100)
    queue.enqueue_bytes(b"x", priority="high")
    assert queue.try_enqueue_bytes(b"x").oldest_age == pytest.approx(100, abs=3)
    assert queue.try_enqueue_bytes(b"x", delay=5).oldest_age == pytest.approx(100, abs=3)
    held = queue.claim(2)
    assert queue.try_enqueue_bytes(b"x").oldest_age == 0.0, "none is ready"
    queue.settle(acks=held)


def test_retry_after_follows_the_drain_rate(fake: Env) -> None:
    """``retry_after`` comes from the measured rate, with jitter; and is None again when nobody drains (R-74)."""
    queue = fake.queue(max_jobs=200)
    for _ in range(200):
        queue.enqueue_bytes(b"x")
    for _ in range(8):  # 10 jobs a second
        fake.elapse(1)
        take(queue, 10)
    queue.enqueue_many([b"x"] * 100)
    waits = {queue.try_enqueue_bytes(b"x").retry_after for _ in range(20)}
    assert len(waits) > 1, "no jitter"
    assert all(0.05 <= wait <= 0.5 for wait in waits), waits
    assert queue.stats().drain_rate == pytest.approx(10, rel=0.3)
    fake.elapse(60)
    assert queue.try_enqueue_bytes(b"x").retry_after is None
    assert queue.stats().drain_rate is None


def test_racing_producers_never_pass_the_limit(env: Env) -> None:
    """Producers at the same queue leave exactly ``max_jobs`` in it, and each refusal is certain (R-01)."""

    def produce() -> int:
        queue = env.queue(max_jobs=50)
        return sum(type(queue.try_enqueue_bytes(b"x")).__name__ == "Receipt" for _ in range(20))

    admitted = [future.result() for future in [env.background(produce) for _ in range(4)]]
    assert sum(admitted) == 50
    queue = env.queue(max_jobs=50)
    assert (queue.stats().jobs, queue.stats().admitted, queue.stats().rejected["jobs"]) == (50, 50, 30)
