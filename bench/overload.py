"""
Overload: producers at twice the drain rate, and what becomes of the server's memory and of a second queue.

A worker drains one queue as fast as its handlers allow: 400 jobs a second, for they take 10 ms each, and no CPU.
Producers enqueue twice as much. A second queue with a worker of its own gets 50 jobs a second, in turns with the flood
and without it. Its waits are from the call of enqueue to the first line of the handler.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from contextlib import ExitStack
from typing import NamedTuple

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
        start_worker(self.place, self.stack, "plain", queue, *_WORDS, stamps=self._stamps.path)

    def run(self) -> Figures:
        self.memory.clear()
        ended = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(ended, self._wire), daemon=True)
        sampler.start()
        sent = paced(CALM_RATE, self.seconds, self._send)
        ended.set()
        sampler.join()
        return waits(self._stamps.wait_for(sent))

    def _send(self, jobs: int) -> None:
        for _ in range(jobs):
            self._task.enqueue(time.monotonic())

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
