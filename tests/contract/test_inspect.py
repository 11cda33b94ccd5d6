"""Looking without touching: get, position, peek, stats, recount."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest

from boundq import ConfigError, Limits
from boundq.model import PRIORITIES
from tests.contract._env import Env, claim_one, take


@pytest.mark.everywhere
def test_get_in_every_state(env: Env) -> None:
    """`get` knows a job wherever it is, and says what holds there."""
    queue = env.queue()
    ids = {}
    for state in ("dead", "active", "ready"):
        ids[state] = queue.enqueue_bytes(state.encode(), headers={"s": state}).id
    ids["scheduled"] = queue.enqueue_bytes(b"scheduled", delay=60, priority="low").id
    claim_one(queue).bury("reason", "text")
    claim_one(queue, lease=60)
    for state, job_id in ids.items():
        job = queue.get(job_id)
        assert (job.id, job.state, job.payload) == (job_id, state, state.encode())
        assert job.created == pytest.approx(env.now(), abs=5)
        assert job.expires is None
    assert queue.get(ids["ready"]).due is None
    assert queue.get(ids["active"]).due == pytest.approx(env.now() + 60, abs=5)
    assert queue.get(ids["scheduled"]).due == pytest.approx(env.now() + 60, abs=5)
    assert queue.get(ids["scheduled"]).priority == "low"
    assert (queue.get(ids["dead"]).reason, queue.get(ids["ready"]).reason) == ("reason", "")


def test_get_of_a_task(env: Env) -> None:
    """A task's job shows its name and its arguments as JSON."""
    queue = env.queue()
    job = queue.get(queue.enqueue("send", 1, to="x").id)
    assert (job.task, msgspec.json.decode(job.payload)) == ("send", [[1], {"to": "x"}])


@pytest.mark.parametrize(
    "job_id", ["0", "1", "9", "9" * 16, "abc", "", "-1", "1.5", " 9", "９", "9" * 30, None, 9], ids=ascii
)
def test_get_of_no_job(env: Env, job_id: object) -> None:
    """Where there is no such job the answer is None, whatever was asked for."""
    queue = env.queue()
    queue.enqueue_bytes(b"x", priority="critical")  # id 11
    assert queue.get(job_id) is None
    assert queue.position(job_id) is None
    assert not queue.cancel(job_id)


def test_position(env: Env) -> None:
    """How many ready jobs of its priority are before it; None when it is not ready."""
    queue = env.queue()
    ids = [one.receipt.id for one in queue.enqueue_many([b"x"] * 5)]
    assert [queue.position(job) for job in ids] == [0, 1, 2, 3, 4]
    assert queue.position(queue.enqueue_bytes(b"", priority="high").id) == 0
    assert queue.position(queue.enqueue_bytes(b"", delay=60).id) is None
    take(queue, 1)
    queue.claim(2)
    assert [queue.position(job) for job in ids] == [None, None, 0, 1, 2]
    queue.cancel(ids[2])
    assert queue.position(ids[3]) in (0, 1), "a cancelled job may still count: it is an upper bound"


def fill(queue: object, env: Env, state: str, count: int) -> list[str]:
    """So many jobs of a state; their ids in the order in which they will, or did, come."""
    if state == "scheduled":
        return [queue.enqueue_bytes(b"%d" % n, delay=60 + n).id for n in range(count)]
    ids = [one.receipt.id for one in queue.enqueue_many([b"%d" % n for n in range(count)])]
    if state == "ready":
        return ids
    for _ in range(count):
        lease = claim_one(queue, lease=60)
        if state == "dead":
            lease.bury("bad", f"text {lease.payload.decode()}")
            env.elapse(0.002)
        else:
            lease.extend(60 + 2 * int(lease.payload))
    return ids


STATES = ("ready", "scheduled", "active", "dead")


