"""A server that goes away, comes back, is full: the worker waits at a low rate, says so once, and resumes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from boundq import Queue
from tests._proxy import Proxy
from tests._servers import Server, wait_until
from tests.conftest import FreshServer, NewProxy
from tests.worker._tree import LONG, Folder, Tree, balanced
from tests.worker.conftest import NewTree

RESUME_S = 2.0
"""A worker is at work again so long after the first PONG at the latest."""

OUTAGE_S = 20 if LONG else 3

PER_SECOND = 12
"""Commands and connections of one queue's worker while the server is away, seconds averaged over."""


def _resumes(workers: Tree, queue: Queue, folder: Folder, key: int) -> float:
    """Seconds from now until a new job is done."""
    began = time.monotonic()
    queue.named("work").enqueue(key)
    workers.until(lambda: folder.keys()[key] == 1, "a new job is done")
    return time.monotonic() - began


def test_a_killed_and_restarted_server_is_met_again(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder
) -> None:
    """kill -9, AOF always: at work within 2 s of the first PONG, no job lost, one line for each change of state."""
    server = fresh_server(appendonly="yes", appendfsync="always")
    queue = Queue(queue_name, server.url)
    workers = tree("--lease", "1", "--threads", "4", url=server.url, BQ_DEADLINE="1")
    queue.enqueue_many([queue.named("work").call(key, 0.02) for key in range(200)])
    workers.until(lambda: len(folder.keys()) >= 20, "some are done")
    server.kill()
    workers.until(lambda: workers.changes[0] == 1, "it has noticed", 8)
    server.start()
    back = time.monotonic()
    assert _resumes(workers, queue, folder, 1000) < RESUME_S + 3.5, "the 180 old ones come first"
    first = min(run.at for run in folder.runs() if run.at > back)
    assert first - back < RESUME_S
    workers.until(lambda: queue.stats().jobs == 0, "all are done")
    assert set(folder.keys()) == {*range(200), 1000}
    assert queue.stats().acked == 201
    assert workers.changes == (1, 1), workers.log
    assert balanced(queue)
    queue.close()


def test_an_outage_is_logged_when_it_begins(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder
) -> None:
    """Not when a call gives up at its deadline, of ten minutes here: the line comes with the second attempt."""
    server = fresh_server(appendonly="yes", appendfsync="always")
    queue = Queue(queue_name, server.url)
    queue.named("work").enqueue(1)
    queue.close()
    server.kill()
    workers = tree("--lease", "30", "--threads", "4", url=server.url, BQ_DEADLINE="600")
    workers.until(lambda: workers.changes == (1, 0), "it has noticed")
    assert workers.said(f"queue {queue_name}: the server is unavailable (refused); trying on") == 1
    server.start()
    workers.until(lambda: queue.stats().acked == 1, "it is at work")
    workers.until(lambda: workers.changes == (1, 1), "and says so")
    queue.close()


def _refuse(line: Proxy, server: Server) -> Callable[[], object]:
    line.refuse()
    line.cut_all()
    return line.heal


def _mute(line: Proxy, server: Server) -> Callable[[], object]:
    line.black_hole()
    return line.heal


def _freeze(line: Proxy, server: Server) -> Callable[[], object]:
    server.pause()
    return server.resume


def _raise_limit(server: Server) -> None:
    while True:
        try:
            server.cli("CONFIG", "SET", "maxclients", "1000")
            return
        except Exception:
            time.sleep(0.01)


@pytest.mark.parametrize("fault", [_refuse, _mute, _freeze], ids=lambda fault: fault.__name__.strip("_"))
def test_while_the_server_is_away_little_is_sent(
    fresh_server: FreshServer,
    proxy: NewProxy,
    queue_name: str,
    tree: NewTree,
    folder: Folder,
    fault: Callable[[Proxy, Server], Callable[[], object]],
) -> None:
    """Refused, mute or frozen for some seconds: a bounded rate, one line; then at work within 2 s, and one line."""
    server = fresh_server()
    line = proxy(server)
    queue = Queue(queue_name, server.url)
    workers = tree("--lease", "1", "--threads", "2", url=line.url, BQ_DEADLINE="1")
    queue.named("work").enqueue(1)
    workers.until(lambda: queue.stats().acked == 1, "it is at work")
    heal = fault(line, server)
    began, before = time.monotonic(), line.commands + len(line.connections)
    workers.until(lambda: workers.changes[0] == 1, "it has noticed", 10)
    workers.until(lambda: time.monotonic() - began > OUTAGE_S, "the outage has lasted", OUTAGE_S + 20)
    sent, lasted = line.commands + len(line.connections) - before, time.monotonic() - began
    heal()
    wait_until(lambda: server.alive, "a PONG")
    assert _resumes(workers, queue, folder, 2) < RESUME_S
    assert sent / lasted < PER_SECOND
    workers.until(lambda: workers.changes[1] == 1, "it says so")
    assert workers.changes == (1, 1), workers.log
    assert workers.said("worker 1 is process") == 1
    workers.until(lambda: queue.stats().acked == 2, "and settles")
    queue.close()


