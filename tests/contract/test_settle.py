"""Settlement: ack, retry, release, bury, extend; once, twice, and with a lease that is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from boundq import ConfigError, LeaseLost, Limits
from tests.contract._env import Env, claim_one, take, until_claimed

WAYS = {
    "ack": lambda lease: lease.ack(),
    "retry": lambda lease: lease.retry(),
    "release": lambda lease: lease.release(),
    "bury": lambda lease: lease.bury("bad", "text"),
    "extend": lambda lease: lease.extend(30),
}
COUNTERS = ("acked", "retried", "released", "buried", "leases_lost", "leases_expired", "deliveries", "dead", "jobs")


def counters(queue: object) -> dict[str, int]:
    stats = queue.stats()
    return {name: getattr(stats, name) for name in COUNTERS}


def changed(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in COUNTERS if after[name] != before[name]}


def test_ack_deletes_the_job(env: Env) -> None:
    """An acked job leaves nothing behind (R-14)."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(b"x" * 1000)
    claim_one(queue).ack()
    assert queue.get(receipt.id) is None
    stats = queue.stats()
    assert (stats.jobs, stats.bytes, stats.acked, stats.active) == (0, 0, 1, 0)
    assert env.command("HLEN", env.key("jobs")) == 0
    assert env.command("ZCARD", env.key("leases")) == 0


def test_retry_counts_a_failure(env: Env) -> None:
    """A retried job comes again, with one more delivery and one more failure (R-12)."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(b"x")
    for attempt in (1, 2, 3):
        lease = claim_one(queue)
        assert (lease.id, lease.attempt, lease.expired_leases) == (receipt.id, attempt, 0)
        job = queue.get(receipt.id)
        assert (job.state, job.deliveries, job.failures, job.expired_leases) == ("active", attempt, attempt - 1, 0)
        lease.retry()
        job = queue.get(receipt.id)
        assert (job.state, job.deliveries, job.failures) == ("scheduled", attempt, attempt)
    assert (queue.stats().retried, queue.stats().deliveries) == (3, 3)
    assert take(queue) == [b"x"]


@pytest.mark.parametrize("delay", [0, 0.05, timedelta(milliseconds=50)], ids=str)
def test_retry_after_a_delay(env: Env, delay: object) -> None:
    """The delay is seconds or a timedelta."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    claim_one(queue).retry(delay)
    assert until_claimed(queue)[0].attempt == 2


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "5", None, 1e11, 1e13, 1e308], ids=repr)
def test_retry_delay_that_makes_no_sense(fake: Env, delay: object) -> None:
    """A delay that is none, or lies beyond what a score can say, is refused; the lease stands."""
    queue = fake.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue)
    with pytest.raises(ConfigError):
        lease.retry(delay)
    assert (queue.get(lease.id).state, queue.stats().retried) == ("active", 0)
    lease.ack()


def test_release_gives_the_delivery_back(env: Env) -> None:
    """A released job is claimable at once, as if it had not been delivered (R-92)."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    for _ in range(3):
        lease = claim_one(queue)
        assert lease.attempt == 1
        lease.release()
        job = queue.get(lease.id)
        assert (job.deliveries, job.failures) == (0, 0)
    lease = claim_one(queue)
    lease.retry()
    lease = claim_one(queue)
    lease.release()
    assert (queue.get(lease.id).deliveries, queue.get(lease.id).failures) == (1, 1)
    assert claim_one(queue).attempt == 2


@pytest.mark.everywhere
def test_bury_keeps_everything_but_the_queue(env: Env) -> None:
    """A dead letter has id, payload, headers, reason, text and counts; it is out of the queue's budget (R-99)."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(b"x", headers={"a": "b"}, priority="high")
    claim_one(queue).retry()
    claim_one(queue).bury("bad payload", "Traceback\nline 2")
    job = queue.get(receipt.id)
    assert (job.state, job.payload, job.headers, job.priority) == ("dead", b"x", {"a": "b"}, "high")
    assert (job.reason, job.error) == ("bad payload", "Traceback\nline 2")
    assert (job.deliveries, job.failures, job.expired_leases) == (2, 2, 0)
    assert job.due == pytest.approx(env.now(), abs=5)
    stats = queue.stats()
    assert (stats.jobs, stats.bytes, stats.dead, stats.buried) == (0, 0, 1, 1)
    assert stats.dead_bytes > 0
    assert queue.claim() == []


