"""Workers that die: kill -9, poison, frozen ones. Each job is run to its end, none is lost."""

from __future__ import annotations

import signal
import time

import pytest

from boundq import Queue
from tests._servers import wait_until
from tests.worker._tree import Folder, balanced, freeze
from tests.worker.conftest import NewTree


def test_jobs_of_a_killed_tree_run_elsewhere_within_their_lease(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """kill -9 of a whole tree with 10 of 200 in flight: another worker has them, no new traffic."""
    lease = 2.0
    first = tree("--lease", f"{lease}", "--threads", "10")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(10)])
    first.until(lambda: len(folder.keys("start")) == 10, "ten jobs run")
    queue.enqueue_many([queue.named("work").call(key) for key in range(10, 200)])
    second = tree("--lease", f"{lease}", "--threads", "10")
    second.until(lambda: queue.stats().acked == 190, "the others are done")
    first.kill()
    died = time.monotonic()
    folder.open()
    second.until(lambda: queue.stats().acked == 200, "the interrupted ones are done too", lease + 2)
    again = [run for run in folder.runs() if run.attempt == 2]
    assert sorted(run.key for run in again) == list(range(10))
    assert max(run.at for run in again) - died < lease + 2
    assert set(folder.keys().values()) == {1}, "the others ran once"
    assert len(folder.keys()) == 200
    assert {run.pid for run in again} == set(second.workers), "no process of the second was restarted"
    assert queue.stats().leases_expired == 10
    assert balanced(queue)


