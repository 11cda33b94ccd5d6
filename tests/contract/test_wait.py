"""
``wait=``: a producer stands in line for room.

Several clients at once, each in a thread of its own. Where the order of arrival matters, a test waits until the
server says that so many clients are blocked; fakeredis cannot say that, so those tests run on real servers.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import pytest

from boundq import JobTooLarge, Limits, QueueFull, QueueSealed
from boundq._core import admission
from boundq._job import prepare
from boundq._session import Session
from tests._servers import wait_until
from tests.contract._env import Env, claim_one, payloads, take


def waiter(env: Env, payload: bytes, wait: float = 30, **options: Any) -> Future[Any]:
    """A producer in a thread of its own that waits for room."""
    return env.background(lambda: env.queue(create=False).enqueue_bytes(payload, wait=wait, **options))


def full_queue(env: Env, jobs: int = 1) -> Any:
    queue = env.queue(max_jobs=jobs)
    queue.enqueue_many([b"old"] * jobs)
    return queue


def test_room_at_once(env: Env) -> None:
    """Where there is room nobody waits."""
    queue = env.queue(max_jobs=1)
    start = time.monotonic()
    assert queue.enqueue_bytes(b"x", wait=30).jobs == 1
    assert time.monotonic() - start < 5
    assert take(queue) == [b"x"]


def test_times_out_at_its_wait(env: Env) -> None:
    """Without room it is `QueueFull`, when the wait is over and not before (R-18)."""
    queue = full_queue(env)
    start = time.monotonic()
    with pytest.raises(QueueFull):
        queue.enqueue_bytes(b"x", wait=0.3)
    assert 0.29 <= time.monotonic() - start < 3
    assert queue.try_enqueue_bytes(b"x", wait=0.05).reason in ("jobs", "waiters")
    assert take(queue) == [b"old"]
    queue.enqueue_bytes(b"x")


@pytest.mark.parametrize("wait", [0, None, 0.0])
def test_no_wait_does_not_block(env: Env, wait: float | None) -> None:
    """Zero or None: refused at once."""
    queue = full_queue(env)
    start = time.monotonic()
    assert queue.try_enqueue_bytes(b"x", wait=wait).reason == "jobs"
    assert time.monotonic() - start < 2


ROOM = {
    "ack": lambda queue: claim_one(queue).ack(),
    "bury": lambda queue: claim_one(queue).bury("bad"),
    "settle": lambda queue: queue.settle(acks=queue.claim(5)),
    "cancel": lambda queue: queue.cancel(queue.peek().jobs[0].id),
    "purge": lambda queue: queue.purge(),
    "limits": lambda queue: queue.configure(Limits(max_jobs=2)),
    "caps": lambda queue: (
        claim_one(queue).retry(),
        queue.configure(Limits(max_jobs=1, max_deliveries=1)),
        queue.claim(),
    ),
}


@pytest.mark.everywhere
@pytest.mark.parametrize("way", ROOM)
def test_woken_by_whatever_gives_room(real: Env, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ack, bury, cancel, purge, raised limits, a job that a cap ends: who waits is woken by it, not by polling."""
    monkeypatch.setattr(admission, "TURN_SECONDS", 25.0)  # nobody asks again by himself
    queue = full_queue(real)
    waiting = waiter(real, b"new")
    real.until_blocked(1)
    ROOM[way](queue)
    assert waiting.result(timeout=10).id
    assert b"new" in [job.payload for job in queue.peek().jobs]


def test_woken_on_fakeredis_too(fake: Env) -> None:
    """The same on fakeredis, where a test of a service would run it."""
    if fake.shell == "async":
        pytest.skip("fakeredis wakes a blocked asyncio client from within its own event loop only")
    queue = full_queue(fake)
    waiting = waiter(fake, b"new")
    claim_one(queue).ack()
    assert waiting.result(timeout=10).id
    assert take(queue) == [b"new"]


