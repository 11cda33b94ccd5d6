"""What one connection's owner knows of one queue: its producer id, its count of calls, the server's clock."""

from __future__ import annotations

import time

# How old a reading of the server's clock may be: it stamps `created`, from which ages are shown.
CLOCK_SECONDS = 60.0


class Session:
    """
    The state of one producer at one queue. Not shared between threads: a call is numbered, sent and answered
    before the next one is numbered.
    """

    __slots__ = ("_nonce", "_number", "_offset_ms", "_read_at", "field", "producer")

    def __init__(self) -> None:
        self.producer = 0  # 0: not enlisted
        self.field = b""
        self._nonce = b""
        self._number = 0
        self._offset_ms = 0.0
        self._read_at = -CLOCK_SECONDS

    def enlist(self, producer: int, nonce: bytes) -> None:
        """Take a new identity; numbers begin anew. The nonce makes it ours where the server gives an id out twice."""
        self.producer = producer
        self.field = b"p%d" % producer  # of the state hash
        self._nonce = nonce
        self._number = 0

    def resume(self, producer: int, number: bytes) -> None:
        """Be the producer of this call again, of an earlier process: what is sent now is a resend of it."""
        self.producer = producer
        self.field = b"p%d" % producer
        self._nonce, self._number = number[:8], int(number[8:])

    def next_number(self) -> None:
        """Begin a new call."""
        self._number += 1

    @property
    def number(self) -> bytes:
        """The number of the call that is under way, as the scripts compare it."""
        return b"%b%010d" % (self._nonce, self._number)

    def set_clock(self, server_ms: int) -> None:
        """The server said what time it is."""
        self._read_at = time.monotonic()
        self._offset_ms = server_ms - self._read_at * 1000

    @property
    def stale(self) -> bool:
        """Whether the server's clock should be read again."""
        return time.monotonic() - self._read_at > CLOCK_SECONDS

    def created(self) -> bytes:
        """Now by the server's clock, as an envelope has it."""
        return round(self._offset_ms + time.monotonic() * 1000).to_bytes(6, "big")