def test_jobs_beside_poison_are_done(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """A job that kills its process takes others along, again and again; only it is buried, they are all done."""
    bad = queue.named("poison").enqueue(-1).id
    queue.enqueue_many([queue.named("fellow").call(key, 0.1) for key in range(50)])
    workers = tree("--lease", "1", "--threads", "4")
    workers.until(lambda: queue.stats().jobs == 0, "every job has ended", 40)
    assert folder.keys("start")[-1] == 2
    assert [(job.id, job.reason) for job in queue.peek("dead", 100).jobs] == [(bad, "max_deliveries")]
    assert queue.stats().acked == 50
    assert balanced(queue)


def test_poison_alone_in_its_worker(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Likewise where one job runs at a time; the worker is replaced, after a pause that grows."""
    bad = queue.named("poison").enqueue(-1).id
    queue.enqueue_many([queue.named("work").call(key) for key in range(50)])
    workers = tree("--lease", "0.5", "--threads", "1", "--concurrency", "1")
    workers.until(lambda: queue.stats().jobs == 0, "every job has ended", 40)
    assert folder.keys("start")[-1] == 2
    (dead,) = queue.peek("dead").jobs
    assert (dead.id, dead.reason, dead.deliveries, dead.expired_leases) == (bad, "max_deliveries", 3, 2)
    assert sorted(folder.keys()) == list(range(50))
    assert set(folder.keys().values()) == {1}
    pauses = [line.rpartition("replaced in ")[2] for line in workers.log.splitlines() if "killed by signal 9" in line]
    assert pauses == ["1.0 s", "2.0 s"]
    assert len({run.pid for run in folder.runs() if run.key == -1}) == 2
    assert balanced(queue)


def test_a_handler_that_holds_the_interpreter_lock_runs_once(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Three leases long no thread of its process runs; the supervisor keeps its lease, another worker finds nothing."""
    lease = 1.0
    queue.named("hold_gil").enqueue(1, 3 * lease)
    first = tree("--lease", f"{lease}", "--threads", "2")
    first.until(lambda: folder.keys("start")[1], "it runs")
    second = tree("--lease", f"{lease}")
    second.until(lambda: queue.stats().acked == 1, "it is done")
    assert folder.keys("start") == folder.keys("done") == {1: 1}
    stats = queue.stats()
    assert (stats.deliveries, stats.leases_expired, stats.leases_lost) == (1, 0, 0)
    assert second.said("worker 1 is process") == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handler_that_holds_the_interpreter_lock_from_its_first_act_on(
    queue: Queue, tree: NewTree, folder: Folder, threads: int
) -> None:
    """Its lease is kept from before it began: nothing of its process has run since."""
    lease = 1.0
    first = tree("--lease", f"{lease}", "--threads", f"{threads}")
    hold = queue.named("hold_gil_at_once")
    hold.enqueue(0, 0)  # the first one of a process takes so long to begin that other threads have their turn
    first.until(lambda: queue.stats().acked == 1, "it is warm")
    hold.enqueue(1, int(3 * lease * 1e6))
    first.until(lambda: queue.stats().active == 1, "it runs")
    second = tree("--lease", f"{lease}")
    second.until(lambda: queue.stats().acked == 2, "it is done")
    assert folder.keys("done") == {0: 1, 1: 1}
    stats = queue.stats()
    assert (stats.deliveries, stats.leases_expired, stats.leases_lost) == (2, 0, 0)


def test_a_frozen_tree_loses_its_job_and_its_ack_is_refused(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """SIGSTOP of supervisor and worker past the lease: the job runs elsewhere once, the loser is told once."""
    first = tree("--lease", "1")
    queue.named("gate").enqueue(1, "go")
    first.until(lambda: folder.keys("start")[1], "it runs")
    thaw = freeze(first.pids)
    second = tree("--lease", "1")
    second.until(lambda: folder.keys("start")[1] == 2, "it runs elsewhere")
    folder.open()
    second.until(lambda: queue.stats().acked == 1, "it is done there")
    thaw()
    first.until(lambda: folder.keys("done")[1] == 2, "the frozen one ends its run too")
    # What it does next shows that it is well, and that the refusal lies behind it.
    second.stop()
    queue.named("work").enqueue(2)
    first.until(lambda: folder.keys("done")[2], "it works on")
    first.until(lambda: queue.stats().jobs == 0, "and settles")
    assert folder.keys("start")[1] == 2
    assert first.said("LeaseLost") == 1, first.log
    assert second.said("LeaseLost") == 0
    stats = queue.stats()
    assert (stats.acked, stats.leases_expired, stats.retried, stats.buried) == (2, 1, 0, 0)
    assert balanced(queue)


def test_workers_of_a_killed_supervisor_finish_and_stop(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """SIGKILL of the supervisor: its worker keeps its own leases, ends what it runs, claims no more, and is gone."""
    lease = 1.0
    first = tree("--lease", f"{lease}", "--threads", "2")
    queue.enqueue_many([queue.named("work").call(key, 2.5 * lease) for key in (1, 2)])
    first.until(lambda: len(folder.keys("start")) == 2, "two jobs run")
    first.signal(signal.SIGKILL, first.process.pid)
    first.process.wait()
    second = tree("--lease", f"{lease}")
    first.until(first.gone, "the orphan is gone", 10)
    assert folder.keys("done") == folder.keys("start") == {1: 1, 2: 1}
    queue.named("work").enqueue(3)
    second.until(lambda: folder.keys()[3] == 1, "new jobs are for others")
    second.until(lambda: queue.stats().acked == 3, "all are done")
    assert queue.stats().leases_expired == 0


def test_killed_worker_is_replaced_and_its_job_runs_again(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """kill -9 of the worker process alone: the supervisor starts another, which does the job after the lease."""
    workers = tree("--lease", "1")
    queue.named("gate").enqueue(1)
    workers.until(lambda: folder.keys("start")[1], "it runs")
    (old,) = workers.workers
    workers.signal(signal.SIGKILL, old)
    folder.open()
    workers.until(lambda: queue.stats().acked == 1, "it ran again", 1 + 2 + 2)
    (run,) = folder.runs("done")
    assert run.attempt == 2
    assert run.pid != old
    wait_until(lambda: workers.workers == [run.pid], "there is one worker")
