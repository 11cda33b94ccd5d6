"""Workers that run beside a bench, ours and the bare loops, and what is done with them."""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import redis

from bench._harness import Arm, Figures
from bench._place import Place
from bench._processes import Process
from boundq import Queue
from tests._servers import wait_until

START_S = 60.0
_POLL_S = 0.005
_TICK_S = 0.001
_numbers = itertools.count(1)


def start_worker(
    place: Place,
    stack: ExitStack,
    kind: str,
    queue: str,
    *words: str,
    processes: int = 1,
    stamps: Path | None = None,
    **environment: str,
) -> Process:
    """``boundq worker`` for the ``plain`` tasks or the ``coroutines``; returns when all its processes wait for jobs."""
    command = ("boundq", "worker", f"bench._tasks:{kind}", "--quiet", f"--processes={processes}", *words)
    return _start(place, stack, command, processes, stamps, BENCH_QUEUE=queue, **environment)


def start_loop(
    place: Place, stack: ExitStack, how: str, key: str, stamps: Path | None = None, **environment: str
) -> Process:
    """A bare loop around a list (see `bench._loops`); returns when it waits for jobs."""
    return _start(place, stack, ("bench._loops", how, place.url, key), 1, stamps, **environment)


def _start(
    place: Place, stack: ExitStack, words: tuple[str, ...], processes: int, stamps: Path | None, **environment: str
) -> Process:
    environment["BOUNDQ_URL"] = place.url
    if stamps:
        environment["BENCH_STAMPS"] = str(stamps)
    log = place.server.folder / f"log-{next(_numbers)}"
    waiting = place.blocked()
    process = stack.enter_context(Process(*words, log=log, **environment))

    def ready() -> bool:
        process.check()
        return place.blocked() >= waiting + processes

    wait_until(ready, f"{' '.join(words)} to wait for jobs", START_S)
    return process


class Drain(Arm):
    """
    How fast workers empty a queue: they are started once, the queue is filled while they may not touch it, and what is
    done within some seconds is counted on the server.

    Args:
        name: Of the arm.
        place: Where.
        seconds: For how long to count.
        most: Jobs to have in the queue at the start; where they are done sooner, the clock stops then.
    """

    def __init__(self, name: str, place: Place, seconds: float, most: int) -> None:
        super().__init__(name)
        self.place, self.seconds, self.most = place, seconds, most
        self.process: Process

    @abstractmethod
    def fill(self) -> int:
        """Have ``most`` jobs in the queue, out of reach, and none in hand; how many there are."""

    @abstractmethod
    def open(self) -> None:
        """Let the workers at them."""

    @abstractmethod
    def close(self) -> None:
        """Keep them away again."""

    @abstractmethod
    def done(self) -> int:
        """Jobs done, ever."""

    def run(self) -> Figures:
        held, before = self.fill(), self.done()
        meter = self.place.meter([self.process])
        self.open()
        jobs, elapsed = count(self.done, before, held, self.seconds, self.process.check)
        done = self.done() - before
        figures = {**meter.read(done), **self.rounds(done)}
        self.close()
        rate = jobs / elapsed
        busy = (figures["workers"] + figures["server"]) * rate / 1e6
        return {**figures, "rate": rate, "wall": elapsed / jobs * 1e6, "busy": busy}

    def rounds(self, done: int) -> Figures:
        """What is known of the rounds since `open`, in which so many jobs were done."""
        return {}


def count(
    done: Callable[[], int], start: int, available: int, seconds: float, check: Callable[[], None]
) -> tuple[int, float]:
    """
    Jobs done, and in how many seconds, from the first one on.

    Args:
        done: Counts them.
        start: What it said before there was anything to do.
        available: Jobs that there are; the clock stops when they are done, too.
        seconds: For how long.
        check: Raises where nobody works any more.
    """

    def begins() -> bool:
        check()
        return done() > start

    wait_until(begins, "a first job to be done", START_S)
    first, begun = done(), time.perf_counter()
    while True:
        time.sleep(_POLL_S)
        now, elapsed = done(), time.perf_counter() - begun
        if elapsed >= seconds or now - start >= available:
            # All of them in one go, before we could look: the clock is then as good as a look is long.
            return max(now - first, 1), elapsed
        check()


