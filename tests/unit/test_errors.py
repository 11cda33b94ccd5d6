"""Exceptions: their tree, their texts, and that they survive a trip to another process."""

from __future__ import annotations

import pickle
import queue
from typing import Any

import pytest

import boundq
from boundq import errors
from boundq.errors import (
    BoundqError,
    ConfigError,
    DataError,
    JobTooLarge,
    LeaseLost,
    QueueFull,
    QueueSealed,
    Rejected,
    ServerUnsupported,
    Unavailable,
)
from boundq.model import Rejection

EXAMPLES: list[BoundqError] = [
    BoundqError("something"),
    Rejected("mails", "jobs", 3, 3, 1, 1.5, None),
    QueueFull("mails", "jobs", 4711, 4712, 2, 17.25, 3.5),
    QueueFull("mails", "bytes", 4711, 4712, 2),
    QueueFull("mails", "memory", requested=4711),
    QueueFull("mails", "waiters", 4711, 4712, 1, 0.0, None),
    JobTooLarge("mails", "job_bytes", 0, 4711, 4712),
    QueueSealed("mails", 1700000000.5, "ada"),
    QueueSealed("mails"),
    Unavailable("mails", "unknown", "timeout", "no answer in 4711 ms"),
    Unavailable("mails", "not_sent", "refused"),
    Unavailable("", "not_sent", "refused"),
    LeaseLost("mails", "4711"),
    LeaseLost("mails", "4711", True),
    DataError("mails", "4711", "undecodable", "the envelope is cut off"),
    ConfigError("max_jobs", -4711, "it must be 1 or more"),
    ServerUnsupported("Redis 6.2.5"),
]


def fields(error: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("__")}


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
def test_pickles(error: BoundqError) -> None:
    """Class, fields and text survive pickling (R-72)."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is type(error)
        assert fields(copy) == fields(error)
        assert (str(copy), copy.args) == (str(error), error.args)
        assert copy.retryable == error.retryable


def test_every_exception_has_an_example() -> None:
    """None is left out of these tests."""
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BoundqError)}
    assert {type(error) for error in EXAMPLES} == classes
    assert {one.__name__ for one in classes} <= set(errors.__all__)
    assert all(getattr(boundq, one.__name__) is one for one in classes)


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
def test_text_names_queue_and_number(error: BoundqError) -> None:
    """The sentence says which queue, and how much (R-72); it is one printable line."""
    text = str(error)
    assert text.isprintable()
    assert text
    if error.queue:
        assert "'mails'" in text
    if 4711 in error.args and not isinstance(error, (QueueFull,)):
        assert "4711" in text
    if isinstance(error, QueueFull) and error.reason in ("jobs", "bytes"):
        assert "4711 of 4712" in text
        assert error.reason in text


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (QueueFull("q", "jobs"), queue.Full),
        (JobTooLarge("q", "job_bytes"), ValueError),
        (ConfigError("a", 1, "b"), ValueError),
    ],
    ids=repr,
)
def test_standard_bases(error: BoundqError, base: type) -> None:
    """``except queue.Full`` catches `QueueFull`, ``except ValueError`` what no repeat will mend."""
    with pytest.raises(base):
        raise error
    assert isinstance(error, BoundqError)


def test_tree() -> None:
    """A refusal is never confused with a lost connection (R-04)."""
    assert {cls for cls in (QueueFull, JobTooLarge, QueueSealed) if issubclass(cls, Rejected)} == {
        *(QueueFull, JobTooLarge, QueueSealed),
    }
    assert not issubclass(Unavailable, (Rejected, OSError))
    assert not issubclass(QueueFull, OSError)
    assert BoundqError.__mro__[1] is Exception


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        *((QueueFull("q", reason), True) for reason in ("jobs", "bytes", "memory", "waiters")),
        (QueueSealed("q"), True),
        (JobTooLarge("q", "job_bytes"), False),
        *((Unavailable("q", "not_sent", reason), True) for reason in ("refused", "timeout", "loading", "busy")),
        *((Unavailable("q", "not_sent", reason), False) for reason in ("auth", "no_permission")),
        *((Unavailable("q", "unknown", reason), False) for reason in ("reset", "timeout")),
        (LeaseLost("q", "9"), False),
        (DataError("q", "9", "missing"), False),
        (ConfigError("a", 1, "b"), False),
        (ServerUnsupported("Redis 6"), False),
    ],
    ids=repr,
)
def test_retryable(error: BoundqError, retryable: bool) -> None:
    """Whether the same call, unchanged, may succeed later without doing anything twice."""
    assert error.retryable is retryable


REASONS = ("refused", "reset", "timeout", "max_clients", "loading", "readonly", "busy", "misconf", "cluster", "auth")


@pytest.mark.parametrize("reason", [*REASONS, "no_permission", "protocol"])
@pytest.mark.parametrize("outcome", ["not_sent", "unknown"])
def test_unavailable_says_what_happened_and_what_to_do(reason: str, outcome: str) -> None:
    """Each reason has advice of its own, and each outcome is said in words."""
    text = str(Unavailable("mails", outcome, reason))
    assert reason in text
    assert ("may or may not" in text) == (outcome == "unknown")
    assert errors._ADVICE[reason] in text


@pytest.mark.parametrize("reason", ["jobs", "bytes", "memory", "waiters", "job_bytes", "sealed"])
def test_rejection_makes_its_exception(reason: str) -> None:
    """A `Rejection` becomes the exception with the same fields."""
    rejection = Rejection("mails", reason, 1, 2, 3, 4.0, 5.0, 6.0, "ada")
    error = rejection.error()
    kinds = {"job_bytes": JobTooLarge, "sealed": QueueSealed}
    assert type(error) is kinds.get(reason, QueueFull)
    assert (error.queue, error.reason) == ("mails", reason)
    if reason == "sealed":
        assert (error.since, error.by) == (6.0, "ada")
    else:
        assert (error.used, error.limit, error.requested, error.oldest_age, error.retry_after) == (1, 2, 3, 4.0, 5.0)


def test_too_large_for_the_whole_queue_names_the_right_limit() -> None:
    """A job that is within ``max_job_bytes`` but can never fit into ``max_bytes`` is not told of ``max_job_bytes``."""
    from boundq import _status as status
    from boundq._core.admission import rejection
    from boundq.limits import Limits

    refusal = rejection("mails", 0, 0, status.TOO_LARGE, 0, 1000, 2200, -1, -1)
    assert refusal.reason == "job_bytes"
    core_limit = Limits().max_job_bytes
    assert f"max_job_bytes is {refusal.limit}" not in str(refusal.error()) or refusal.limit == core_limit


@pytest.mark.parametrize("value", [b"bytes", 10**6000, "a\nb\x1b[31m"], ids=["bytes", "int", "escape"])
def test_config_error_of_any_value(value: object) -> None:
    """The text can be made whatever the value is, in one printable line."""
    text = str(ConfigError("setting", value, "it must be something else"))
    assert text.startswith("setting is ")
    assert text.isprintable()
