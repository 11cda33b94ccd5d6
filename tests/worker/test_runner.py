"""The pure part of a worker: what a delivery asks for, how a run ends, when it is tried again."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest

from boundq import Bury, Queue, Retry
from boundq._core.delivery import Delivery
from boundq._envelope import Envelope
from boundq._job import encode_arguments
from boundq._runner import DONE, LONGEST_RETRY, Run, Verdict, backoff, jitter, judge, judge_crash, prepare_run
from boundq._sizes import LONGEST
from boundq.errors import DataError
from boundq.lease import BaseLease
from boundq.task import Task


def lease(
    task: str, payload: bytes, *, attempt: int = 1, expired: int = 0, problem: DataError | None = None
) -> BaseLease:
    """A delivery."""
    envelope = None if problem else Envelope(0, None, None, task, {}, payload)
    return BaseLease(
        Delivery("8", expired * 128 + attempt, envelope, payload, problem, 0.0, 30.0, time.monotonic() + 30)
    )


def tasks(function: Any, **options: Any) -> dict[str, Task[..., Any]]:
    """The registry with this one task, named t."""
    queue = Queue("q")
    queue.task(name="t", **options)(function)
    return queue.tasks


def prepared(function: Any, *args: Any, **kwargs: Any) -> Run | Verdict:
    """What comes of these arguments after their way through JSON."""
    return prepare_run(tasks(function), lease("t", encode_arguments("q", "t", args, kwargs)))


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float = 0.0


class Line(msgspec.Struct):
    a: Point
    tags: set[str] = set()


NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (datetime, NOW),
        (date, date(2026, 2, 28)),
        (timedelta, timedelta(days=1, microseconds=3)),
        (UUID, UUID(int=2**100)),
        (Decimal, Decimal("1234567890.123456789012345678901234567890")),
        (bytes, b"\x00\xff"),
        (Point, Point(1, 2.5)),
        (Line, Line(Point(1), {"x"})),
        (list[Point], [Point(1), Point(2)]),
        (dict[str, Decimal], {"a": Decimal("0.1")}),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (Colour, Colour.RED),
        (Literal["a", "b"], "b"),
        (int | None, None),
        (Point | None, Point(3)),
        (Any, {"a": [1, None, 2.5, "x"]}),
        (int, 2**62),
        (str, "\u0000\U0001f600\u202e"),
        (bool, True),
    ],
    ids=str,
)
def test_values_come_back_as_their_annotations_say(hint: Any, value: Any) -> None:
    """Given by position, by name, in *args and in **kwargs."""

    def plain(a): ...  # type: ignore[no-untyped-def]
    def positional(a, /): ...  # type: ignore[no-untyped-def]
    def named(*, a): ...  # type: ignore[no-untyped-def]
    def many(*a): ...  # type: ignore[no-untyped-def]
    def rest(**a): ...  # type: ignore[no-untyped-def]

    for function in (plain, positional, named, many, rest):
        function.__annotations__["a"] = hint
    for function, args, kwargs in (
        (plain, (value,), {}),
        (plain, (), {"a": value}),
        (positional, (value,), {}),
        (named, (), {"a": value}),
        (many, (value, value), {}),
        (rest, (), {"b": value, "c": value}),
    ):
        run = prepared(function, *args, **kwargs)
        assert isinstance(run, Run), run
        assert (tuple(run.args) or tuple(run.kwargs.values())) == (args or tuple(kwargs.values()))
        for one in (*run.args, *run.kwargs.values()):
            assert type(one) is type(value)


def test_defaults_and_missing_annotations() -> None:
    """Without an annotation a value stays what JSON made of it; defaults are the function's own."""

    def function(a, b: int = 7, *rest: str, c=None, **more: float) -> None: ...  # type: ignore[no-untyped-def]

    run = prepared(function, [1], 2, "x", c={"k": 1}, d=1)
    assert isinstance(run, Run)
    assert (run.args, run.kwargs) == ([[1], 2, "x"], {"c": {"k": 1}, "d": 1.0})
    run = prepared(function, 1)
    assert isinstance(run, Run)
    assert (run.args, run.kwargs) == ([1], {})


