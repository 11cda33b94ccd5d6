"""
One connection to a server: bytes out, replies in, each within a time.

redis-py's `Connection` opens it (TCP, TLS, unix socket, user and password, database); from then on the socket is
ours, read by hiredis. That leaves out redis-py's pool, packing and repeats, and lets every exchange have a deadline
of its own.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import hiredis

from boundq._connect import lost_connecting, make_connection
from boundq._retry import ErrorReply, Lost
from boundq._target import Target

# What of a user's client counts for a connection of our own; the rest (pool, retries, decoding) is ours to set.
_KEPT = {
    "host",
    "port",
    "path",
    "db",
    "username",
    "password",
    "credential_provider",
    "client_name",
    "socket_type",
}
_NOTHING = object()
_BUFFER = 65536


class Wire:
    """
    Args:
        target: Where to.
        address: Host and port, where they are not the URL's: a cluster node, the primary a sentinel named.
        seconds: For connecting and introducing ourselves.

    Raises:
        Lost: Not connected.
    """

    def __init__(self, target: Target, address: tuple[str, int] | None, seconds: float) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._connection = make_connection(redis.connection, Retry(NoBackoff(), 0), target, address, seconds)
        try:
            self._connection.connect()
        except (redis.RedisError, OSError) as error:
            raise lost_connecting(error) from error
        self._socket: socket.socket = self._connection._sock
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(_BUFFER)

    def exchange(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """
        Write, and read ``count`` replies; error replies are among them as `ErrorReply`.

        Raises:
            Lost: The connection is no use any more.
        """
        sock, reader = self._socket, self._reader
        try:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            sock.sendall(data)
        except OSError as error:
            # What the kernel did not take whole, the server cannot have executed. TLS tells less.
            raise Lost(_reason(error), type(sock) is not socket.socket, str(error)) from error
        replies: list[Any] = []
        while len(replies) < count:
            try:
                reply = reader.gets()
                if reply is _NOTHING:
                    sock.settimeout(max(deadline - time.monotonic(), 0.001))
                    size = sock.recv_into(self._buffer)
                    if size == 0:
                        raise Lost("reset", True, "the server closed the connection")
                    reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]  # any buffer does; hiredis' stub says bytes
                    continue
            except OSError as error:
                raise Lost(_reason(error), True, str(error)) from error
            except hiredis.ProtocolError as error:
                raise Lost("protocol", True, str(error)) from error
            replies.append(ErrorReply(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
        return replies

    @property
    def dead(self) -> bool:
        """Whether the server has hung up meanwhile, or said something that nobody asked for."""
        try:
            self._socket.setblocking(False)
            return self._socket.recv(1, socket.MSG_PEEK) is not None
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, ValueError):  # ValueError: TLS sockets cannot peek; the exchange will tell
            return not hasattr(self._socket, "pending")

    def close(self) -> None:
        """Hang up."""
        self._connection.disconnect()


def _reason(error: OSError) -> str:
    return "timeout" if isinstance(error, TimeoutError) else "reset"
