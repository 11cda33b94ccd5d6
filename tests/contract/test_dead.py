"""Dead letters have bounds of their own: beyond them the oldest go, and are counted."""

from __future__ import annotations

import pytest

from boundq import Limits
from tests.contract._env import Env, claim_one


def bury(queue: object, count: int, text: str = "") -> list[str]:
    results = queue.enqueue_many([b"%d" % number for number in range(count)])
    assert queue.settle(buries=[(lease, "bad", text) for lease in queue.claim(count)]) == []
    return [one.receipt.id for one in results]


@pytest.mark.everywhere
def test_oldest_is_dropped_beyond_the_count(env: Env) -> None:
    """``max_dead_jobs`` is exact; the oldest goes first, is counted as dropped, and nothing of it remains (R-15)."""
    queue = env.queue(limits=Limits(max_dead_jobs=3))
    ids = []
    for _ in range(5):
        ids += bury(queue, 1)
        env.elapse(0.002)
    stats = queue.stats()
    assert (stats.dead, stats.dropped, stats.buried) == (3, 2, 5)
    assert [queue.get(job) is None for job in ids] == [True, True, False, False, False]
    assert env.command("HLEN", env.key("jobs")) == 3
    assert env.command("HLEN", env.key("errors")) == 3


@pytest.mark.everywhere
def test_oldest_is_dropped_beyond_the_bytes(env: Env) -> None:
    """``max_dead_bytes`` bounds envelopes and error texts together."""
    queue = env.queue()
    bury(queue, 1, "t" * 1000)
    each = queue.stats().dead_bytes
    assert each > 1000
    assert queue.configure(Limits(max_dead_bytes=3 * each))
    for _ in range(4):
        bury(queue, 1, "t" * 1000)
    stats = queue.stats()
    assert (stats.dead, stats.dead_bytes, stats.dropped) == (3, 3 * each, 2)


def test_letter_larger_than_the_budget(env: Env) -> None:
    """A dead letter that is over the whole budget is dropped at once, and counted: the bound holds."""
    queue = env.queue(limits=Limits(max_dead_bytes=300))
    (job,) = bury(queue, 1, "t" * 1000)
    stats = queue.stats()
    assert (stats.dead, stats.dead_bytes, stats.dropped, stats.jobs) == (0, 0, 1, 0)
    assert queue.get(job) is None


def test_lowered_limits_drop_at_once(env: Env) -> None:
    """`configure` to fewer dead letters drops the oldest, in as many steps as it takes."""
    queue = env.queue()
    bury(queue, 500)
    queue.configure(Limits(max_dead_jobs=10))
    assert (queue.stats().dead, queue.stats().dropped) == (10, 490)


def test_claim_that_buries_obeys_the_bound(env: Env) -> None:
    """Jobs buried by a cap inside a claim are bounded as well."""
    queue = env.queue(limits=Limits(max_deliveries=1, max_dead_jobs=2))
    queue.enqueue_many([b"x"] * 5)
    for lease in queue.claim(5):
        lease.retry()
    assert queue.claim(5) == []
    assert (queue.stats().dead, queue.stats().dropped, queue.stats().buried) == (2, 3, 5)


def test_dead_ttl(fake: Env) -> None:
    """Past its ``dead_ttl`` a letter is dropped with the next burial, and counted."""
    queue = fake.queue(limits=Limits(dead_ttl=100))
    (old,) = bury(queue, 1)
    fake.elapse(60)
    (young,) = bury(queue, 1)
    fake.elapse(60)
    bury(queue, 1)
    assert (queue.get(old), queue.get(young).state) == (None, "dead")
    assert (queue.stats().dead, queue.stats().dropped) == (2, 1)


def test_dead_ttl_without_another_burial(fake: Env) -> None:
    """A letter's age ends it although nobody else is buried: a claim notices."""
    queue = fake.queue(limits=Limits(dead_ttl=100))
    bury(queue, 1)
    fake.elapse(200)
    queue.claim()
    queue.enqueue_bytes(b"x")
    queue.claim()
    assert (queue.stats().dead, queue.stats().dropped) == (0, 1)


def test_dead_letters_do_not_fill_the_queue(env: Env) -> None:
    """They are outside ``max_jobs`` and ``max_bytes``."""
    queue = env.queue(max_jobs=2)
    for _ in range(3):
        bury(queue, 2)
    assert queue.stats().dead == 6
    queue.enqueue_many([b"x", b"y"])
    assert queue.stats().jobs == 2


@pytest.mark.parametrize("way", ["cancel", "purge"])
def test_dead_letters_can_be_removed(env: Env, way: str) -> None:
    """Cancel and purge take them out, with every byte; ``purge()`` alone spares them."""
    queue = env.queue()
    (job,) = bury(queue, 1, "text")
    assert queue.purge() == 0
    assert queue.cancel(job) if way == "cancel" else queue.purge("dead") == 1
    stats = queue.stats()
    assert (stats.dead, stats.dead_bytes, stats.cancelled + stats.purged) == (0, 0, 1)
    assert env.command("HLEN", env.key("errors")) == 0


def test_burial_of_an_active_job_only_frees_its_own_room(env: Env) -> None:
    """The charge moves from the queue's budget to that of the dead: the sum stays accounted for."""
    queue = env.queue()
    queue.enqueue_many([b"x" * 100] * 2)
    before = queue.stats().bytes
    claim_one(queue).bury("r")
    assert queue.stats().bytes == before // 2
    assert queue.stats().dead_bytes > before // 2
