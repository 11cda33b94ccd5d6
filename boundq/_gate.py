"""A gate before a server in trouble: one caller looks how it is, from time to time, whatever number would like to."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

# Between two tries at a server that does not answer, in seconds.
GATE_SECONDS = 0.2


class Gate:
    """
    Open until something fails. While it is shut, it lets one caller through about every ``seconds``, who tries, and
    opens it again where that goes well.

    Source: R-82; a queue was measured that sent 40,241 failing commands in 19 s.

    Args:
        seconds: Between two tries, over all threads; up to half as long again, at random.
        failures: How many in a row shut it. One cut connection is no reason yet.

    Attributes:
        reason: Of the last failure.
        on_shut: Called, with the reason, each time it shuts. Whoever waits for the end of a call learns of the outage
            long before the call's deadline.
    """

    def __init__(self, seconds: float, failures: int = 1) -> None:
        self._seconds = seconds
        self._most = failures
        self._failures = 0
        self._next = 0.0
        self.reason = ""
        self.on_shut: list[Callable[[str], None]] = []
        self._lock = threading.Lock()

    def open(self) -> bool:
        """Whether the caller may go on. Where that was a try, say how it went: `close` or `reopen`."""
        if self._failures < self._most:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return False
            self._next = now + self._pause()
            return True

    @property
    def troubled(self) -> bool:
        """Whether anything failed since it last went well."""
        return self._failures > 0

    @property
    def wait(self) -> float:
        """Seconds until it may be worth asking again."""
        return max(self._next - time.monotonic(), 0.001)

    def close(self, reason: str = "") -> None:
        """It went wrong."""
        with self._lock:
            self._failures += 1
            self.reason = reason
            self._next = max(self._next, time.monotonic() + self._pause())
            shut = self._failures == self._most
        if shut:
            for tell in tuple(self.on_shut):
                tell(reason)

    def reopen(self) -> None:
        """It went well."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def _pause(self) -> float:
        return self._seconds * (1 + random.random() / 2)
