"""Cancel and purge: taking jobs out, in any state, with every byte of them."""

from __future__ import annotations

import pytest

from boundq import ConfigError, LeaseLost
from tests.contract._env import Env, claim_one, take
from tests.contract.test_inspect import STATES, fill


@pytest.mark.everywhere
@pytest.mark.parametrize("state", STATES)
def test_cancel_in_every_state(env: Env, state: str) -> None:
    """A cancelled job is gone at once, whatever its state, and so are its bytes (R-105)."""
    queue = env.queue()
    ids = fill(queue, env, state, 3)
    assert queue.cancel(ids[1])
    assert not queue.cancel(ids[1])
    assert queue.get(ids[1]) is None
    stats = queue.stats()
    assert (getattr(stats, state), stats.cancelled) == (2, 1)
    for job in (ids[0], ids[2]):
        assert queue.cancel(job)
    stats = queue.stats()
    assert (stats.jobs, stats.bytes, stats.dead, stats.dead_bytes, stats.cancelled) == (0, 0, 0, 0, 3)
    for part in ("jobs", "leases", "due0", "due1", "due2", "due3", "dead", "errors", "unique"):
        assert env.command("EXISTS", env.key(part)) == 0, part


def test_cancel_gives_room(env: Env) -> None:
    """A place of a cancelled job can be taken at once."""
    queue = env.queue(max_jobs=1)
    job = queue.enqueue_bytes(b"x").id
    assert queue.try_enqueue_bytes(b"y").reason == "jobs"
    queue.cancel(job)
    queue.enqueue_bytes(b"y")
    assert take(queue) == [b"y"]


def test_cancelled_retry(env: Env) -> None:
    """A job that waits for its retry can be cancelled like one that was scheduled."""
    queue = env.queue()
    job = queue.enqueue_bytes(b"x", priority="high").id
    claim_one(queue).retry(60)
    assert queue.cancel(job)
    assert (queue.stats().jobs, queue.stats().scheduled) == (0, 0)


@pytest.mark.parametrize("state", STATES)
def test_purge_one_state(env: Env, state: str) -> None:
    """A purge takes the states that were named, and no other."""
    queue = env.queue()
    for other in STATES:  # the active ones last but for ready: a claim takes what is ready
        if other != "ready":
            fill(queue, env, other, 2)
    fill(queue, env, "ready", 2)
    assert queue.purge(state) == 2
    stats = queue.stats()
    assert [getattr(stats, one) for one in STATES] == [0 if one == state else 2 for one in STATES]
    assert stats.purged == 2


def test_purge_of_what_waits(env: Env) -> None:
    """Without states it is ready and scheduled: no worker loses its job by that; and the queue goes on."""
    queue = env.queue()
    for state in ("dead", "active", "scheduled", "ready"):
        fill(queue, env, state, 3)
    assert queue.purge() == 6
    stats = queue.stats()
    assert (stats.jobs, stats.active, stats.dead, stats.purged) == (3, 3, 3, 6)
    assert queue.purge(*STATES) == 6
    assert queue.stats().bytes == 0
    queue.enqueue_bytes(b"x")
    assert take(queue) == [b"x"]


@pytest.mark.everywhere
@pytest.mark.parametrize("state", STATES)
def test_purge_of_many(env: Env, state: str) -> None:
    """More jobs than one script takes, in every priority, holes among them: all are gone, and ids are not reused."""
    queue = env.queue()
    last = 0
    for level in ("low", "normal", "critical"):
        results = queue.enqueue_many([b"x"] * 400, priority=level, **({"delay": 60} if state == "scheduled" else {}))
        last = max(last, *(int(one.receipt.id) for one in results))
        queue.cancel(results[7].receipt.id)
    if state in ("active", "dead"):
        while leases := queue.claim(500):
            if state == "dead":
                queue.settle(buries=[(lease, "bad", "") for lease in leases])
    assert queue.purge(state) == 1197
    stats = queue.stats()
    assert (stats.jobs, stats.dead, stats.bytes, stats.dead_bytes) == (0, 0, 0, 0)
    assert int(queue.enqueue_bytes(b"x", priority="critical").id) > last - 8 or state == "scheduled"


def test_purged_lease_is_lost(env: Env) -> None:
    """A worker whose job was purged learns it."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    lease = claim_one(queue)
    assert queue.purge("active") == 1
    with pytest.raises(LeaseLost) as raised:
        lease.ack()
    assert raised.value.cancelled


def test_purge_of_nothing(env: Env) -> None:
    """Nothing there, nothing done."""
    queue = env.queue()
    assert queue.purge() == 0
    assert queue.purge(*STATES) == 0


def test_purge_of_a_state_that_is_none(fake: Env) -> None:
    """An unknown state is refused: it does not silently stand for another."""
    queue = fake.queue()
    queue.enqueue_bytes(b"x")
    queue.claim()
    with pytest.raises(ConfigError):
        queue.purge("actve")
    assert queue.stats().active == 1
