"""
Concurrent enqueues of one event loop, merged: while one script is under way, the jobs that come meanwhile gather,
and go out together in the next.

A job that finds nothing under way goes out alone and at once: merging costs no time, it only uses what would have
been spent waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from boundq._core.admission import MOST_BYTES, MOST_GENERAL, MOST_PLAIN, Admission
from boundq._job import Prepared
from boundq._session import Session
from boundq.aio._link import Link
from boundq.errors import BoundqError, Unavailable
from boundq.model import Receipt, Rejection

Outcome = Receipt | Rejection
# Who is refused for one of these has nobody behind him who would not be.
_SAME_FOR_ALL = ("jobs", "sealed", "waiters", "memory")
Waiting = tuple[Prepared, "asyncio.Future[Outcome]"]


class Combiner:
    """
    Args:
        queue: Its name.
        admission: Its flows.
        link: The loop's.
        seconds: What one script may take.
    """

    def __init__(self, queue: str, admission: Admission, link: Link, seconds: float) -> None:
        self._queue = queue
        self._admission = admission
        self._link = link
        self._seconds = seconds
        self._session = Session()
        self._gathered: deque[Waiting] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._busy = False

    async def enqueue(self, job: Prepared, seconds: float) -> Outcome:
        """Add one job; `Unavailable` after ``seconds`` without an answer."""
        if not self._busy:
            self._busy = True
            try:
                (outcome,) = await self._drive([job], seconds)
                return outcome
            finally:
                self._busy = False
                self._send_on()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        waiting = (job, future)
        self._gathered.append(waiting)
        timer = loop.call_later(seconds, self._expire, waiting)
        try:
            return await future
        finally:
            timer.cancel()

    async def _drive(self, jobs: list[Prepared], seconds: float) -> list[Outcome]:
        return await self._link.drive(self._queue, self._admission.enqueue(self._session, jobs), seconds)

    def _send_on(self) -> None:
        if self._gathered and not self._busy:
            self._busy = True
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while chunk := self._chunk():
                try:
                    outcomes = await self._drive([job for job, _ in chunk], self._seconds)
                except BoundqError as error:
                    self._answer(chunk, [error] * len(chunk))
                else:
                    self._answer(chunk, outcomes)
                    last, rest = outcomes[-1], chunk[len(outcomes) :]
                    if isinstance(last, Rejection) and last.reason in _SAME_FOR_ALL:
                        self._answer(rest, [last] * len(rest))
                    else:
                        # Behind one that does not fit others may: they are not one batch to their callers.
                        self._gathered.extendleft(reversed(rest))
        finally:
            self._busy = False
            for job, future in self._gathered:
                if not future.done():  # the loop is ending: nobody will send these
                    future.set_exception(Unavailable(self._queue, "not_sent", "reset", f"the loop ended ({job.task})"))
            self._gathered.clear()

    def _chunk(self) -> list[Waiting]:
        chunk: list[Waiting] = []
        size = 0
        while self._gathered:
            job, future = self._gathered[0]
            if future.done():  # expired, or cancelled by its task
                self._gathered.popleft()
                continue
            if chunk:
                first = chunk[0][0]
                most = MOST_GENERAL if job.general else MOST_PLAIN
                alike = job.general == first.general and (job.general or job.level == first.level)
                if not alike or len(chunk) >= most or size + job.size > MOST_BYTES:
                    break
            chunk.append(self._gathered.popleft())
            size += job.size
        return chunk

    def _answer(self, chunk: list[Waiting], outcomes: Sequence[Outcome | BoundqError]) -> None:
        for (_, future), outcome in zip(chunk, outcomes, strict=False):  # a refusal ends the outcomes early
            if future.done():
                continue
            if isinstance(outcome, BoundqError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _expire(self, waiting: Waiting) -> None:
        future = waiting[1]
        if not future.done():
            sent = waiting not in self._gathered
            future.set_exception(Unavailable(self._queue, "unknown" if sent else "not_sent", "timeout"))