class WorkerDrain(Drain):
    """
    ``boundq worker`` on no-op jobs.

    Args:
        kind: ``plain`` or ``coroutines``.
        processes: Of the worker.
        payload: Bytes of a job's argument.
    """

    def __init__(
        self, name: str, place: Place, seconds: float, most: int, kind: str, processes: int, payload: int
    ) -> None:
        super().__init__(name, place, seconds, most)
        self._kind, self._processes, self._payload = kind, processes, payload
        self._name = f"drain-{kind}-{processes}"
        self._queue: Queue

    def set_up(self) -> None:
        self._queue = self.place.queue(self.stack, self._name)
        self._queue.stats()  # there has to be one
        self.process = start_worker(self.place, self.stack, self._kind, self._name, processes=self._processes)
        self._queue.pause()

    def fill(self) -> int:
        # What was begun before the queue was closed must not start the clock of this round.
        wait_until(lambda: self._queue.stats().active == 0, "the last round's jobs to be done", START_S)
        job = self._queue.named("noop").call("x" * self._payload)
        self._queue.enqueue_many(job for _ in range(self.most - self._queue.stats().jobs))
        return self.most

    def open(self) -> None:
        self.place.forget_commands()
        self._queue.resume()

    def rounds(self, done: int) -> Figures:
        scripts, _ = self.place.spent("evalsha")
        return {"batch": 2 * done / scripts}  # one settles, one claims

    def close(self) -> None:
        self._queue.pause()

    def done(self) -> int:
        return self.place.acked(self._name)


class LoopDrain(Drain):
    """A bare loop (see `bench._loops`) on a list of as many payloads."""

    def __init__(self, name: str, place: Place, seconds: float, most: int, how: str, payload: int) -> None:
        super().__init__(name, place, seconds, most)
        self._how, self._payload = how, b"x" * payload
        self._key, self._away = f"loop-{how}", f"loop-{how}-away"
        self._put = 0
        self._client: redis.Redis

    def set_up(self) -> None:
        self._client = self.place.redis(self.stack)
        self.process = start_loop(self.place, self.stack, self._how, self._key)

    def fill(self) -> int:
        missing = max(self.most - self._length(self._away), 0)
        for start in range(0, missing, 1000):
            self._client.lpush(self._away, *[self._payload] * min(1000, missing - start))
        self._put += missing
        return self._length(self._away)

    def open(self) -> None:
        self._client.rename(self._away, self._key)

    def close(self) -> None:
        with contextlib.suppress(redis.ResponseError):  # nothing is left
            self._client.rename(self._key, self._away)

    def done(self) -> int:
        return self._put - self._length(self._key) - self._length(self._away)

    def _length(self, key: str) -> int:
        return int(self.place.wire.say("LLEN", key))


def paced(rate: float, seconds: float, send: Callable[[int], None], stop: Callable[[], bool] = lambda: False) -> int:
    """
    Send at a rate: what is due, by ``send(jobs)``, at most once a millisecond.

    Returns:
        How many were sent, after so many seconds, or when ``stop()`` says so.
    """
    begun, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < seconds and not stop():
        due = int(elapsed * rate) + 1 - sent
        if due > 0:
            send(due)
            sent += due
        time.sleep(max(begun + sent / rate - time.monotonic(), _TICK_S))
    return sent


class Stamps:
    """
    The file into which handlers write how long ago their job was sent.

    Args:
        of: Numbers for a job; the next one is how long ago it came (`bench._stages`).
    """

    def __init__(self, place: Place, of: int = 1) -> None:
        self._of = of
        self.path = place.server.folder / f"stamps-{next(_numbers)}"
        self.path.touch()
        self._read = 0

    def wait_for(self, jobs: int) -> list[float]:
        """Those of the next so many, in seconds, when they are there."""
        wanted = self._read + 8 * self._of * jobs
        wait_until(lambda: self.path.stat().st_size >= wanted, f"{jobs} jobs to be started", 60)
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read(wanted - self._read)
        self._read = wanted
        return list(struct.unpack(f"{self._of * jobs}d", data))
