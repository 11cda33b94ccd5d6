"""
Pace: how many plain jobs of a queue a worker claims beyond those its threads can begin at once.

A claim costs the server the least per job when it takes many (layout.md section 10), and a thread with a no-op job is
free again before the claim's answer could travel. So while jobs are short, some are claimed ahead. Who is ahead waits
for a thread, and has spent a delivery if the process dies: hence only as many as are begun within some milliseconds,
none where jobs have one delivery only, and none for a while after a worker was lost.
"""

from __future__ import annotations

import time

# Jobs that are claimed ahead are to be begun within so many seconds, and are never more than these.
AHEAD_SECONDS, MOST_AHEAD = 0.01, 200
# After so many seconds without a thread they are given back: what runs is long after all.
STALE_SECONDS = 0.2
# For so many seconds after a delivery whose worker was lost, nothing is claimed ahead.
CAUTION_SECONDS = 60.0
# A run weighs so much in the typical length of a run.
WEIGHT = 1 / 16


class Pace:
    """
    Args:
        allowed: Whether anything may be claimed ahead at all.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._typical = 1.0  # seconds that a run takes, as long as nobody knows
        self._cautious_until = 0.0

    def ran(self, seconds: float) -> None:
        """A plain function ran for so long. From any thread: one that gets lost in a race is no loss."""
        self._typical += (seconds - self._typical) * WEIGHT

    def slow(self) -> None:
        """What was claimed ahead was not begun in time."""
        self._typical = max(self._typical, 1.0)

    def caution(self) -> None:
        """A job is here whose worker was lost."""
        self._cautious_until = time.monotonic() + CAUTION_SECONDS

    @property
    def ahead(self) -> int:
        """How many jobs may be claimed ahead now."""
        if not self._allowed or self._typical >= AHEAD_SECONDS or time.monotonic() < self._cautious_until:
            return 0
        return min(MOST_AHEAD, int(AHEAD_SECONDS / max(self._typical, 1e-6)))
