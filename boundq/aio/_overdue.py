"""Overdue: one timer for many deadlines, in place of one for each call, made and taken back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable


class Overdue:
    """
    On the running event loop.

    Args:
        expire: Called with the time on the monotonic clock: end what is overdue then, and say when the next of what
            is left will be, ``math.inf`` where nothing is.
    """

    def __init__(self, expire: Callable[[float], float]) -> None:
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    def look_at(self, deadline: float) -> None:
        """Something is due then. The timer is not taken back when that is done: it will find nothing overdue."""
        if deadline < self._at:
            self.close()
            self._at = deadline
            self._timer = self._loop.call_later(max(deadline - time.monotonic(), 0.001), self._look)

    def _look(self) -> None:
        self._timer, self._at = None, math.inf
        # The loop may be a tick of its clock early; it must not come back for that.
        next_deadline = self._expire(time.monotonic() + 0.001)
        if next_deadline < math.inf:
            self.look_at(next_deadline)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = None, math.inf