def test_maxclients_reached(
    fresh_server: FreshServer, proxy: NewProxy, queue_name: str, tree: NewTree, folder: Folder
) -> None:
    """No free connection for the worker: it tries at a bounded rate, says so once, and resumes within 2 s."""
    server = fresh_server()
    line = proxy(server)
    queue = Queue(queue_name, server.url)
    queue.named("work").enqueue(1)
    workers = tree("--lease", "1", "--threads", "2", url=line.url, BQ_DEADLINE="1")
    workers.until(lambda: queue.stats().acked == 1, "it is at work")
    queue.stats()  # this connection of ours stays, and takes the only place
    server.cli("CONFIG", "SET", "maxclients", 1)
    line.cut_all()
    began, before = time.monotonic(), len(line.connections)
    workers.until(lambda: workers.changes[0] == 1, "it has noticed", 10)
    workers.until(lambda: time.monotonic() - began > 3, "the state has lasted")
    assert (len(line.connections) - before) / (time.monotonic() - began) < PER_SECOND
    queue.named("work").enqueue(2)
    queue.close()
    _raise_limit(server)
    freed = time.monotonic()
    workers.until(lambda: folder.keys()[2] == 1, "the new job is done")
    assert time.monotonic() - freed < RESUME_S
    workers.until(lambda: workers.changes == (1, 1), "one line for each change")


def test_a_full_server_is_drained(fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder) -> None:
    """At maxmemory, foreign keys to the last byte: a worker that starts then does, retries and buries all jobs."""
    server = fresh_server()
    queue = Queue(queue_name, server.url)
    queue.enqueue_many([queue.named("work").call(key) for key in range(300)])
    queue.enqueue_many([queue.named("says").call(key, "bury") for key in range(300, 320)])
    server.cli("CONFIG", "SET", "maxmemory", server.info("memory")["used_memory"])
    with pytest.raises(Exception, match="maxmemory"):
        server.cli("SET", "foreign", b"x" * 100_000)
    workers = tree("--lease", "1", "--threads", "4", url=server.url)
    workers.until(lambda: queue.stats().jobs == 0, "all are done")
    assert set(folder.keys()) == set(range(300))
    assert set(folder.keys().values()) == {1}
    stats = queue.stats()
    assert (stats.acked, stats.dead, stats.leases_expired) == (300, 20, 0)
    assert balanced(queue)
    assert workers.changes == (0, 0)
    queue.close()


def test_a_server_that_fills_up_under_the_worker(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder
) -> None:
    """At maxmemory while jobs run and others are not due yet: all are done, nothing to log, then it is as quiet."""
    server = fresh_server()
    queue = Queue(queue_name, server.url)
    workers = tree("--lease", "1", "--threads", "2", url=server.url)
    queue.enqueue_many([queue.named("gate").call(key) for key in range(2)])
    workers.until(lambda: len(folder.keys("start")) == 2, "two jobs run")
    queue.enqueue_many([queue.named("work").call(key) for key in range(2, 100)], delay=1)
    server.cli("CONFIG", "SET", "maxmemory", server.info("memory")["used_memory"])
    with pytest.raises(Exception, match="maxmemory"):
        server.cli("SET", "foreign", b"x" * 100_000)
    extended = _calls(server)
    workers.until(lambda: _calls(server) > extended + 3, "leases are extended")
    folder.open()
    workers.until(lambda: queue.stats().jobs == 0, "all are done")
    assert folder.keys() == folder.keys("start") == dict.fromkeys(range(100), 1)
    before, began = _calls(server), time.monotonic()
    workers.until(lambda: time.monotonic() - began > 2, "some seconds have passed")
    assert _calls(server) - before <= 2 * (time.monotonic() - began) + 2, "two more, for the ends of the interval"
    assert (workers.changes, workers.said("WARNING"), queue.stats().leases_expired) == ((0, 0), 0, 0), workers.log
    assert balanced(queue)
    queue.close()


