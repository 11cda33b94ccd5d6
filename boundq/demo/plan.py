"""How long the acts are and how much they hold."""

from __future__ import annotations

from dataclasses import dataclass

from boundq.limits import Limits

CAMPAIGNS, STUDIO = "campaigns", "studio"
QUEUES = (CAMPAIGNS, STUDIO)
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    The settings of one run. Times are seconds.

    Args:
        maxmemory: The server's, in bytes.
        campaigns, studio: Limits of the two queues in Acts 2 and 3.
        rate: Test-sends a second.
        flooders: Producers of campaign messages.
        workers: Threads that render test-sends, and in Act 3 campaign messages.
        lead: Of an act, before the flood.
        rush: The most that the flood may take until it is refused.
        after: How long an act goes on after that.
        tail: What the worker may take to finish once the producers have stopped.
        drain: The most that Act 3 may take.
        back_off: A refused campaign producer waits so long, unless it was told how long.
        knocks: Messages offered to each queue while the server is full.
        step: Between two samples.
    """

    maxmemory: int = 64 * MIB
    campaigns: Limits = Limits(max_jobs=10_000, max_bytes=16 * MIB)
    studio: Limits = Limits(max_jobs=1_000, max_bytes=4 * MIB)
    rate: int = 50
    flooders: int = 4
    workers: int = 2
    lead: float = 2.0
    rush: float = 15.0
    after: float = 7.0
    tail: float = 1.5
    drain: float = 20.0
    back_off: float = 0.1
    knocks: int = 20
    step: float = 0.2


FULL = Plan()
FAST = Plan(
    maxmemory=24 * MIB,
    campaigns=Limits(max_jobs=10_000, max_bytes=5 * MIB),
    studio=Limits(max_jobs=1_000, max_bytes=2 * MIB),
    lead=1.0,
    rush=10.0,
    after=2.5,
    tail=0.5,
    drain=15.0,
)
