"""
Tracing: a middleware that makes OpenTelemetry spans of enqueues and runs (extra ``otel``).

    Queue("emails", middleware=[Tracing()])

Spans follow the messaging conventions: ``enqueue emails`` (PRODUCER), whose context travels in the job's headers, and
``process emails`` (CONSUMER), one for each delivery, linked to it: a job may run hours later, and several times, so it
begins a trace of its own. What a handler does is inside of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from boundq.job_control import Retry
from boundq.middleware import Middleware, Outgoing
from boundq.model import Receipt, Rejection

if TYPE_CHECKING:
    from boundq.job_control import CurrentJob

__all__ = ["Tracing"]


class Tracing(Middleware):
    """
    Spans of what a queue's programs enqueue and run.

    Args:
        provider: Of tracers; None: the global one.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("boundq", tracer_provider=provider)
        self._sent: WeakKeyDictionary[Outgoing, Span] = WeakKeyDictionary()
        self._running: WeakKeyDictionary[CurrentJob, tuple[Span, Any]] = WeakKeyDictionary()

    def before_enqueue(self, job: Outgoing) -> None:
        attributes = {**_attributes(job.queue, "enqueue", "send", job.task)}
        attributes["messaging.message.body.size"] = len(job.payload)
        span = self._tracer.start_span(f"enqueue {job.queue}", kind=SpanKind.PRODUCER, attributes=attributes)
        self._sent[job] = span
        propagate.inject(job.headers, trace.set_span_in_context(span))

    def after_enqueue(self, job: Outgoing, outcome: Receipt | Rejection | BaseException) -> None:
        span = self._sent.pop(job)
        if isinstance(outcome, Receipt):
            span.set_attribute("messaging.message.id", outcome.id)
        elif isinstance(outcome, Rejection):
            _failed(span, outcome.error())
            span.set_attribute("boundq.reason", outcome.reason)
        else:
            _failed(span, outcome)
        span.end()

    def before_run(self, job: CurrentJob) -> None:
        created = trace.get_current_span(propagate.extract(job.headers)).get_span_context()
        attributes = {**_attributes(job.queue, "process", "process", job.task)}
        attributes |= {"messaging.message.id": job.id, "boundq.attempt": job.attempt}
        span = self._tracer.start_span(
            f"process {job.queue}",
            context=context.Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(created)] if created.is_valid else [],
        )
        self._running[job] = span, context.attach(trace.set_span_in_context(span))

    def after_run(self, job: CurrentJob, error: BaseException | None) -> None:
        span, token = self._running.pop(job)
        context.detach(token)
        if error is not None and not isinstance(error, Retry):
            _failed(span, error)
        span.end()


def _attributes(queue: str, name: str, kind: str, task: str) -> dict[str, str | int]:
    return {
        "messaging.system": "boundq",
        "messaging.destination.name": queue,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "boundq.task": task,
    }


def _failed(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, str(error)[:300]))