def test_annotations_that_name_nothing_bind_nobody() -> None:
    """A name or an attribute that is not there, what is no expression: the values go in as they came."""

    def function(a): ...  # type: ignore[no-untyped-def]

    for hint in ("NoSuchName", "msgspec.no_such_thing", "no python", "1 / 0"):
        function.__annotations__["a"] = hint
        run = prepared(function, 5)
        assert isinstance(run, Run), hint
        assert run.args == [5]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "undecodable"),
        (b"\xff", "undecodable"),
        (b"[]", "undecodable"),
        (b"[[1],{}", "undecodable"),
        (b'[["\xff"],{}]', "undecodable"),
        (b'[[],{"\xff":1}]', "undecodable"),
        (b"[" * 100_000, "undecodable"),
        (b"[[],{}]", "bad_arguments"),
        (b"[[1,2],{}]", "bad_arguments"),
        (b'[["x"],{}]', "bad_arguments"),
        (b'[[1],{"a":1}]', "bad_arguments"),
        (b'[[],{"b":1}]', "bad_arguments"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_a_payload_that_cannot_be_run_is_buried(payload: bytes, reason: str) -> None:
    """With the reason, and a text that fits."""

    def function(a: int) -> None: ...

    verdict = prepare_run(tasks(function), lease("t", payload))
    assert isinstance(verdict, Verdict)
    assert (verdict.kind, verdict.reason) == ("bury", reason)
    assert verdict.error


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AttributeError, RecursionError, ValueError, TypeError])
def test_a_type_that_objects_in_its_own_words_is_bad_arguments(error: type[Exception]) -> None:
    """Whatever a dataclass's __post_init__ raises, the job is buried and the worker goes on."""

    @dataclass
    class Picky:
        x: int

        def __post_init__(self) -> None:
            raise error("no")

    def function(a): ...  # type: ignore[no-untyped-def]

    function.__annotations__["a"] = Picky
    verdict = prepare_run(tasks(function), lease("t", b'[[{"x":1}],{}]'))
    assert isinstance(verdict, Verdict)
    assert (verdict.kind, verdict.reason) == ("bury", "bad_arguments")


def test_unknown_tasks_and_unreadable_envelopes_are_buried() -> None:
    """Unknown: the known ones are named. Unreadable: the reason of the problem."""
    verdict = prepare_run(tasks(lambda: None), lease("nosuch", b"[[],{}]"))
    assert isinstance(verdict, Verdict)
    assert (verdict.reason, verdict.kind) == ("unknown_task", "bury")
    assert "'nosuch'" in verdict.error
    assert "known: t" in verdict.error
    for reason in ("unknown_version", "undecodable"):
        verdict = prepare_run(tasks(lambda: None), lease("", b"\x00", problem=DataError("q", "8", reason)))
        assert isinstance(verdict, Verdict)
        assert (verdict.kind, verdict.reason) == ("bury", reason)
    assert isinstance(prepare_run({}, lease("t", b"")), Verdict)


def test_a_job_that_was_delivered_too_often_is_not_run_again() -> None:
    """1 + retries deliveries are run; the next one is buried, and the text tells of lost leases."""
    known = tasks(lambda: None, retries=2)
    for attempt in (1, 2, 3):
        assert isinstance(prepare_run(known, lease("t", b"[[],{}]", attempt=attempt, expired=attempt - 1)), Run)
    verdict = prepare_run(known, lease("t", b"[[],{}]", attempt=4, expired=3))
    assert isinstance(verdict, Verdict)
    assert (verdict.kind, verdict.reason) == ("bury", "max_deliveries")
    assert "3 leases" in verdict.error


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_failure_is_retried_until_its_retries_are_spent() -> None:
    """Back-off, then buried with where it happened, in a text that fits."""
    task = tasks(lambda: None, retries=2)["t"]
    error = _raised(ValueError("x" * 5000))
    for attempt in (1, 2):
        verdict = judge(task, attempt, error)
        assert verdict.kind == "retry"
        assert 2 ** (attempt - 1) <= verdict.delay <= 1.25 * 2 ** (attempt - 1)
    verdict = judge(task, 3, error)
    assert (verdict.kind, verdict.reason) == ("bury", "retries")
    assert len(verdict.error) <= 2000
    assert DONE.kind == "ack"


