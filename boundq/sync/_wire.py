"""
One connection to a server: bytes out, replies in, each within a time.

redis-py's `Connection` opens it (TLS, options, a node that somebody named), or `_plain`; from then on the socket is
ours, read by hiredis. That leaves out redis-py's pool, packing and repeats, and lets every exchange have a deadline
of its own.

The kernel keeps the time (SO_RCVTIMEO, SO_SNDTIMEO) where it can. A timeout of Python's own makes the socket
non-blocking, and each operation a `poll` and a call instead of a call.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import Any

import hiredis

from boundq._connect import introduction, lost_connecting, make_connection
from boundq._poll import BusyPoll, look_aside
from boundq._retry import ErrorReply, Lost, check_introduced, lost_introducing
from boundq._target import Target
from boundq.sync._plain import PlainConnection, is_plain

_NOTHING = object()
_BUFFER = 65536
# More than the kernel takes at once may wait for room several times; then Python looks at the clock in between.
_AT_ONCE = 65536


class Withdrawn(Exception):
    """The call was taken back (`Wire.withdraw`) before the server had done it."""


class Wire:
    """
    Args:
        target: Where to.
        address: Host and port, where they are not the URL's: a cluster node, the primary a sentinel named.
        deadline: For connecting and introducing ourselves, on the monotonic clock.

    Raises:
        Lost: Not connected.
    """

    def __init__(self, target: Target, address: tuple[str, int] | None, deadline: float) -> None:
        self._busy_poll = BusyPoll()
        left = max(deadline - time.monotonic(), 0.001)
        plain = address is None and is_plain(target)
        self._connection: Any
        if plain:
            self._connection = PlainConnection(target.url, left)
        else:
            self._connection = _redis_connection(target, address, left)
        try:
            self._connection.connect()
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.startswith("redis."):
                raise lost_connecting(error) from error
            raise
        self._socket: socket.socket = self._connection._sock
        # Not so for TLS, whose reads are several; for gevent's sockets; and on Windows, which has other options.
        self._kernel = os.name == "posix" and type(self._socket).__module__ == "socket"
        self._timeout = 0.0
        self._withdrawn = False
        if self._kernel:
            self._socket.settimeout(None)
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(_BUFFER)
        self._used_at = time.monotonic()
        words = introduction(self._connection)
        try:
            check_introduced(self.exchange(b"".join(words), len(words), deadline))
        except Lost as lost:
            self.close()
            raise lost.unsent() from None

    def exchange(self, data: bytes, count: int, deadline: float, *, poll: bool = False) -> list[Any]:
        """
        Write, and read ``count`` replies; error replies are among them as `ErrorReply`.

        ``poll``: look for the answer for a moment before sleeping, where that pays (`BusyPoll`).

        Raises:
            Lost: The connection is no use any more.
        """
        sock, reader = self._socket, self._reader
        try:
            self._allow(deadline)
            if len(data) > _AT_ONCE:
                self._send_slowly(data, deadline)
            else:
                sock.sendall(data)
        except OSError as error:
            if farewell := self._farewell():
                raise lost_introducing(farewell) from error
            # What the kernel did not take whole, the server cannot have executed; of several commands, it may have the
            # first. TLS tells less.
            sent = count > 1 or type(sock) is not socket.socket
            raise Lost(_reason(error), sent, str(error)) from error
        replies: list[Any] = []
        waited = False
        while len(replies) < count:
            try:
                reply = reader.gets()
                if reply is _NOTHING:
                    if waited:
                        self._allow(deadline)
                    waited = True
                    size = (poll and self._look(len(data))) or sock.recv_into(self._buffer)
                    if size == 0:
                        if self._withdrawn:
                            raise Withdrawn
                        raise Lost("reset", True, "the server closed the connection")
                    reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]  # any buffer does; hiredis' stub says bytes
                    continue
            except BlockingIOError as error:  # the kernel's time was over
                if time.monotonic() < deadline:
                    continue
                raise Lost("timeout", True, "no answer in time") from error
            except OSError as error:
                raise Lost(_reason(error), True, str(error)) from error
            except hiredis.ProtocolError as error:
                raise Lost("protocol", True, str(error)) from error
            replies.append(ErrorReply(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
        self._used_at = time.monotonic()
        return replies

    def _look(self, size: int) -> int:
        """Read into the buffer what comes within a moment; 0: nothing has come, or it does not pay to look."""
        poll, receive, buffer = self._busy_poll, self._socket.recv_into, self._buffer
        began = time.monotonic()
        if not self._kernel or not poll.pays(size, began - self._used_at):
            return 0
        while True:
            try:
                received = receive(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                received = 0  # as when the server has hung up, which the caller finds out
            looked = time.monotonic() - began
            if received or looked > poll.seconds:
                poll.looked(looked)
                return received
            look_aside()

    def _send_slowly(self, data: bytes, deadline: float) -> None:
        if self._kernel:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        self._socket.sendall(data)
        if self._kernel:
            self._socket.settimeout(None)

    def _allow(self, deadline: float) -> None:
        """Let the socket's next call take until then."""
        left = max(deadline - time.monotonic(), 0.001)
        if not self._kernel:
            self._socket.settimeout(left)
        # A little more does no harm, nor does less: who is woken early looks at the clock, and waits on.
        elif not left / 2 <= self._timeout <= left + 0.05:
            whole, part = divmod(left, 1)
            timeval = struct.pack("@ll", int(whole), int(part * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            self._timeout = left

    def _farewell(self) -> ErrorReply | None:
        """What the server said before it hung up on us: that it has no free connection, say."""
        try:
            self._socket.settimeout(0.01)
            self._reader.feed(self._socket.recv(_BUFFER))
            reply = self._reader.gets()
        except (OSError, hiredis.HiredisError):
            return None
        return ErrorReply(str(reply)) if isinstance(reply, hiredis.ReplyError) else None

    def idle(self, seconds: float) -> bool:
        """Whether nothing was said on it for so long."""
        return time.monotonic() - self._used_at > seconds

    @property
    def dead(self) -> bool:
        """Whether the server has hung up meanwhile, or said something that nobody asked for."""
        try:
            if self._kernel:
                return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) is not None
            self._socket.setblocking(False)
            return self._socket.recv(1, socket.MSG_PEEK) is not None
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, ValueError):  # ValueError: TLS sockets cannot peek; the exchange will tell
            return not hasattr(self._socket, "pending")

    @property
    def withdrawable(self) -> bool:
        """Whether the connection can be closed by halves."""
        return self._kernel

    def withdraw(self) -> None:
        """
        Say no more, from another thread than the one in `exchange`: it gets its answer where the server has given one,
        and `Withdrawn` where it has not, and will not: servers drop a client at the end of its input, with all that it
        waits for.
        """
        self._withdrawn = True
        with contextlib.suppress(OSError):  # it was closed meanwhile
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up."""
        self._connection.disconnect()


def _redis_connection(target: Target, address: tuple[str, int] | None, seconds: float) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return make_connection(redis.connection, Retry(NoBackoff(), 0), target, address, seconds)


def _reason(error: OSError) -> str:
    return "timeout" if isinstance(error, (TimeoutError, BlockingIOError)) else "reset"
