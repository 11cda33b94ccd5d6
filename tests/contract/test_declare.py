"""Declaring a queue: who creates it, whose limits stand, and what is missing."""

from __future__ import annotations

import logging

import pytest

from boundq import ConfigError, DataError, Limits
from tests.contract._env import Env, take


def test_declaring_does_nothing(env: Env) -> None:
    """A queue comes into being with the first call, not with its declaration."""
    queue = env.queue(max_jobs=5)
    queue.task(lambda: None) if False else queue.named("t")
    assert env.command("EXISTS", env.key("state")) == 0
    assert queue.stats().limits.max_jobs == 5
    assert env.command("EXISTS", env.key("state")) == 1


FIRST_CALLS = {
    "enqueue_bytes": lambda queue: queue.enqueue_bytes(b"x"),
    "enqueue_many": lambda queue: queue.enqueue_many([b"x"]),
    "waiting": lambda queue: queue.enqueue_bytes(b"x", wait=1),
    "general": lambda queue: queue.enqueue_bytes(b"x", delay=1),
    "claim": lambda queue: queue.claim(),
    "waiting claim": lambda queue: queue.claim(wait=0.05),
    "stats": lambda queue: queue.stats(),
    "get": lambda queue: queue.get("9"),
    "peek": lambda queue: queue.peek(),
    "cancel": lambda queue: queue.cancel("9"),
    "purge": lambda queue: queue.purge(),
    "pause": lambda queue: queue.pause(),
    "seal": lambda queue: queue.unseal(),
    "configure": lambda queue: queue.configure(Limits()),
    "recount": lambda queue: queue.recount(),
    "retry_dead": lambda queue: queue.retry_dead(["9"]),
    "events": lambda queue: queue.events(),
}


@pytest.mark.parametrize("call", FIRST_CALLS)
def test_any_call_may_be_the_first(env: Env, call: str) -> None:
    """Whatever is called first, the queue is created with the declared limits."""
    queue = env.queue(limits=Limits(max_jobs=5, max_dead_jobs=7))
    FIRST_CALLS[call](queue)
    if call != "configure":
        assert queue.stats().limits == Limits(max_jobs=5, max_dead_jobs=7)


@pytest.mark.parametrize("call", FIRST_CALLS)
def test_missing_queue_is_not_created(env: Env, call: str) -> None:
    """With ``create=False`` a queue that is not there is `DataError` ``missing``, and stays so."""
    queue = env.queue(create=False)
    if call == "enqueue_many":  # it tells each job what happened, and raises nothing
        (result,) = queue.enqueue_many([b"x"])
        error = result.error
    else:
        with pytest.raises(DataError) as raised:
            FIRST_CALLS[call](queue)
        error = raised.value
    assert (type(error), error.queue, error.reason) == (DataError, env.name, "missing")
    assert env.command("EXISTS", env.key("state")) == 0


def test_existing_queue_without_a_declaration(env: Env) -> None:
    """``create=False`` uses a queue as it is, whatever its limits, without a word."""
    env.queue(max_jobs=1).enqueue_bytes(b"x")
    queue = env.queue(create=False)
    assert queue.try_enqueue_bytes(b"y").reason == "jobs"
    assert take(queue) == [b"x"]
    queue.enqueue_bytes(b"y")


def test_servers_limits_stand_with_one_warning(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    """Where a declaration differs, the server's limits stand and one warning names both."""
    env.queue(max_jobs=2).stats()
    queue = env.queue(max_jobs=9, max_bytes="1 MiB")
    with caplog.at_level(logging.DEBUG, "boundq"):
        for _ in range(2):
            queue.enqueue_bytes(b"x")
        assert queue.try_enqueue_bytes(b"x").limit == 2
        env.background(lambda: queue.stats()).result(10) if env.shell == "sync" else queue.stats()
    (record,) = caplog.records
    text = record.getMessage()
    assert record.levelno == logging.WARNING
    assert env.name in text
    assert "max_jobs 9 in code, 2 on the server" in text
    assert "max_bytes 1048576 in code, 67108864 on the server" in text
    assert "max_dead_jobs" not in text


def test_same_limits_no_warning(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    """The same limits, written another way, are the same."""
    with caplog.at_level(logging.DEBUG, "boundq"):
        env.queue(max_bytes="1 MiB").enqueue_bytes(b"x")
        env.queue(max_bytes=2**20).enqueue_bytes(b"x")
        env.queue(limits=Limits(max_bytes="1024 KiB", max_age=90 * 86400)).enqueue_bytes(b"x")
    assert caplog.records == []


def test_shorthands_and_limits_together(fake: Env) -> None:
    """``max_jobs=`` and ``max_bytes=`` replace those of ``limits=``."""
    queue = fake.queue(limits=Limits(max_jobs=1, max_dead_jobs=5), max_jobs=2, max_bytes="1 MiB")
    assert queue.stats().limits == Limits(max_jobs=2, max_dead_jobs=5, max_bytes=2**20)
    assert queue.limits == queue.stats().limits


@pytest.mark.parametrize(
    "options",
    [
        {"max_jobs": 0},
        {"max_jobs": 1.5},
        {"max_bytes": "lots"},
        {"max_bytes": 0},
        {"limits": {"max_jobs": 1}},
        {"limits": 5},
        {"deadline": 0},
        {"deadline": float("inf")},
        {"deadline": None},
        {"name": "a b"},
        {"name": "a{b}"},
        {"name": ""},
        {"name": "x" * 65},
    ],
    ids=str,
)
def test_declaration_that_makes_no_sense(fake: Env, options: dict) -> None:
    """A wrong declaration is a `ConfigError` there and then."""
    if options.get("name") == "":
        from boundq import AsyncQueue, Queue

        with pytest.raises(ConfigError):
            (Queue if fake.shell == "sync" else AsyncQueue)("")
        return
    with pytest.raises(ConfigError):
        fake.queue(**options)


def test_queues_do_not_meet(env: Env) -> None:
    """Two queues on one server share nothing, through one client or two."""
    first, second = env.queue(env.other("a"), max_jobs=1), env.queue(env.other("b"), max_jobs=1)
    first.enqueue_bytes(b"a")
    second.enqueue_bytes(b"b")
    assert first.try_enqueue_bytes(b"x").reason == "jobs"
    first.pause()
    assert take(second) == [b"b"]
    assert first.stats().jobs == 1


def test_close_and_go_on(env: Env) -> None:
    """After `close` the next call connects anew."""
    queue = env.queue()
    queue.enqueue_bytes(b"1")
    queue.close()
    queue.close()
    queue.enqueue_bytes(b"2")
    assert take(queue) == [b"1", b"2"]
