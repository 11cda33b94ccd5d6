"""Enqueue: what is taken, what is refused before it is sent, and what a receipt says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from boundq import ConfigError, DataError, JobTooLarge, Limits, QueueFull, Receipt, Rejection
from tests.contract._env import Env, claim_one, take


@pytest.mark.everywhere
def test_receipt_says_what_is_held_now(env: Env) -> None:
    """A receipt has the job's id, and jobs and bytes held with it counted in."""
    queue = env.queue()
    first, second = queue.enqueue_bytes(b"a"), queue.enqueue_bytes(b"a")
    assert (first.jobs, second.jobs) == (1, 2)
    assert second.bytes == 2 * first.bytes > 0
    assert not first.duplicate
    assert int(first.id) < int(second.id), "ids of one priority are ordered"
    assert (queue.stats().jobs, queue.stats().bytes) == (2, second.bytes)


@pytest.mark.everywhere
def test_payload_comes_back_as_given(env: Env) -> None:
    """Any bytes, none of them and all 256 included, are what the worker gets."""
    queue = env.queue()
    given = [b"", b"\x00", bytes(range(256)), b"\r\n$5\r\n", "žluťoučký".encode(), b"x" * 100_000]
    for payload in given:
        queue.enqueue_bytes(payload)
    assert take(queue) == given


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_like_payload(fake: Env, kind: type) -> None:
    """bytearray and memoryview are payloads as well."""
    queue = fake.queue()
    queue.enqueue_bytes(kind(b"abc"))
    assert take(queue) == [b"abc"]


def test_task_arguments_arrive_as_json(env: Env) -> None:
    """A task's job carries its name and ``[args, kwargs]``."""
    queue = env.queue()

    @queue.task
    def send(campaign: int, *, to: str) -> None: ...

    receipt = send.enqueue(42, to="ada@example.org")
    lease = claim_one(queue)
    assert (lease.id, lease.task) == (receipt.id, "send")
    assert msgspec.json.decode(lease.payload) == [[42], {"to": "ada@example.org"}]
    lease.ack()


def test_four_ways_to_name_a_task(env: Env) -> None:
    """``task.enqueue``, ``queue.enqueue(task)``, ``queue.enqueue("name")`` and ``queue.named("name")`` are one."""
    queue = env.queue()

    @queue.task(name="mail.send")
    def send(campaign: int) -> None: ...

    send.enqueue(1)
    queue.enqueue(send, 1)
    queue.enqueue("mail.send", 1)
    queue.named("mail.send").enqueue(1)
    leases = queue.claim(9)
    assert {(lease.task, lease.payload) for lease in leases} == {("mail.send", b"[[1],{}]")}
    assert len(leases) == 4


def test_keyword_arguments_keep_their_names(env: Env) -> None:
    """A task's own parameters may be called ``task``, ``self`` or ``payload``."""
    queue = env.queue()
    queue.enqueue("odd", self=1, task=2, payload=3)
    assert msgspec.json.decode(claim_one(queue).payload) == [[], {"self": 1, "task": 2, "payload": 3}]


def test_try_enqueue_returns_what_enqueue_raises(env: Env) -> None:
    """A `Rejection` has the fields of the exception that the other call raises (R-73)."""
    queue = env.queue(max_jobs=1)
    assert isinstance(queue.try_enqueue("t", 1), Receipt)
    rejection = queue.try_enqueue("t", 2)
    with pytest.raises(QueueFull) as raised:
        queue.enqueue("t", 2)
    assert isinstance(rejection, Rejection)
    for field in ("queue", "reason", "used", "limit", "requested", "retry_after"):
        assert getattr(rejection, field) == getattr(raised.value, field), field
    assert (rejection.queue, rejection.reason, rejection.used, rejection.limit, rejection.requested) == (
        *(env.name, "jobs", 1, 1),
        1,
    )
    assert type(rejection.error()) is QueueFull
    assert 0 <= rejection.oldest_age <= raised.value.oldest_age < 5
    assert rejection.retry_after is None, "nothing was ever claimed: nobody can say when there will be room"


