"""Many jobs, some that fail, some that are slow, and processes that are killed at random: the ledger balances."""

from __future__ import annotations

import random
import signal
import time

from boundq import Queue
from tests.worker._tree import Folder, balanced
from tests.worker.conftest import NewTree

JOBS = 2000


def test_random_kills_lose_nothing(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Every job is done, by its id; whoever ran twice did so because somebody was killed or failed; counters agree."""
    dice = random.Random(7)
    results = queue.enqueue_many([queue.named("storm").call(key) for key in range(JOBS)])
    ids = {result.receipt.id for result in results if result.receipt}
    assert len(ids) == JOBS
    words = ("--lease", "1", "--threads", "4", "--processes", "2")
    trees = [tree(*words)]
    kills = whole = 0
    end = time.monotonic() + 60
    seen = 0
    while queue.stats().jobs and time.monotonic() < end:
        done = len(folder.runs("done"))
        if done < min(seen + 150, JOBS - 50):
            time.sleep(0.01)  # the loop's condition is progress
            continue
        seen = done
        live = [one for one in trees if one.process.poll() is None]
        if kills >= 8 or not live:
            continue
        kills += 1
        if kills % 4 == 0:
            live[0].kill()
            whole += 1
            trees.append(tree(*words))
        elif victims := live[0].workers:
            live[0].signal(signal.SIGKILL, dice.choice(victims))
    stats = queue.stats()
    assert stats.jobs == 0, trees[-1].log[-2000:]
    assert kills >= 5
    assert whole >= 1
    done_ids = {run.id for run in folder.runs("done")}
    dead_ids = {job.id for job in queue.peek("dead", 100).jobs}
    assert done_ids | dead_ids >= ids, "none is lost"
    assert not dead_ids
    assert stats.admitted == stats.acked == JOBS
    assert stats.deliveries == stats.acked + stats.retried + stats.leases_expired
    starts = len(folder.runs("start"))
    assert starts <= stats.deliveries <= starts + 16 * kills + 16
    assert balanced(queue)
    assert trees[-1].stop() == 0
