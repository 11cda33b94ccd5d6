"""Limits out of what a queue does and of what its server has: the sum behind ``boundq limits suggest``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from boundq import Server, Stats
from boundq._sizes import duration, format_size
from boundq.errors import DataError

# Of maxmemory, the budgets of all queues together may take so much; the rest is buffers, fragmentation, tables.
SHARE = 0.75
# Room for jobs that are larger than those seen.
SPARE = 1.25
# Fewer jobs than that, held or gone within the sample, say too little.
THIN = 10


@dataclass
class Suggestion:
    """
    Args:
        queue: Whose.
        observed: What was measured; None is unknown.
        suggested: ``max_jobs`` and ``max_bytes``; empty where too little is known.
        steps: The sum, in words.
    """

    queue: str
    observed: dict[str, Any]
    suggested: dict[str, int] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The documented shape."""
        return {
            "queue": self.queue,
            "observed": self.observed,
            "suggested": self.suggested or None,
            "explanation": self.steps,
        }

    def lines(self) -> list[str]:
        """For people: the sum, and what to type."""
        if not self.suggested:
            return [*self.steps, "suggestion: unknown"]
        jobs, size = self.suggested["max_jobs"], self.suggested["max_bytes"]
        return [*self.steps, f"suggestion: boundq limits set {self.queue} --max-jobs {jobs} --max-bytes {size}"]


def suggest_for(server: Server, name: str, wait: float, sample: float) -> Suggestion:
    """Look at the queue, twice, and at what else is on the server."""
    queue = server.queue(name)
    first, started = queue.stats(), time.monotonic()
    time.sleep(sample)
    stats = queue.stats()
    passed = time.monotonic() - started
    gone = _departed(stats) - _departed(first)
    drain = stats.drain_rate if stats.drain_rate is not None else gone / passed if gone >= THIN else None
    came = stats.admitted - first.admitted
    size = stats.bytes / stats.jobs if stats.jobs >= THIN else None
    memory = server.info("memory")
    most = int(memory.get("maxmemory", 0)) or None
    others = _budgets(server, name)
    room = max(int(SHARE * most) - others - int(stats.limits.max_dead_bytes), 0) if most else None
    found = Suggestion(
        name,
        {
            "drain_rate": round(drain, 3) if drain is not None else None,
            "inflow_rate": round(came / passed, 3) if passed > 0 and came >= THIN else None,
            "job_bytes": round(size, 1) if size is not None else None,
            "maxmemory": most,
            "other_budgets": others,
            "wait": wait,
        },
    )
    _sum(found, stats, drain, size, room, wait)
    return found


def _sum(
    found: Suggestion, stats: Stats, drain: float | None, size: float | None, room: int | None, wait: float
) -> None:
    say = found.steps.append
    seen = found.observed
    say(f"drain rate    {f'{drain:.1f} jobs/s' if drain is not None else 'unknown: too few jobs left lately'}")
    inflow = seen["inflow_rate"]
    say(f"inflow        {f'{inflow:.1f} jobs/s' if inflow is not None else 'unknown: too few jobs came meanwhile'}")
    few = f"unknown: {stats.jobs} jobs are held, it takes {THIN}"
    say(f"a job's bytes {f'{size:.0f} as charged, on average over {stats.jobs} held' if size is not None else few}")
    if room is None:
        say("memory        unknown: maxmemory is not set, or may not be asked for")
    else:
        say(
            f"memory        {SHARE:.0%} of maxmemory {format_size(seen['maxmemory'])}"
            f" - {format_size(seen['other_budgets'])} for other queues"
            f" - {format_size(int(stats.limits.max_dead_bytes))} for dead letters = {format_size(room)}"
        )
    if drain is None or size is None or drain <= 0:
        return
    jobs = max(int(drain * wait), 1)
    say(f"max_jobs      {drain:.1f} jobs/s x {duration(wait)} of waiting at most = {jobs}")
    needed = int(jobs * size * SPARE)
    say(f"max_bytes     {jobs} x {size:.0f} bytes x {SPARE} for larger ones = {format_size(needed)}")
    if room is not None and needed > room:
        if room < size:
            say("              there is no room for it: lower other queues' limits, or raise maxmemory")
            return
        jobs, needed = max(int(room / size / SPARE), 1), room
        say(f"              more than there is room for: {format_size(room)}, so {jobs} jobs")
    if inflow is not None and inflow > drain:
        say("              more comes in than is done: limits only decide when producers are told; add workers")
    found.suggested = {"max_jobs": jobs, "max_bytes": needed}


def _departed(stats: Stats) -> int:
    return stats.admitted - stats.jobs


def _budgets(server: Server, name: str) -> int:
    """What the other queues of the server may take."""
    total = 0
    for stats in server.stats([other for other in server.queues() if other != name]).values():
        if isinstance(stats, Stats):
            total += int(stats.limits.max_bytes) + int(stats.limits.max_dead_bytes)
        elif not isinstance(stats, DataError):  # it went away, or is none of ours
            raise stats
    return total
