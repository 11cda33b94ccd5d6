"""Middleware: what is called around an enqueue, with what, and what a broken hook does (nothing)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from boundq import ConfigError, JobTooLarge, Limits, Middleware, Outgoing, QueueFull, Receipt, Rejection
from boundq._envelope import digest
from tests.contract._env import Env, claim_one

HOOKS = ("before_enqueue", "after_enqueue", "before_run", "after_run")


class Notes(Middleware):
    """Notes what it is told, and adds a header."""

    def __init__(self, name: str = "a", into: list[Any] | None = None) -> None:
        self.name = name
        self.seen: list[Any] = [] if into is None else into

    def before_enqueue(self, job: Outgoing) -> None:
        self.seen.append((self.name, "before", job.task, job.payload, job.priority, dict(job.headers)))
        job.headers[self.name] = "was here"

    def after_enqueue(self, job: Outgoing, outcome: Receipt | Rejection | BaseException) -> None:
        self.seen.append((self.name, "after", job.payload, outcome))

    def outcomes(self) -> list[Any]:
        return [one[3] for one in self.seen if one[1] == "after"]


class Broken(Middleware):
    """Every hook fails."""

    def before_enqueue(self, job: Outgoing) -> None:
        job.headers["half"] = "done"
        raise RuntimeError("before is broken")

    def after_enqueue(self, job: Outgoing, outcome: Receipt | Rejection | BaseException) -> None:
        raise AssertionError("its before failed")


class BrokenAfter(Middleware):
    """Fails when all is done."""

    def after_enqueue(self, job: Outgoing, outcome: Receipt | Rejection | BaseException) -> None:
        raise RuntimeError("after is broken")


@pytest.mark.everywhere
def test_hooks_are_nested_and_add_headers(env: Env) -> None:
    """In order before, in reverse after; headers of each go with the job, beside the caller's."""
    seen: list[Any] = []
    queue = env.queue(middleware=[Notes("a", seen), Notes("b", seen)])
    receipt = queue.enqueue_bytes(b"x", headers={"mine": "1"}, priority="high")
    assert seen == [
        ("a", "before", "", b"x", "high", {"mine": "1"}),
        ("b", "before", "", b"x", "high", {"mine": "1", "a": "was here"}),
        ("b", "after", b"x", receipt),
        ("a", "after", b"x", receipt),
    ]
    lease = claim_one(queue)
    assert lease.headers == {"mine": "1", "a": "was here", "b": "was here"}
    assert lease.payload == b"x"
    lease.ack()


def test_every_way_to_enqueue_calls_them(env: Env) -> None:
    """`enqueue`, `try_enqueue`, by task or name, with `wait`, raw and in bulk: each job once, with its outcome."""
    notes = Notes()
    queue = env.queue(middleware=[notes])

    @queue.task
    def send(n: int) -> None: ...

    receipts = [
        queue.enqueue(send.inner if hasattr(send, "inner") else send, 1),
        queue.try_enqueue("send", 2),
        send.enqueue(3),
        send.options(wait=5).try_enqueue(4),
        queue.enqueue_bytes(b"5"),
        queue.try_enqueue_bytes(b"6", wait=5),
        *(result.receipt for result in queue.enqueue_many([send.call(7), b"8"])),
        *(result.receipt for result in queue.enqueue_many([b"9", b"10"], atomic=True)),
    ]
    assert notes.outcomes() == receipts
    assert [one[2] for one in notes.seen if one[1] == "before"] == [*["send"] * 4, "", "", "send", "", "", ""]
    leases = queue.claim(20)
    assert {lease.headers["a"] for lease in leases} == {"was here"}
    assert queue.settle(acks=leases) == []


