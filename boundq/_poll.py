"""
Busy polling: to look for an answer again and again for a moment, instead of sleeping until it comes.

Where the server is near, to fall asleep and be woken takes as long as the answer does, and it is the server who has to
wake us. So to stay awake saves a third to a half of the time, at the same CPU time of client and server together
(`bench polling`). Each look is followed by an offer of the processor to whoever
else could use it, the server above all, so that more producers than processors do not get into each other's way. A call
that comes alone sleeps, and where answers take longer, each connection finds that out.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from boundq.errors import ConfigError

VARIABLE = "BOUNDQ_BUSY_POLL_US"
"""Of the environment: microseconds within which answers have to come for polling to pay, 100 if not set; 0: never."""
MICROSECONDS, MOST_MICROSECONDS = 100, 10_000
# A request of more bytes has more to be done for it than can be waited for.
MOST_BYTES = 4096
# Nor does a call poll that comes alone, more than so many seconds after the answer to the one before: a producer that
# is seldom busy spends no CPU time on it.
RECENT_SECONDS = 0.001
# So many answers in a row come late before it does not pay: the first one after a pause finds cold caches.
PATIENCE = 4
# After that so many calls do not poll, each time twice as many, up to these; one less for each answer in time.
MOST_SKIPPED = 1024
# Threads whose calls overlapped will overlap again, for so many seconds.
CROWD_SECONDS = 0.01


def look_aside() -> None:
    """Let others have the processor, if they want it."""
    os.sched_yield()


class BusyPoll:
    """
    Whether it pays on a connection. Not thread-safe: for whoever has the connection.

    Attributes:
        seconds: How long to look for an answer, twice as long as answers may take for it to pay.
    """

    __slots__ = ("_late", "_penalty", "_skip", "seconds")

    def __init__(self) -> None:
        self.seconds: Final = 2 * busy_poll_seconds()
        self._late = 0
        self._penalty = 0
        self._skip = 0

    def pays(self, size: int, silence: float) -> bool:
        """
        Whether to poll for the answer to a request; to be asked once, and told how it went.

        Args:
            size: Of the request, in bytes.
            silence: Seconds since the last answer on the connection.
        """
        if size > MOST_BYTES or silence > RECENT_SECONDS or not self.seconds:
            return False
        if self._skip:
            self._skip -= 1
            return False
        return True

    def looked(self, seconds: float) -> None:
        """It took so long until the answer came, or was waited for in another way."""
        if seconds <= self.seconds / 2:
            self._late = 0
            if self._penalty:
                self._penalty -= 1
            return
        self._late += 1
        if self._late == PATIENCE:
            self._late = 0
            self._skip = self._penalty = min(2 * self._penalty + PATIENCE, MOST_SKIPPED)


class Crowd:
    """
    Whether threads of this process have calls under way at the same time. Then none of them polls: they share an
    interpreter lock, and each would take it from the others for nothing.
    """

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._until = 0.0

    def enter(self) -> bool:
        """Begin a call. Returns whether there is no other: who is told so calls `leave` at its end."""
        if self._alone.acquire(blocking=False):
            return True
        self._until = time.monotonic() + CROWD_SECONDS
        return False

    def leave(self) -> None:
        """The call has ended."""
        self._alone.release()

    @property
    def seen(self) -> bool:
        """Whether calls overlapped just now."""
        return time.monotonic() < self._until


def busy_poll_seconds() -> float:
    """Within how many seconds answers have to come for polling to pay, by the environment; 0.0: never poll."""
    text = os.environ.get(VARIABLE, str(MICROSECONDS))
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MOST_MICROSECONDS):
        raise ConfigError(VARIABLE, text, f"give microseconds, 0 to {MOST_MICROSECONDS}; 0: calls never poll")
    return int(text) / 1e6 if _possible() else 0.0


def _possible() -> bool:
    # With a single processor, who polls keeps the server from answering.
    if not hasattr(os, "sched_yield"):
        return False
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) > 1
