"""
Many jobs, some that fail, some that are slow, and processes that are killed at random: the ledger balances.

    BOUNDQ_LONG=1 pytest tests/worker/test_storm.py     # 10,000 jobs and 50 kills; CI has 2,000 and 10
"""

from __future__ import annotations

import random
import signal
import time

import pytest

from boundq import Queue
from boundq.worker.pace import MOST_AHEAD
from tests.worker._tree import LONG, Folder, balanced
from tests.worker.conftest import NewTree

JOBS = 10_000 if LONG else 2000
PROCESSES, THREADS = 4, 4
MOST_KILLS = JOBS // 200 if LONG else 10
MOST_SECONDS = 600 if LONG else 120


@pytest.mark.timeout(MOST_SECONDS)
def test_random_kills_lose_nothing(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Every job is done, by its id; whoever ran twice did so because somebody was killed or failed; counters agree."""
    dice = random.Random(7)
    results = queue.enqueue_many([queue.named("storm").call(key) for key in range(JOBS)])
    ids = {result.receipt.id for result in results if result.receipt}
    assert len(ids) == JOBS
    words = ("--lease", "1", "--threads", f"{THREADS}", "--processes", f"{PROCESSES}")
    trees = [tree(*words)]
    killed = whole = 0
    began = time.monotonic()
    end = began + MOST_SECONDS - 20
    # Kills are spread over the work, one at each of these counts of jobs done.
    marks = [round(JOBS * (place + 1) / (MOST_KILLS + 2)) for place in range(MOST_KILLS)]
    while (stats := queue.stats()).jobs and time.monotonic() < end:
        live = [one for one in trees if one.process.poll() is None]
        assert live, trees[-1].log[-2000:]
        if not marks or stats.acked < marks[0] or not (victims := live[0].workers):
            time.sleep(0.01)  # the loop's condition is progress
            continue
        del marks[0]
        if len(marks) % 4 == 0:
            killed += len(victims)
            whole += 1
            live[0].kill()
            trees.append(tree(*words))
        else:
            killed += 1
            live[0].signal(signal.SIGKILL, dice.choice(victims))
    assert stats.jobs == 0, trees[-1].log[-2000:]
    assert not marks, "every kill took place"
    assert whole == -(-MOST_KILLS // 4)
    done_ids = {run.id for run in folder.runs("done")}
    assert done_ids == ids, "none is lost"
    assert not queue.peek("dead", 100).jobs
    stats = queue.stats()
    assert stats.admitted == stats.acked == JOBS
    assert stats.deliveries == stats.acked + stats.retried + stats.leases_expired + stats.released
    starts = len(folder.runs("start"))
    # Who is killed has claimed as many as it has threads, and as many again may be on their way; and some ahead.
    assert starts <= stats.deliveries - stats.released <= starts + (2 * THREADS + MOST_AHEAD) * killed
    assert stats.retried, "one in a hundred fails"
    assert balanced(queue)
    assert trees[-1].stop() == 0
    if LONG:
        figures = f"{killed} processes killed, {whole} times all; {starts} runs, {stats.leases_expired} leases expired"
        print(f"\n{JOBS} jobs in {time.monotonic() - began:.0f} s: {figures}, {stats.retried} retried")  # noqa: T201  # asked for
