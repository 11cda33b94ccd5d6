"""
Scale: the server's time for an operation with a thousand jobs in the queue, and with up to a million.

Nine in ten jobs are ready, the rest scheduled or leased. Each operation leaves the queue as large as it was, or others
make up for it. The time is the server's own (``INFO commandstats``), per call.

Below stand single commands on a bare hash with as many fields of that size: what the server's own tables cost when
they are large.
"""

from __future__ import annotations

from typing import NamedTuple

from bench._harness import Arm, Column, Curves, Figures, Group, Options, Result, Runs, in_turns
from bench._place import LIMITS, Place
from bench._report import ROOT
from boundq import Queue
from boundq._scripts import load
from tests._memory import quieten
from tests._sized import OPERATIONS, Sized

# A busy machine, and a server whose tables have just grown to a million jobs, may take longer than the default of 5.
DEADLINE_S = 60.0
_VALUE = b"x" * 25


class Size(NamedTuple):
    """Jobs held, and rounds."""

    held: tuple[int, ...]
    rounds: int


SIZES = {
    "tiny": Size((500, 1000), 2),
    "quick": Size((1000, 10_000, 100_000, 1_000_000), 7),
    "full": Size((1000, 10_000, 100_000, 1_000_000), 25),
}


class Bare:
    """A hash of so many fields, each as long as the envelope of a job here."""

    OPERATIONS = ("bare HSET 100", "bare HMGET 10", "bare HDEL 100")

    def __init__(self, place: Place, jobs: int) -> None:
        self._place, self._key = place, f"bare-{jobs}"
        self._first, self._next = 0, 0  # as with jobs: new ones at one end, and old ones go at the other
        while self._next < jobs:
            place.wire.say("HSET", self._key, *self._new(min(1000, jobs - self._next)))
        for start in range(0, jobs, 1000):  # a table that has grown goes on moving fields, a few with each access
            place.wire.say("HMGET", self._key, *self._ids(start, 1000))

    def _new(self, count: int) -> list[str | bytes]:
        ids = self._ids(self._next, count)
        self._next += count
        return [word for one in ids for word in (one, _VALUE)]

    def _ids(self, start: int, count: int) -> list[str]:
        return [str(number * 8) for number in range(start, start + count)]

    def run(self) -> Figures:
        """Microseconds a call for each of the operations."""
        wire = self._place.wire
        self._place.forget_commands()
        for _ in range(20):
            wire.say("HSET", self._key, *self._new(100))
            wire.say("HMGET", self._key, *self._ids(self._first, 10))
            wire.say("HDEL", self._key, *self._ids(self._first, 100))
            self._first += 100
        found = {}
        for name in self.OPERATIONS:
            calls, micros = self._place.spent(name.split()[1].lower())
            found[name] = micros / calls
        return found


class Held(Arm):
    """
    A queue that holds so many jobs, and every operation on it.

    Args:
        jobs: How many.
    """

    def __init__(self, place: Place, jobs: int) -> None:
        super().__init__(f"boundq, {jobs:,}")
        self._place, self.jobs = place, jobs
        self._sized: Sized

    def set_up(self) -> None:
        queue = Queue(f"scale-{self.jobs}", self._place.url, limits=LIMITS, deadline=DEADLINE_S)
        self.stack.callback(queue.close)
        self._sized = Sized(self._place.server, queue)
        self._sized.fill(self.jobs)
        self._bare = Bare(self._place, self.jobs)

    def run(self) -> Figures:
        self._sized.times.clear()
        for name in OPERATIONS:
            self._sized.sample(name)
        return {**{name: times[0] for name, times in self._sized.times.items()}, **self._bare.run()}


def measure(place: Place, options: Options) -> Result:
    """Each operation at each size."""
    size = SIZES[options.size]
    quieten(place.server)
    for script in sorted(path.stem for path in (ROOT / "lua").glob("*.lua")):
        place.wire.say("SCRIPT", "LOAD", load(script).text)
    arms = [Held(place, jobs) for jobs in size.held]
    runs = in_turns(arms, options.of(size.rounds))
    columns = [Column(f"at {arm.jobs}", f"us at {arm.jobs:,}", digits=1) for arm in arms]
    columns += [Column(f"x {arm.jobs}", f"x at {arm.jobs:,}", digits=2) for arm in arms[1:]]
    table: Runs = {name: [] for name in (*OPERATIONS, *Bare.OPERATIONS)}
    for turn in zip(*(runs[arm.name] for arm in arms), strict=True):
        for name, rows in table.items():
            times = {f"at {arm.jobs}": found[name] for arm, found in zip(arms, turn, strict=True)}
            ratios = {f"x {arm.jobs}": found[name] / turn[0][name] for arm, found in zip(arms, turn, strict=True)}
            rows.append({**times, **ratios})
    group = Group("server time of a call", table, None, columns)
    curves = {}
    for name in table:
        found = [(arm.jobs, group.values(name, f"x {arm.jobs}")) for arm in arms]
        curves[name] = [(float(jobs), one.median) for jobs, one in found if one]
    title = f"server time of a call, x that at {size.held[0]:,} jobs"
    return Result([group], [Curves(title, "jobs held", curves, log_x=True)])