def test_options_survive_the_repacking(env: Env) -> None:
    """A job with a delay, an expiry, a unique key and a priority keeps them when a header is added."""
    plain, hooked = env.queue(), env.queue(middleware=[Notes()])
    options: dict[str, Any] = {"delay": 600, "expires": 3600, "unique": "k", "priority": "low"}
    receipt = hooked.enqueue_bytes(b"x", **options)
    job = hooked.get(receipt.id)
    assert (job.state, job.priority, job.headers) == ("scheduled", "low", {"a": "was here"})
    assert job.expires is not None
    again = plain.enqueue_bytes(b"y", **options)
    assert (again.duplicate, again.id) == (True, receipt.id)
    assert digest("k").decode() in env.command("HGET", env.key("jobs"), receipt.id).decode("latin-1")


def test_refusals_are_told(env: Env) -> None:
    """A full queue, a job that is too large, in each way: the outcome is what the caller gets."""
    notes = Notes()
    queue = env.queue(middleware=[notes], limits=Limits(max_jobs=1, max_job_bytes=1000))
    queue.enqueue_bytes(b"1")
    with pytest.raises(QueueFull):
        queue.enqueue_bytes(b"2")
    with pytest.raises(JobTooLarge):
        queue.enqueue_bytes(b"3" * 1001)
    results = queue.enqueue_many([b"4", b"5"])
    assert [one.rejection for one in results] == notes.outcomes()[3:]
    queue.enqueue_many([b"6", b"7"], atomic=True)
    reasons = [getattr(one, "reason", "") for one in notes.outcomes()]
    assert reasons == ["", "jobs", "job_bytes", *["jobs"] * 4]


def test_a_header_can_make_a_job_too_large(env: Env) -> None:
    """What hooks add counts, as it is stored: the job is refused, certainly not stored."""

    class Long(Middleware):
        def before_enqueue(self, job: Outgoing) -> None:
            job.headers["long"] = "x" * 2000

    queue = env.queue(middleware=[Long()], limits=Limits(max_job_bytes=1000))
    with pytest.raises(JobTooLarge):
        queue.enqueue_bytes(b"1")
    assert queue.stats().jobs == 0


def test_a_broken_hook_loses_no_job(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged by name, once for a burst of failures; the others go on; its half-made change is undone."""
    notes = Notes()
    queue = env.queue(middleware=[Broken(), BrokenAfter(), notes])
    with caplog.at_level(logging.ERROR, "boundq.middleware"):
        for number in range(20):
            queue.enqueue_bytes(b"%d" % number)
        queue.enqueue_many([b"%d" % number for number in range(20, 40)])
    assert len(notes.outcomes()) == 40
    leases = queue.claim(100)
    assert [lease.payload for lease in leases] == [b"%d" % number for number in range(40)]
    assert {tuple(lease.headers) for lease in leases} == {("a",)}
    assert queue.settle(acks=leases) == []
    told = [record.getMessage() for record in caplog.records]
    assert [("Broken.before_enqueue" in one, "BrokenAfter.after_enqueue" in one) for one in told] == [
        (True, False),
        (False, True),
    ]
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("value", [7, None, "\ud800"])
def test_headers_that_are_none_are_a_failed_hook(fake: Env, caplog: pytest.LogCaptureFixture, value: Any) -> None:
    """A hook that puts in what cannot be a header is taken for a broken one; the caller's headers go."""

    class Wrong(Middleware):
        def before_enqueue(self, job: Outgoing) -> None:
            job.headers["wrong"] = value

    queue = fake.queue(middleware=[Wrong()])
    queue.enqueue_bytes(b"x", headers={"mine": "1"})
    assert claim_one(queue).headers == {"mine": "1"}
    assert "Wrong.before_enqueue failed" in caplog.text


def test_what_is_no_middleware_is_refused(fake: Env) -> None:
    """A class instead of an object, or anything else."""
    for wrong in (Notes, "notes", None):
        with pytest.raises(ConfigError, match="middleware"):
            fake.queue(middleware=[wrong])


def test_all_hooks_do_nothing_by_default(fake: Env) -> None:
    """A middleware overrides what it needs."""
    queue = fake.queue(middleware=[Middleware()])
    queue.enqueue_bytes(b"x")
    assert claim_one(queue).headers == {}
    assert all(callable(getattr(Middleware, hook)) for hook in HOOKS)
