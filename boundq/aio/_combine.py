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
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

from boundq._core.admission import MOST_BYTES, MOST_GENERAL, MOST_PLAIN, Admission
from boundq._core.express import Express
from boundq._job import Prepared
from boundq._retry import Lost
from boundq._session import Session
from boundq.aio._link import Link
from boundq.aio._overdue import Overdue
from boundq.errors import BoundqError, Unavailable
from boundq.model import Receipt, Rejection

Outcome = Receipt | Rejection
# Who is refused for one of these has nobody behind him who would not be.
_SAME_FOR_ALL = ("jobs", "sealed", "waiters", "memory")


class Waiting(NamedTuple):
    """A job that waits to be sent, or for its answer, with others; until when, on the monotonic clock."""

    job: Prepared
    future: asyncio.Future[Outcome]
    deadline: float


async def add(
    queue: str,
    admission: Admission,
    express: Express,
    link: Link,
    session: Session,
    jobs: Sequence[Prepared],
    deadline: float,
) -> list[Outcome]:
    """Add the longest prefix that fits, as of `Admission.enqueue`, the short way if it is open."""
    request, failed = express.request(session, jobs), None
    if request is not None:
        try:
            reply = await link.express(request, deadline)
            if reply is not None and (outcomes := express.outcomes(reply)) is not None:
                return outcomes
        except Lost as lost:
            failed = lost
    flow = admission.enqueue(session, jobs, again=request is not None)
    return await link.drive(queue, flow, deadline - time.monotonic(), failed=failed)


class Combiner:
    """
    On the running event loop.

    Args:
        queue: Its name.
        admission: Its flows.
        express: The short way, for a job alone.
        link: The loop's.
        seconds: What one script may take.
    """

    def __init__(self, queue: str, admission: Admission, express: Express, link: Link, seconds: float) -> None:
        self._queue = queue
        self._admission = admission
        self._express = express
        self._link: Link = weakref.proxy(link)  # queues keep their combiners by link
        self._seconds = seconds
        self._free = [Session(), Session()]
        self._gathered: deque[Waiting] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._sent: dict[asyncio.Future[Outcome], float] = {}  # with its deadline
        self._overdue = Overdue(self._expire)
        self._alone = 0  # jobs under way that have a script to themselves
        self._crowded = False  # the last ones came together: so will the next
        self._scheduled = False

    async def enqueue(self, job: Prepared, seconds: float) -> Outcome:
        """Add one job; `Unavailable` after ``seconds`` without an answer."""
        deadline = time.monotonic() + seconds
        if self._crowded or self._gathered or not self._free:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._gathered.append(Waiting(job, future, deadline))
            self._overdue.look_at(deadline)
            self._send_on()
            return await future
        session = self._free.pop()
        self._alone += 1
        try:
            (outcome,) = await self._add(session, [job], deadline)
            return outcome
        finally:
            self._alone -= 1
            self._free.append(session)
            self._send_on()

    def _add(self, session: Session, jobs: list[Prepared], deadline: float) -> Coroutine[Any, Any, list[Outcome]]:
        return add(self._queue, self._admission, self._express, self._link, session, jobs, deadline)

    def _send_on(self) -> None:
        """Send what has gathered, and what gathers in the rest of this turn of the loop."""
        if self._gathered and self._free and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        while self._free and (chunk := self._chunk()):
            self._crowded = len(chunk) > 1
            task = asyncio.get_running_loop().create_task(self._deliver(self._free.pop(), chunk))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _deliver(self, session: Session, chunk: list[Waiting]) -> None:
        self._sent.update((one.future, one.deadline) for one in chunk)
        try:
            outcomes = await self._add(session, [one.job for one in chunk], time.monotonic() + self._seconds)
            self._answer(chunk, outcomes)
            last, rest = outcomes[-1], chunk[len(outcomes) :]
            if isinstance(last, Rejection) and last.reason in _SAME_FOR_ALL:
                self._answer(rest, [last] * len(rest))
            else:
                # Behind one that does not fit others may: they are not one batch to their callers.
                self._gathered.extendleft(reversed(rest))
        except BoundqError as error:
            self._answer(chunk, [error] * len(chunk))
        except asyncio.CancelledError:  # the loop is ending: nobody will send the others
            for job, future, _ in self._gathered:
                if not future.done():
                    future.set_exception(Unavailable(self._queue, "not_sent", "reset", f"the loop ended ({job.task})"))
            self._gathered.clear()
            raise
        finally:
            for one in chunk:
                self._sent.pop(one.future, None)
            self._free.append(session)
            self._send_on()

    def _chunk(self) -> list[Waiting]:
        """One script's worth: half of those that wait or are under way, so that there may always be two."""
        share = (len(self._gathered) + len(self._sent) + self._alone + 1) // 2
        chunk: list[Waiting] = []
        size = 0
        while self._gathered and len(chunk) < share:
            job = self._gathered[0].job
            if self._gathered[0].future.done():  # expired, or cancelled by its task
                self._gathered.popleft()
                continue
            if chunk:
                first = chunk[0].job
                most = MOST_GENERAL if job.general else MOST_PLAIN
                alike = job.general == first.general and (job.general or job.level == first.level)
                if not alike or len(chunk) >= most or size + job.size > MOST_BYTES:
                    break
            chunk.append(self._gathered.popleft())
            size += job.size
        return chunk

    def _answer(self, chunk: list[Waiting], outcomes: Sequence[Outcome | BoundqError]) -> None:
        for (_, future, _), outcome in zip(chunk, outcomes, strict=False):  # a refusal ends the outcomes early
            if future.done():
                continue
            if isinstance(outcome, BoundqError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _expire(self, now: float) -> float:
        next_deadline = math.inf
        for future, deadline in [*self._sent.items(), *((one.future, one.deadline) for one in self._gathered)]:
            if future.done():
                continue
            if deadline <= now:
                error = Unavailable(self._queue, "unknown" if future in self._sent else "not_sent", "timeout")
                future.set_exception(error)
            else:
                next_deadline = min(next_deadline, deadline)
        return next_deadline