def test_try_enqueue_bytes_returns_every_refusal(env: Env) -> None:
    """Full, sealed and too large: none of them raises."""
    queue = env.queue(limits=Limits(max_jobs=1, max_job_bytes=100))
    assert queue.try_enqueue_bytes(b"x" * 200).reason == "job_bytes"
    queue.enqueue_bytes(b"x")
    assert queue.try_enqueue_bytes(b"x").reason == "jobs"
    queue.seal()
    assert queue.try_enqueue_bytes(b"x").reason == "sealed"


def test_too_large_names_size_and_limit(env: Env) -> None:
    """`JobTooLarge` says how large the job is as stored, and what the limit is."""
    queue = env.queue(limits=Limits(max_job_bytes=100))
    with pytest.raises(JobTooLarge) as raised:
        queue.enqueue_bytes(b"x" * 92)
    assert (raised.value.requested, raised.value.limit) == (101, 100)
    assert "101" in str(raised.value)
    assert "100" in str(raised.value)
    queue.enqueue_bytes(b"x" * 91)


def test_job_that_can_never_fit_is_too_large(env: Env) -> None:
    """A job whose charge alone is over ``max_bytes`` is not "full": waiting would not help."""
    queue = env.queue(limits=Limits(max_bytes=1000, max_job_bytes="1 MiB"))
    for options in ({}, {"unique": "a"}):
        with pytest.raises(JobTooLarge):
            queue.enqueue_bytes(b"x" * 2000, **options)
    assert queue.stats().rejected["job_bytes"] == 2


@pytest.mark.everywhere
def test_headers_come_back(env: Env) -> None:
    """Headers are a string map beside the payload, at a worker and in an inspection."""
    queue = env.queue()
    headers = {"traceparent": "00-abc", "ключ": "значення", "": ""}
    receipt = queue.enqueue_bytes(b"p", headers=headers)
    assert queue.get(receipt.id).headers == headers
    lease = claim_one(queue)
    assert (lease.headers, lease.payload) == (headers, b"p")


def test_headers_are_charged_and_count_as_job_bytes(env: Env) -> None:
    """Headers are part of what is stored, so of every limit."""
    queue = env.queue(limits=Limits(max_job_bytes=2000))
    plain = queue.enqueue_bytes(b"x").bytes
    assert queue.enqueue_bytes(b"x", headers={"h": "v" * 1000}).bytes > 2 * plain + 900
    with pytest.raises(JobTooLarge):
        queue.enqueue_bytes(b"x", headers={"h": "v" * 2000})


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"delay": float("inf")}, "delay"),
        ({"delay": "5"}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": 1e13}, "delay"),
        ({"delay": 1e308}, "delay"),
        ({"at": datetime(2030, 1, 1)}, "at"),
        ({"at": 1893456000.0}, "at"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, "at"),
        ({"at": datetime(9999, 1, 1, tzinfo=UTC)}, "at"),
        ({"expires": 0}, "expires"),
        ({"expires": -1}, "expires"),
        ({"expires": datetime(2030, 1, 1)}, "expires"),
        ({"expires": 1e12}, "expires"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": 1}, "priority"),
        ({"unique": ""}, "unique"),
        ({"unique": 5}, "unique"),
        ({"unique": "\ud800"}, "unique"),
        ({"unique_for": 5}, "unique_for"),
        ({"unique": "a", "unique_for": 0}, "unique_for"),
        ({"headers": {"a": 1}}, "headers"),
        ({"headers": {1: "a"}}, "headers"),
        ({"headers": {"a": "\ud800"}}, "headers"),
        ({"headers": {"a": "x" * 70_000}}, "headers"),
        ({"headers": [("a", "b")]}, "headers"),
        ({"colour": "red"}, "options"),
        ({"wait": -1}, "wait"),
        ({"deadline": 0}, "deadline"),
    ],
    ids=str,
)
def test_option_that_makes_no_sense(fake: Env, options: dict, setting: str) -> None:
    """A wrong option is a `ConfigError` that names it, and nothing is stored."""
    queue = fake.queue()
    queue.stats()  # so that there is a queue, whether or not the call gets that far
    with pytest.raises(ConfigError) as raised:
        queue.enqueue_bytes(b"x", **options)
    assert raised.value.setting == setting
    assert queue.stats().admitted == 0


