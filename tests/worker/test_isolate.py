"""``boundq worker --isolate``: handlers in child processes that hang, crash, are killed, or just do their work."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from boundq import Queue
from boundq.job_control import CurrentJob
from boundq.worker.isolate import MOST_STILLBORN, Children, NoChildren
from tests._servers import Server, wait_until
from tests.worker._tree import ROOT, Folder, Tree, balanced
from tests.worker.conftest import NewTree


def _alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _worker(tree: Tree) -> int:
    """The worker process: the child of the supervisor."""
    (pid,) = [one for one in tree.workers if _parent(one) == tree.process.pid]
    return pid


def test_handlers_run_in_children_that_are_used_again(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Fifty jobs, done by no more processes than there are threads, none of them the worker."""
    queue.enqueue_many([queue.named("work").call(key) for key in range(50)])
    workers = tree("--isolate", "--threads", "3")
    workers.until(lambda: queue.stats().acked == 50, "all are done")
    assert folder.keys() == dict.fromkeys(range(50), 1)
    pids = {run.pid for run in folder.runs()}
    assert 1 <= len(pids) <= 3
    assert _worker(workers) not in pids
    assert pids < set(workers.pids), "they are kept"
    assert workers.stop() == 0
    assert workers.said("stopped: 50 done, 0 not") == 1
    assert workers.gone()
    assert balanced(queue)


@pytest.mark.parametrize("how", ["C", "Python"])
def test_timeout_kills(queue: Queue, tree: NewTree, folder: Folder, how: str) -> None:
    """A handler that hangs, in a C call that keeps the interpreter lock or in a loop, is gone at its timeout."""
    job = queue.named("hang").enqueue(1, how).id
    queue.enqueue_many([queue.named("work").call(key) for key in range(2, 10)])
    workers = tree("--isolate", "--threads", "1")
    workers.until(lambda: queue.stats().jobs == 0, "every job has ended")
    (dead,) = queue.peek("dead").jobs
    assert (dead.id, dead.reason, dead.deliveries, dead.failures) == (job, "retries", 1, 1)
    assert dead.error == "TimeoutError: killed: ran longer than its timeout of 1 s\n"
    (run,) = [run for run in folder.runs() if run.key == 1]
    wait_until(lambda: not _alive(run.pid), "its process is gone")
    assert sorted(folder.keys()) == list(range(2, 10)), "its place is taken by the others"
    assert workers.said("LeaseLost") == 0
    assert balanced(queue)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("segfault", "crashed: its process was killed by signal 11 (SIGSEGV)"),
        ("exit", "crashed: its process ended with exit code 3"),
        ("kill", "crashed: its process was killed by signal 9 (SIGKILL, out of memory?)"),
    ],
)
def test_a_job_that_kills_its_process_fails_alone(
    queue: Queue, tree: NewTree, folder: Folder, how: str, says: str
) -> None:
    """Poison is run `retries + 1` times, then buried as crashed; the jobs beside it run once, the worker lives on."""
    bad = queue.named("die").enqueue(-1, how).id
    queue.enqueue_many([queue.named("work").call(key, 0.02) for key in range(50)])
    workers = tree("--isolate", "--threads", "2")
    workers.until(lambda: queue.stats().jobs == 0, "every job has ended")
    assert folder.keys("start")[-1] == 2
    (dead,) = queue.peek("dead").jobs
    assert (dead.id, dead.reason, dead.error) == (bad, "crashed", says)
    assert (dead.deliveries, dead.failures, dead.expired_leases) == (2, 2, 0)
    assert folder.keys() == dict.fromkeys(range(50), 1)
    assert workers.said("worker 1 is process") == 1, workers.log
    assert balanced(queue)


