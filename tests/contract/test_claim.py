"""Claim: how many, how much, how long, and waiting for the first."""

from __future__ import annotations

import time

import pytest

from boundq import ConfigError, Limits
from boundq._core import delivery
from tests.contract._env import Env, claim_one, payloads, take


def test_empty_queue_gives_nothing(env: Env) -> None:
    """Where there is no job, a claim without wait answers at once with none."""
    assert env.queue().claim() == []
    assert env.queue().claim(500) == []


@pytest.mark.everywhere
def test_claims_up_to_n(env: Env) -> None:
    """n is the most that one claim gives; no job is given twice."""
    queue, other = env.queue(), env.queue()
    queue.enqueue_many([b"%d" % number for number in range(10)])
    first, second, third = queue.claim(4), other.claim(4), queue.claim(4)
    assert [len(one) for one in (first, second, third)] == [4, 4, 2]
    assert payloads([*first, *second, *third]) == [b"%d" % number for number in range(10)]
    assert (queue.stats().active, queue.stats().ready, queue.stats().deliveries) == (10, 0, 10)


@pytest.mark.everywhere
def test_500_at_once(env: Env) -> None:
    """The largest claim is one call, and so is its settlement."""
    queue = env.queue()
    queue.enqueue_many([b"x"] * 501)
    leases = queue.claim(500)
    assert len(leases) == 500
    assert queue.settle(acks=leases) == []
    assert queue.stats().jobs == 1


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 501}, {"n": -1}, {"n": True}, {"n": 1.0}, {"wait": -1}], ids=str)
def test_claim_arguments(fake: Env, options: dict) -> None:
    """n is 1 to 500, a wait is not negative."""
    with pytest.raises(ConfigError) as raised:
        fake.queue().claim(**options)
    assert raised.value.setting in options


@pytest.mark.parametrize("lease", [0, -1, 0.05, float("nan"), float("inf"), 1e10, 1e308, "30"], ids=repr)
def test_lease_that_makes_no_sense(fake: Env, lease: object) -> None:
    """A lease is 0.1 s or more, and ends before the clock of the scores does; in a claim as in an extension."""
    queue = fake.queue()
    queue.enqueue_bytes(b"x")
    with pytest.raises(ConfigError):
        queue.claim(lease=lease)
    held = claim_one(queue)
    with pytest.raises(ConfigError):
        held.extend(lease)
    held.ack()


def test_extension_may_shorten(fake: Env) -> None:
    """A lease ends when its last extension says so, also where that is sooner than before."""
    queue = fake.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue, lease=300)
    lease.extend(10)
    fake.elapse(11)
    assert claim_one(queue).attempt == 2


def test_lease_of_a_year(fake: Env) -> None:
    """A long lease is as good as a short one: fenced, extendable, and it can be acked."""
    queue = fake.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue, lease=365 * 86400)
    fake.elapse(364 * 86400)
    assert queue.claim() == []
    lease.extend(365 * 86400)
    lease.ack()
    assert queue.stats().jobs == 0


@pytest.mark.everywhere
def test_reply_is_capped_in_bytes(env: Env) -> None:
    """One claim's envelopes are 4 MiB together at most, however many were asked for (R-89)."""
    queue = env.queue(limits=Limits(max_job_bytes="2 MiB"))
    for number in range(6):
        queue.enqueue_bytes(bytes([number]) + b"x" * 1_500_000)
    sizes: list[list[int]] = []
    while leases := queue.claim(500):
        sizes.append([len(lease.payload) for lease in leases])
        assert queue.settle(acks=leases) == []
    assert all(sum(some) <= 4 * 2**20 for some in sizes)
    assert [len(some) for some in sizes] == [2, 2, 2]


def test_one_job_is_given_whatever_its_size(env: Env) -> None:
    """A job larger than the cap of a reply is claimed alone, not never."""
    queue = env.queue(limits=Limits(max_job_bytes="8 MiB"))
    queue.enqueue_bytes(b"x" * 5_000_000)
    queue.enqueue_bytes(b"y")
    assert [len(one) for one in take(queue)] == [5_000_000]
    assert take(queue) == [b"y"]


def test_capped_reply_keeps_the_order(env: Env) -> None:
    """A job that does not fit into the reply any more is the first of the next: no smaller one overtakes it."""
    queue = env.queue(limits=Limits(max_job_bytes="4 MiB"))
    for payload in (b"1" * 3_000_000, b"2" * 3_000_000, b"3"):
        queue.enqueue_bytes(payload)
    assert [one[:1] for one in take(queue)] == [b"1"]
    assert [one[:1] for one in take(queue)] == [b"2", b"3"]


def test_capped_reply_of_retried_jobs(env: Env) -> None:
    """The cap holds for jobs that were delivered before, and none of them is lost by it."""
    queue = env.queue(limits=Limits(max_job_bytes="4 MiB"))
    for _ in range(3):
        queue.enqueue_bytes(b"x" * 3_000_000)
    lease = 30 if env.server is None else 2
    for _ in range(3):
        claim_one(queue, lease=lease)
    assert queue.stats().active == 3
    env.elapse(lease + 0.3)
    for _ in range(3):
        leases = queue.claim(10)
        assert [lease.attempt for lease in leases] == [2]
        leases[0].ack()


