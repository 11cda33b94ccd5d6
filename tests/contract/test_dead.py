"""Dead letters have bounds of their own: beyond them the oldest go, and are counted."""

from __future__ import annotations

import pytest

from boundq import ConfigError, Limits
from tests.contract._env import Env, claim_one, payloads, take


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


# ---------------------------------------------------------------- back to work


@pytest.mark.everywhere
def test_retried_dead_letters_run_again(env: Env) -> None:
    """They are due at once, by priority, with no deliveries counted and no error left; the books balance (R-100)."""
    queue = env.queue()
    queue.enqueue_bytes(b"low", priority="low")
    queue.enqueue_bytes(b"high", priority="high", headers={"k": "v"})
    assert queue.settle(buries=[(lease, "bad", "text") for lease in queue.claim(2)]) == []
    ids = [job.id for job in queue.peek("dead").jobs]
    told = queue.retry_dead([*ids, "999992", "no id"])
    assert (sorted(told.back), told.absent, told.kept, told.left) == (sorted(ids), ["no id", "999992"], [], [])
    assert told.rejection is None
    stats = queue.stats()
    assert (stats.dead, stats.dead_bytes, stats.scheduled, stats.jobs, stats.buried) == (0, 0, 2, 2, 2)
    assert (queue.get(ids[0]).deliveries, queue.get(ids[0]).error, queue.get(ids[0]).reason) == (0, "", "")
    first, second = queue.claim(2)
    assert (first.payload, first.attempt, first.headers) == (b"high", 1, {"k": "v"})
    assert second.payload == b"low"


def test_retried_twice_is_retried_once(env: Env) -> None:
    """A second call finds no dead letter, wherever the job is by then: ready, active or done."""
    queue = env.queue()
    (job,) = bury(queue, 1)
    assert queue.retry_dead([job, job]).back == [job]
    assert queue.retry_dead([job]).absent == [job]
    lease = claim_one(queue)
    assert queue.retry_dead([job]).absent == [job]
    lease.ack()
    assert queue.retry_dead([job]).absent == [job]
    assert (queue.stats().jobs, queue.stats().acked) == (0, 1)


@pytest.mark.everywhere
def test_retry_of_dead_letters_stops_at_the_limits(env: Env) -> None:
    """The limits hold for them as for new jobs; what is left stays dead and can be retried later."""
    queue = env.queue(max_jobs=300)
    ids = bury(queue, 250)
    queue.enqueue_many([b"new"] * 180)
    told = queue.retry_dead(ids)
    assert (told.back, told.left) == (ids[:120], ids[120:])
    assert (told.rejection.reason, told.rejection.used, told.rejection.limit) == ("jobs", 300, 300)
    assert (queue.stats().jobs, queue.stats().dead) == (300, 130)
    take(queue, 200)
    assert queue.retry_dead(told.left).back == ids[120:]
    assert queue.stats().dead == 0


def test_retry_of_dead_letters_stops_at_the_bytes(env: Env) -> None:
    """The byte limit too; a letter larger than the limits now allow is passed over."""
    each = env.charge(b"x" * 1000)
    queue = env.queue(max_bytes=10 * each)
    ids = [queue.enqueue_bytes(b"%d" % n + b"x" * 999).id for n in range(4)]
    assert queue.settle(buries=[(lease, "bad", "") for lease in queue.claim(4)]) == []
    queue.configure(Limits(max_bytes=2 * each))
    told = queue.retry_dead(ids)
    assert (told.back, told.left, told.rejection.reason) == (ids[:2], ids[2:], "bytes")
    queue.configure(Limits(max_job_bytes=100))
    assert queue.retry_dead(ids[2:]).kept == ids[2:]
    assert queue.stats().dead == 2


def test_retry_of_dead_letters_at_a_sealed_queue(env: Env) -> None:
    """A sealed queue takes none, and says who sealed it."""
    queue = env.queue()
    ids = bury(queue, 2)
    queue.seal("ada")
    told = queue.retry_dead(ids)
    assert (told.back, told.left) == ([], ids)
    assert (told.rejection.reason, told.rejection.by) == ("sealed", "ada")
    queue.unseal()
    assert queue.retry_dead(ids).back == ids


