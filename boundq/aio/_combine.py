"""
Concurrent enqueues of one event loop, merged: what comes while scripts are under way gathers, and goes out together.

A job that finds nobody waiting goes out alone and at once: merging costs no time, it only uses what would have been
spent waiting. Two scripts may be under way, each with a producer of its own: while the server is busy with one, this
loop is with the answers to the other.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from boundq._core.admission import MOST_BYTES, MOST_GENERAL, MOST_PLAIN
from boundq._core.express import Express
from boundq._job import Prepared
from boundq._retry import ErrorReply, Lost
from boundq._session import Session
from boundq.aio._link import Link
from boundq.aio._overdue import Overdue
from boundq.aio._wire import settle
from boundq.errors import Outcome as Certainty
from boundq.errors import Unavailable
from boundq.model import Receipt, Rejection

Outcome = Receipt | Rejection
# Who is refused for one of these has nobody behind him who would not be.
_SAME_FOR_ALL = ("jobs", "sealed", "waiters", "memory")
# A job that waits to be sent, or for its answer, with others: whom to tell, and until when, on the monotonic clock.
Waiting = tuple[Prepared, "asyncio.Future[Outcome]", float]


class _Sent(NamedTuple):
    """One script that is under way: whose number it has, for whom, and until when on the monotonic clock."""

    session: Session
    chunk: list[Waiting]
    deadline: float

    @property
    def jobs(self) -> list[Prepared]:
        return [job for job, _, _ in self.chunk]

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more: all have an outcome, or were cancelled."""
        return all(future.done() for _, future, _ in self.chunk)


async def add(
    express: Express, link: Link, session: Session, jobs: Sequence[Prepared], deadline: float
) -> list[Outcome]:
    """Add the longest prefix that fits, as of `Admission.enqueue`, the short way if it is open."""
    request = express.request(session, jobs)
    failed: Lost | None = None
    if request is not None:
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        try:
            clear = link.express(request, deadline, partial(settle, future))
            if clear and (outcomes := _outcomes(express, await future)) is not None:
                return outcomes
        except Lost as lost:
            failed = lost
    return await _long_way(express, link, session, jobs, deadline, numbered=request is not None, failed=failed)


def _outcomes(express: Express, replies: list[Any]) -> list[Outcome] | None:
    (reply,) = replies
    return express.outcomes(None if isinstance(reply, ErrorReply) else reply)


async def _long_way(
    express: Express,
    link: Link,
    session: Session,
    jobs: Sequence[Prepared],
    deadline: float,
    *,
    numbered: bool,
    failed: Lost | None,
) -> list[Outcome]:
    flow = express.long_way(session, jobs, numbered=numbered, failed=failed)
    return await link.drive(express.queue, flow, deadline - time.monotonic(), failed=failed)