def test_reason_and_text_are_cut(env: Env) -> None:
    """Reason and text are bounded, whatever they are; a reason is one line."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(b"x")
    claim_one(queue).bury("a\nb" + "r" * 5000, "ž\ud800\0" + "t" * 50_000)
    job = queue.get(receipt.id)
    assert len(job.reason.encode()) <= 200
    assert "\n" not in job.reason
    assert len(job.error.encode()) <= 2000
    assert job.error.startswith("ž")


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", ["ack", "retry", "release", "bury"])
def test_each_delivery_is_settled_once(env: Env, first: str, second: str) -> None:
    """Whatever comes after a settlement is `LeaseLost`, changes nothing, and counts once as lost (R-09)."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(b"x")
    lease = claim_one(queue)
    WAYS[first](lease)
    before, job = counters(queue), queue.get(receipt.id)
    with pytest.raises(LeaseLost) as raised:
        WAYS[second](lease)
    assert (raised.value.queue, raised.value.job_id) == (env.name, receipt.id)
    if second != "extend":
        assert raised.value.cancelled == (first == "ack")
        assert changed(before, counters(queue)) == {"leases_lost": 1}
    after = queue.get(receipt.id)
    assert (after and replace(after, seen=0.0)) == (job and replace(job, seen=0.0))


@pytest.mark.everywhere
@pytest.mark.parametrize("way", WAYS)
def test_stale_worker_is_fenced(env: Env, way: str) -> None:
    """Whose lease ran out and whose job another took gets `LeaseLost`; the other's delivery is untouched (R-09)."""
    queue, other = env.queue(), env.queue()
    queue.enqueue_bytes(b"x")
    stale = claim_one(queue, lease=0.1)
    (lease,) = until_claimed(other)
    assert (lease.id, lease.attempt, lease.expired_leases) == (stale.id, 2, 1)
    before = counters(queue)
    with pytest.raises(LeaseLost) as raised:
        WAYS[way](stale)
    assert not raised.value.cancelled
    assert changed(before, counters(queue)) == ({} if way == "extend" else {"leases_lost": 1})
    assert queue.get(stale.id).state == "active"
    lease.extend()
    lease.ack()
    assert (queue.stats().acked, queue.stats().leases_expired, queue.stats().deliveries) == (1, 1, 2)


@pytest.mark.parametrize("way", WAYS)
def test_late_worker_that_nobody_overtook(env: Env, way: str) -> None:
    """A lease that ran out, but was not yet taken by another, is still good: the work is not thrown away."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue, lease=0.1)
    env.elapse(0.3)
    WAYS[way](lease)
    assert queue.stats().leases_lost == 0


@pytest.mark.everywhere
def test_counts_of_crashes_and_failures(env: Env) -> None:
    """``deliveries = failures + expired_leases + (1 if active)``, through retries, crashes and releases (R-12)."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(b"x")
    claim_one(queue).retry()
    claim_one(queue, lease=0.1)
    until_claimed(queue, lease=0.1)
    (lease,) = until_claimed(queue)
    job = queue.get(receipt.id)
    assert (lease.attempt, lease.expired_leases) == (4, 2)
    assert (job.deliveries, job.failures, job.expired_leases) == (4, 1, 2)
    lease.release()
    job = queue.get(receipt.id)
    assert (job.deliveries, job.failures, job.expired_leases) == (3, 1, 2)
    claim_one(queue).bury("bad")
    job = queue.get(receipt.id)
    assert (job.deliveries, job.failures, job.expired_leases) == (4, 2, 2)
    stats = queue.stats()
    assert (stats.leases_expired, stats.retried, stats.released, stats.buried, stats.deliveries) == (2, 1, 1, 1, 5)


