"""Keys that were lost, or are somebody else's, and envelopes that nobody can read (R-25)."""

from __future__ import annotations

import pytest

from boundq import DataError, Limits
from tests.contract._env import Env, claim_one, take

PARTS = {
    **dict.fromkeys(("state", "jobs", "errors", "unique"), "hash"),
    **dict.fromkeys(("leases", "due0", "due1", "due2", "due3", "dead", "windows"), "zset"),
    **dict.fromkeys(("wake", "room", "turn"), "list"),
    "events": "stream",
}


@pytest.mark.everywhere
@pytest.mark.parametrize("part", PARTS)
def test_foreign_key_is_named(env: Env, part: str) -> None:
    """A client that meets a key of a foreign type says which, and writes nothing."""
    env.command("SET", env.key(part), "somebody's")
    with pytest.raises(DataError) as raised:
        env.queue().enqueue_bytes(b"x")
    assert raised.value.reason == "wrong_type"
    assert env.key(part) in str(raised.value)
    assert "string" in str(raised.value)
    assert env.command("GET", env.key(part)) == b"somebody's"
    assert env.command("EXISTS", env.key("state" if part != "state" else "jobs")) == 0


ENDS = {
    "ack": lambda lease: lease.ack(),
    "retry": lambda lease: lease.retry(),
    "release": lambda lease: lease.release(),
    "bury": lambda lease: lease.bury("bad", "text"),
}
ABSENT = ("due1", "dead", "errors", "unique", "windows", "wake", "room", "turn", "events")


@pytest.mark.parametrize("part", ABSENT)
@pytest.mark.parametrize("end", ENDS)
def test_foreign_key_under_way_costs_no_job(env: Env, part: str, end: str) -> None:
    """
    A foreign key in the place of one that boundq needs makes calls fail with `DataError`, whole: once it is gone,
    every job is where it was, can be claimed and done, and the books are right.
    """
    queue = env.queue()
    queue.enqueue_many([b"1", b"2", b"3"])
    lease = claim_one(queue)
    env.command("SET", env.key(part), "somebody's")
    reasons: set[str] = set()
    calls = [
        lambda: queue.claim(wait=0.05),
        lambda: ENDS[end](lease),
        lambda: queue.enqueue_bytes(b"plain"),
        lambda: queue.enqueue_bytes(b"general", delay=0.01),
        lambda: queue.enqueue_bytes(b"general", unique="a"),
        lambda: queue.enqueue_bytes(b"general", unique="b", unique_for=0.01),
        lambda: queue.pause(),
        lambda: queue.resume(),
        lambda: queue.configure(Limits(max_dead_jobs=99)),
    ]
    for call in calls:
        try:
            call()
        except DataError as error:
            reasons.add(error.reason)
    assert reasons <= {"wrong_type"}
    env.command("DEL", env.key(part))
    queue.resume()
    if queue.get(lease.id) is not None and queue.get(lease.id).state == "active":
        lease.ack()
    env.elapse(0.05)
    for active in queue.peek("active", 50).jobs:
        queue.cancel(active.id)  # what the first claim took
    while take(queue):
        pass
    assert queue.stats().jobs == 0, "a job is in no state: nobody will ever be given it"


@pytest.mark.everywhere
def test_lost_payloads(env: Env) -> None:
    """Where the payloads were deleted by hand, claims go on without an exception, and what is missing is counted."""
    queue = env.queue(limits=Limits(max_jobs=3))
    env.damaged()
    queue.enqueue_many([b"1", b"2", b"3"])
    claim_one(queue, lease=0.1)
    claim_one(queue).retry()
    env.command("DEL", env.key("jobs"))
    env.elapse(0.3)
    assert queue.claim(10) == []
    stats = queue.stats()
    assert stats.missing == 2, "the lease and the retry pointed at nothing; the third was a hole"
    assert (stats.active, stats.scheduled) == (0, 0)
    assert stats.imbalance == 3, "the ledger shows the loss"
    assert not queue.recount().ok
    assert queue.recount(repair=True).repaired
    assert queue.stats().bytes == 0
    queue.enqueue_many([b"4", b"5"])
    assert take(queue) == [b"4", b"5"]


