"""What a running handler can say: `Retry`, `Bury`; and what it can ask: `current_job`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from boundq._sizes import seconds
from boundq.errors import BoundqError, LeaseLost
from boundq.lease import BaseLease

__all__ = ["Bury", "CurrentJob", "Retry", "current_job"]


class Retry(Exception):
    """
    Raised by a handler: run this job again.

    Args:
        after: Seconds until then, at least; None: the task's usual back-off.
        error: What to say in the log.
    """

    def __init__(self, after: float | timedelta | None = None, error: str = "") -> None:
        super().__init__(after, error)
        self.after = seconds(after, "after") if after is not None else None
        self.error = str(error)


class Bury(Exception):
    """
    Raised by a handler: put this job aside for good.

    Args:
        reason: A short one, by which dead letters are told apart.
        error: More about it.
    """

    def __init__(self, reason: str, error: str = "") -> None:
        super().__init__(reason, error)
        self.reason = str(reason)  # an HTTP status, say, is as good as text
        self.error = str(error)


class CurrentJob:
    """
    The job that this thread, or task, runs.

    Attributes:
        cancelled: Its lease is lost, or the worker stops without waiting any longer: its result will not count.
    """

    def __init__(self, queue: str, lease: BaseLease, extend: Callable[[BaseLease, float], Any]) -> None:
        self.queue = queue
        self._lease = lease
        self._extend = extend
        self.cancelled = False
        self.ender: Callable[[], Any] | None = None  # ends the handler, where that can be done; from any thread

    def cancel(self) -> None:
        """The worker's: tell the handler, and end it where it runs on an event loop or in a process of its own."""
        self.cancelled = True
        if (ender := self.ender) is not None:
            ender()

    @property
    def id(self) -> str:
        """The job's id."""
        return self._lease.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._lease.task

    @property
    def attempt(self) -> int:
        """Which delivery this is, from 1."""
        return self._lease.attempt

    @property
    def headers(self) -> dict[str, str]:
        """The string map beside the payload."""
        return self._lease.headers

    @property
    def deadline(self) -> float:
        """When the lease as claimed ends, Unix seconds by the server's clock. The worker extends it meanwhile."""
        return self._lease.deadline

    def extend(self, seconds: float = 30.0) -> None:
        """
        Let the lease end ``seconds`` from now. The worker does this by itself while the handler runs.

        Raises:
            LeaseLost: It is gone.
        """
        if self._extend(self._lease, seconds):
            self.cancelled = True
            raise LeaseLost(self.queue, self.id)


CURRENT: ContextVar[CurrentJob] = ContextVar("boundq.current_job")


def current_job() -> CurrentJob:
    """
    The job that is running here.

    Raises:
        BoundqError: None is.
    """
    try:
        return CURRENT.get()
    except LookupError:
        raise BoundqError("current_job() was called outside of a job's handler") from None
