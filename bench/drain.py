"""
Drain: how fast ``boundq worker`` empties a queue of no-op jobs, beside a bare loop around a list.

Plain functions and coroutines, one and two worker processes. The BRPOP loop loses a job with its worker; BLMOVE and
LREM keep it until it is done, which is the least that at-least-once takes. Jobs are counted by the server. How many
processors workers and server use together says whether they work at the same time; a round settles and claims.
"""

from __future__ import annotations

from typing import NamedTuple

from bench._harness import Column, Group, Options, Result, in_turns
from bench._place import Place
from bench._workers import Drain, LoopDrain, WorkerDrain

COLUMNS = (
    Column("rate", "jobs/s", compared=True),
    Column("workers", "workers CPU us/job", digits=1),
    Column("server", "server CPU us/job", digits=1),
    Column("busy", "processors used", digits=2, told=True),
    Column("batch", "jobs a round", digits=0),
)


class Size(NamedTuple):
    """Seconds of a run, jobs in the queue at its start, and rounds."""

    seconds: float
    most: int
    rounds: int


SIZES = {"tiny": Size(0.05, 500, 2), "quick": Size(0.5, 20_000, 5), "full": Size(3.0, 100_000, 9)}


def measure(place: Place, options: Options) -> Result:
    """All arms."""
    seconds, most, rounds = SIZES[options.size]
    seconds, payload = options.seconds or seconds, options.payload
    arms: list[Drain] = [
        LoopDrain("redis-py BRPOP loop", place, seconds, most, "brpop", payload),
        LoopDrain("redis-py BLMOVE, LREM loop", place, seconds, most, "blmove", payload),
    ]
    for kind in ("plain", "coroutines"):
        for processes in (1, 2):
            name = f"boundq {kind}, {processes} process{'es' if processes > 1 else ''}"
            arms.append(WorkerDrain(name, place, seconds, most, kind, processes, payload))
    runs = in_turns(arms, options.of(rounds))
    groups = [Group("no-op jobs", runs, arms[0].name, COLUMNS)]
    for kind in ("plain", "coroutines"):
        both = {name: found for name, found in runs.items() if name.startswith(f"boundq {kind}")}
        groups.append(Group(f"two processes beside one, {kind}", both, next(iter(both)), COLUMNS[:1]))
    return Result(groups)