def test_purge_ends_although_payloads_are_lost(env: Env) -> None:
    """A purge of leases that point at nothing takes them out, and ends."""
    queue = env.queue()
    env.damaged()
    queue.enqueue_many([b"x"] * 500)
    assert len(queue.claim(500)) == 500
    queue.enqueue_bytes(b"later", delay=60)
    env.command("DEL", env.key("jobs"))
    core = getattr(queue, "inner", queue)
    flow = core._control.purge(("active", "scheduled"))  # by hand, so that an endless one can be stopped
    call = next(flow)
    for _ in range(10):
        try:
            call = flow.send(env.answer(call))
        except StopIteration:
            break
    else:
        pytest.fail("the purge does not end")
    assert env.command("ZCARD", env.key("leases")) == 0
    assert env.command("ZCARD", env.key("due1")) == 0


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x02future", b"\x01\xff", b"nonsense" * 10, bytes(64)], ids=repr)
def test_envelope_that_nobody_can_read(env: Env, garbage: bytes) -> None:
    """A claim hands it over with the reason and the raw bytes, so that a worker can bury it; inspections show it."""
    queue = env.queue()
    env.damaged()
    receipt = queue.enqueue_bytes(b"x")
    queue.enqueue_bytes(b"good")
    env.command("HSET", env.key("jobs"), receipt.id, garbage)
    assert queue.get(receipt.id).payload == garbage
    assert queue.peek().jobs[0].error
    bad, good = queue.claim(2)
    assert bad.payload == garbage
    assert bad.problem.reason in ("undecodable", "unknown_version")
    assert (bad.task, bad.headers, good.problem, good.payload) == ("", {}, None, b"good")
    bad.bury(bad.problem.reason, str(bad.problem))
    good.ack()
    if garbage:
        job = queue.get(receipt.id)
        assert (job.state, job.payload, job.reason) == ("dead", garbage, bad.problem.reason)


def test_queue_of_a_newer_format(env: Env) -> None:
    """A queue that a newer boundq wrote is refused by every call, never guessed (R-145)."""
    old = env.queue()
    old.enqueue_bytes(b"x")
    env.command("HSET", env.key("state"), "format", "2")
    env.damaged()
    for queue in (old, env.queue()):
        for call in (
            lambda queue=queue: queue.enqueue_bytes(b"x"),
            lambda queue=queue: queue.enqueue_bytes(b"x", delay=1),
            lambda queue=queue: queue.claim(),
            lambda queue=queue: queue.stats(),
            lambda queue=queue: queue.get("9"),
            lambda queue=queue: queue.peek(),
            lambda queue=queue: queue.cancel("9"),
            lambda queue=queue: queue.purge(),
            lambda queue=queue: queue.pause(),
            lambda queue=queue: queue.recount(),
        ):
            with pytest.raises(DataError) as raised:
                call()
            assert raised.value.reason == "unknown_version"
    env.command("HSET", env.key("state"), "format", "1")
    assert take(old) == [b"x"]


def test_queue_lost_while_in_use(env: Env) -> None:
    """Where all keys of a queue were deleted, the next enqueue creates it anew, and jobs come and go."""
    queue = env.queue(max_jobs=2)
    queue.enqueue_bytes(b"1")
    lease = claim_one(queue)
    env.command("DEL", *(env.key(part) for part in PARTS))
    queue.enqueue_bytes(b"2")
    queue.enqueue_bytes(b"3", delay=0.01)
    assert queue.stats().limits.max_jobs == 2
    assert queue.settle(acks=[lease]) == [lease], "the old delivery cannot end the new job"
    env.elapse(0.05)
    assert sorted(take(queue)) == [b"2", b"3"]


def test_old_lease_of_a_lost_queue(env: Env) -> None:
    """A delivery from before a queue was lost does not end a new job that has got its id."""
    queue = env.queue()
    queue.enqueue_bytes(b"1")
    old = claim_one(queue)
    env.command("DEL", *(env.key(part) for part in PARTS))
    queue.enqueue_bytes(b"2")
    new = claim_one(queue)
    assert new.delivery.fence != old.delivery.fence
    assert new.id == old.id
    assert queue.settle(acks=[old]) == [old]
    new.ack()
