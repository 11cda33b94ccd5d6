"""
Overload: producers at twice the drain rate, and what becomes of the server's memory and of a second queue.

A worker drains one queue as fast as its handlers allow: 400 jobs a second, for they take 10 ms each, and no CPU.
Producers enqueue twice as much. A second queue with a worker of its own gets 50 jobs a second, in turns with the flood
and without it. Its waits are from the call of enqueue to the first line of the handler. How long its producer, its
worker and the server waited for a processor, while one of its jobs was on its way, is the kernel's count (Linux).
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

from bench._harness import Arm, Column, Curves, Figures, Group, Options, Result, in_turns, percentile
from bench._place import Place, Wire
from bench._processes import Process
from bench._workers import Stamps, paced, start_worker
from bench.latency import waits
from boundq import Limits, Queue
from tests._servers import wait_until

THREADS, WORK_S = 4, 0.01
# Not twice what was measured: a worker that was slow for a moment would be given too little to do.
FLOOD_RATE = 2 * THREADS / WORK_S
CALM_RATE = 50.0
LIMITS = Limits(max_jobs=500)
SAMPLE_S = 0.1
MIB = 2**20
COLUMNS = (
    Column("p50", "p50 ms", compared=True, digits=2),
    Column("p99", "p99 ms", compared=True, digits=2),
    Column("max", "max ms", digits=2),
    Column("queued", "waited for a processor, us", told=True),
    Column("queued_slow", "of the slowest 1 %, us", told=True),
)
FLOOD_COLUMNS = (
    Column("drained", "done/s"),
    Column("sent", "sent/s"),
    Column("rejected", "rejected/s"),
    Column("reject_p50", "reject p50 ms", digits=2),
    Column("reject_p99", "reject p99 ms", digits=2),
    Column("memory", "memory MiB", digits=2),
    Column("growth", "2nd / 1st half", digits=3),
)
_WORDS = (f"--threads={THREADS}",)


class Size(NamedTuple):
    """Seconds of a run, and rounds."""

    seconds: float
    rounds: int


SIZES = {"tiny": Size(0.4, 2), "quick": Size(2.0, 5), "full": Size(60.0, 5)}


class Calm(Arm):
    """
    The second queue, by itself.

    Args:
        seconds: Of a run.
    """

    def __init__(self, name: str, place: Place, seconds: float) -> None:
        super().__init__(name)
        self.place, self.seconds = place, seconds
        self.memory: list[tuple[float, float]] = []
        self._stamps: Stamps

    def set_up(self) -> None:
        queue = f"calm-{self.name.partition(' ')[0]}"
        self._stamps = Stamps(self.place)
        self._calm = self.place.queue(self.stack, queue)
        self._calm.stats()
        self._wire = self.place.new_wire(self.stack)
        self._task = self._calm.named("stamp")
        worker = start_worker(self.place, self.stack, "plain", queue, *_WORDS, stamps=self._stamps.path)
        pids = [
            worker.process.pid,
            *(child.pid for child in psutil.Process(worker.process.pid).children(recursive=True)),
        ]
        pids.append(int(self.place.server.info("server")["process_id"]))
        self._threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        self._threads.append(Path("/proc/thread-self/schedstat"))
        self._delays: list[float] = []

    def run(self) -> Figures:
        self.memory.clear()
        self._delays.clear()
        ended = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(ended, self._wire), daemon=True)
        sampler.start()
        sent = paced(CALM_RATE, self.seconds, self._send)
        ended.set()
        sampler.join()
        found = self._stamps.wait_for(sent)
        return {**waits(found), **self._queued(found)}

    def _send(self, jobs: int) -> None:
        for _ in range(jobs):
            self._delays.append(self._delay())
            self._task.enqueue(time.monotonic())

    def _delay(self) -> float:
        """Seconds that the threads on a job's way have waited for a processor, ever."""
        return sum(int(one.read_text().split()[1]) for one in self._threads if one.exists()) / 1e9

    def _queued(self, found: Sequence[float]) -> Figures:
        """Microseconds of that from a job on until the next one, of all and of the slowest hundredth."""
        delays = [after - before for before, after in pairwise([*self._delays, self._delay()])]
        if not any(delays):
            return {}  # another system
        slowest = sorted(zip(found, delays, strict=True), reverse=True)[: max(len(found) // 100, 1)]
        return {
            "queued": statistics.mean(delays) * 1e6,
            "queued_slow": statistics.mean(delay for _, delay in slowest) * 1e6,
        }

    def _sample(self, ended: threading.Event, wire: Wire) -> None:
        begun = time.monotonic()
        while True:
            text = wire.say("INFO", "memory").decode()
            used = int(text.split("used_memory:")[1].split()[0])
            self.memory.append((time.monotonic() - begun, used / MIB))
            if ended.wait(SAMPLE_S):
                return


class Flooded(Calm):
    """The second queue, beside one that is flooded."""

    def set_up(self) -> None:
        super().set_up()
        self._queue: Queue = self.place.queue(self.stack, "flood", LIMITS)
        self._queue.stats()
        start_worker(self.place, self.stack, "plain", "flood", *_WORDS)

    def run(self) -> Figures:
        self._queue.enqueue_many([self._queue.named("work").call(WORK_S)] * LIMITS.max_jobs)
        with ExitStack() as stack:
            words = ("bench._flood", self.place.url, "flood", str(FLOOD_RATE), str(WORK_S))
            log = self.place.server.folder / "flood"
            flood = stack.enter_context(Process(*words, log=log))
            refused = sum(self._queue.stats().rejected.values())

            def is_full() -> bool:
                flood.check()
                return sum(self._queue.stats().rejected.values()) > refused

            wait_until(is_full, "the flood to be refused", 60)
            done, begun = self._done(), time.monotonic()
            before = self._queue.stats()
            figures = super().run()
            elapsed = time.monotonic() - begun
            after = self._queue.stats()
            answers = json.loads(flood.stop().splitlines()[-1])
        self._queue.purge()
        rejected = sum(after.rejected.values()) - sum(before.rejected.values())
        memory = [used for _, used in self.memory]
        half = len(memory) // 2
        return {
            **figures,
            "drained": (after.acked - done) / elapsed,
            "sent": (after.admitted - before.admitted + rejected) / elapsed,
            "rejected": rejected / elapsed,
            "reject_p50": percentile(answers["refused"], 50) * 1000,
            "reject_p99": percentile(answers["refused"], 99) * 1000,
            "memory": max(memory),
            "growth": statistics.mean(memory[half:]) / statistics.mean(memory[:half] or memory),
        }

    def _done(self) -> int:
        return self.place.acked("flood")


def measure(place: Place, options: Options) -> Result:
    """With the flood and without."""
    size = SIZES[options.size]
    seconds = options.seconds or size.seconds
    flooded = Flooded("boundq beside the flood", place, seconds)
    alone = Calm("alone", place, seconds)
    runs = in_turns([alone, flooded], options.of(size.rounds), warm_up=0)
    groups = [
        Group("waits of the second queue", runs, alone.name, COLUMNS),
        Group("the flooded queue", {flooded.name: runs[flooded.name]}, flooded.name, FLOOD_COLUMNS),
    ]
    memory = {"boundq, flooded": list(flooded.memory), "alone": list(alone.memory)}
    return Result(groups, [Curves("used_memory in MiB, last round", "seconds", memory)])
