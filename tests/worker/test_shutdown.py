"""Workers that are told to stop: what runs is finished or given back, and the process is gone in time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from boundq import Queue
from tests._servers import Server
from tests.conftest import FreshServer, NewProxy
from tests.worker._tree import Folder, balanced
from tests.worker.conftest import NewTree


def _threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_sigterm_lets_running_jobs_finish(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """With grace enough all ten are done once, nothing more is claimed, and the exit code is 0."""
    workers = tree("--lease", "2", "--threads", "10", "--grace", "30")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(10)])
    workers.until(lambda: len(folder.keys("start")) == 10, "ten jobs run")
    threads = _threads(workers.workers[0])
    workers.process.send_signal(signal.SIGTERM)
    workers.until(lambda: workers.said("stopping"), "it knows")
    workers.until(lambda: _threads(workers.workers[0]) < threads, "its claimer has ended")
    queue.named("work").enqueue(10)
    folder.open()
    assert workers.process.wait(20) == 0
    assert folder.keys("start") == folder.keys("done") == dict.fromkeys(range(10), 1)
    stats = queue.stats()
    assert (stats.acked, stats.ready, stats.active, stats.leases_expired) == (10, 1, 0, 0)
    assert workers.said("stopped: 10 done, 0 not") == 1
    assert workers.gone()


def _began_to_wait(server: Server) -> int:
    """How many times a worker has begun to wait on the server."""
    fields = server.info("commandstats").get("cmdstat_blpop", "calls=0,")
    return int(fields.removeprefix("calls=").partition(",")[0])


@pytest.mark.parametrize("threads", ["10", "12"])
def test_sigterm_gives_back_what_the_grace_does_not_suffice_for(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder, threads: str
) -> None:
    """
    All ten go back to the head, undelivered, and another worker has them within a second; ours is gone in time.

    With two threads to spare the worker waits on the server as the signal comes; that changes nothing.
    """
    server = fresh_server()
    queue = Queue(queue_name, server.url)
    first = tree("--lease", "30", "--threads", threads, "--grace", "1", url=server.url)
    queue.enqueue_many([queue.named("gate").call(key) for key in range(10)])
    first.until(lambda: len(folder.keys("start")) == 10, "ten jobs run")
    queue.pause()
    queue.named("gate").enqueue(10)  # behind those that come back
    if threads != "10":
        before = _began_to_wait(server)
        first.until(lambda: _began_to_wait(server) > before, "it has just begun to wait")
    asked = time.monotonic()
    first.process.send_signal(signal.SIGTERM)
    second = tree("--lease", "30", "--threads", "10", url=server.url)
    assert first.process.wait(20) == 0
    took = time.monotonic() - asked
    stats = queue.stats()
    assert (stats.released, stats.active, stats.leases_expired) == (10, 0, 0), first.log
    assert took < 1 + 1.0, first.log
    second.until(lambda: second.said("worker 1 is process"), "the second is there")
    before = _began_to_wait(server)
    second.until(lambda: _began_to_wait(server) > before, "it knows that the queue is paused")
    resumed = time.monotonic()
    queue.resume()
    second.until(lambda: len(folder.runs()) == 20, "the second has the ten")
    again = folder.runs()[10:]
    assert max(run.at for run in again) - resumed < 1
    assert sorted(run.key for run in again) == list(range(10))
    assert {run.attempt for run in again} == {1}, "nothing was spent"
    assert first.gone()
    queue.close()


def test_a_second_signal_gives_back_at_once(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Two SIGTERM, or Ctrl-C twice: no waiting for the grace; the jobs are ready again, and the exit code is 0."""
    workers = tree("--lease", "30", "--threads", "4", "--grace", "60")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(4)])
    workers.until(lambda: len(folder.keys("start")) == 4, "four jobs run")
    workers.process.send_signal(signal.SIGINT)
    workers.until(lambda: workers.said("stopping"), "it knows")
    asked = time.monotonic()
    workers.process.send_signal(signal.SIGINT)
    assert workers.process.wait(20) == 0
    assert time.monotonic() - asked < 1.5, workers.log
    stats = queue.stats()
    assert (stats.released, stats.active, stats.jobs) == (4, 0, 4), workers.log
    assert workers.gone()


def test_a_second_signal_while_the_worker_waits_on_the_server(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder
) -> None:
    """The same with threads to spare: that a claimer waits on the server keeps nobody from giving back."""
    server = fresh_server()
    queue = Queue(queue_name, server.url)
    workers = tree("--lease", "30", "--threads", "4", "--grace", "60", url=server.url)
    queue.enqueue_many([queue.named("gate").call(key) for key in range(2)])
    workers.until(lambda: len(folder.keys("start")) == 2, "two jobs run")
    before = _began_to_wait(server)
    workers.until(lambda: _began_to_wait(server) > before, "the claimer has just begun to wait")
    workers.process.send_signal(signal.SIGTERM)
    workers.until(lambda: workers.said("stopping"), "it knows")
    workers.process.send_signal(signal.SIGTERM)
    assert workers.process.wait(20) == 0
    stats = queue.stats()
    assert (stats.released, stats.active, stats.jobs) == (2, 0, 2), workers.log
    queue.close()