def test_what_is_done_during_a_short_outage_is_settled_after_it(
    any_server: Server, queue: Queue, proxy: NewProxy, tree: NewTree, folder: Folder
) -> None:
    """A job older than one lease that ends while the server is away: its ack is repeated; it does not run again."""
    line = proxy(any_server)
    workers = tree("--lease", "3", "--threads", "2", url=line.url, BQ_DEADLINE="0.5")
    queue.named("gate").enqueue(1)
    workers.until(lambda: folder.keys("start")[1], "it runs")
    began = time.monotonic()
    workers.until(lambda: time.monotonic() - began > 3.2, "it is older than its first lease")
    expired, extended = queue.stats().leases_expired, line.count("EVALSHA")
    workers.until(lambda: line.count("EVALSHA") > extended, "its lease was extended a moment ago")
    line.black_hole()
    folder.open()
    workers.until(lambda: folder.keys()[1] == 1, "it ends")
    workers.until(lambda: workers.changes[0] >= 1, "the outage is noticed", 8)
    line.heal()
    workers.until(lambda: queue.stats().jobs == 0, "it is settled", 8)
    assert folder.keys("start") == {1: 1}, workers.log
    assert queue.stats().leases_expired == expired


def test_the_queue_is_deleted_under_the_worker(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder
) -> None:
    """FLUSHALL and SCRIPT FLUSH: the worker goes on with what comes then."""
    server = fresh_server()
    queue = Queue(queue_name, server.url)
    workers = tree("--lease", "1", url=server.url)
    queue.named("work").enqueue(1)
    workers.until(lambda: queue.stats().acked == 1, "it is at work")
    server.cli("FLUSHALL")
    server.cli("SCRIPT", "FLUSH")
    assert _resumes(workers, queue, folder, 2) < RESUME_S + 1
    workers.until(lambda: queue.stats().acked == 1, "it is settled")
    assert workers.said("Traceback") == 0
    queue.close()


def _calls(server: Server) -> int:
    """Commands that workers have sent; not those inside of scripts."""
    stats = server.info("commandstats")
    mine = ("evalsha", "eval", "blpop", "script|load")
    return sum(int(stats.get(f"cmdstat_{name}", "calls=0,").removeprefix("calls=").partition(",")[0]) for name in mine)


def _waits(server: Server) -> str:
    return server.info("commandstats").get("cmdstat_blpop", "")


def test_an_idle_worker_is_quiet_and_quick(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to do: at most 2 commands a second. A new job starts within some milliseconds."""
    server = fresh_server()
    queue = Queue(queue_name, server.url)
    workers = tree("--lease", "30", url=server.url)
    queue.named("work").enqueue(-1)
    workers.until(lambda: queue.stats().acked == 1, "it is at work, and has taught the server its scripts")
    waits = _waits(server)
    workers.until(lambda: _waits(server) != waits, "it is idle")
    before, began = _calls(server), time.monotonic()
    workers.until(lambda: time.monotonic() - began > 4, "some seconds have passed")
    sent, lasted = _calls(server) - before, time.monotonic() - began
    assert sent <= 2 * lasted + 2, "two more than 2 a second, for the ends of the interval"
    took = []
    for key in range(40):
        sent_at = time.monotonic()
        queue.named("work").enqueue(key)
        workers.until(lambda key=key: folder.keys()[key] == 1, "it is done")
        took.append(next(run.at for run in folder.runs() if run.key == key) - sent_at)
    took.sort()
    with capsys.disabled():
        print(  # noqa: T201  # the figure is asked for
            f"\nidle: {sent / lasted:.2f} commands/s; a new job starts after {took[20] * 1e3:.1f} ms (p50), "
            f"{took[-1] * 1e3:.1f} ms (worst of 40)"
        )
    assert took[20] < 0.05
    queue.close()
