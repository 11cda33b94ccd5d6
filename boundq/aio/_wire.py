"""
One connection to a server, shared by all tasks of an event loop: requests go out as they come, replies are handed
to them in order.

redis-py's asyncio `Connection` opens it (TCP, TLS, unix socket, user and password, database); then its transport
gets our protocol, which feeds hiredis and wakes who waits: no stream, no reader task, no pool between.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis

from boundq._connect import introduction, lost_connecting, make_connection
from boundq._poll import BusyPoll, look_aside
from boundq._retry import ErrorReply, Lost, check_introduced, lost_introducing
from boundq._target import Target
from boundq.aio._overdue import Overdue

_NOTHING = object()
# A connection on which nothing was heard for so long, in seconds, while an answer was due, is taken for dead.
SILENCE = 1.0
Tell = Callable[["list[Any] | Lost"], None]
"""Called once: with the replies, error replies among them as `ErrorReply`, or with why there are none."""


class _Waiter:
    """Who waits for replies: how many, those that came, whom to tell (None: told), until when."""

    __slots__ = ("count", "deadline", "replies", "tell")

    def __init__(self, count: int, tell: Tell, deadline: float) -> None:
        self.count = count
        self.replies: list[Any] = []
        self.tell: Tell | None = tell
        self.deadline = deadline

    def end(self, outcome: list[Any] | Lost) -> None:
        tell, self.tell = self.tell, None
        if tell is not None:
            tell(outcome)


class Wire(asyncio.Protocol):
    """An open connection; `open_wire` makes one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[_Waiter] = deque()  # in the order of their requests
        self._overdue = Overdue(self._expire)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = connection._writer.transport
        self._transport.set_protocol(self)
        self._gone = self._loop.create_future()
        self.heard_at = time.monotonic()
        self._farewell: ErrorReply | None = None
        self._silent = True
        self._busy_poll = BusyPoll()
        self._polling = False
        self._polls_from = math.inf  # the monotonic clock
        # `asyncio.run` cancels what still runs at its end: that hangs up for those who forgot to close.
        self._keeper = self._loop.create_task(self._keep())

    def exchange(self, data: bytes, count: int, deadline: float) -> asyncio.Future[list[Any]]:
        """
        `send`, and a future of the replies, which fails with `Lost`.

        Who no longer waits for it has its replies thrown away when they come.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self.send(data, count, deadline, partial(settle, future))
        return future

    def send(self, data: bytes, count: int, deadline: float, tell: Tell, *, poll: bool = False) -> None:
        """
        Write; ``tell`` is called with the ``count`` replies, or with `Lost` when the connection breaks or the time is
        over: ``deadline`` on the monotonic clock.

        ``poll``: have the loop stay awake for a moment, where that pays (`BusyPoll`).
        """
        if self._transport.is_closing():
            farewell = self._farewell
            tell(lost_introducing(farewell) if farewell else Lost("reset", False, "closed"))
            return
        self._waiting.append(_Waiter(count, tell, deadline))
        self._transport.write(data)
        self._overdue.look_at(deadline)
        if poll and not self._polling:
            now = time.monotonic()
            if self._busy_poll.pays(len(data), now - self.heard_at):
                self._polling, self._polls_from = True, now
                self._loop.call_soon(self._stay_awake)

    def _stay_awake(self) -> None:
        """Keep the loop from sleeping: with something left to do it only looks whether there is an answer."""
        heard = self.heard_at - self._polls_from  # negative: nothing yet
        looked = time.monotonic() - self._polls_from
        if heard < 0 and self._waiting and looked < self._busy_poll.seconds:
            look_aside()
            self._loop.call_soon(self._stay_awake)
            return
        self._polling = False
        self._busy_poll.looked(looked if heard < 0 else heard)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self._silent = False
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                if not self._waiting:
                    if isinstance(reply, hiredis.ReplyError):
                        self._farewell = ErrorReply(str(reply))  # no free connection, say
                    return self.close()
                waiter = self._waiting[0]
                replies = waiter.replies
                replies.append(ErrorReply(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
                if len(replies) == waiter.count:
                    self._waiting.popleft()
                    waiter.end(replies)
        except hiredis.ProtocolError as error:
            self._fail(Lost("protocol", True, str(error)))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        farewell = self._last_words() if self._silent else None
        self._fail(
            lost_introducing(farewell)
            if farewell
            else Lost("reset", True, str(error or "the server closed the connection"))
        )
        self._end()

    def _last_words(self) -> ErrorReply | None:
        """What the server said before it hung up; a write that failed closes the transport before it has read that."""
        if self._farewell is not None:
            return self._farewell
        try:
            self._reader.feed(os.read(self._transport.get_extra_info("socket").fileno(), 65536))
            reply = self._reader.gets()
        except (OSError, ValueError, hiredis.HiredisError):
            return None
        return ErrorReply(str(reply)) if isinstance(reply, hiredis.ReplyError) else None

    @property
    def closed(self) -> bool:
        """Whether it is no use any more."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Hang up; who waits gets `Lost`."""
        self._transport.close()
        self._fail(Lost("reset", True, "the connection was closed"))
        self._end()

    def _fail(self, lost: Lost) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.end(lost)

    def _expire(self, now: float) -> float:
        next_deadline, late = math.inf, False
        for waiter in tuple(self._waiting):
            if waiter.tell is None:
                continue
            if waiter.deadline <= now:
                late = True
                waiter.end(Lost("timeout", True, "no answer in time"))
            else:
                next_deadline = min(next_deadline, waiter.deadline)
        if late and now - self.heard_at > SILENCE:
            self.close()
        return next_deadline

    def _end(self) -> None:
        self._overdue.close()
        if not self._gone.done():
            self._gone.set_result(None)
        # redis-py's connection would warn that nobody closed it.
        self._connection._reader = self._connection._writer = None

    async def _keep(self) -> None:
        try:
            await self._gone
        finally:
            self.close()


def settle(future: asyncio.Future[list[Any]], outcome: list[Any] | Lost) -> None:
    """Tell who waits for a future, unless nobody does any more."""
    if future.done():
        return
    if isinstance(outcome, Lost):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


async def open_wire(target: Target, address: tuple[str, int] | None, seconds: float) -> Wire:
    """
    Connect.

    Raises:
        Lost: Not connected.
    """
    import redis
    from redis.asyncio import connection as connections
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    ends = time.monotonic() + seconds
    connection = make_connection(connections, Retry(NoBackoff(), 0), target, address, seconds)
    try:
        async with asyncio.timeout(seconds):
            await connection.connect()
    except (redis.RedisError, OSError) as error:
        raise lost_connecting(error) from error
    wire = Wire(connection)
    words = introduction(connection)
    try:
        check_introduced(await wire.exchange(b"".join(words), len(words), ends))
    except Lost as lost:
        wire.close()
        raise lost.unsent() from None
    return wire
