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
from collections.abc import Awaitable, Sequence

from boundq._core.admission import MOST_BYTES, MOST_GENERAL, MOST_PLAIN
from boundq._core.express import Express
from boundq._job import Prepared
from boundq._retry import Lost
from boundq._session import Session
from boundq.aio._link import Link
from boundq.aio._overdue import Overdue
from boundq.errors import Outcome as Certainty
from boundq.errors import Unavailable
from boundq.model import Receipt, Rejection

Outcome = Receipt | Rejection
# Who is refused for one of these has nobody behind him who would not be.
_SAME_FOR_ALL = ("jobs", "sealed", "waiters", "memory")
# A job that waits to be sent, or for its answer, with others: whom to tell, and until when, on the monotonic clock.
Waiting = tuple[Prepared, "asyncio.Future[Outcome]", float]


async def add(
    express: Express, link: Link, session: Session, jobs: Sequence[Prepared], deadline: float
) -> list[Outcome]:
    """Add the longest prefix that fits, as of `Admission.enqueue`, the short way if it is open."""
    request, failed = express.request(session, jobs), None
    if request is not None:
        try:
            if (outcomes := express.outcomes(await link.express(request, deadline))) is not None:
                return outcomes
        except Lost as lost:
            failed = lost
    flow = express.long_way(session, jobs, numbered=request is not None, failed=failed)
    return await link.drive(express.queue, flow, deadline - time.monotonic(), failed=failed)


class Combiner:
    """
    On the running event loop.

    Args:
        express: The way into the queue.
        link: The loop's.
        seconds: What one script may take.
    """

    def __init__(self, express: Express, link: Link, seconds: float) -> None:
        self._queue = express.queue
        self._express = express
        self._link: Link = weakref.proxy(link)  # queues keep their combiners by link
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._free = [Session(), Session()]
        self._gathered: deque[Waiting] = deque()
        self._sent: list[list[Waiting]] = []
        self._under_way = 0  # jobs
        self._tasks: set[asyncio.Task[None]] = set()
        self._overdue = Overdue(self._expire)
        self._crowded = False  # the last ones came together: so will the next
        self._scheduled = False

    def enqueue(self, job: Prepared, seconds: float) -> Awaitable[Outcome]:
        """Add one job; `Unavailable` after ``seconds`` without an answer."""
        deadline = time.monotonic() + seconds
        if self._free and not self._gathered and not self._crowded:
            return self._add_alone(job, deadline)
        future = self._loop.create_future()
        self._gathered.append((job, future, deadline))
        self._overdue.look_at(deadline)
        if self._free and not self._scheduled:
            self._send_soon()
        return future

    async def _add_alone(self, job: Prepared, deadline: float) -> Outcome:
        if not self._free:  # it was there when this was called, but not yet awaited
            return await self.enqueue(job, deadline - time.monotonic())
        session = self._free.pop()
        self._under_way += 1
        try:
            (outcome,) = await add(self._express, self._link, session, [job], deadline)
            return outcome
        finally:
            self._under_way -= 1
            self._release(session)

    def _release(self, session: Session) -> None:
        self._free.append(session)
        if self._gathered and not self._scheduled:
            self._send_soon()

    def _send_soon(self) -> None:
        """Send what has gathered, and what gathers in the rest of this turn of the loop."""
        self._scheduled = True
        self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        while self._free and (chunk := self._chunk()):
            self._crowded = len(chunk) > 1
            self._sent.append(chunk)
            self._under_way += len(chunk)
            task = self._loop.create_task(self._deliver(self._free.pop(), chunk))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, session: Session, chunk: list[Waiting]) -> None:
        try:
            jobs, deadline = [job for job, _, _ in chunk], time.monotonic() + self._seconds
            outcomes = await add(self._express, self._link, session, jobs, deadline)
            self._answer(chunk, outcomes)
            last, rest = outcomes[-1], chunk[len(outcomes) :]
            if isinstance(last, Rejection) and last.reason in _SAME_FOR_ALL:
                self._answer(rest, [last] * len(rest))
            else:
                # Behind one that does not fit others may: they are not one batch to their callers.
                self._gathered.extendleft(reversed(rest))
        except Exception as error:  # whatever it is: nobody else would tell them
            for _, future, _ in chunk:
                if not future.done():
                    future.set_exception(error)
        except asyncio.CancelledError:  # the loop is ending: nobody will send the others
            for job, future, _ in self._gathered:
                if not future.done():
                    future.set_exception(Unavailable(self._queue, "not_sent", "reset", f"the loop ended ({job.task})"))
            self._gathered.clear()
            raise
        finally:
            self._sent.remove(chunk)
            self._under_way -= len(chunk)
            self._release(session)

    def _chunk(self) -> list[Waiting]:
        """One script's worth: half of those that wait or are under way, so that there may always be two."""
        gathered = self._gathered
        share = (len(gathered) + self._under_way + 1) // 2
        chunk: list[Waiting] = []
        general, level, most, size = False, 0, 0, 0
        while gathered and len(chunk) < share:
            waiting = gathered[0]
            job = waiting[0]
            if waiting[1].done():  # expired, or cancelled by its task
                gathered.popleft()
                continue
            if not chunk:
                general, level = job.general, job.level
                most = MOST_GENERAL if general else MOST_PLAIN
            else:
                alike = job.general == general and (general or job.level == level)
                if not alike or len(chunk) >= most or size + job.size > MOST_BYTES:
                    break
            chunk.append(gathered.popleft())
            size += job.size
        return chunk

    def _answer(self, chunk: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
        for (_, future, _), outcome in zip(chunk, outcomes, strict=False):  # a refusal ends the outcomes early
            if not future.done():
                future.set_result(outcome)

    def _expire(self, now: float) -> float:
        next_deadline = math.inf
        for waiting in (self._gathered, *self._sent):
            for _, future, deadline in waiting:
                if future.done():
                    continue
                if deadline <= now:
                    outcome: Certainty = "not_sent" if waiting is self._gathered else "unknown"
                    future.set_exception(Unavailable(self._queue, outcome, "timeout"))
                else:
                    next_deadline = min(next_deadline, deadline)
        return next_deadline
