"""The primary dies, or changes places with its replica: the worker finds the new one through the sentinel."""

from __future__ import annotations

import time

from boundq import Queue
from tests._sentinel import FAIL_OVER_S, Watched
from tests.conftest import FreshServer
from tests.worker._tree import Folder, balanced
from tests.worker.conftest import NewTree

PER_SECOND = 12
"""Connections of one queue's worker to the sentinel while there is no primary, seconds averaged over."""

JOBS = 200


def _connections(watched: Watched) -> int:
    return int(watched.sentinel.info("stats")["total_connections_received"])


def test_a_promoted_replica_is_found(fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder) -> None:
    """kill -9 of the primary: a bounded rate until another is promoted, then all jobs are done; one line each way."""
    watched = Watched(fresh_server)
    queue = Queue(queue_name, watched.url)
    queue.enqueue_many([queue.named("work").call(key, 0.02) for key in range(JOBS)])
    queue.named("gate").enqueue(JOBS)
    watched.replicate()
    workers = tree("--lease", "1", "--threads", "4", url=watched.url, BQ_DEADLINE="1")
    workers.until(lambda: len(folder.keys()) >= 20 and folder.keys("start")[JOBS], "some are done, one runs")
    watched.primary.kill()
    workers.until(lambda: workers.changes[0] == 1, "it has noticed")
    began, before = time.monotonic(), _connections(watched)
    workers.until(lambda: time.monotonic() - began > 2, "the outage has lasted")
    # Two at a time ask: the claimer, and whoever keeps the leases.
    assert (_connections(watched) - before) / (time.monotonic() - began) < 2 * PER_SECOND
    watched.promote()
    folder.open()
    queue.named("work").enqueue(JOBS + 1)
    workers.until(lambda: folder.keys()[JOBS + 1], "it is at work", FAIL_OVER_S)
    workers.until(lambda: queue.stats().jobs == 0, "all are done", FAIL_OVER_S)
    assert set(folder.keys()) == set(range(JOBS + 2)), "none is lost"
    stats = queue.stats()
    assert (stats.admitted, stats.acked) == (JOBS + 2, JOBS + 2)
    assert balanced(queue)
    assert workers.changes == (1, 1), workers.log
    assert workers.said("could not be extended") == 1, workers.log
    assert workers.said("worker 1 is process") == 1, "nobody was restarted"
    assert workers.stop() == 0
    queue.close()


def test_a_demoted_primary_is_left(fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder) -> None:
    """The two change places while jobs run: none is lost, each is settled at the new primary."""
    watched = Watched(fresh_server)
    queue = Queue(queue_name, watched.url)
    workers = tree("--lease", "2", "--threads", "4", url=watched.url, BQ_DEADLINE="1")
    queue.enqueue_many([queue.named("work").call(key, 0.02) for key in range(JOBS)])
    workers.until(lambda: len(folder.keys()) >= 20, "some are done")
    watched.demote()
    workers.until(lambda: queue.stats().jobs == 0, "all are done", FAIL_OVER_S)
    assert set(folder.keys()) == set(range(JOBS)), "none is lost"
    queue.named("work").enqueue(JOBS)
    workers.until(lambda: folder.keys()[JOBS], "a new one is done", FAIL_OVER_S)
    workers.until(lambda: queue.stats().acked == JOBS + 1, "and settled")
    assert watched.replica.cli("ROLE")[0] == b"master"
    assert balanced(queue)
    went, came = workers.changes
    assert went == came <= 2, workers.log
    queue.close()


def test_an_idle_worker_finds_the_new_primary(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder
) -> None:
    """It waits on a list of the primary that is demoted: it waits at the new one then, and a new job wakes it."""
    watched = Watched(fresh_server)
    queue = Queue(queue_name, watched.url)
    workers = tree("--lease", "30", url=watched.url)
    queue.named("work").enqueue(0)
    workers.until(lambda: queue.stats().acked == 1, "it is at work")
    workers.until(lambda: int(watched.primary.info("clients")["blocked_clients"]) == 1, "it waits")
    watched.demote()
    workers.until(lambda: int(watched.replica.info("clients")["blocked_clients"]) == 1, "it waits there", FAIL_OVER_S)
    queue.named("work").enqueue(1)
    workers.until(lambda: queue.stats().acked == 2, "the new job is done")
    assert folder.keys() == {0: 1, 1: 1}
    assert workers.said("Traceback") == 0
    queue.close()
