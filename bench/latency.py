"""
Latency: from the call of enqueue to the first line of the handler, in another process, while the queue is short.

At 100 jobs a second, and at half of what the arm can drain, by a drain just before: the same machine is twice as fast
in one second as in the next. All clocks are the machine's monotonic clock. Where more than a thousand jobs a second are
due, those of a millisecond are sent together; one of them, any, notes its time, and the others do nothing, as those of
the drain. A BRPOP loop is the floor: a push, and the wake-up of another process.
"""

from __future__ import annotations

import random
import struct
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import redis

from bench._harness import Arm, Column, Figures, Group, Options, Result, in_turns, percentile
from bench._place import Place
from bench._workers import START_S, Stamps, count, paced, start_loop, start_worker
from boundq import Queue
from tests._servers import wait_until

SLOW = 100.0
# Of the loop: what is not as long as a time.
NOOP = b"noop"


def columns(at: str) -> tuple[Column, ...]:
    """Of one of the two rates."""
    return (
        Column(f"{at}_p50", "p50 ms", compared=True, digits=2),
        Column(f"{at}_p99", "p99 ms", compared=True, digits=2),
        Column(f"{at}_max", "max ms", digits=2),
        Column(f"{at}_rate", "sent/s"),
    )


class Size(NamedTuple):
    """Seconds of a run, and rounds; seconds and jobs to measure the drain rate."""

    seconds: float
    rounds: int
    drain_s: float
    drain_jobs: int


SIZES = {"tiny": Size(0.2, 2, 0.05, 300), "quick": Size(1.0, 5, 0.5, 15_000), "full": Size(10.0, 9, 2.0, 60_000)}


class Loaded(Arm):
    """
    Jobs sent at both rates.

    Args:
        size: Of the run.
    """

    def __init__(self, name: str, place: Place, size: Size) -> None:
        super().__init__(name)
        self.place, self.size = place, size
        self.stamps: Stamps

    @abstractmethod
    def send(self, before: int, after: int) -> None:
        """Send one that is stamped with the time of now, and so many no-op jobs before and after it, in one call."""

    @abstractmethod
    def drain_rate(self) -> float:
        """Jobs a second that come out of a queue that is never empty."""

    def run(self) -> Figures:
        figures: dict[str, float] = {}
        for at, rate in (("slow", SLOW), ("half", self.drain_rate() / 2)):
            calls = 0

            def send(jobs: int) -> None:
                nonlocal calls
                calls += 1
                before = random.randrange(jobs)
                self.send(before, jobs - 1 - before)

            begun = time.monotonic()
            achieved = paced(rate, self.size.seconds, send) / (time.monotonic() - begun)
            found = {**waits(self.stamps.wait_for(calls)), "rate": achieved}
            figures |= {f"{at}_{figure}": value for figure, value in found.items()}
        return figures


class ThroughWorker(Loaded):
    """Through a queue, to ``boundq worker``."""

    def __init__(self, name: str, place: Place, size: Size, kind: str) -> None:
        super().__init__(name, place, size)
        self._kind = kind
        self._queue: Queue

    def set_up(self) -> None:
        name = f"latency-{self._kind}"
        self.stamps = Stamps(self.place)
        self._queue = self.place.queue(self.stack, name)
        self._queue.stats()  # there has to be one
        self._task, self._noop = self._queue.named("stamp"), self._queue.named("noop").call("")
        self._worker = start_worker(self.place, self.stack, self._kind, name, stamps=self.stamps.path)

    def drain_rate(self) -> float:
        queue, jobs = self._queue, self.size.drain_jobs
        queue.pause()
        queue.enqueue_many([self._noop] * jobs)
        before = self.place.acked(queue.name)
        queue.resume()
        done, elapsed = count(lambda: self.place.acked(queue.name), before, jobs, self.size.drain_s, self._worker.check)
        queue.purge()
        wait_until(lambda: queue.stats().active == 0, "the jobs in hand to be done", START_S)
        return done / elapsed

    def send(self, before: int, after: int) -> None:
        if before + after == 0:
            self._task.enqueue(time.monotonic())
        else:
            noop = [self._noop]
            self._queue.enqueue_many([*noop * before, self._task.call(time.monotonic()), *noop * after])


class ThroughList(Loaded):
    """Through a list, to a BRPOP loop."""

    def set_up(self) -> None:
        self.stamps = Stamps(self.place)
        self._client: redis.Redis = self.place.redis(self.stack)
        self._loop = start_loop(self.place, self.stack, "brpop", "latency", stamps=self.stamps.path)

    def drain_rate(self) -> float:
        jobs = self.size.drain_jobs
        for start in range(0, jobs, 1000):
            self._client.lpush("latency-away", *[NOOP] * min(1000, jobs - start))
        self._client.rename("latency-away", "latency")
        done, elapsed = count(
            lambda: jobs - int(self.place.wire.say("LLEN", "latency")), 0, jobs, self.size.drain_s, self._loop.check
        )
        self._client.delete("latency")
        return done / elapsed

    def send(self, before: int, after: int) -> None:
        noop = [NOOP]
        self._client.lpush("latency", *noop * before, struct.pack("d", time.monotonic()), *noop * after)


def waits(seconds: Sequence[float]) -> dict[str, float]:
    """What the arms report, in milliseconds."""
    return {
        "p50": percentile(seconds, 50) * 1000,
        "p99": percentile(seconds, 99) * 1000,
        "max": max(seconds) * 1000,
    }


def measure(place: Place, options: Options) -> Result:
    """Both rates."""
    size = SIZES[options.size]
    size = size._replace(seconds=options.seconds or size.seconds)
    arms = [
        ThroughList("redis-py LPUSH, BRPOP loop", place, size),
        ThroughWorker("boundq plain", place, size, "plain"),
        ThroughWorker("boundq coroutines", place, size, "coroutines"),
    ]
    runs = in_turns(arms, options.of(size.rounds))
    titles = {"slow": f"{SLOW:.0f} jobs/s", "half": "half of the drain rate"}
    return Result([Group(title, runs, arms[0].name, columns(at)) for at, title in titles.items()])
