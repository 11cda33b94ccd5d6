"""
A worker that has done very many jobs holds no more than one that has done some: memory, files, threads.

    BOUNDQ_LONG=1 pytest -n 0 -s tests/worker/test_memory.py     # 1,000,000 jobs of each kind; CI has 30,000
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from boundq import Queue
from tests.worker._tree import LONG, Folder, Tree
from tests.worker.conftest import NewTree

JOBS = 1_000_000 if LONG else 30_000
WARM_UP = 10_000
BATCH = 5_000
MARGIN_KB = 2048 if LONG else 1024
"""
How much larger a process may be in the end than after its warm-up. What is kept of each job, if anything, has a hundred
bytes at least: 2 MB of 20,000 jobs.
"""


class Held(NamedTuple):
    """What a process holds."""

    kb: int
    files: int
    threads: int


def _held(pid: int) -> Held:
    proc = Path(f"/proc/{pid}")
    lines = (line.partition(":") for line in (proc / "status").read_text().splitlines())
    status = {name: value.split() for name, _, value in lines}
    return Held(int(status["VmRSS"][0]), len(os.listdir(proc / "fd")), int(status["Threads"][0]))


def _ends(queue: Queue, job_id: str) -> float:
    job = queue.get(job_id)
    assert job is not None
    return job.due or 0.0


def _do(queue: Queue, workers: Tree, task: str, until: int) -> None:
    """Have jobs done up to this number of all."""
    while (stats := queue.stats()).acked < until:
        missing = until - stats.admitted
        if missing > 0 and stats.jobs < BATCH:
            queue.enqueue_many([queue.named(task).call() for _ in range(min(missing, BATCH))])
        else:
            time.sleep(0.005)  # the loop's condition is progress
        assert workers.process.poll() is None, workers.log


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize("task", ["nothing", "anothing"])
def test_memory_stays_flat(queue: Queue, tree: NewTree, folder: Folder, task: str) -> None:
    """Many jobs that do nothing: worker and supervisor are as large in the end as after the first ones."""
    workers = tree("--threads", "4", "--lease", "3", "--quiet")
    long_one = queue.named("gate").enqueue(1)
    workers.until(lambda: folder.keys("start")[1], "it runs")
    ends = _ends(queue, long_one.id)
    # With the first extension the supervisor connects to the server, and loads what it takes to.
    workers.until(lambda: _ends(queue, long_one.id) > ends, "its lease is extended")
    folder.open()
    _do(queue, workers, task, WARM_UP)
    pids = {"worker": workers.workers[0], "supervisor": workers.process.pid}
    assert workers.workers == [pids["worker"]]
    before = {name: _held(pid) for name, pid in pids.items()}
    began = time.monotonic()
    for part in range(1, 11):
        _do(queue, workers, task, WARM_UP + (JOBS - WARM_UP) * part // 10)
        if LONG:
            now = {name: _held(pid) for name, pid in pids.items()}
            print(f"{queue.stats().acked:9,} jobs, {time.monotonic() - began:5.0f} s: {now}")  # noqa: T201  # asked for
    after = {name: _held(pid) for name, pid in pids.items()}
    assert workers.workers == [pids["worker"]], "it is the same process"
    for name in pids:
        assert after[name].kb - before[name].kb < MARGIN_KB, (before, after)
        # All threads are there from the start; each of them connects when it first has something to settle or claim.
        assert after[name].files <= before[name].files + 3, (before, after)
        assert after[name].threads <= before[name].threads + 1, (before, after)
    stats = queue.stats()
    assert (stats.acked, stats.deliveries) == (JOBS, JOBS + stats.leases_expired)
