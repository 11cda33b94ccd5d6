"""Quiet: claim nothing more and go on running; by signal, for all processes, those that come later too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from boundq import Queue, Worker
from tests._servers import Server, nobody_waits, wait_until
from tests.worker._tree import ROOT, Folder
from tests.worker.conftest import NewTree, Work


def test_quiet_by_signal(any_server: Server, queue: Queue, tree: NewTree, folder: Folder) -> None:
    """
    SIGUSR1: what runs is finished and settled, nothing is claimed, also not by a process that replaces another.

    SIGUSR2: all is claimed again.
    """
    workers = tree("--processes", "2", "--threads", "2", "--lease", "5")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(4)])
    workers.until(lambda: len(folder.keys("start")) == 4, "four jobs run")
    workers.signal(signal.SIGUSR1, workers.process.pid)
    workers.until(lambda: workers.said("quiet: nothing more is claimed; ") == 2, "both workers are quiet")
    nobody_waits(any_server)  # no claim is on its way
    queue.enqueue_many([queue.named("work").call(key) for key in range(10, 20)])
    folder.open()
    workers.until(lambda: queue.stats().acked == 4, "what runs is finished")
    workers.signal(signal.SIGKILL, workers.workers[0])
    workers.until(lambda: workers.said("quiet: nothing more is claimed; ") == 3, "the new one is quiet as well")
    stats = queue.stats()
    assert (stats.ready, stats.active, stats.deliveries) == (10, 0, 4)
    workers.signal(signal.SIGUSR2, workers.process.pid)
    workers.until(lambda: queue.stats().acked == 14, "the others")
    assert workers.stop() == 0


def test_a_quiet_worker_stops_as_usual(any_server: Server, queue: Queue, tree: NewTree) -> None:
    """SIGTERM after SIGUSR1: exit code 0, and what was not claimed is still there."""
    workers = tree("--lease", "5")
    workers.until(lambda: workers.said("worker 1 is process") == 1, "it runs")
    workers.signal(signal.SIGUSR1, workers.process.pid)
    workers.until(lambda: workers.said("quiet: nothing more is claimed; ") == 1, "it is quiet")
    nobody_waits(any_server)  # no claim is on its way
    queue.named("work").enqueue(1)
    assert workers.stop() == 0
    assert queue.stats().ready == 1


def test_quiet_in_a_program(any_server: Server, queue_name: str) -> None:
    """`Worker.quiet` and `resume`, twice each: the same once; what was claimed before is done meanwhile."""
    queue = Queue(queue_name, any_server.url)
    gate, started, done = threading.Event(), threading.Event(), []

    @queue.task
    def wait(n: int) -> None:
        started.set()
        gate.wait(20)
        done.append(n)

    worker = Worker([queue], threads=2, lease=5)
    thread = threading.Thread(target=worker.run)
    thread.start()
    wait.enqueue(1)
    assert started.wait(20)
    worker.quiet()
    worker.quiet()
    assert worker.is_quiet
    nobody_waits(any_server)  # no claim is on its way
    wait.enqueue(2)
    gate.set()
    wait_until(lambda: queue.stats().acked == 1, "the first one is settled")
    assert (done, queue.stats().ready) == ([1], 1)
    worker.resume()
    worker.resume()
    wait_until(lambda: queue.stats().acked == 2, "the second one")
    worker.stop()
    thread.join(20)
    assert not thread.is_alive()
    queue.close()


@pytest.mark.parametrize("claim", ["_claim_or_register", "_wait_and_claim"])
def test_what_a_claim_brings_to_a_worker_that_has_become_quiet(
    queue: Queue, work: Work, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    """It was on its way: it is given back, its delivery not spent, and run when the worker is no longer quiet."""
    original, known, done = getattr(queue, claim), threading.Event(), list[int]()

    @queue.task
    def note(key: int) -> None:
        done.append(key)

    def meanwhile(*args: Any, **options: Any) -> Any:
        leases, pause = original(*args, **options)
        if leases and not queue.stats().released:
            known.wait(20)
            running.worker.quiet()
        return leases, pause

    monkeypatch.setattr(queue, claim, meanwhile)
    if claim == "_claim_or_register":
        note.enqueue(1)
    running = work(queue, lease=30)
    known.set()
    if claim == "_wait_and_claim":
        wait_until(lambda: queue.stats().claimed_at is not None, "it has found nothing")
        note.enqueue(1)
    wait_until(lambda: queue.stats().released == 1, "it is given back")
    assert (done, queue.stats().active, running.worker.is_quiet) == ([], 0, True)
    running.worker.resume()
    wait_until(lambda: queue.stats().acked == 1, "it is done")
    assert done == [1]
    assert running.stop() == 0


PROGRAM = """
import asyncio, os, signal, sys
from boundq import AsyncQueue, AsyncWorker

queue = AsyncQueue(sys.argv[2], sys.argv[1])

@queue.task
async def note() -> None:
    print("done", flush=True)

async def until(condition):
    while not await condition():
        await asyncio.sleep(0.01)

async def acked(n):
    return (await queue.stats()).acked == n

async def main():
    worker = AsyncWorker([queue], lease=5)
    running = asyncio.create_task(worker.run())
    await note.aenqueue()
    await until(lambda: acked(1))
    os.kill(os.getpid(), signal.SIGUSR1)
    async def quiet():
        return worker._worker.is_quiet
    await until(quiet)
    await note.aenqueue()
    os.kill(os.getpid(), signal.SIGUSR2)
    await until(lambda: acked(2))
    os.kill(os.getpid(), signal.SIGTERM)
    print("code", await running)
    await queue.close()

asyncio.run(main())
"""


def test_quiet_signals_of_a_program_with_a_loop(any_server: Server, queue_name: str, folder: Folder) -> None:
    """`AsyncWorker` in the main thread: SIGUSR1, SIGUSR2, SIGTERM."""
    script = folder.path / "program.py"
    script.write_text(PROGRAM)
    words = [sys.executable, str(script), any_server.url, queue_name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stdout.split()) == (0, ["done", "done", "code", "0"]), done.stderr