@pytest.mark.everywhere
def test_woken_in_order(real: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers that wait get their places in the order in which they came (R-75)."""
    monkeypatch.setattr(admission, "TURN_SECONDS", 25.0)  # nobody asks again by himself
    queue = full_queue(real)
    waiting = []
    for number in range(4):
        waiting.append(waiter(real, b"%d" % number))
        real.until_blocked(number + 1)
    order = []
    for number in range(4):
        take(queue, 1)
        wait_until(lambda done=number + 1: sum(one.done() for one in waiting) >= done, "the next to come in")
        assert sum(one.done() for one in waiting) == number + 1, "only one place was free"
        order.append(next(index for index, one in enumerate(waiting) if one.done() and index not in order))
    assert order == [0, 1, 2, 3]
    assert queue.stats().jobs == 1


def test_places_that_come_together(real: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many places at once are all taken: the wake-up is passed on."""
    monkeypatch.setattr(admission, "TURN_SECONDS", 25.0)  # nobody asks again by himself
    queue = full_queue(real, 5)
    waiting = []
    for number in range(5):
        waiting.append(waiter(real, b"%d" % number))
        real.until_blocked(number + 1)
    assert queue.settle(acks=queue.claim(5)) == []
    for one in waiting:
        one.result(timeout=10)
    assert payloads(queue.claim(5)) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.everywhere
def test_newcomer_does_not_overtake(real: Env) -> None:
    """While somebody waits, a newcomer is refused although its own job would fit; then it may come again (R-75)."""
    queue = real.queue()
    small = queue.enqueue_bytes(b"s").bytes
    queue.enqueue_bytes(b"s")
    queue.configure(Limits(max_bytes=small * 3, max_jobs=100))
    big = waiter(real, b"B" * (small + 100))
    real.until_blocked(1)
    refused = queue.try_enqueue_bytes(b"s")
    assert refused.reason == "waiters"
    assert queue.stats().rejected["waiters"] >= 1
    take(queue, 1)
    take(queue, 1)
    big.result(timeout=10)
    assert [len(one) for one in take(queue)] == [small + 100]
    wait_until(lambda: type(queue.try_enqueue_bytes(b"s")).__name__ == "Receipt", "a newcomer to be let in")


def test_large_job_is_not_starved(real: Env) -> None:
    """A large job gets in although smaller ones, waiting or not, come all the time (R-75)."""
    queue = real.queue()
    small = queue.enqueue_bytes(b"s").bytes
    queue.enqueue_many([b"s"] * 7)
    queue.configure(Limits(max_bytes=small * 8, max_jobs=100))
    big = waiter(real, b"B" * (5 * small))
    real.until_blocked(1)
    others = [waiter(real, b"w") for _ in range(3)]
    real.until_blocked(4)
    for _ in range(12):
        queue.try_enqueue_bytes(b"s")
        if big.done():
            break
        take(queue, 1)
    big.result(timeout=10)
    while not all(one.done() for one in others):
        take(queue, 5)
    for one in others:
        one.result(timeout=10)


def test_waiter_that_gives_up_leaves_the_line(real: Env) -> None:
    """Whoever times out makes way for the next, and leaves nothing behind that bars newcomers."""
    queue = full_queue(real)
    first = waiter(real, b"1", wait=0.3)
    real.until_blocked(1)
    second = waiter(real, b"2")
    real.until_blocked(2)
    with pytest.raises(QueueFull):
        first.result(timeout=10)
    take(queue, 1)
    second.result(timeout=10)
    assert take(queue) == [b"2"]
    queue.enqueue_bytes(b"3")
    assert take(queue) == [b"3"]


def in_line_then_dead(fake: Env, payload: bytes) -> None:
    """A producer takes its place in the line, and is never heard of again."""
    queue = fake.queue(create=False)
    core = getattr(queue, "inner", queue)
    flow = core._admission.enqueue_waiting(Session(), prepare(fake.name, "", payload, {}), 60)
    call = next(flow)
    while not call.block:
        call = flow.send(fake.answer(call))
    flow.close()


def test_dead_waiter_does_not_bar_the_queue(fake: Env) -> None:
    """A producer that died in line bars newcomers for some seconds, not for ever."""
    queue = full_queue(fake)
    in_line_then_dead(fake, b"dead")
    in_line_then_dead(fake, b"dead too")
    take(queue)
    assert queue.try_enqueue_bytes(b"x").reason == "waiters", "it may be on its way"
    fake.elapse(3.5)
    refusals = 0
    while type(queue.try_enqueue_bytes(b"x")).__name__ != "Receipt":
        refusals += 1
        assert refusals < 3, "barred by the dead"
    assert take(queue) == [b"x"]
    queue.enqueue_bytes(b"y")


def test_waiter_behind_a_dead_one_gets_in(fake: Env) -> None:
    """Who waits behind a producer that died is let in when there is room, well before its wait is over."""
    if fake.shell == "async":
        pytest.skip("fakeredis wakes a blocked asyncio client from within its own event loop only")
    queue = full_queue(fake)
    in_line_then_dead(fake, b"dead")
    waiting = waiter(fake, b"alive", wait=10)
    wait_until(lambda: int(fake.command("HGET", fake.key("state"), "gate")) & 2, "the second in line")
    start = time.monotonic()
    take(queue)  # the only departure that there will be
    fake.elapse(4)
    waiting.result(timeout=30)
    assert time.monotonic() - start < 7, "it came in only because its own wait was over"


def test_sealed_while_waiting(real: Env) -> None:
    """Whoever waits when the queue is sealed is told."""
    queue = full_queue(real)
    waiting = waiter(real, b"x")
    real.until_blocked(1)
    queue.seal("ops")
    with pytest.raises(QueueSealed):
        waiting.result(timeout=10)


def test_too_large_does_not_wait(env: Env) -> None:
    """What can never fit is refused at once, in envelope or in charge."""
    queue = env.queue(limits=Limits(max_job_bytes=100_000, max_bytes=10_000, max_jobs=1))
    queue.enqueue_bytes(b"x")
    start = time.monotonic()
    for size in (200_000, 20_000):
        with pytest.raises(JobTooLarge):
            queue.enqueue_bytes(b"x" * size, wait=20)
    assert time.monotonic() - start < 5
    assert queue.stats().jobs == 1


def test_duplicate_does_not_wait(env: Env) -> None:
    """A key that is held is answered at once, room or not."""
    queue = env.queue(max_jobs=1)
    first = queue.enqueue_bytes(b"x", unique="k")
    start = time.monotonic()
    again = queue.enqueue_bytes(b"y", unique="k", wait=20)
    assert (again.id, again.duplicate) == (first.id, True)
    assert time.monotonic() - start < 5


def test_wait_keeps_the_options(real: Env) -> None:
    """Priority, delay and headers of a job that had to wait are kept; it counts once."""
    queue = full_queue(real)
    waiting = waiter(real, b"x", priority="critical", headers={"a": "b"}, unique="k", delay=60)
    real.until_blocked(1)
    take(queue)
    job = queue.get(waiting.result(timeout=10).id)
    assert (job.priority, job.headers, job.state) == ("critical", {"a": "b"}, "scheduled")
    assert queue.stats().admitted == 2
