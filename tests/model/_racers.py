"""
The processes of test_race.py: producers and workers that race for a time, some workers killed in the middle.

Run as ``python -m tests.model._racers URL QUEUE FOLDER SECONDS PROCESSES TASKS``: a process of one thread, which may
fork. Each child writes what it was told, one JSON line each, to a file of its own in the folder, at once: what a
killed one knew is there too.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boundq import AsyncQueue, Queue
from boundq.model import PRIORITIES, EnqueueResult, Receipt, Rejection
from tests._servers import wait_until

WORKERS = 3
LEASE = 0.3
PAYLOAD = 40


class Diary:
    """What one child was told."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, kind: str, *what: Any) -> None:
        os.write(self._file, json.dumps([kind, *what]).encode() + b"\n")

    def outcome(self, payload: bytes, one: Receipt | Rejection | EnqueueResult) -> None:
        if isinstance(one, EnqueueResult):
            answer = one.receipt or one.rejection
            assert answer is not None, one.error
            one = answer
        if isinstance(one, Receipt):
            self.note("in", one.id, payload.decode(), one.jobs, one.bytes)
        else:
            self.note("no", one.reason, one.used, one.limit, one.requested)


def bodies(n: int) -> list[bytes]:
    """Payloads that no other has, all of one length."""
    return [f"{os.getpid()}-{random.getrandbits(64):x}".ljust(PAYLOAD, ".").encode() for _ in range(n)]


def produce(queue: Queue, diary: Diary, over: Callable[[], bool]) -> None:
    """Single jobs and batches of all priorities, atomic or not, from a thread."""
    while not over():
        if random.random() < 0.5:
            (body,) = bodies(1)
            diary.outcome(body, queue.try_enqueue_bytes(body, priority=random.choice(PRIORITIES)))
        else:
            many = bodies(random.randint(2, 30))
            results = queue.enqueue_many(many, atomic=random.random() < 0.5, priority=random.choice(PRIORITIES))
            for body, result in zip(many, results, strict=True):
                diary.outcome(body, result)


async def aproduce(queue: AsyncQueue, diary: Diary, over: Callable[[], bool]) -> None:
    """The same from a task; its single jobs are merged with those of other tasks."""
    while not over():
        if random.random() < 0.5:
            (body,) = bodies(1)
            diary.outcome(body, await queue.try_enqueue_bytes(body, priority=random.choice(PRIORITIES)))
        else:
            many = bodies(random.randint(2, 30))
            results = await queue.enqueue_many(many, atomic=random.random() < 0.5, priority=random.choice(PRIORITIES))
            for body, result in zip(many, results, strict=True):
                diary.outcome(body, result)


def work(queue: Queue, diary: Diary, over: Callable[[], bool]) -> None:
    """Claim, and do all that can be done with a lease: also forget it."""
    while not over():
        leases = queue.claim(random.randint(1, 20), wait=0.05, lease=LEASE)
        work: dict[str, list[Any]] = {"acks": [], "retries": [], "releases": [], "buries": []}
        for lease in leases:
            kind = random.choices([*work, "forget"], [60, 10, 10, 5, 15])[0]
            if kind == "acks":
                diary.note("ack", lease.id)  # before it is sent: a kill in between leaves the job where it is
            if kind != "forget":
                work[kind].append({"retries": (lease, 0.05), "buries": (lease, "race", "")}.get(kind, lease))
        queue.settle(**work)


def child(run: Callable[[], None]) -> int:
    """Fork; the child does this, and no more."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        random.seed()
        run()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201  # the test reads it
    finally:
        os._exit(code)


def main(url: str, name: str, folder: Path, seconds: float, processes: int, tasks: int) -> int:
    flag = folder / "over"

    def over() -> bool:
        return flag.exists()

    def threads() -> None:
        queue, diary = Queue(name, url, create=False), Diary(folder)
        errors: list[BaseException] = []

        def run() -> None:
            try:
                produce(queue, diary, over)
            except BaseException as error:
                errors.append(error)

        running = [threading.Thread(target=run) for _ in range(tasks)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        if errors:
            raise errors[0]

    def loop() -> None:
        async def run() -> None:
            queue, diary = AsyncQueue(name, url, create=False), Diary(folder)
            await asyncio.gather(*(aproduce(queue, diary, over) for _ in range(tasks)))
            await queue.close()

        asyncio.run(run())

    def worker() -> None:
        work(Queue(name, url, create=False), Diary(folder), over)

    children = {child(loop if number % 2 else threads) for number in range(processes)}
    queue = Queue(name, url, create=False)
    # Workers join when the limit has been reached, so that the race is at the limit on a slow machine too.
    wait_until(lambda: queue.stats().fill == 1, "the limit", 20)
    ends = time.monotonic() + seconds
    workers = {child(worker) for _ in range(WORKERS)}
    killed: set[int] = set()
    while time.monotonic() < ends:
        time.sleep(random.uniform(0.05, 0.3))
        victim = random.choice(sorted(workers))
        os.kill(victim, signal.SIGKILL)
        workers.remove(victim)
        killed.add(victim)
        workers.add(child(worker))
    flag.touch()
    failed = 0
    for pid in children | workers | killed:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        failed += code != (-signal.SIGKILL if pid in killed else 0)
    return failed


if __name__ == "__main__":
    url, name, folder, *numbers = sys.argv[1:]
    sys.exit(main(url, name, Path(folder), float(numbers[0]), int(numbers[1]), int(numbers[2])))