@pytest.mark.everywhere
@pytest.mark.parametrize("state", STATES)
def test_peek_pages(env: Env, state: str) -> None:
    """Pages put together are all jobs of a state, each once, in order."""
    queue = env.queue()
    ids = fill(queue, env, state, 10)
    for n in (1, 3, 4, 7, 10, 100):
        seen: list[str] = []
        after, pages = None, 0
        while True:
            page = queue.peek(state, n, after)
            seen += [job.id for job in page.jobs]
            pages += 1
            after = page.after
            if after is None:
                break
            assert len(page.jobs) == n, "a page that is not the last one is full"
            assert pages < 20
        assert seen == ids, f"pages of {n}"
    assert {job.state for job in queue.peek(state, 10).jobs} == {state}
    for other in set(STATES) - {state}:
        assert queue.peek(other).jobs == []


def test_peek_shows_what_get_shows(env: Env) -> None:
    """A job in a listing has the fields that `get` gives, but for its place and the moment."""
    queue = env.queue()
    for state in STATES:
        fill(queue, env, state, 2)
        for job in queue.peek(state, 2).jobs:
            alone = queue.get(job.id)
            assert msgspec.structs.replace(alone, ahead=None, seen=job.seen) == job
        queue.purge(*STATES)


@pytest.mark.parametrize("state", ["ready", "scheduled"])
def test_peek_goes_by_priority(env: Env, state: str) -> None:
    """Ready and scheduled jobs are listed from critical to low, across pages."""
    queue = env.queue()
    options = {"delay": 60} if state == "scheduled" else {}
    for level in ("low", "critical", "normal", "high"):
        for number in range(3):
            queue.enqueue_bytes(f"{level}{number}".encode(), priority=level, **options)
    expected = [f"{level}{n}".encode() for level in ("critical", "high", "normal", "low") for n in range(3)]
    seen: list[bytes] = []
    after = None
    while True:
        page = queue.peek(state, 4, after)
        seen += [job.payload for job in page.jobs]
        after = page.after
        if after is None:
            break
    assert seen == expected


@pytest.mark.parametrize("state", ["ready", "scheduled"])
def test_peek_at_one_priority(env: Env, state: str) -> None:
    """Pages of one priority hold all of it and nothing else; other states are not kept by priority."""
    queue = env.queue()
    for n in range(12):
        queue.enqueue_bytes(b"%d" % n, priority=PRIORITIES[n % 4], delay=60 if state == "scheduled" else None)
    found, after = [], None
    while True:
        page = queue.peek(state, 2, after, "high")
        found += page.jobs
        after = page.after
        if after is None:
            break
    assert [job.payload for job in found] == [b"2", b"6", b"10"]
    for arguments in (("dead", 2, None, "high"), (state, 2, None, "urgent")):
        with pytest.raises(ConfigError):
            queue.peek(*arguments)


def test_a_job_says_when_it_was_looked_at(env: Env) -> None:
    """By the server's clock, so that ages are right whatever the client's says."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    env.elapse(0.5)
    for job in (*queue.peek().jobs, queue.get(queue.peek().jobs[0].id)):
        assert job.seen == pytest.approx(env.now(), abs=5)
        assert job.seen - job.created >= 0.5


@pytest.mark.parametrize("state", ["scheduled", "active", "dead"])
def test_peek_with_ties(fake: Env, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of the very same time are listed each once, also where the last one seen has left meanwhile."""
    frozen = fake.clock.time()
    monkeypatch.setattr(fake.clock, "time", lambda: frozen)
    queue = fake.queue()
    ids = {one.receipt.id for one in queue.enqueue_many([b"x"] * 12, **({"delay": 60} if state == "scheduled" else {}))}
    if state != "scheduled":
        leases = queue.claim(12)
        if state == "dead":
            assert queue.settle(buries=[(lease, "bad", "") for lease in leases]) == []
    seen: set[str] = set()
    after = None
    while True:
        page = queue.peek(state, 3, after)
        new = {job.id for job in page.jobs}
        assert not new & seen, "shown twice"
        seen |= new
        after = page.after
        if after is None:
            break
        queue.cancel(page.jobs[-1].id)
    assert seen == ids, "some were never shown"