def test_a_crash_is_a_failure_with_a_reason_of_its_own() -> None:
    """Retried with back-off like any other, until the retries are spent."""
    task = tasks(lambda: None, retries=1)["t"]
    first = judge_crash(task, 1, "crashed: so and so")
    assert (first.kind, first.error) == ("retry", "crashed: so and so")
    assert 1 <= first.delay <= 1.25
    assert judge_crash(task, 2, "crashed: so and so") == Verdict("bury", reason="crashed", error="crashed: so and so")


def test_what_a_handler_asks_for() -> None:
    """Retry(after=) is a floor, with up to a quarter more; Retry() the usual; Bury at once; a DataError at once."""
    task = tasks(lambda: None, retries=1)["t"]
    for after in (0, 0.5, 3600, timedelta(minutes=1)):
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        for _ in range(50):
            verdict = judge(task, 1, _raised(Retry(after=after)))
            assert verdict.kind == "retry"
            assert seconds <= verdict.delay <= 1.25 * seconds
    assert 1 <= judge(task, 1, _raised(Retry())).delay <= 1.25
    assert judge(task, 2, _raised(Retry(after=1))).reason == "retries"
    verdict = judge(task, 1, _raised(Bury("why", "because")))
    assert (verdict.kind, verdict.reason, verdict.error) == ("bury", "why", "because")
    assert judge(task, 1, _raised(DataError("q", "x", "unserialisable"))).kind == "bury"


def test_whatever_a_handler_gives_is_judged() -> None:
    """Reasons that are no text; the longest delay, whose jitter would not fit; classes that lack what they promise."""
    task = tasks(lambda: None, retries=1)["t"]
    verdict = judge(task, 1, _raised(Bury(404, KeyError("x"))))  # type: ignore[arg-type]  # that is the point
    assert (verdict.kind, verdict.reason, verdict.error) == ("bury", "404", "'x'")
    verdict = judge(task, 1, _raised(Retry(after=LONGEST, error=12)))  # type: ignore[arg-type]  # likewise
    assert (verdict.delay, verdict.error) == (LONGEST, "12")

    class Forgetful(Retry):
        def __init__(self) -> None:
            pass

    class Curt(Bury):
        def __init__(self) -> None:
            pass

    for error in (Forgetful(), Curt()):
        assert judge(task, 1, _raised(error)).kind == "retry"
        verdict = judge(task, 2, _raised(error))
        assert (verdict.kind, verdict.reason) == ("bury", "retries")
        assert verdict.error


def test_back_off_doubles_and_is_capped() -> None:
    """1, 2, 4, ... 600 s, never less, never more than a quarter above; jitter spreads."""
    for attempt in range(1, 200):
        floor = min(2.0 ** (attempt - 1), LONGEST_RETRY)
        assert floor <= backoff(attempt) <= 1.25 * floor
    assert len({backoff(5) for _ in range(50)}) > 40
    assert jitter(0.0) == 0.0


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), "soon", True])
def test_an_impossible_delay_is_an_error_in_the_handler(after: Any) -> None:
    """Raised where it was written, so it is a failure like others."""
    with pytest.raises(ValueError, match="after"):
        Retry(after=after)


def test_an_error_that_cannot_be_shown_is_judged_all_the_same() -> None:
    """Its str() raises: the verdict is the same."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    task = tasks(lambda: None, retries=0)["t"]
    assert judge(task, 1, _raised(Mute())).reason == "retries"
