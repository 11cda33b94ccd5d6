"""Tracing: the spans that a program and a worker make, as the SDK's exporter gets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from boundq import Queue, Retry, Worker
from tests._servers import Server

trace_sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import trace  # noqa: E402  # after the check
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from boundq.tracing import Tracing  # noqa: E402


class Traced:
    """A traced queue, and the spans that were made."""

    def __init__(self, name: str, url: str) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.queue = Queue(name, url, middleware=[Tracing(self.provider)], max_jobs=10)

    def spans(self, operation: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(operation)]


@pytest.fixture
def traced(any_server: Server, queue_name: str) -> Iterator[Traced]:
    traced = Traced(queue_name, any_server.url)
    yield traced
    traced.queue.close()


def test_a_job_s_spans_are_linked(traced: Traced) -> None:
    """The context of the enqueue travels in the headers; each delivery is a trace of its own with a link to it."""
    queue = traced.queue
    tracer = traced.provider.get_tracer("test")
    inside: list[trace.SpanContext] = []

    @queue.task(retries=1)
    def plain(fail: bool) -> None:
        inside.append(trace.get_current_span().get_span_context())
        if fail:
            raise ValueError("no")

    @queue.task
    async def on_loop() -> None:
        inside.append(trace.get_current_span().get_span_context())

    with tracer.start_as_current_span("request") as request:
        first = plain.enqueue(False)
        on_loop.enqueue()
    assert Worker([queue], threads=1, burst=True).run() == 0
    sent, processed = traced.spans("enqueue"), traced.spans("process")
    assert [span.name for span in sent] == [f"enqueue {queue.name}"] * 2
    assert {span.kind for span in sent} == {SpanKind.PRODUCER}
    assert sent[0].parent is not None
    assert sent[0].parent.span_id == request.get_span_context().span_id
    assert {span.kind for span in processed} == {SpanKind.CONSUMER}
    links = {span.context.span_id: [link.context.span_id for link in span.links] for span in processed}
    assert sorted(links.values()) == sorted([span.context.span_id] for span in sent)
    assert {one.span_id for one in inside} == set(links)
    assert all(span.parent is None for span in processed)
    (mine,) = [span for span in processed if (span.attributes or {})["messaging.message.id"] == first.id]
    assert dict(mine.attributes or {}) == {
        "messaging.system": "boundq",
        "messaging.destination.name": queue.name,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": first.id,
        "boundq.task": "plain",
        "boundq.attempt": 1,
    }
    assert not trace.get_current_span().get_span_context().is_valid


def test_what_fails_is_marked(traced: Traced) -> None:
    """A refusal with its reason, a handler's error by its class; a `Retry` that was asked for is none."""
    queue = traced.queue

    @queue.task(retries=0)
    def fails() -> None:
        raise ValueError("no")

    @queue.task(retries=3)
    def again() -> None:
        raise Retry(after=300)

    fails.enqueue()
    again.enqueue()
    queue.enqueue_many([b"x"] * 20)
    refused = [span for span in traced.spans("enqueue") if span.status.status_code is StatusCode.ERROR]
    assert len(refused) == 12
    assert {(span.attributes or {})["boundq.reason"] for span in refused} == {"jobs"}
    assert {(span.attributes or {})["error.type"] for span in refused} == {"QueueFull"}
    Worker([queue], threads=1, burst=True).run()
    status = {(span.attributes or {})["boundq.task"]: span.status.status_code for span in traced.spans("process")}
    assert status == {"fails": StatusCode.ERROR, "again": StatusCode.UNSET}