@pytest.mark.parametrize("state", STATES)
def test_peek_behind_a_job_that_left(env: Env, state: str) -> None:
    """Where the last job of a page has left since, the next page goes on behind its place."""
    queue = env.queue()
    ids = fill(queue, env, state, 6)
    page = queue.peek(state, 3)
    assert [job.id for job in page.jobs] == ids[:3]
    queue.cancel(ids[2])
    queue.cancel(ids[0])
    rest = queue.peek(state, 10, page.after)
    assert [job.id for job in rest.jobs] == ids[3:]
    assert rest.after is None


def test_peek_steps_over_holes(env: Env) -> None:
    """Cancelled jobs are not shown, and a thousand of them in a row end no listing."""
    queue = env.queue()
    ids = [one.receipt.id for one in queue.enqueue_many([b"x"] * 1500)]
    inner = getattr(queue, "inner", queue)
    flow = inner._control.cancel(ids[1:-1])  # many at once
    call = next(flow)
    with suppress(StopIteration):
        while True:
            call = flow.send(env.answer(call))
    assert [job.id for job in queue.peek("ready", 10).jobs] == [ids[0], ids[-1]]


def test_peek_is_bounded_in_bytes(env: Env) -> None:
    """A page asks for large jobs in pieces, and still has all that were asked for."""
    queue = env.queue()
    queue.enqueue_many([bytes([n]) * 200_000 for n in range(12)])
    assert [job.payload[:1] for job in queue.peek("ready", 12).jobs] == [bytes([n]) for n in range(12)]


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (("done",), "state"),
        (("READY",), "state"),
        ((None,), "state"),
        (("ready", 0), "n"),
        (("ready", -1), "n"),
        (("ready", 1.5), "n"),
        (("ready", 1, "nonsense"), "after"),
        (("ready", 1, "9//"), "after"),
        (("ready", 1, "3//²"), "after"),
        (("ready", 1, "3//x"), "after"),
        (("ready", 1, ""), "after"),
        (("dead", 1, "3//9"), "after"),
        (("ready", 1, 7), "after"),
    ],
    ids=str,
)
def test_peek_arguments(fake: Env, arguments: tuple, setting: str) -> None:
    """A wrong state, size or cursor is a `ConfigError` that names it."""
    with pytest.raises(ConfigError) as raised:
        fake.queue().peek(*arguments)
    assert raised.value.setting == setting


def test_inspection_changes_nothing(env: Env) -> None:
    """No look at a queue writes anything."""
    queue = env.queue()
    job = queue.enqueue_bytes(b"x").id
    queue.enqueue_bytes(b"y", delay=60)
    before = env.command("DUMP", env.key("state"))
    queue.stats()
    queue.get(job)
    queue.position(job)
    for state in STATES:
        queue.peek(state)
    queue.recount()
    queue.recount(repair=True)
    assert env.command("DUMP", env.key("state")) == before


@pytest.mark.everywhere
def test_stats_of_every_state(env: Env) -> None:
    """The numbers of a queue: states, fill, ages, and what comes next."""
    queue = env.queue(max_jobs=10)
    queue.enqueue_many([b"x"] * 4)
    queue.enqueue_bytes(b"x", delay=100)
    claim_one(queue, lease=50)
    claim_one(queue).bury("bad")
    stats = queue.stats()
    assert (stats.name, stats.jobs, stats.ready, stats.scheduled, stats.active, stats.dead) == (env.name, 4, 2, 1, 1, 1)
    assert stats.fill == pytest.approx(0.4)
    assert stats.next_event == pytest.approx(50, abs=3)
    assert 0 <= stats.oldest_age < 5
    assert (stats.admitted, stats.deliveries) == (5, 2)
    assert (stats.paused_since, stats.sealed_since, stats.drain_rate) == (None, None, None)


