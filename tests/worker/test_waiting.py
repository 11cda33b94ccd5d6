"""
An idle worker's claim goes out with its wait, and the server runs it whatever has become of the worker meanwhile: what
it brings then is given back, undelivered, and never lies with nobody until its lease ends.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from boundq import Queue, Worker
from boundq.sync._wire import Withdrawn
from tests._servers import Server, nobody_waits, wait_until
from tests.worker._tree import Folder
from tests.worker.conftest import NewTree, Work


def _waits(server: Server, clients: int = 1) -> None:
    wait_until(lambda: int(server.info("clients")["blocked_clients"]) >= clients, "the worker to wait", 20)


def _balanced(queue: Queue) -> bool:
    stats = queue.stats()
    return stats.deliveries == stats.acked + stats.released and stats.leases_expired == 0


@pytest.mark.parametrize("when", ["sent", "admitted", "deliveries"])
def test_a_job_that_comes_as_the_worker_stops(any_server: Server, queue: Queue, when: str) -> None:
    """It is run, or it is there for others as soon as the worker has ended, which does not wait for its wait to end."""
    done: list[int] = []

    @queue.task
    def note(key: int) -> None:
        done.append(key)

    for turn in range(12):
        worker = Worker([queue], threads=1, lease=30, grace=5)
        thread = threading.Thread(target=worker.run)
        thread.start()
        _waits(any_server)
        before = queue.stats()
        sender = threading.Thread(target=lambda key=turn: note.enqueue(key))
        sender.start()
        if when != "sent":
            wait_until(lambda before=before: getattr(queue.stats(), when) > getattr(before, when), f"more {when}")
        stopped = time.monotonic()
        worker.stop()
        thread.join(20)
        took = time.monotonic() - stopped
        sender.join(20)
        stats = queue.stats()
        assert stats.active == 0, "it lies with nobody"
        assert stats.jobs + len(done) == turn + 1
        assert took < 0.9, "the wait takes a second"
    assert _balanced(queue)


def test_a_worker_that_was_frozen_while_it_waited(
    any_server: Server, queue: Queue, tree: NewTree, folder: Folder
) -> None:
    """
    Frozen until the lease of what it was given is nearly over: it gives that back when it goes on, and the job runs
    once, its delivery not spent.
    """
    lease = 3.0
    workers = tree("--lease", f"{lease}", "--threads", "2")
    for key in itertools.count():
        _waits(any_server)
        workers.signal(signal.SIGSTOP)
        wait_until(lambda: all(_stands_still(pid) for pid in workers.workers), "the signal to have come")
        frozen = time.monotonic()
        queue.named("work").enqueue(key)
        if _comes_true(lambda: queue.stats().active == 1, 1.0):
            break
        workers.signal(signal.SIGCONT)  # it was frozen between two waits
        workers.until(lambda key=key: queue.stats().acked == key + 1, "the job is done")
    wait_until(lambda: time.monotonic() > frozen + lease * 2 / 3, "most of the lease to pass")
    workers.signal(signal.SIGCONT)
    workers.until(lambda: queue.stats().acked == key + 1, "it is settled")
    assert folder.keys("start") == dict.fromkeys(range(key + 1), 1)
    assert {run.attempt for run in folder.runs()} == {1}
    assert queue.stats().released == 1, workers.log
    assert _balanced(queue)


def _stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    try:
        wait_until(condition, "it", seconds)
    except TimeoutError:
        return False
    return True


def test_no_thread_is_free_when_the_job_comes(any_server: Server, queue: Queue, queue_name: str, work: Work) -> None:
    """The only thread was taken by another queue meanwhile: whoever has one may have the job."""
    other = Queue(f"{queue_name}-2", any_server.url)
    gate, began, done = threading.Event(), threading.Event(), threading.Event()

    @other.task
    def hold() -> None:
        began.set()
        gate.wait(20)

    @queue.task
    def note() -> None:
        done.set()

    running = work(queue, other, threads=1, lease=30)
    _waits(any_server, 2)
    hold.enqueue()
    assert began.wait(20)
    note.enqueue()
    wait_until(lambda: queue.stats().released >= 1, "it is given back")
    assert queue.stats().active == 0
    (lease,) = queue.claim()  # it is there for others
    lease.release()
    assert not done.is_set()
    gate.set()
    assert done.wait(20)
    wait_until(lambda: queue.stats().acked == 1, "it is settled")
    assert running.stop() == 0
    assert queue.stats().released == 2, "once by the worker, and once by us"
    other.close()


def test_a_short_lease_does_not_go_out_with_the_wait(
    any_server: Server, queue: Queue, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that would be half over at the end of a wait is claimed after it."""
    together: list[float] = []
    original = Queue._wait_and_claim
    monkeypatch.setattr(
        Queue, "_wait_and_claim", lambda self, pause, lease: together.append(lease) or original(self, pause, lease)
    )
    done: list[int] = []

    @queue.task
    def note(key: int) -> None:
        done.append(key)

    for lease in (2.0, 30.0):
        nobody_waits(any_server)  # the worker before this one
        running = work(queue, lease=lease)
        _waits(any_server)
        note.enqueue(1)
        wait_until(lambda: queue.stats().jobs == 0, "it is done")
        assert running.stop() == 0
    assert done == [1, 1]
    assert set(together) == {30.0}


def test_withdrawn_calls_are_no_failures(any_server: Server, queue: Queue) -> None:
    """What is taken back counts as no outage: the next call of the process goes out at once."""
    queue.stats()
    link = queue._hub.link()
    for _ in range(3):
        waiting = threading.Thread(target=_wait_and_be_withdrawn, args=(queue,))
        waiting.start()
        _waits(any_server)
        for one in list(queue._hub._links):
            if one is not link:
                one.withdraw()
        waiting.join(20)
        assert not waiting.is_alive()
    assert not queue._hub.gate.troubled


def _wait_and_be_withdrawn(queue: Queue) -> None:
    queue.stats()
    with pytest.raises(Withdrawn):
        queue._wait_and_claim(20.0, 100.0)
