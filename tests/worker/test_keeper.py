"""ThreadKeeper: extends what it holds, lets go of what is over, and says what is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from boundq import Queue, current_job
from boundq.errors import Unavailable
from boundq.lease import BaseLease
from boundq.worker.keeper import ServerKeeper, ThreadKeeper
from tests._servers import wait_until
from tests.conftest import FreshServer
from tests.worker._keeping import Heard, deadline_of
from tests.worker.conftest import Work


@pytest.fixture
def keeper() -> Iterator[ThreadKeeper]:
    """A keeper of leases of 0.6 s."""
    keeper = ThreadKeeper(0.6)
    yield keeper
    keeper.stop()


def test_a_held_lease_outlives_its_length_until_it_is_dropped(queue: Queue, keeper: ThreadKeeper) -> None:
    """Extended again and again; after drop it ends as it stands."""
    heard = Heard()
    keeper.start(heard)
    queue.enqueue_bytes(b"x")
    (lease,) = queue.claim(lease=0.6)
    keeper.hold(queue, [(lease, None)])
    first = deadline_of(queue, lease.id)
    wait_until(lambda: deadline_of(queue, lease.id) > first + 1.2, "it was extended several times")
    keeper.drop(queue.name, [lease, lease])
    (again,) = queue.claim(wait=5)
    assert again.id == lease.id
    assert again.expired_leases == 1
    assert heard == []


def test_a_lost_lease_is_said_once(queue: Queue, keeper: ThreadKeeper) -> None:
    """One that is cancelled is lost: said once, with timed_out False, and forgotten; the others are kept."""
    heard = Heard()
    keeper.start(heard)
    queue.enqueue_many([b"x", b"y"])
    gone, kept = queue.claim(2, lease=0.6)
    keeper.hold(queue, [(gone, None), (kept, None)])
    assert queue.cancel(gone.id)
    wait_until(lambda: heard, "it is said")
    first = deadline_of(queue, kept.id)
    wait_until(lambda: deadline_of(queue, kept.id) > first + 0.4, "two rounds more")
    assert heard == [(queue.name, gone.id, gone.delivery.fence, False)]


def test_a_lease_past_its_time_is_let_go(queue: Queue, keeper: ThreadKeeper) -> None:
    """With a time of its own it is extended until then, said with timed_out True, and extended no more."""
    heard = Heard()
    keeper.start(heard)
    queue.enqueue_bytes(b"x")
    (lease,) = queue.claim(lease=0.6)
    began = time.monotonic()
    keeper.hold(queue, [(lease, 1.0)])
    wait_until(lambda: heard, "its time is over")
    assert 1.0 <= time.monotonic() - began < 1.7
    assert heard == [(queue.name, lease.id, lease.delivery.fence, True)]
    assert queue.claim(wait=5)[0].id == lease.id


def test_an_unreachable_server_ends_no_keeper(
    queue: Queue, keeper: ThreadKeeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of failed rounds the first is logged, and that they work again; the next one extends."""
    heard, fails = Heard(), [1, 2, 3]
    extend = Queue.extend

    def sometimes(self: Queue, leases: list[BaseLease], lease: Any = 30.0) -> list[BaseLease]:
        if fails:
            fails.pop()
            raise Unavailable(self.name, "unknown", "timeout")
        return extend(self, leases, lease)

    monkeypatch.setattr(Queue, "extend", sometimes)
    queue.enqueue_bytes(b"x")
    (lease,) = queue.claim(lease=10)
    with caplog.at_level(logging.INFO, "boundq.worker"):
        keeper.start(heard)
        keeper.hold(queue, [(lease, None)])
        wait_until(lambda: not fails, "some rounds failed")
        # The first round that works sets the end to 0.6 s from now: earlier than the claim's 10 s.
        far = time.time() + 5
        wait_until(lambda: deadline_of(queue, lease.id) < far, "another round worked")
        wait_until(lambda: len(caplog.records) >= 2, "it says so")  # after the server has done it
    said = [record.getMessage() for record in caplog.records]
    assert ["could not be extended" in said[0], "are extended again" in said[1], len(said)] == [True, True, 2], said
    assert heard == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unforeseen_error_ends_no_keeper(
    queue: Queue, keeper: ThreadKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a round raises, the leases are extended by the next: a dead keeper would have every job run twice."""
    fails = threading.Event()
    extend = Queue.extend

    def sometimes(self: Queue, leases: list[BaseLease], lease: Any = 30.0) -> list[BaseLease]:
        if fails.is_set():
            fails.clear()
            raise RuntimeError("nobody thought of this")
        return extend(self, leases, lease)

    monkeypatch.setattr(Queue, "extend", sometimes)
    queue.enqueue_bytes(b"x")
    (lease,) = queue.claim(lease=10)
    fails.set()
    keeper.start(Heard())
    keeper.hold(queue, [(lease, None)])
    wait_until(lambda: not fails.is_set(), "a round failed")
    far = time.time() + 5
    wait_until(lambda: deadline_of(queue, lease.id) < far, "another round worked", 3)


def test_a_server_that_is_away_holds_up_no_others(
    queue: Queue, keeper: ThreadKeeper, fresh_server: FreshServer
) -> None:
    """Of two servers one is frozen, so that each call takes its whole deadline: leases on the other are kept."""
    frozen = fresh_server()
    other = Queue("frozen", frozen.url, deadline=3.0)
    heard = Heard()
    keeper.start(heard)
    for one in (other, queue):
        one.enqueue_bytes(b"x")
        keeper.hold(one, [(one.claim(lease=0.6)[0], None)])
    (lease_id,) = [job.id for job in queue.peek("active", 1).jobs]
    with frozen.paused():
        first = deadline_of(queue, lease_id)
        wait_until(lambda: deadline_of(queue, lease_id) > first + 1.2, "it is extended again and again", 2.5)
    assert queue.stats().leases_expired == 0
    other.close()


def test_end_overdue_says_when_the_next_one_is(queue: Queue) -> None:
    """Seconds until the next time-out, the length of a lease where there is none, never 0."""
    keeper = ServerKeeper(7.0)
    assert keeper.end_overdue() == 7.0
    queue.enqueue_many([b"x", b"y"])
    first, second = queue.claim(2, lease=5)
    keeper.hold(queue, [(first, 2.0), (second, None)])
    assert 1.5 < keeper.end_overdue() <= 2.0
    keeper.drop(queue.name, [first])
    assert keeper.end_overdue() == 7.0
    keeper.hold(queue, [(second, 0.0)])
    assert keeper.end_overdue() >= 0.01
    keeper.stop()


def test_a_lost_lease_is_said_once_by_whoever_learns_it(
    queue: Queue, work: Work, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper learns it at the same moment as whoever settles the job, in either order."""

    @queue.task
    def note() -> None:
        queue.cancel(current_job().id)

    def settling(name: str) -> None:
        original = getattr(Queue, name)

        def settle(self: Queue, *args: Any, **kwargs: Any) -> Any:
            with running.worker._lock:
                known = list(running.worker._running)
            for key in known:
                running.worker._lost(*key, timed_out=False)
            result = original(self, *args, **kwargs)
            for key in known:
                running.worker._lost(*key, timed_out=False)
            return result

        monkeypatch.setattr(Queue, name, settle)

    running = work(queue)
    settling("settle")
    settling("_turn")
    note.enqueue()
    wait_until(lambda: queue.stats().cancelled == 1 and running.worker.claimed == 1, "it has taken itself away")
    assert running.stop() == 0
    assert caplog.text.count("LeaseLost") == 1, caplog.text
