"""
Idle: what a job's way to an idle worker consists of, and what it costs that nothing has happened for a while.

At 100 jobs a second a processor sleeps between two of them, and whoever shares the machine takes its caches. The first
table has the stages of a job's way: the producer's Python until it writes; the server, with both wake-ups, until the
worker has its answer; the worker's Python until the first line of the handler. The second one has the server's time
for a command that comes 10 ms after the last one, beside one that comes right after it. Either is measured again while
a process of the lowest priority keeps each processor from sleeping.
"""

from __future__ import annotations

import contextlib
import statistics
import struct
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

from bench._arms import KEY, Call
from bench._awake import POSSIBLE, Awake
from bench._harness import Arm, Column, Figures, Group, Options, Result, in_turns
from bench._place import BARE_PUSH, Place
from bench._stages import last, watch
from bench._workers import Stamps, paced, start_loop, start_worker
from boundq._call import pack

RATE = 100.0
# As many commands, on as many keys, as an enqueue runs, without the reasons it has for them.
_SIX = (
    "redis.call('HMGET', KEYS[1], 'a', 'b', 'c') redis.call('HLEN', KEYS[2]) redis.call('LLEN', KEYS[3]) "
    "redis.call('HSET', KEYS[2], 'job', ARGV[1]) redis.call('HSET', KEYS[1], 'a', '1', 'b', '2', 'c', '3') "
    "return {redis.call('HLEN', KEYS[1]), 2, 3}"
)
STAGES = (
    Column("p50", "p50 us", compared=True),
    Column("before", "until written", told=True),
    Column("between", "until answered", told=True),
    Column("after", "until begun", told=True),
)
AWAKE = tuple(column._replace(figure=f"awake_{column.figure}") for column in STAGES)
COMMANDS = (
    Column("hot", "us right after another", compared=True, digits=1),
    Column("rested", "us after 10 ms", compared=True, digits=1),
    Column("awake", "us after 10 ms, awake", compared=True, digits=1),
)

Prepare = Callable[[Place, ExitStack], tuple[Call, Callable[[int], object]]]
"""The call, and what makes so many of them possible."""


class Size(NamedTuple):
    """Jobs of a run, and rounds."""

    jobs: int
    rounds: int


SIZES = {"tiny": Size(10, 2), "quick": Size(50, 5), "full": Size(1000, 9)}


def spaced(calls: int, call: Callable[[], object]) -> int:
    """So many calls, or one less, `RATE` of them a second; how many."""

    def due(count: int) -> None:
        for _ in range(count):
            call()

    return paced(RATE, calls / RATE, due)


class Way(Arm):
    """
    Jobs on their way to an idle worker.

    Args:
        jobs: Of a run.
        awake: Keeps the processors awake.
    """

    def __init__(self, name: str, place: Place, jobs: int, awake: Awake) -> None:
        super().__init__(name)
        self.place, self._jobs, self._awake = place, jobs, awake

    def set_up(self) -> None:
        self.stamps = Stamps(self.place, of=2)

    @abstractmethod
    def send(self, sent: float) -> None:
        """Send a job that is stamped with this time."""

    def run(self) -> Figures:
        figures = self._measure("", contextlib.nullcontext())
        return {**figures, **self._measure("awake_", self._awake.kept())} if POSSIBLE else figures

    def _measure(self, prefix: str, meanwhile: AbstractContextManager[None]) -> Figures:
        written: list[float] = []

        def send() -> None:
            sent = time.monotonic()
            self.send(sent)
            written.append(last.written - sent)

        with meanwhile:
            found = self.stamps.wait_for(spaced(self._jobs, send))
        waits, after = found[::2], found[1::2]
        stages = {
            "p50": waits,
            "before": written,
            "between": [whole - first - end for whole, first, end in zip(waits, written, after, strict=True)],
            "after": after,
        }
        return {prefix + stage: statistics.median(values) * 1e6 for stage, values in stages.items()}


class ThroughWorker(Way):
    """Through a queue, to ``boundq worker``."""

    def set_up(self) -> None:
        super().set_up()
        queue = self.place.queue(self.stack, "idle")
        queue.stats()  # there has to be one
        self._task = queue.named("stamp")
        start_worker(self.place, self.stack, "plain", queue.name, stamps=self.stamps.path, BENCH_STAGES="1")

    def send(self, sent: float) -> None:
        self._task.enqueue(sent)