def test_oldest_age(fake: Env) -> None:
    """The age of the oldest job that could run now: 0 without one, scheduled jobs do not count until they are due."""
    queue = fake.queue()
    assert queue.stats().oldest_age == 0.0
    queue.enqueue_bytes(b"later", delay=50)
    fake.elapse(20)
    assert queue.stats().oldest_age == 0.0
    fake.queue().enqueue_bytes(b"x")  # a client of its own: one reads the server's clock once a minute
    fake.elapse(20)
    assert queue.stats().oldest_age == pytest.approx(20, abs=2)
    take(queue)
    assert queue.stats().oldest_age == 0.0
    fake.elapse(20)
    assert queue.stats().oldest_age == pytest.approx(10, abs=2), "due for 10 s"


def test_recount_finds_and_repairs(env: Env) -> None:
    """A counter that was edited by hand is found, and set right on request; jobs stay as they are."""
    queue = env.queue()
    queue.enqueue_many([b"x" * n for n in range(50)])
    queue.enqueue_bytes(b"x", unique="k")
    queue.enqueue_bytes(b"x", unique="w", unique_for=60)
    claim_one(queue).bury("bad", "text")
    assert queue.recount().ok
    right = queue.stats().bytes
    env.command("HINCRBY", env.key("state"), "bytes", 12345)
    env.command("HINCRBY", env.key("state"), "dead_bytes", -5)
    found = queue.recount()
    assert (found.ok, found.steady, found.repaired) == (False, True, False)
    assert (found.bytes, found.counted_bytes) == (right + 12345, right)
    assert queue.recount(repair=True).repaired
    assert queue.recount().ok
    assert queue.stats().bytes == right


@pytest.mark.everywhere
def test_counts_above_2_to_the_31(env: Env) -> None:
    """Counters stay exact above 2^31 and come back as integers (R-142)."""
    queue = env.queue(limits=Limits(max_bytes=2**52))
    queue.enqueue_bytes(b"x")
    big = 2**52 - 10**6
    env.command("HINCRBY", env.key("state"), "bytes", big)
    env.command("HINCRBY", env.key("state"), "acked", 2**40 + 1)
    env.damaged()
    before = queue.stats()
    receipt = queue.enqueue_bytes(b"x")
    assert receipt.bytes == before.bytes + (before.bytes - big)
    assert type(receipt.bytes) is int
    take(queue)
    after = queue.stats()
    assert after.bytes == big
    assert after.acked == 2**40 + 3


@pytest.mark.everywhere
def test_ids_above_2_to_the_31(env: Env) -> None:
    """Ids of a queue that lived long are exact (R-142)."""
    queue = env.queue()
    queue.stats()
    env.damaged()
    for field in ("tail1", "head1", "tail5"):
        env.command("HSET", env.key("state"), field, 2**40)
    ready, later = queue.enqueue_bytes(b"x"), queue.enqueue_bytes(b"y", delay=60)
    assert (int(ready.id), int(later.id)) == ((2**40 + 1) * 8 + 1, (2**40 + 1) * 8 + 5)
    assert queue.get(ready.id).payload == b"x"
    assert queue.position(ready.id) == 0
    assert queue.peek("scheduled").jobs[0].id == later.id
    lease = claim_one(queue)
    assert lease.id == ready.id
    lease.ack()
    assert queue.cancel(later.id)


def test_drain_waits_until_nothing_is_held(env: Env) -> None:
    """It ends when the last job is settled, and says False when the time is over first."""
    queue = env.queue()
    assert queue.drain(0)
    queue.enqueue_many([b"x"] * 3)
    assert not queue.drain(0.05)
    waiting = env.background(lambda: env.queue().drain(30))
    for lease in queue.claim(3):
        lease.ack()
    assert waiting.result(timeout=30)