@pytest.mark.parametrize("most", [3, 15, 16, 100])
def test_job_that_takes_its_workers_down(fake: Env, most: int) -> None:
    """
    A job that crashes every worker runs ``max_deliveries`` times, 15 at most, and is buried without being run again
    (R-11); crashes and failures are told apart to the last one (R-12).
    """
    queue = fake.queue(limits=Limits(max_deliveries=most))
    receipt = queue.enqueue_bytes(b"bad", priority="high")
    queue.enqueue_bytes(b"good")
    runs = 0
    while (lease := claim_one(queue, lease=1)).payload == b"bad":
        runs += 1
        job = queue.get(receipt.id)
        assert (lease.attempt, lease.expired_leases) == (runs, runs - 1)
        assert (job.deliveries, job.expired_leases, job.failures) == (runs, runs - 1, 0)
        fake.elapse(2)
    assert runs == min(most, 15)
    job = queue.get(receipt.id)
    assert (job.state, job.deliveries, job.expired_leases, job.failures) == ("dead", runs, runs, 0)
    assert job.reason == ("max_deliveries" if most <= 15 else "lost_leases")
    lease.ack()
    assert queue.stats().leases_expired == runs


def test_extend_lengthens(env: Env) -> None:
    """An extended lease is kept past its first end, and its token stays good."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue, lease=0.2)
    lease.extend(60)
    assert lease.remaining == pytest.approx(60, abs=5)
    env.elapse(0.4)
    assert queue.claim() == []
    assert queue.get(lease.id).due == pytest.approx(env.now() + 60, abs=5)
    lease.extend(timedelta(seconds=90))
    lease.ack()


def test_remaining_counts_down(env: Env) -> None:
    """A lease knows how long it is good for."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue, lease=5)
    assert 3 < lease.remaining <= 5
    assert lease.deadline == pytest.approx(env.now() + 5, abs=2)


@pytest.mark.everywhere
def test_settle_many_at_once(env: Env) -> None:
    """One call settles a batch in four ways, and names exactly those whose lease was gone."""
    queue = env.queue()
    queue.enqueue_many([b"%d" % number for number in range(8)])
    leases = queue.claim(8)
    gone = [leases[0], leases[2], leases[4], leases[6]]
    queue.cancel(gone[0].id)
    for lease in gone[1:]:
        lease.ack()
    lost = queue.settle(
        acks=leases[0:2],
        retries=[(leases[2], 5), (leases[3], timedelta(seconds=5))],
        releases=leases[4:6],
        buries=[(leases[6], "bad", ""), (leases[7], "bad", "text")],
    )
    assert lost == gone
    assert all(lease.cancelled for lease in gone)
    assert [getattr(queue.get(lease.id), "state", None) for lease in leases[1::2]] == [
        *(None, "scheduled", "scheduled", "dead"),
    ]
    stats = queue.stats()
    assert (stats.acked, stats.retried, stats.released, stats.buried, stats.leases_lost) == (4, 1, 1, 1, 4)


def test_settle_nothing(env: Env) -> None:
    """No leases, nothing done."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    assert queue.settle() == []
    assert queue.extend([]) == []


@pytest.mark.everywhere
def test_settle_more_than_one_script(env: Env) -> None:
    """More than 500 go out in several scripts."""
    queue = env.queue()
    queue.enqueue_many([b"x"] * 1100)
    leases = queue.claim(500) + queue.claim(500) + queue.claim(500)
    assert len(leases) == 1100
    assert queue.extend(leases, 60) == []
    assert queue.settle(acks=leases[:600], retries=[(one, 60) for one in leases[600:]]) == []
    assert (queue.stats().acked, queue.stats().scheduled) == (600, 500)


def test_stale_and_live_lease_of_one_job(env: Env) -> None:
    """Where both deliveries of a job are in one batch, the stale one comes back as lost, and only it."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    stale = claim_one(queue, lease=0.1)
    (live,) = until_claimed(queue)
    assert queue.extend([stale, live], 60) == [stale]
    assert live.remaining > 40
    assert queue.settle(acks=[stale, live]) == [stale]
    assert queue.stats().acked == 1


def test_one_lease_twice_in_a_batch(env: Env) -> None:
    """The same lease twice in one call counts once (R-64)."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue)
    assert queue.settle(acks=[lease, lease]) == [lease]
    assert (queue.stats().acked, queue.stats().jobs) == (1, 0)


def test_block_acks(env: Env) -> None:
    """``with lease:`` acks at the end of the block."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    with claim_one(queue) as lease:
        assert lease.payload == b"x"
        assert not lease.settled
    assert lease.settled
    assert (queue.stats().acked, queue.stats().jobs) == (1, 0)


