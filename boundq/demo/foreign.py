"""
Somebody else's keys, which fill the server up to its ``maxmemory`` and keep it full.

`redis` is imported here, against the rule of this package: this neighbour knows nothing of boundq.
"""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Neighbour"]

_SIZES = (64 * 1024, 4 * 1024)
# So many SETs of one byte refused in a row: full, and not just while a large request is being read.
_REFUSALS = 20
_REFILL = 256 * 1024
_PAUSE = 0.002


class Neighbour:
    """
    Writes keys until the server takes no more.

    Args:
        url: Of the server.

    Attributes:
        keys: Written so far.
        refused: Writes that the server had no memory for.
    """

    def __init__(self, url: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(url)
        self.keys = 0
        self.refused = 0

    def clear(self) -> None:
        """Empty the server, and return when its memory is free again."""
        self._client.execute_command("FLUSHALL", "SYNC")

    def fill(self) -> None:
        """Return when the server refuses even a value of one byte, again and again."""
        for size in _SIZES:
            while self._write("SET", b"x" * size):
                pass
        in_a_row = 0
        while in_a_row < _REFUSALS:
            self._top_up()
            in_a_row = 0 if self._write("SET", b"x") else in_a_row + 1

    def keep_full(self, ending: threading.Event) -> None:
        """Take every bit of memory that is given back, at once."""
        while not ending.is_set():
            if not self._top_up():
                ending.wait(_PAUSE)

    def close(self) -> None:
        """Hang up. The keys stay."""
        self._client.close()

    def _top_up(self) -> bool:
        # A short request that makes a large value: the server takes it if it has a byte left, and is over its
        # maxmemory then. So it stays full when a connection's buffer shrinks.
        return self._write("SETRANGE", _REFILL - 1, b"x")

    def _write(self, command: str, *value: bytes | int) -> bool:
        import redis

        try:
            self._client.execute_command(command, f"neighbour:{self.keys}", *value)
        except redis.exceptions.OutOfMemoryError:
            self.refused += 1
            return False
        self.keys += 1
        return True