def test_wait_times_out_empty(env: Env) -> None:
    """A claim that waits gives up after its wait, not before and not much later."""
    queue = env.queue()
    start = time.monotonic()
    assert queue.claim(wait=0.3) == []
    assert 0.29 <= time.monotonic() - start < 3


@pytest.mark.everywhere
def test_wait_is_ended_by_a_job(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that waits gets a job that comes meanwhile."""
    monkeypatch.setattr(delivery, "IDLE_SECONDS", 25.0)  # nobody asks again by himself
    waiting = env.background(lambda: payloads(env.queue().claim(wait=20)))
    producer = env.queue()
    env.until_blocked(1)
    producer.enqueue_bytes(b"x")
    assert waiting.result(timeout=10) == [b"x"]


def test_wait_is_ended_by_a_job_that_falls_due(env: Env) -> None:
    """A claim that waits gets a job whose delay passes meanwhile, without anybody's help."""
    queue = env.queue()
    queue.enqueue_bytes(b"x", delay=0.2)
    assert payloads(queue.claim(wait=20)) == [b"x"]


@pytest.mark.everywhere
def test_wait_is_ended_by_an_expired_lease(env: Env) -> None:
    """A claim that waits gets the job of a worker that died (R-08)."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    queue.claim(lease=0.2)
    (lease,) = queue.claim(wait=20)
    assert (lease.payload, lease.attempt, lease.expired_leases) == (b"x", 2, 1)


def test_every_waiting_worker_gets_one(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that come together wake as many waiting workers as there are jobs: the wake-up is passed on."""
    monkeypatch.setattr(delivery, "IDLE_SECONDS", 25.0)  # nobody asks again by himself
    waiting = [env.background(lambda: payloads(env.queue().claim(wait=20))) for _ in range(3)]
    producer = env.queue()
    env.until_blocked(3)
    for number in range(3):
        producer.enqueue_bytes(b"%d" % number)
    assert sorted(one.result(timeout=15)[0] for one in waiting) == [b"0", b"1", b"2"]


def test_resume_wakes_who_waits(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that waits at a paused queue goes on when it is resumed."""
    monkeypatch.setattr(delivery, "IDLE_SECONDS", 25.0)  # nobody asks again by himself
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    queue.pause()
    waiting = env.background(lambda: payloads(env.queue().claim(wait=20)))
    env.until_blocked(1)
    assert not waiting.done()
    queue.resume()
    assert waiting.result(timeout=10) == [b"x"]


@pytest.mark.parametrize("way", ["caps", "expires"])
def test_claim_of_one_is_not_empty_while_there_is_one(fake: Env, way: str) -> None:
    """Jobs that end in a claim (caps, expiry) do not hide one behind them that can be claimed."""
    queue = fake.queue(limits=Limits(max_deliveries=1))
    if way == "caps":
        queue.enqueue_many([b"bad", b"bad", b"bad"])
        for lease in queue.claim(3):
            lease.retry()
        queue.enqueue_bytes(b"good", delay=1)
    else:
        for _ in range(3):
            queue.enqueue_bytes(b"bad", delay=1, expires=2)
        queue.enqueue_bytes(b"good", delay=2)
    fake.elapse(10)
    assert take(queue, 1) == [b"good"]


@pytest.mark.parametrize("way", ["caps", "expires"])
def test_waiting_claim_steps_over_those_that_ended(fake: Env, way: str) -> None:
    """Likewise where the claim waits: it finds the job at once, not after its wait."""
    queue = fake.queue(limits=Limits(max_deliveries=1))
    for _ in range(30):
        queue.enqueue_bytes(b"bad", **({"expires": 1} if way == "expires" else {}))
    if way == "caps":
        queue.claim(30, lease=1)
    fake.elapse(10)
    queue.enqueue_bytes(b"good")
    start = time.monotonic()
    assert payloads(queue.claim(1, wait=10)) == [b"good"]
    assert time.monotonic() - start < 5


def test_a_claim_ends_a_bounded_number_of_jobs(fake: Env) -> None:
    """However many jobs have expired, one script ends a bounded number of them, and the claim goes on (R-26)."""
    queue = fake.queue()
    for _ in range(30):
        queue.enqueue_many([b"x"] * 100, expires=1)
    queue.enqueue_bytes(b"good")
    fake.elapse(5)
    core = queue.inner if fake.shell == "async" else queue
    flow = core._deliveries.claim(1, 30, 0.0)
    scripts = 0
    call = next(flow)
    try:
        while True:
            before = int(fake.command("HGET", fake.key("state"), "expired"))
            scripts += 1
            answer = fake.answer(call)
            ended = int(fake.command("HGET", fake.key("state"), "expired")) - before
            assert ended <= 1500, f"one script ended {ended} jobs"
            call = flow.send(answer)
    except StopIteration as stop:
        (delivery,) = stop.value
    assert delivery.envelope.payload == b"good"
    assert scripts > 1
    assert queue.stats().expired == 3000