@pytest.mark.everywhere
def test_retried_dead_letter_and_its_unique_key(env: Env) -> None:
    """It takes its key again; while another job holds the key it stays dead, so that there are never two."""
    queue = env.queue()
    first = queue.enqueue_bytes(b"first", unique="k")
    claim_one(queue).bury("bad")
    second = queue.enqueue_bytes(b"second", unique="k")
    assert queue.retry_dead([first.id]).kept == [first.id]
    queue.cancel(second.id)
    assert queue.retry_dead([first.id]).back == [first.id]
    assert queue.enqueue_bytes(b"third", unique="k").id == first.id
    claim_one(queue).ack()
    assert not queue.enqueue_bytes(b"fourth", unique="k").duplicate


def test_retried_dead_letter_within_its_window(env: Env) -> None:
    """A job whose own window is still open goes back; one that another opened stays dead until it has passed."""
    queue = env.queue()
    own = queue.enqueue_bytes(b"own", unique="a", unique_for=3600)
    claim_one(queue).bury("bad")
    assert queue.retry_dead([own.id]).back == [own.id]
    claim_one(queue).ack()
    late = queue.enqueue_bytes(b"late", unique="b")
    claim_one(queue).bury("bad")
    queue.enqueue_bytes(b"other", unique="b", unique_for=0.3)
    claim_one(queue).ack()
    assert queue.retry_dead([late.id]).kept == [late.id]
    env.elapse(0.4)
    assert queue.retry_dead([late.id]).back == [late.id]


def test_retried_dead_letters_do_not_overtake_producers_that_wait(env: Env) -> None:
    """Who waits for room comes first."""
    queue = env.queue(max_jobs=1)
    (job,) = bury(queue, 1)
    queue.enqueue_bytes(b"full")
    waiting = env.background(lambda: env.queue(max_jobs=1).enqueue_bytes(b"waiting", wait=20))
    env.until_blocked(1)
    if env.server is not None:  # fakeredis cannot say who waits
        assert queue.retry_dead([job]).rejection.reason == "waiters"
    claim_one(queue).ack()
    waiting.result()
    assert queue.retry_dead([job]).left == [job]
    assert take(queue) == [b"waiting"]
    assert queue.retry_dead([job]).back == [job]


def test_a_sleeping_worker_is_woken_for_a_retried_dead_letter(env: Env) -> None:
    """A claim that waits gets it."""
    queue = env.queue()
    (job,) = bury(queue, 1)
    claimed = env.background(lambda: payloads(env.queue().claim(wait=20)))
    env.until_blocked(1)
    assert queue.retry_dead([job]).back == [job]
    assert claimed.result() == [b"0"]


@pytest.mark.everywhere
def test_dropped_dead_letters_are_counted(env: Env) -> None:
    """`drop_dead` deletes dead letters for good, in the ledger as dropped, and nothing but dead letters."""
    queue = env.queue()
    ids = bury(queue, 3, "text")
    ready = queue.enqueue_bytes(b"x").id
    assert queue.drop_dead([*ids[:2], ids[0], ready, "999992"]) == ids[:2]
    stats = queue.stats()
    assert (stats.dead, stats.dropped, stats.jobs, stats.imbalance) == (1, 2, 1, 0)
    assert queue.get(ready).state == "ready"


# ---------------------------------------------------------------- who changed what


@pytest.mark.everywhere
def test_events_tell_who_changed_what(env: Env) -> None:
    """The newest first: when, what, by whom; of limits the old and new values (R-118)."""
    queue = env.queue(max_jobs=10)
    queue.pause("ada: provider is down")
    queue.pause("bob")  # changes nothing
    queue.resume("ada")
    queue.configure(Limits(max_jobs=20), "eve")
    events = queue.events()
    assert [(one.what, one.by) for one in events] == [
        ("limits", "eve"),
        ("resume", "ada"),
        ("pause", "ada: provider is down"),
    ]
    assert (events[0].old, events[0].new) == ({"max_jobs": 10}, {"max_jobs": 20})
    assert events[0].at == pytest.approx(env.now(), abs=5)
    assert [one.what for one in queue.events(1)] == ["limits"]
    with pytest.raises(ConfigError):
        queue.events(101)