@pytest.mark.parametrize("payload", ["text", None, 5, ["a"], {"a": 1}], ids=repr)
def test_payload_that_is_no_bytes(fake: Env, payload: object) -> None:
    """A raw payload is bytes: nothing is encoded behind the caller's back."""
    queue = fake.queue()
    with pytest.raises(ConfigError) as raised:
        queue.enqueue_bytes(payload)
    assert raised.value.setting == "payload"


@pytest.mark.parametrize(
    "argument", [object(), float, {(1, 2): 3}, "\ud800", 2**70], ids=lambda one: type(one).__name__
)
def test_argument_that_json_cannot_hold(fake: Env, argument: object) -> None:
    """Arguments that cannot be written as JSON are refused by name, before anything is sent."""
    queue = fake.queue()
    if isinstance(argument, int):
        # JSON knows no largest integer; either it arrives exactly or it is refused.
        try:
            queue.enqueue("t", argument)
        except DataError:
            return
        assert msgspec.json.decode(claim_one(queue).payload)[0] == [argument]
        return
    with pytest.raises(DataError) as raised:
        queue.enqueue("t", argument)
    assert (raised.value.reason, raised.value.queue) == ("unserialisable", fake.name)
    assert "'t'" in str(raised.value)


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "a\n", "x" * 65, "ž", None, 5], ids=repr)
def test_task_name_that_is_none(fake: Env, name: object) -> None:
    """Task names are 1 to 64 of ``A-Za-z0-9._-``."""
    queue = fake.queue()
    with pytest.raises(ConfigError):
        queue.enqueue(name, 1)
    with pytest.raises(ConfigError):
        queue.task(name=name if name is not None else "a b")(lambda: None)


@pytest.mark.everywhere
def test_times_of_every_kind(env: Env) -> None:
    """Delays and instants are seconds, timedeltas, or aware datetimes of any zone; all mean the server's clock."""
    queue = env.queue()
    there = datetime.fromtimestamp(env.now() + 3600, timezone(timedelta(hours=-9, minutes=-30)))
    made = [
        queue.enqueue_bytes(b"", delay=3600),
        queue.enqueue_bytes(b"", delay=timedelta(hours=1)),
        queue.enqueue_bytes(b"", at=there),
    ]
    for receipt in made:
        job = queue.get(receipt.id)
        assert job.state == "scheduled"
        assert job.due == pytest.approx(env.now() + 3600, abs=5)


def test_instant_is_kept_to_the_millisecond(env: Env) -> None:
    """A job is due at exactly the millisecond that the datetime says."""
    queue = env.queue()
    base = datetime(2031, 5, 17, 11, 12, 13, tzinfo=UTC)
    for ms in (0, 1, 57, 123, 250, 333, 501, 789, 998, 999):
        at = base + timedelta(milliseconds=ms)
        job = queue.get(queue.enqueue_bytes(b"", at=at).id)
        assert round(job.due * 1000) == round(base.timestamp()) * 1000 + ms


def test_instant_in_the_past_is_due_at_once(env: Env) -> None:
    """``at`` may have passed, even long ago: the job is claimable now."""
    queue = env.queue()
    queue.enqueue_bytes(b"1", at=datetime(1960, 1, 1, tzinfo=UTC))
    queue.enqueue_bytes(b"2", at=datetime(2025, 1, 1, tzinfo=UTC))
    assert take(queue) == [b"1", b"2"]


def test_no_delay_is_ready(env: Env) -> None:
    """A delay of 0 or None is none: the job is ready, not scheduled."""
    queue = env.queue()
    for delay in (0, 0.0, timedelta(0), None):
        assert queue.get(queue.enqueue_bytes(b"", delay=delay).id).state == "ready"


def test_created_is_the_servers_time(env: Env) -> None:
    """A job is stamped by the server's clock, not the client's."""
    queue = env.queue()
    env.elapse(0.0 if env.server else 86400.0)  # a fake server that lives in tomorrow
    receipt = queue.enqueue_bytes(b"")
    assert queue.get(receipt.id).created == pytest.approx(env.now(), abs=2)
    lease = claim_one(queue)
    assert lease.created == pytest.approx(env.now(), abs=2)
    assert lease.deadline == pytest.approx(env.now() + 30, abs=2)