def test_what_is_done_during_the_grace_is_settled_then(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """A job that ends early in a long shutdown does not wait, unsettled, for the others: nobody runs it again."""
    lease = 1.0
    first = tree("--lease", f"{lease}", "--threads", "2", "--grace", "30")
    queue.named("gate").enqueue(1, "first")
    queue.named("gate").enqueue(2, "second")
    first.until(lambda: len(folder.keys("start")) == 2, "both run")
    threads = _threads(first.workers[0])
    first.process.send_signal(signal.SIGTERM)
    first.until(lambda: _threads(first.workers[0]) < threads, "its claimer has ended")
    folder.open("first")
    second = tree("--lease", f"{lease}")
    second.until(lambda: queue.stats().acked == 1, "what is done is settled", lease + 3)
    folder.open("second")
    assert first.process.wait(20) == 0
    assert folder.keys("start") == {1: 1, 2: 1}, "no job ran twice"
    assert queue.stats().leases_expired == 0


def test_sigkill_during_shutdown_loses_nothing(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Killed within its grace, the worker leaves jobs that others run when the leases end."""
    first = tree("--lease", "1", "--threads", "5", "--grace", "30")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(5)])
    first.until(lambda: len(folder.keys("start")) == 5, "five jobs run")
    first.process.send_signal(signal.SIGTERM)
    first.until(lambda: first.said("stopping"), "it knows")
    first.kill()
    folder.open()
    second = tree("--lease", "1")
    second.until(lambda: queue.stats().acked == 5, "they are done elsewhere")
    assert folder.keys() == dict.fromkeys(range(5), 1)
    assert balanced(queue)


def test_a_handler_that_cannot_be_interrupted_does_not_hold_up_the_exit(
    queue: Queue, tree: NewTree, folder: Folder
) -> None:
    """A C call that keeps the interpreter lock beyond the grace: killed within grace + 1 s, run again by others."""
    first = tree("--lease", "1", "--grace", "0.5")
    queue.named("hold_gil").enqueue(1, 6.0)
    first.until(lambda: folder.keys("start")[1], "it runs")
    asked = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - asked < 0.5 + 1.2
    assert first.gone()
    second = tree("--lease", "1")
    second.until(lambda: folder.keys("start")[1] == 2, "another has it")


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_exit_in_time_while_the_server_is_mute(
    any_server: Server, queue: Queue, proxy: NewProxy, tree: NewTree, folder: Folder, busy: bool
) -> None:
    """A server that takes bytes and answers nothing does not hold up the exit: grace + 1 s."""
    line = proxy(any_server)
    workers = tree("--lease", "2", "--threads", "4", "--grace", "1", url=line.url)
    workers.until(lambda: line.count("BLPOP") > 0, "it waits for work")
    if busy:
        queue.named("gate").enqueue(1)
        workers.until(lambda: folder.keys("start")[1], "one job runs")
    line.black_hole()
    asked = time.monotonic()
    workers.process.send_signal(signal.SIGTERM)
    workers.process.wait(20)
    assert time.monotonic() - asked < 1 + 1.2, workers.log
    assert workers.gone()


def test_max_jobs_replaces_the_worker_and_cuts_no_job_off(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """A worker that has had its number of jobs ends them, however long that takes beside the grace, and is replaced."""
    queue.enqueue_many([queue.named("work").call(key, 1.2) for key in range(2)])
    workers = tree("--lease", "5", "--threads", "1", "--max-jobs", "1", "--grace", "0.2")
    workers.until(lambda: queue.stats().acked == 2, "both are done", 12)
    assert folder.keys("start") == folder.keys("done") == {0: 1, 1: 1}
    assert len({run.pid for run in folder.runs()}) == 2
    workers.process.send_signal(signal.SIGTERM)
    assert workers.process.wait(10) == 0


def test_burst_ends_when_nothing_is_ready(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """--burst with two processes: all that is ready is done, scheduled jobs stay, exit code 0, at a bounded rate."""
    queue.enqueue_many([queue.named("work").call(key) for key in range(100)])
    queue.named("work", delay=60).enqueue(100)
    workers = tree("--burst", "--processes", "2")
    assert workers.process.wait(30) == 0
    assert folder.keys() == dict.fromkeys(range(100), 1)
    assert queue.stats().scheduled == 1


def test_burst_does_not_hammer_the_server_while_its_last_job_runs(
    any_server: Server, queue: Queue, proxy: NewProxy, tree: NewTree, folder: Folder
) -> None:
    """While one job runs and nothing is ready, a burst asks some times a second, not hundreds."""
    line = proxy(any_server)
    queue.named("gate").enqueue(1)
    workers = tree("--burst", "--threads", "4", url=line.url)
    workers.until(lambda: folder.keys("start")[1], "it runs")
    before, began = line.count("EVALSHA"), time.monotonic()
    workers.until(lambda: time.monotonic() - began > 1.0, "a second has passed")
    assert (line.count("EVALSHA") - before) / (time.monotonic() - began) < 40
    folder.open()
    assert workers.process.wait(20) == 0