def test_what_handlers_say_and_ask(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Headers, extension, Bury, Retry and errors pass between the processes; no job sees another's context."""
    for key in (1, 2):
        queue.named("look", headers={"tenant": "blue"}).enqueue(key)
    workers = tree("--isolate", "--threads", "1", "--lease", "5")
    workers.until(lambda: queue.stats().acked == 2, "both have looked")
    assert [run.key for run in folder.runs("headers")] == [[queue.name, "look", {"tenant": "blue"}, False, "fresh"]] * 2
    buried = queue.named("says").enqueue(3, "bury").id
    failed = queue.named("fails").enqueue(4).id
    asks = queue.named("gate").enqueue(5)
    workers.until(lambda: queue.stats().dead == 2, "two are buried")
    dead = {job.id: job for job in queue.peek("dead").jobs}
    assert (dead[buried].reason, dead[buried].error) == ("unwanted", "nobody wants this")
    assert dead[failed].reason == "retries"
    assert dead[failed].error.endswith("ValueError: unheard-of \\udc80\n")
    assert "tasks.py" in dead[failed].error
    workers.until(lambda: folder.keys("start")[5], "the next one runs")
    assert queue.cancel(asks.id)
    assert balanced(queue)


def test_retry_goes_as_asked(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """`raise Retry(after=)` in a child: scheduled, not before that."""
    job = queue.named("again").enqueue(1).id
    workers = tree("--isolate")
    workers.until(lambda: queue.stats().scheduled == 1, "it is to be tried again")
    found = queue.get(job)
    assert found is not None
    assert found.failures == 1
    assert found.due is not None
    assert found.due - found.created >= 30


def test_a_cancelled_job_is_ended(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Its process is killed when the lease turns out to be gone; what it has started goes with it."""
    job = queue.named("parent").enqueue(1).id
    workers = tree("--isolate", "--lease", "1")
    workers.until(lambda: folder.runs("program"), "it runs")
    (run,) = folder.runs("program")
    assert _alive(run.key)
    assert queue.cancel(job)
    workers.until(lambda: not _alive(run.pid), "the handler's process is gone")
    workers.until(lambda: not _alive(run.key), "and the program that it had started")
    queue.named("work").enqueue(2)
    workers.until(lambda: queue.stats().acked == 1, "the worker works on")
    assert workers.said("LeaseLost") == 1
    assert workers.said("crashed") == 0
    assert balanced(queue)


def test_end_of_grace_kills_and_gives_back(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """What is unfinished then is ended and ready again, no delivery spent; nobody is left."""
    workers = tree("--isolate", "--threads", "3", "--lease", "30", "--grace", "1")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(3)])
    workers.until(lambda: len(folder.keys("start")) == 3, "three jobs run")
    asked = time.monotonic()
    assert workers.stop() == 0
    assert time.monotonic() - asked < 1 + 1.2, workers.log
    assert workers.gone()
    stats = queue.stats()
    assert (stats.released, stats.jobs, stats.active, stats.leases_expired) == (3, 3, 0, 0), workers.log
    assert [(lease.attempt, lease.expired_leases) for lease in queue.claim(5)] == [(1, 0)] * 3, "nothing was spent"


def test_grace_is_for_finishing(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """SIGTERM, also one for each of the processes, lets running handlers finish; SIGUSR1 is for the workers."""
    workers = tree("--isolate", "--threads", "3", "--grace", "30")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(3)])
    workers.until(lambda: len(folder.keys("start")) == 3, "three jobs run")
    others = [pid for pid in workers.pids if pid not in (workers.process.pid, _worker(workers))]
    workers.signal(signal.SIGUSR1, *others)
    workers.process.send_signal(signal.SIGTERM)
    workers.signal(signal.SIGTERM, *others)
    workers.until(lambda: workers.said("stopping"), "it knows")
    folder.open()
    assert workers.process.wait(20) == 0
    assert folder.keys() == dict.fromkeys(range(3), 1)
    assert queue.stats().acked == 3
    assert workers.gone()


@pytest.mark.parametrize("victim", ["worker", "nursery"])
def test_kill_leaves_no_child(queue: Queue, tree: NewTree, folder: Folder, victim: str) -> None:
    """kill -9 of the worker, or of the process that starts its children: none of them outlives it, hung or not."""
    workers = tree("--isolate", "--threads", "2", "--lease", "1")
    queue.named("hold_gil").enqueue(1, 3000)
    queue.named("gate").enqueue(2)
    workers.until(lambda: len(folder.keys("start")) == 2, "two jobs run")
    handlers = {run.pid for run in folder.runs()}
    (nursery,) = {_parent(pid) for pid in handlers}
    assert _parent(nursery) == _worker(workers)
    workers.signal(signal.SIGKILL, nursery if victim == "nursery" else _worker(workers))
    workers.until(lambda: not any(_alive(pid) for pid in handlers), "its children are gone")
    folder.open()
    workers.until(lambda: folder.keys()[2], "another runs what can be run")
    queue.named("work").enqueue(3)
    workers.until(lambda: folder.keys()[3], "and what comes then")


def test_children_killed_at_random(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Twenty of them are killed while 300 jobs run: each job is done, none waits for a lease to end."""
    queue.enqueue_many([queue.named("storm").call(key, 0.0) for key in range(300)])
    workers = tree("--isolate", "--threads", "4")
    killed: set[int] = set()
    while len(killed) < 20:
        seen = len(folder.runs())
        workers.until(lambda seen=seen: len(folder.runs()) > seen or queue.stats().ready == 0, "jobs run")
        if not queue.stats().jobs:
            queue.enqueue_many([queue.named("storm").call(key, 0.0) for key in range(300, 400)])
        pid = next((run.pid for run in reversed(folder.runs()) if run.pid not in killed and _alive(run.pid)), None)
        if pid:
            workers.signal(signal.SIGKILL, pid)
            killed.add(pid)
    workers.until(lambda: queue.stats().jobs == 0, "every job has ended", 40)
    stats = queue.stats()
    assert (stats.acked, stats.dead, stats.leases_expired) == (stats.admitted, 0, 0)
    assert set(range(300)) <= set(folder.keys())
    assert workers.said("worker 1 is process") == 1, workers.log
    assert balanced(queue)


def test_a_child_that_dies_idle_costs_no_delivery(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """The next job has another one."""
    workers = tree("--isolate", "--threads", "1")
    queue.named("work").enqueue(1)
    workers.until(lambda: queue.stats().acked == 1, "it is done")
    (run,) = folder.runs("done")
    workers.signal(signal.SIGKILL, run.pid)
    queue.named("fellow").enqueue(2, 0.0)
    workers.until(lambda: queue.stats().acked == 2, "the next one is done too")
    assert queue.stats().retried == 0
    assert {one.attempt for one in folder.runs("done")} == {1}


class Dead:
    """A child that takes no job any more, or never has."""

    def __init__(self, *, proven: bool) -> None:
        self.proven = proven

    def begin(self, *_: Any) -> bool:
        return False

    def kill(self) -> None: ...


def test_children_that_die_idle_are_no_sign_that_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many that have done jobs are found dead, another is tried; of those that never took one, three."""
    children = Children(["tasks:jobs"], threading.Event(), lambda: None)
    taken = itertools.chain((Dead(proven=True) for _ in range(10)), (Dead(proven=False) for _ in itertools.count()))
    tried: list[Dead] = []

    def take(_: object) -> Dead:
        tried.append(next(taken))
        return tried[-1]

    monkeypatch.setattr(children, "_take", take)
    monkeypatch.setattr(children, "_give", lambda _: None)
    job = CurrentJob("q", Mock(), lambda *_: None)
    with pytest.raises(NoChildren):
        children.run("q", Mock(), job, lambda: None)
    assert [one.proven for one in tried] == [True] * 10 + [False] * MOST_STILLBORN


def test_async_tasks_stay_on_the_loop(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """They run in the worker process, beside the isolated ones."""
    workers = tree("--isolate")
    queue.named("awork").enqueue(1)
    queue.named("work").enqueue(2)
    workers.until(lambda: queue.stats().acked == 2, "both are done")
    by_key = {run.key: run.pid for run in folder.runs("done")}
    assert by_key[1] == _worker(workers)
    assert by_key[2] != by_key[1]


def test_children_of_modules_with_threads_import_them_anew(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """A process with threads is not forked: each child is a new one. It is killed, replaced and ends as others do."""
    (folder.path / "threaded.py").write_text(
        "import threading\nfrom tasks import jobs\n"
        "import os\nprint('imported by', os.getpid(), flush=True)\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    queue.named("work").enqueue(1)
    workers = tree("threaded:jobs", "--isolate", "--threads", "1")
    workers.until(lambda: queue.stats().acked == 1, "it is done")
    queue.named("hang").enqueue(2, "Python")
    queue.named("work").enqueue(3)
    workers.until(lambda: queue.stats().jobs == 0, "both have ended")
    assert queue.stats().dead == 1
    pids = [run.pid for run in folder.runs()]
    assert pids[0] == pids[1] != pids[2]
    for pid in pids:
        assert workers.said(f"imported by {pid}") == 1
    assert workers.said("each child process imports them anew") == 1
    assert workers.stop() == 0
    assert workers.gone()


def test_max_jobs_replaces_the_worker_and_its_children(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """All of them are new then, and nothing of the old ones is left."""
    queue.enqueue_many([queue.named("work").call(key) for key in range(4)])
    workers = tree("--isolate", "--threads", "1", "--max-jobs", "2")
    workers.until(lambda: queue.stats().acked == 4, "all are done")
    pids = [run.pid for run in folder.runs()]
    assert len(set(pids)) == 2
    workers.until(lambda: not _alive(pids[0]), "the first is gone")
    assert folder.keys() == dict.fromkeys(range(4), 1)


def test_children_that_cannot_be_started(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Where only they cannot import the tasks, the worker says so and gives up, its jobs unspent; so does the rest."""
    (folder.path / "shy.py").write_text(
        "import sys\nfrom tasks import jobs\nif '--nursery-socket' in sys.argv: raise RuntimeError('not here')\n"
    )
    queue.named("work").enqueue(1)
    workers = tree("shy:jobs", "--isolate")
    assert workers.process.wait(60) == 70
    assert workers.said("cannot import shy: RuntimeError: not here") == 3
    assert workers.said("the process that starts the children ended with 2") == 3
    assert queue.stats().deliveries == 0
    assert workers.gone()


def test_a_job_that_no_child_takes_is_given_back(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Where children cannot be started any more, midway: it is ready again, unspent, and the worker gives up."""
    (folder.path / "moody.py").write_text(
        "import os, sys\nfrom tasks import jobs\n"
        "if '--nursery-socket' in sys.argv and os.path.exists('bad'): raise RuntimeError('not now')\n"
    )
    workers = tree("moody:jobs", "--isolate", "--threads", "1")
    queue.named("work").enqueue(1)
    workers.until(lambda: queue.stats().acked == 1, "it works")
    (run,) = folder.runs("done")
    folder.open("bad")
    workers.signal(signal.SIGKILL, _parent(run.pid))
    workers.until(lambda: not _alive(run.pid), "its child is gone too")
    queue.named("work").enqueue(2)
    assert workers.process.wait(60) == 70
    assert workers.said("is given back: the process that starts the children ended with 2") == 1
    assert queue.stats().released == 1
    assert folder.keys("start") == {1: 1}
    (lease,) = queue.claim()
    assert (lease.attempt, lease.expired_leases) == (1, 0)


def test_a_worker_in_a_program(any_server: Server, queue: Queue, folder: Folder) -> None:
    """`Worker(isolate=[...])` does the same, and leaves neither processes nor descriptors behind."""
    (folder.path / "program.py").write_text(
        "import os\nfrom tasks import jobs\nfrom boundq import Worker\n"
        "open_ones = lambda: len(os.listdir('/proc/self/fd'))\n"
        "jobs.stats()\nbefore = open_ones()\n"
        "code = Worker([jobs], threads=2, burst=True, isolate=['tasks:jobs']).run()\n"
        "print(code, open_ones() - before)\n"
    )
    queue.enqueue_many([queue.named("work").call(key) for key in range(10)])
    done = subprocess.run(
        [sys.executable, "program.py"],
        env={**os.environ, "BOUNDQ_URL": any_server.url, "BQ_QUEUE": queue.name, "PYTHONPATH": str(ROOT)},
        cwd=folder.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["0", "0"], done.stdout + done.stderr
    assert folder.keys() == dict.fromkeys(range(10), 1)
    assert not any(_alive(run.pid) for run in folder.runs())
