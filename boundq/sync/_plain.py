"""
The connection of a plain URL (``redis://``, ``unix://``), opened without redis-py. To import that takes 0.1 s: a third
of what a verb of the command line may take, and more than all else of a short program that enqueues.

What is anything but plain (TLS, options in the URL, Sentinel, Cluster, a client of the user's) is redis-py's.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from urllib.parse import parse_qsl, unquote, urlsplit

from boundq._target import Target


class PlainConnection:
    """
    An address and who we are there; as much of redis-py's ``Connection`` as is needed here.

    Args:
        url: Plain, see `is_plain`.
        seconds: For connecting.
    """

    credential_provider = None
    client_name = None

    def __init__(self, url: str, seconds: float) -> None:
        self._sock: socket.socket | None = None
        self._owner = os.getpid()
        parts = urlsplit(url)
        self.path = unquote(parts.path) if parts.scheme == "unix" else None
        self.host, self.port = unquote(parts.hostname or "localhost"), parts.port or 6379
        self.username = unquote(parts.username) if parts.username else None
        self.password = unquote(parts.password) if parts.password else None
        self.db = int(dict(parse_qsl(parts.query)).get("db", "0"))
        if self.path is None and parts.path.strip("/"):
            self.db = int(parts.path.strip("/"))
        self._ends = time.monotonic() + seconds

    def connect(self) -> None:
        """Open it. Raises OSError."""
        if self.path is not None:
            self._sock = self._open(socket.AF_UNIX, self.path)
            return
        failure: OSError | None = None
        for family, _, _, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            try:
                self._sock = self._open(family, address)
            except OSError as error:
                failure = error
            else:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return
        raise failure or OSError("the host has no address")

    def _open(self, family: int, address: str | tuple[str | int, ...] | tuple[int, bytes]) -> socket.socket:
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.settimeout(max(self._ends - time.monotonic(), 0.001))
            opened.connect(address)
        except BaseException:
            opened.close()
            raise
        return opened

    def disconnect(self) -> None:
        """Close it."""
        opened, self._sock = self._sock, None
        if opened is not None:
            if self._owner == os.getpid():  # a forked child lets go of what its parent goes on using
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def __del__(self) -> None:
        # A program may end without closing its queues, as with redis-py's connections.
        self.disconnect()


def is_plain(target: Target) -> bool:
    """Whether there is nothing special about the target's URL."""
    if target.kind != "single":
        return False
    parts = urlsplit(target.url)
    if parts.scheme not in ("redis", "unix") or (parts.scheme == "unix" and parts.hostname):
        return False
    options = parse_qsl(parts.query, keep_blank_values=True)
    return len(options) <= 1 and all(name == "db" and value.isdecimal() for name, value in options)
