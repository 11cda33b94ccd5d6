"""
Scale: the server's time for an operation with a thousand jobs in the queue, and with up to a million.

Nine in ten jobs are ready, the rest scheduled or leased. Each operation leaves the queue as large as it was, or others
make up for it. The time is the server's own (``INFO commandstats``), per call.
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


class Size(NamedTuple):
    """Jobs held, and rounds."""

    held: tuple[int, ...]
    rounds: int


SIZES = {
    "tiny": Size((500, 1000), 2),
    "quick": Size((1000, 10_000, 100_000, 1_000_000), 7),
    "full": Size((1000, 10_000, 100_000, 1_000_000), 25),
}


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

    def run(self) -> Figures:
        self._sized.times.clear()
        for name in OPERATIONS:
            self._sized.sample(name)
        return {name: times[0] for name, times in self._sized.times.items()}


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
    table: Runs = {name: [] for name in OPERATIONS}
    for turn in zip(*(runs[arm.name] for arm in arms), strict=True):
        for name, rows in table.items():
            times = {f"at {arm.jobs}": found[name] for arm, found in zip(arms, turn, strict=True)}
            ratios = {f"x {arm.jobs}": found[name] / turn[0][name] for arm, found in zip(arms, turn, strict=True)}
            rows.append({**times, **ratios})
    group = Group("server time of a call", table, None, columns)
    curves = {}
    for name in OPERATIONS:
        found = [(arm.jobs, group.values(name, f"x {arm.jobs}")) for arm in arms]
        curves[name] = [(float(jobs), one.median) for jobs, one in found if one]
    title = f"server time of a call, x that at {size.held[0]:,} jobs"
    return Result([group], [Curves(title, "jobs held", curves, log_x=True)])
