"""A job in an asyncio worker's hands."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from boundq._core.delivery import Delivery
from boundq.errors import LeaseLost
from boundq.lease import BaseLease

if TYPE_CHECKING:
    from boundq.aio.queue import AsyncQueue


class AsyncLease(BaseLease):
    """
    One delivery of a job. Settle it once: `ack`, `retry`, `release` or `bury`; each raises `LeaseLost` when the
    lease is gone, and changes nothing then.

    As an async context manager it is acked at the end of the block, and retried after an exception, which goes on.
    """

    def __init__(self, queue: AsyncQueue, delivery: Delivery) -> None:
        super().__init__(delivery)
        self._queue = queue

    async def ack(self) -> None:
        """The job is done: delete it."""
        self._settled(await self._queue.settle(acks=[self]))

    async def retry(self, delay: float | timedelta = 0.0) -> None:
        """The job failed: back to scheduled, due after ``delay`` seconds."""
        self._settled(await self._queue.settle(retries=[(self, delay)]))

    async def release(self) -> None:
        """Give the delivery back, as if it had not been: claimable at once, before new jobs."""
        self._settled(await self._queue.settle(releases=[self]))

    async def bury(self, reason: str, error: str = "") -> None:
        """Put the job aside for good, with a reason and an error text (both are cut)."""
        self._settled(await self._queue.settle(buries=[(self, reason, error)]))

    async def extend(self, seconds: float | timedelta = 30.0) -> None:
        """Let the lease end ``seconds`` from now."""
        if await self._queue.extend([self], seconds):
            raise LeaseLost(self._queue.name, self.id)

    def _settled(self, lost: list[BaseLease]) -> None:
        self.settled = True
        if lost:
            raise LeaseLost(self._queue.name, self.id, lost[0].cancelled)

    async def __aenter__(self) -> AsyncLease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.settled:
            if kind is None:
                await self.ack()
            else:
                with contextlib.suppress(LeaseLost):  # what the block raised says more
                    await self.retry()
