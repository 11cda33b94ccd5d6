"""
Polling: what it brings that a producer looks for its answer for a moment before it sleeps (``BOUNDQ_BUSY_POLL_US``).

One producer; threads of one process; processes, as many as there are processors and more. Each with polling and
without. Beside jobs a second: the CPU time of producers and server together, which polling moves from one to the other.
"""

from __future__ import annotations

from typing import NamedTuple

from bench._harness import Arm, Column, Figures, Group, Options, Result, in_turns
from bench._place import Place
from bench._processes import Process

COLUMNS = (
    Column("rate", "jobs/s", compared=True),
    Column("cpu", "all CPU us", compared=True, digits=1),
    Column("workers", "producers CPU us", digits=1),
    Column("server", "server CPU us", digits=1),
)
# Processes, and threads of each.
PRODUCERS = ((1, 1), (1, 2), (1, 4), (2, 1), (4, 1), (8, 1))


class Size(NamedTuple):
    """Jobs of a run, and rounds."""

    jobs: int
    rounds: int


SIZES = {"tiny": Size(80, 2), "quick": Size(4000, 7), "full": Size(20_000, 15)}


class Producers(Arm):
    """
    Producers, all at once, each one call after the other.

    Args:
        processes, threads: How many, and of each of them.
        jobs: Of all together, in a run.
        environment: Of the processes.
    """

    def __init__(
        self, name: str, place: Place, processes: int, threads: int, jobs: int, payload: int, **environment: str
    ) -> None:
        super().__init__(name)
        self._place, self._count, self._threads, self._payload = place, processes, threads, payload
        self._each = jobs // processes // threads
        self._environment = environment

    def set_up(self) -> None:
        self._queue = self._place.queue(self.stack)
        words = ("bench._producers", self._place.url, "bench", str(self._threads), str(self._payload))
        folder = self._place.server.folder
        self._processes = [
            self.stack.enter_context(
                Process(*words, log=folder / f"{id(self)}-{number}", talks=True, **self._environment)
            )
            for number in range(self._count)
        ]

    def run(self) -> Figures:
        self._place.flush()
        self._queue.stats()  # declares it, with limits that are out of the way
        self._tell(str(self._each), "ready")
        meter = self._place.meter(self._processes)
        self._tell("go", "done")
        found = dict(meter.read(self._each * self._threads * self._count))
        return {**found, "cpu": found["workers"] + found["server"]}

    def _tell(self, word: str, answer: str) -> None:
        for one in self._processes:
            assert one.process.stdin
            one.process.stdin.write(f"{word}\n".encode())
            one.process.stdin.flush()
        for one in self._processes:
            assert one.process.stdout
            said = one.process.stdout.readline().decode().strip()
            assert said == answer, f"{self.name}: {said!r}\n{one.said[-3000:]}"


def measure(place: Place, options: Options) -> Result:
    """With and without, for each number of producers."""
    size = SIZES[options.size]
    groups = []
    for processes, threads in PRODUCERS:
        arms = [
            Producers(name, place, processes, threads, size.jobs, options.payload, **environment)
            for name, environment in (("boundq, never polling", {"BOUNDQ_BUSY_POLL_US": "0"}), ("boundq", {}))
        ]
        title = f"{threads} threads" if threads > 1 else f"{processes} process{'es' if processes > 1 else ''}"
        groups.append(Group(title, in_turns(arms, options.of(size.rounds)), arms[0].name, COLUMNS))
    return Result(groups)
