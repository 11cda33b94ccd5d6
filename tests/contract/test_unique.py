"""Unique keys: one job per key while it is held, and when it is free again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from boundq import Limits
from tests.contract._env import Env, claim_one, take


@pytest.mark.everywhere
def test_duplicate_gets_the_first_receipt(env: Env) -> None:
    """While a job with the key is held, another is answered with its id and adds nothing (R-104)."""
    queue, other = env.queue(), env.queue()
    first = queue.enqueue_bytes(b"1", unique="k")
    again = other.enqueue_bytes(b"2", unique="k")
    assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
    assert (again.jobs, again.bytes) == (1, first.bytes)
    assert other.enqueue_bytes(b"3", unique="other").id != first.id
    assert queue.stats().unique_keys == 2
    assert take(queue) == [b"1", b"3"]


def test_key_is_charged(env: Env) -> None:
    """The key's entry is part of the job's charge (R-56), the same for a short and a long key."""
    queue = env.queue()
    plain = queue.enqueue_bytes(b"x" * 300).bytes
    short = queue.enqueue_bytes(b"x" * 300, unique="a").bytes - plain
    long = queue.enqueue_bytes(b"x" * 300, unique="b" * 10_000).bytes - plain - short
    assert short == long > plain


def test_key_of_any_text(env: Env) -> None:
    """Keys are texts of any kind; stored is a digest of a fixed size."""
    queue = env.queue()
    texts = ["a", "ж" * 1000, "{", "\n", "a\0b", "a\0c", " "]
    ids = [queue.enqueue_bytes(b"", unique=text).id for text in texts]
    assert len(set(ids)) == len(texts)
    assert [queue.enqueue_bytes(b"", unique=text).id for text in texts] == ids
    assert {len(queue.get(job).unique) for job in ids} == {16}
    assert queue.get(queue.enqueue_bytes(b"").id).unique is None


def _ack(queue: object, env: Env, job: str) -> None:
    claim_one(queue).ack()


def _bury(queue: object, env: Env, job: str) -> None:
    claim_one(queue).bury("bad")


def _cancel(queue: object, env: Env, job: str) -> None:
    assert queue.cancel(job)


def _cancel_active(queue: object, env: Env, job: str) -> None:
    claim_one(queue)
    assert queue.cancel(job)


def _purge(queue: object, env: Env, job: str) -> None:
    assert queue.purge() == 1


def _retry_and_ack(queue: object, env: Env, job: str) -> None:
    claim_one(queue).retry()
    assert queue.enqueue_bytes(b"", unique="k").duplicate, "retried is still held"
    claim_one(queue).ack()


def _settle_many(queue: object, env: Env, job: str) -> None:
    queue.enqueue_bytes(b"x", unique="z")
    assert queue.settle(acks=queue.claim(2)) == []


ENDS = [_ack, _bury, _cancel, _cancel_active, _purge, _retry_and_ack, _settle_many]


@pytest.mark.everywhere
@pytest.mark.parametrize("end", ENDS, ids=lambda one: one.__name__[1:])
def test_key_is_free_when_the_job_ends(env: Env, end: object) -> None:
    """Ack, bury, cancel and purge free the key and what it was charged."""
    queue = env.queue()
    first = queue.enqueue_bytes(b"1", unique="k")
    end(queue, env, first.id)
    assert (queue.stats().unique_keys, queue.stats().bytes) == (0, 0)
    second = queue.enqueue_bytes(b"2", unique="k")
    assert not second.duplicate
    assert second.id != first.id


def test_key_is_free_when_the_job_expires(env: Env) -> None:
    """Expiry frees it, noticed by a claim."""
    queue = env.queue()
    queue.enqueue_bytes(b"1", unique="k", expires=0.05)
    env.elapse(0.1)
    assert queue.claim() == []
    assert (queue.stats().unique_keys, queue.stats().bytes) == (0, 0)
    assert not queue.enqueue_bytes(b"2", unique="k").duplicate


def test_key_is_free_when_a_cap_buries_the_job(env: Env) -> None:
    """A claim that buries a job instead of giving it out frees its key."""
    queue = env.queue(limits=Limits(max_deliveries=1))
    queue.enqueue_bytes(b"1", unique="k")
    claim_one(queue).retry()
    assert queue.claim() == []
    assert (queue.stats().dead, queue.stats().unique_keys, queue.stats().bytes) == (1, 0, 0)
    assert not queue.enqueue_bytes(b"2", unique="k").duplicate


@pytest.mark.parametrize("state", ["active", "scheduled", "ready"])
def test_key_is_held_in_every_live_state(env: Env, state: str) -> None:
    """Ready, scheduled or active: the key is taken."""
    queue = env.queue()
    first = queue.enqueue_bytes(b"1", unique="k", **({"delay": 60} if state == "scheduled" else {}))
    if state == "active":
        queue.claim()
    assert queue.get(first.id).state == state
    assert queue.enqueue_bytes(b"2", unique="k").id == first.id


def test_duplicate_is_answered_at_a_full_queue(env: Env) -> None:
    """A key that is held is answered with its receipt even where there is no room (R-76)."""
    queue = env.queue(max_jobs=2)
    first = queue.enqueue_bytes(b"1", unique="k")
    queue.enqueue_bytes(b"2")
    assert queue.try_enqueue_bytes(b"3", unique="new").reason == "jobs"
    again = queue.enqueue_bytes(b"4", unique="k")
    assert (again.id, again.duplicate, again.jobs) == (first.id, True, 2)
    queue.configure(Limits(max_bytes=1000, max_jobs=100))
    assert queue.enqueue_bytes(b"x" * 10_000, unique="k").duplicate, "its size does not matter: it adds nothing"


@pytest.mark.everywhere
def test_window_holds_the_key_after_the_job(env: Env) -> None:
    """``unique_for`` holds the key from the enqueue on, whether the job is done or not; then it is free."""
    queue = env.queue()
    window, start = 0.6, env.now()
    first = queue.enqueue_bytes(b"1", unique="k", unique_for=window)
    claim_one(queue).ack()
    again = queue.enqueue_bytes(b"2", unique="k", unique_for=window)
    if env.now() - start < window:  # else: this machine was too slow to tell
        assert (again.id, again.duplicate, again.jobs) == (first.id, True, 0)
    else:
        take(queue)
    env.elapse(window + 0.1)
    third = queue.enqueue_bytes(b"3", unique="k")
    assert not third.duplicate
    assert take(queue) == [b"3"]
    assert (queue.stats().bytes, queue.stats().unique_keys) == (0, 0)


def test_window_does_not_cut_the_job_short(env: Env) -> None:
    """A job that is held longer than its window holds its key all the same."""
    queue = env.queue()
    first = queue.enqueue_bytes(b"1", unique="k", unique_for=0.05)
    env.elapse(0.1)
    assert queue.enqueue_bytes(b"2", unique="k").id == first.id
    claim_one(queue).ack()
    assert not queue.enqueue_bytes(b"3", unique="k").duplicate


@pytest.mark.parametrize("end", [_bury, _cancel, _purge], ids=lambda one: one.__name__[1:])
def test_window_outlives_every_end(env: Env, end: object) -> None:
    """However the job ends, the window holds the key until it has passed, and frees it then."""
    queue = env.queue()
    window, start = 0.6, env.now()
    first = queue.enqueue_bytes(b"1", unique="k", unique_for=window)
    end(queue, env, first.id)
    second = queue.enqueue_bytes(b"2", unique="k")
    assert second.id == first.id or env.now() - start >= window
    env.elapse(window + 0.1)
    assert second.id != first.id or not queue.enqueue_bytes(b"3", unique="k").duplicate


def test_window_that_has_passed_takes_no_room(fake: Env) -> None:
    """A window's charge ends with it: a plain enqueue finds the room, although nobody else comes by."""
    queue = fake.queue()
    charge = queue.enqueue_bytes(b"x" * 100).bytes
    take(queue)
    queue.enqueue_bytes(b"x" * 100, unique="k", unique_for=5)
    take(queue)
    queue.configure(Limits(max_bytes=charge))
    assert queue.try_enqueue_bytes(b"x" * 100).reason == "bytes", "the window is still open, and charged"
    fake.elapse(6)
    assert queue.enqueue_bytes(b"x" * 100).bytes == charge