def test_block_that_raises_retries(env: Env) -> None:
    """An exception in the block counts a failure, and goes on."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    with pytest.raises(ZeroDivisionError), claim_one(queue):
        _ = 1 / 0
    assert claim_one(queue).attempt == 2
    assert queue.stats().retried == 1


@pytest.mark.parametrize("way", ["ack", "retry", "release", "bury"])
def test_block_that_settles_itself(env: Env, way: str) -> None:
    """A lease that was settled within its block is left alone at its end."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    with claim_one(queue) as lease:
        WAYS[way](lease)
    assert queue.stats().leases_lost == 0


def test_block_settled_through_the_queue(env: Env) -> None:
    """Likewise where it was settled in a batch."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    with claim_one(queue) as lease:
        assert queue.settle(acks=[lease]) == []
    assert queue.stats().leases_lost == 0


def test_block_keeps_the_exception_when_the_lease_is_lost(env: Env) -> None:
    """What the handler raised is what the caller sees, also where the lease was lost meanwhile."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue)
    queue.cancel(lease.id)
    with pytest.raises(ZeroDivisionError), lease:
        _ = 1 / 0


def test_block_tells_when_the_lease_is_lost(env: Env) -> None:
    """A block that ended well, but whose lease was lost, says so."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    with pytest.raises(LeaseLost) as raised, claim_one(queue) as lease:
        queue.cancel(lease.id)
    assert raised.value.cancelled
    assert lease.cancelled or lease.settled


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_while_active(env: Env, way: str) -> None:
    """A worker whose job was cancelled learns it at its next call (R-105)."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue)
    assert queue.cancel(lease.id)
    with pytest.raises(LeaseLost) as raised:
        WAYS[way](lease)
    if way != "extend":
        assert raised.value.cancelled


def test_max_deliveries_buries_in_claim(env: Env) -> None:
    """A job that was delivered as often as allowed is buried instead of being given out, the next one is not (R-11)."""
    queue = env.queue(limits=Limits(max_deliveries=3))
    receipt = queue.enqueue_bytes(b"bad")
    for attempt in (1, 2, 3):
        lease = claim_one(queue)
        assert lease.attempt == attempt
        lease.retry()
    queue.enqueue_bytes(b"good")
    assert take(queue) == [b"good"]
    job = queue.get(receipt.id)
    assert (job.state, job.reason, job.deliveries, job.failures) == ("dead", "max_deliveries", 3, 3)
    assert (queue.stats().buried, queue.stats().deliveries) == (1, 4)


@pytest.mark.everywhere
def test_max_deliveries_counts_crashes(env: Env) -> None:
    """A job that kills its workers runs exactly ``max_deliveries`` times."""
    queue = env.queue(limits=Limits(max_deliveries=2))
    receipt = queue.enqueue_bytes(b"bad")
    claim_one(queue, lease=0.1)
    until_claimed(queue, lease=0.1)
    env.elapse(0.3)
    assert queue.claim(10) == []
    job = queue.get(receipt.id)
    assert (job.state, job.reason, job.deliveries, job.expired_leases) == ("dead", "max_deliveries", 2, 2)
    assert (queue.stats().leases_expired, queue.stats().buried) == (2, 1)


@pytest.mark.parametrize("way", ["retry", "expire", "release"])
def test_max_age_buries_in_claim(fake: Env, way: str) -> None:
    """A job that was delivered before and is too old is buried, across retries and releases (R-54)."""
    queue = fake.queue(limits=Limits(max_age=3600))
    receipt = queue.enqueue_bytes(b"old")
    lease = claim_one(queue, lease=10)
    if way != "expire":
        WAYS[way](lease)
    fake.elapse(3700)
    queue.enqueue_bytes(b"new")
    assert take(queue) == [b"new"]
    job = queue.get(receipt.id)
    assert (job.state, job.reason) == ("dead", "max_age")


def test_max_age_spares_what_was_never_delivered(fake: Env) -> None:
    """A job that waited long for its first delivery is not buried: only ``expires`` ends those."""
    queue = fake.queue(limits=Limits(max_age=3600))
    queue.enqueue_bytes(b"old")
    queue.enqueue_bytes(b"scheduled", delay=7000)
    fake.elapse(7200)
    assert sorted(take(queue)) == [b"old", b"scheduled"]