class Combiner:
    """
    On the running event loop.

    Args:
        express: The way into the queue.
        link: The loop's.
        seconds: What one script may take, where several jobs go together.
    """

    def __init__(self, express: Express, link: Link, seconds: float) -> None:
        self._queue = express.queue
        self._express = express
        self._link: Link = weakref.proxy(link)  # queues keep their combiners by link
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._free = [Session(), Session()]
        self._gathered: deque[Waiting] = deque()
        self._sent: list[_Sent] = []
        self._under_way = 0  # jobs
        self._tasks: set[asyncio.Task[None]] = set()
        self._overdue = Overdue(self._expire)
        self._crowded = False  # the last ones came together: so will the next
        self._scheduled = False

    def enqueue(self, job: Prepared, seconds: float) -> asyncio.Future[Outcome]:
        """Add one job; `Unavailable` after ``seconds`` without an answer."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        deadline = time.monotonic() + seconds
        if self._free and not self._gathered and not self._crowded:
            # Its own deadline is the script's, which knows better what has become of it.
            self._start([(job, future, math.inf)], deadline)
            return future
        self._gathered.append((job, future, deadline))
        self._overdue.look_at(deadline)
        if self._free and not self._scheduled:
            self._send_soon()
        return future

    def _send_soon(self) -> None:
        """Send what has gathered, and what gathers in the rest of this turn of the loop."""
        self._scheduled = True
        self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        while self._free and (chunk := self._chunk()):
            self._crowded = len(chunk) > 1
            self._start(chunk, time.monotonic() + self._seconds)

    def _start(self, chunk: list[Waiting], deadline: float) -> None:
        """Send one script's worth. No task is made for it where all goes well."""
        sent = _Sent(self._free.pop(), chunk, deadline)
        self._sent.append(sent)
        self._under_way += len(chunk)
        try:
            request = self._express.request(sent.session, sent.jobs)
            if request is None or not self._link.express(request, deadline, lambda reply: self._told(sent, reply)):
                self._go_on(sent, numbered=request is not None)
        except Exception as error:  # whatever it is: nobody else would tell them
            self._fail(chunk, error)
            self._end(sent)

    def _told(self, sent: _Sent, reply: list[Any] | Lost) -> None:
        """The server has answered, or will not."""
        if sent.given_up:  # the loop is ending, perhaps
            return self._end(sent)
        try:
            if isinstance(reply, Lost):
                return self._go_on(sent, numbered=True, failed=reply)
            outcomes = _outcomes(self._express, reply)
            if outcomes is None:
                return self._go_on(sent, numbered=True)
            self._answer(sent.chunk, outcomes)
        except Exception as error:  # as in `_start`
            self._fail(sent.chunk, error)
        self._end(sent)

    def _go_on(self, sent: _Sent, *, numbered: bool, failed: Lost | None = None) -> None:
        task = self._loop.create_task(self._deliver(sent, numbered, failed))
        self._tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:  # a task that is cancelled before it begins runs no `finally`
            self._tasks.discard(task)
            self._end(sent)

        task.add_done_callback(ended)
        if len(sent.chunk) == 1:  # who gives up waiting has it tried no more
            sent.chunk[0][1].add_done_callback(lambda future: future.cancelled() and task.cancel())

    async def _deliver(self, sent: _Sent, numbered: bool, failed: Lost | None) -> None:
        """Go the long way."""
        session, chunk, deadline = sent
        try:
            outcomes = await _long_way(
                self._express, self._link, session, sent.jobs, deadline, numbered=numbered, failed=failed
            )
            self._answer(chunk, outcomes)
        except asyncio.CancelledError:  # by somebody who cancels all tasks: those who wait have to know
            self._fail(chunk, Unavailable(self._queue, "unknown", "reset", "the task that sends it was cancelled"))
            raise
        except Exception as error:  # whatever it is: nobody else would tell them
            self._fail(chunk, error)

    def _end(self, sent: _Sent) -> None:
        self._sent.remove(sent)
        self._under_way -= len(sent.chunk)
        self._free.append(sent.session)
        if self._gathered and not self._scheduled:
            self._send_soon()

    def _chunk(self) -> list[Waiting]:
        """One script's worth: half of those that wait or are under way, so that there may always be two."""
        gathered = self._gathered
        most = (len(gathered) + self._under_way + 1) // 2
        chunk: list[Waiting] = []
        general, level, size = False, 0, 0
        while gathered and len(chunk) < most:
            waiting = gathered.popleft()
            job, future, _ = waiting
            if future.done():  # expired, or cancelled by its task
                continue
            size += job.size
            if not chunk:
                general, level = job.general, job.level
                most = min(most, MOST_GENERAL if general else MOST_PLAIN)
            elif job.general != general or not (general or job.level == level) or size > MOST_BYTES:
                gathered.appendleft(waiting)  # it is for the next one
                break
            chunk.append(waiting)
        return chunk

    def _answer(self, chunk: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
        for (_, future, _), outcome in zip(chunk, outcomes, strict=False):  # a refusal ends the outcomes early
            if not future.done():
                future.set_result(outcome)
        rest = chunk[len(outcomes) :]
        if not rest:
            return
        last = outcomes[-1]
        if isinstance(last, Rejection) and last.reason in _SAME_FOR_ALL:
            self._answer(rest, [last] * len(rest))
        else:
            # Behind one that does not fit others may: they are not one batch to their callers.
            self._gathered.extendleft(reversed(rest))

    @staticmethod
    def _fail(chunk: Sequence[Waiting], error: Exception) -> None:
        for _, future, _ in chunk:
            if not future.done():
                future.set_exception(error)

    def _expire(self, now: float) -> float:
        next_deadline = math.inf
        certainties: list[tuple[Iterable[Waiting], Certainty]] = [(self._gathered, "not_sent")]
        certainties += [(sent.chunk, "unknown") for sent in self._sent]
        for chunk, certainty in certainties:
            for _, future, deadline in chunk:
                if future.done():
                    continue
                if deadline <= now:
                    future.set_exception(Unavailable(self._queue, certainty, "timeout"))
                else:
                    next_deadline = min(next_deadline, deadline)
        return next_deadline