def test_many_windows_that_have_passed_take_no_room(fake: Env) -> None:
    """Likewise where they are many: a batch that needs their room gets it."""
    queue = fake.queue()
    for start in range(0, 200, 100):
        batch = [queue.named("t", unique=f"k{start + n}", unique_for=5).call(n) for n in range(100)]
        assert all(result.ok for result in queue.enqueue_many(batch))
    used = queue.stats().bytes
    take(queue)
    queue.configure(Limits(max_bytes=used))
    fake.elapse(6)
    batch = [queue.named("t", unique=f"n{n}", unique_for=5).call(n) for n in range(100)]
    assert all(result.ok for result in queue.enqueue_many(batch))
    batch = [queue.named("t", unique=f"o{n}", unique_for=5).call(n) for n in range(100)]
    assert all(result.ok for result in queue.enqueue_many(batch))


def test_passed_window_of_a_dead_job_is_free(fake: Env) -> None:
    """A dead letter holds no key once its window has passed, however many windows passed with it."""
    queue = fake.queue()
    batch = [queue.named("t", unique=f"k{n}", unique_for=5).call(n) for n in range(60)]
    queue.enqueue_many(batch)
    for lease in queue.claim(60):
        lease.bury("bad")
    fake.elapse(6)
    again = [queue.enqueue_bytes(b"", unique=f"k{n}") for n in reversed(range(60))]
    assert not any(receipt.duplicate for receipt in again)


def test_window_of_every_kind_of_duration(fake: Env) -> None:
    """The first window counts: a duplicate does not lengthen it."""
    queue = fake.queue()
    queue.enqueue_bytes(b"1", unique="k", unique_for=10)
    take(queue)
    fake.elapse(6)
    assert queue.enqueue_bytes(b"2", unique="k", unique_for=10).duplicate
    fake.elapse(6)
    assert not queue.enqueue_bytes(b"3", unique="k", unique_for=10).duplicate


def test_unique_with_delay_expiry_and_headers(env: Env) -> None:
    """Options combine: what was asked for is what is stored."""
    queue = env.queue()
    receipt = queue.enqueue_bytes(
        b"x", unique="k", unique_for=60, delay=30, expires=datetime(2100, 1, 1, tzinfo=UTC), headers={"a": "b"}
    )
    job = queue.get(receipt.id)
    assert (job.state, job.headers, job.payload, len(job.unique)) == ("scheduled", {"a": "b"}, b"x", 16)
    assert job.expires == datetime(2100, 1, 1, tzinfo=UTC).timestamp()
    assert queue.cancel(receipt.id)
