"""How long the acts are and how much they hold."""

from __future__ import annotations

from dataclasses import dataclass

from boundq import Limits

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
        after: How long an act goes on once the flood is refused.
        stuck: How long a worker tries to drain the list of Act 1 once the server is full to the last byte.
        rush: The most that the flood may take until then.
        tail: What the worker may take to finish once the producers have stopped.
        drain: The most that Act 3 may take.
        back_off: A refused campaign producer waits so long, unless it was told how long.
        knocks: Messages offered to each queue while the server is full.
        step: Between two samples.
    """

    maxmemory: int
    campaigns: Limits
    studio: Limits
    lead: float
    after: float
    stuck: float
    rate: int = 50
    flooders: int = 4
    workers: int = 2
    rush: float = 15.0
    tail: float = 1.0
    drain: float = 25.0
    back_off: float = 0.01
    knocks: int = 20
    step: float = 0.2


FULL = Plan(
    maxmemory=64 * MIB,
    campaigns=Limits(max_jobs=10_000, max_bytes=12 * MIB),
    studio=Limits(max_jobs=1_000, max_bytes=4 * MIB),
    lead=2.5,
    after=7.0,
    stuck=2.0,
)
FAST = Plan(
    maxmemory=24 * MIB,
    campaigns=Limits(max_jobs=10_000, max_bytes=4 * MIB),
    studio=Limits(max_jobs=1_000, max_bytes=2 * MIB),
    lead=1.0,
    after=2.5,
    stuck=1.0,
    tail=0.5,
)
