"""
Middleware: what is done around every enqueue and every run of a queue, for tracing, metrics, context.

Hooks watch; they do not decide. One that fails is logged with its name, and the job goes on as if it were not there:
neither is a job refused because a tracer is broken, nor is one lost or kept from running. The exception is on purpose:
a ``before_run`` that raises `Retry` or `Bury` ends the run before the handler has begun.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from boundq._envelope import Envelope, seal_headers, stamp, unpack, with_headers
from boundq._job import Prepared
from boundq.errors import ConfigError, DataError
from boundq.job_control import Bury, Retry
from boundq.model import PRIORITIES, EnqueueResult, Priority, Receipt, Rejection

if TYPE_CHECKING:
    from boundq.job_control import CurrentJob

__all__ = ["Middleware", "Outgoing"]

log = logging.getLogger("boundq.middleware")

# A hook that keeps failing is logged so often, in seconds.
LOG_SECONDS = 60.0

Outcome = Receipt | Rejection | BaseException


class Outgoing:
    """
    A job that is about to be enqueued.

    Attributes:
        queue: The queue's name.
        headers: What travels beside the payload. ``before_enqueue`` may change it; strings only.
    """

    __slots__ = ("__weakref__", "_envelope", "_level", "headers", "queue")

    def __init__(self, queue: str, level: int, envelope: Envelope) -> None:
        self.queue = queue
        self._level = level
        self._envelope = envelope
        self.headers = dict(envelope.headers)

    @property
    def task(self) -> str:
        """The task's name, "" for a payload of one's own."""
        return self._envelope.task

    @property
    def payload(self) -> bytes:
        """The payload as it is sent."""
        return self._envelope.payload

    @property
    def priority(self) -> Priority:
        """Its level."""
        return PRIORITIES[self._level]

    def __repr__(self) -> str:
        return f"<Outgoing {self.task or 'payload'} to queue {self.queue}>"


class Middleware:
    """
    Override what you need, and give it to the queue: ``Queue("emails", middleware=[Timing()])``.

    The hooks of several are nested: ``before_…`` in order, ``after_…`` in reverse, and only of those whose
    ``before_…`` did not fail. They are plain functions and run where the work is done: in the thread of a plain task,
    on the event loop of an `AsyncQueue` or an ``async def`` task, which they must not hold up. A context variable that
    ``before_run`` sets is set in the handler.
    """

    def before_enqueue(self, job: Outgoing) -> None:
        """Before a job is sent; it may change ``job.headers``."""

    def after_enqueue(self, job: Outgoing, outcome: Receipt | Rejection | BaseException) -> None:
        """What became of it: admitted, refused, or no answer. ``enqueue`` raises a `Rejection` after this."""

    def before_run(self, job: CurrentJob) -> None:
        """
        Before the handler of a job is called, once for each delivery.

        Raises:
            Retry, Bury: Do not call it; the job ends as if the handler had raised this.
        """

    def after_run(self, job: CurrentJob, error: BaseException | None) -> None:
        """After it has returned, or raised this (also `Retry`, `Bury`); where ``job.cancelled``, it does not count."""


class Announced(Prepared, frozen=True):
    """A job that has been through ``before_enqueue``."""

    outgoing: Outgoing | None = None
    begun: tuple[Middleware, ...] = ()


class Failures(NamedTuple):
    """Of one hook: when they were last told, and how many have not been."""

    told: float
    untold: int


class Sending:
    """One job on its way: set the outcome."""

    def __init__(self, job: Announced) -> None:
        self.job = job
        self.outcome: Outcome | None = None


class Hooks:
    """
    The middleware of one queue.

    Args:
        queue: Its name.
        middleware: In order.
    """

    def __init__(self, queue: str, middleware: Sequence[Middleware]) -> None:
        for one in middleware:
            if not isinstance(one, Middleware):
                raise ConfigError("middleware", one, "give objects of classes derived from boundq.Middleware")
        self._queue = queue
        self._all = tuple(middleware)
        self._failures: dict[str, Failures] = {}

    @contextmanager
    def sending(self, job: Prepared) -> Iterator[Sending]:
        """Around the admission of one job."""
        sending = Sending(self.before_enqueue(job))
        try:
            yield sending
        except BaseException as error:
            sending.outcome = error
            raise
        finally:
            if sending.outcome is not None:
                self.after_enqueue(sending.job, sending.outcome)

    def before_enqueue(self, job: Prepared) -> Announced:
        """The job as the hooks leave it."""
        fields = {name: getattr(job, name) for name in Prepared.__struct_fields__}
        envelope = job.envelope(stamp(0))
        try:
            outgoing = Outgoing(self._queue, job.level, unpack(self._queue, "", envelope))
        except DataError:  # of a newer version, put back by a restore: it goes in as it is
            return Announced(**fields)
        begun = []
        for one in self._all:
            before = dict(outgoing.headers)
            try:
                one.before_enqueue(outgoing)
                seal_headers(outgoing.headers)
                begun.append(one)
            except Exception as error:
                outgoing.headers = before
                self._failed(one, "before_enqueue", error)
        new = with_headers(envelope, outgoing.headers)
        fields |= {"head": new[:2], "rest": new[8:]}
        return Announced(**fields, outgoing=outgoing, begun=tuple(begun))

    def after_enqueue(self, job: Announced, outcome: Outcome) -> None:
        """What became of it."""
        for one in reversed(job.begun):
            assert job.outgoing is not None
            try:
                one.after_enqueue(job.outgoing, outcome)
            except Exception as error:
                self._failed(one, "after_enqueue", error)

    def answered(self, jobs: Sequence[Prepared], results: Sequence[EnqueueResult]) -> None:
        """What became of many."""
        for job, result in zip(jobs, results, strict=True):
            outcome = result.receipt or result.rejection or result.error
            assert isinstance(job, Announced)
            assert outcome is not None
            self.after_enqueue(job, outcome)

    def failed(self, jobs: Sequence[Prepared], error: BaseException) -> None:
        """All of them ended in this."""
        for job in jobs:
            assert isinstance(job, Announced)
            self.after_enqueue(job, error)

    @contextmanager
    def running(self, job: CurrentJob) -> Iterator[None]:
        """Around the run of one job. The caller has a context of its own: context variables that are set stay set."""
        begun: list[Middleware] = []
        try:
            for one in self._all:
                try:
                    one.before_run(job)
                    begun.append(one)
                except (Retry, Bury):
                    raise
                except Exception as error:
                    self._failed(one, "before_run", error)
            yield
        except BaseException as error:
            self._ran(begun, job, error)
            raise
        else:
            self._ran(begun, job, None)

    def _ran(self, begun: Sequence[Middleware], job: CurrentJob, error: BaseException | None) -> None:
        for one in reversed(begun):
            try:
                one.after_run(job, error)
            except Exception as failure:
                self._failed(one, "after_run", failure)

    def _failed(self, middleware: Middleware, hook: str, error: Exception) -> None:
        """One line for the first, then one a minute: a broken hook fails for every job."""
        name = f"{type(middleware).__name__}.{hook}"
        last = self._failures.get(name)
        now = time.monotonic()
        if last is not None and now - last.told < LOG_SECONDS:
            self._failures[name] = Failures(last.told, last.untold + 1)
            return
        self._failures[name] = Failures(now, 0)
        more = f" ({last.untold} more since it was last told)" if last is not None and last.untold else ""
        log.error(
            *("queue %s: the hook %s failed%s; the job goes on without it", self._queue, name, more),
            exc_info=error,
            extra={"queue": self._queue},
        )