class ThroughList(Way):
    """Through a list, to a BRPOP loop."""

    def set_up(self) -> None:
        super().set_up()
        self._client = self.place.redis(self.stack)
        start_loop(self.place, self.stack, "brpop", "idle-list", stamps=self.stamps.path, BENCH_STAGES="1")

    def send(self, sent: float) -> None:
        self._client.lpush("idle-list", struct.pack("d", sent))


class Command(Arm):
    """
    A command, by itself and after another.

    Args:
        prepare: Makes the call.
        calls: Of a run.
        awake: Keeps the processors awake.
        counted: What the server counts it as.
    """

    def __init__(
        self, name: str, place: Place, prepare: Prepare, calls: int, awake: Awake, counted: str = "evalsha"
    ) -> None:
        super().__init__(name)
        self._place, self._prepare, self._calls, self._awake = place, prepare, calls, awake
        self._counted = counted

    def set_up(self) -> None:
        self._call, self._fill = self._prepare(self._place, self.stack)

    def run(self) -> Figures:
        def at_once(calls: int, call: Call) -> int:
            for _ in range(calls):
                call()
            return calls

        figures = {"hot": self._measure(at_once), "rested": self._measure(spaced)}
        if POSSIBLE:
            with self._awake.kept():
                figures["awake"] = self._measure(spaced)
        return figures

    def _measure(self, make: Callable[[int, Call], int]) -> float:
        self._place.flush()
        self._fill(self._calls + 1)
        self._call()  # connects, declares, loads the scripts
        self._place.forget_commands()
        made = make(self._calls, self._call)
        calls, micros = self._place.spent(self._counted)
        assert calls == made, f"{self.name}: {calls} commands in {made} calls"
        return micros / calls


def measure(place: Place, options: Options) -> Result:
    """The way, and the commands on it."""
    size = SIZES[options.size]
    rounds, payload = options.of(size.rounds), b"x" * options.payload

    def lpush(place: Place, stack: ExitStack) -> tuple[Call, Callable[[int], object]]:
        wire, request = place.new_wire(stack), pack("LPUSH", KEY, payload)
        return lambda: wire.exchange(request), _nothing

    def script(text: str, *keys: str) -> Prepare:
        def prepare(place: Place, stack: ExitStack) -> tuple[Call, Callable[[int], object]]:
            wire = place.new_wire(stack)
            request = pack("EVALSHA", wire.say("SCRIPT", "LOAD", text), len(keys), *keys, payload)
            return lambda: wire.exchange(request), _nothing

        return prepare

    def enqueue(place: Place, stack: ExitStack) -> tuple[Call, Callable[[int], object]]:
        queue = place.queue(stack)
        return lambda: queue.enqueue_bytes(payload), _nothing

    def claim(place: Place, stack: ExitStack) -> tuple[Call, Callable[[int], object]]:
        queue = place.queue(stack)
        return lambda: queue.claim(1), lambda jobs: queue.enqueue_many([payload] * jobs)

    watch(place.stack)
    awake = Awake(place, place.stack)
    ways = [
        ThroughList("redis-py LPUSH, BRPOP loop", place, size.jobs, awake),
        ThroughWorker("boundq plain", place, size.jobs, awake),
    ]
    stages = in_turns(ways, rounds)
    commands = [
        Command("LPUSH", place, lpush, size.jobs, awake, "lpush"),
        Command("EVALSHA of nothing", place, script("return 1"), size.jobs, awake),
        Command("EVALSHA of a push", place, script(BARE_PUSH, KEY), size.jobs, awake),
        Command("EVALSHA of six commands", place, script(_SIX, "state", "jobs", "wake"), size.jobs, awake),
        Command("boundq enqueue", place, enqueue, size.jobs, awake),
        Command("boundq claim", place, claim, size.jobs, awake),
    ]
    times = in_turns(commands, rounds)
    return Result(
        [
            Group(f"a job's way, {RATE:.0f} jobs/s", stages, ways[0].name, STAGES),
            *([Group("with the processors kept awake", stages, ways[0].name, AWAKE)] if POSSIBLE else []),
            Group("the server's time for a command", times, commands[0].name, COMMANDS),
        ]
    )


def _nothing(jobs: int) -> None:
    """Nothing has to be there before."""
