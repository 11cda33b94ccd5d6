"""What a worker does with one delivery, and with how it ended. Pure: waits for nothing, talks to nobody."""

from __future__ import annotations

import inspect
import random
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple, get_type_hints

import msgspec

from boundq._sizes import LONGEST
from boundq.errors import DataError
from boundq.job_control import Bury, Retry
from boundq.lease import BaseLease
from boundq.task import Task, run_arguments

# Exponential back-off between the runs of a failing job, in seconds: 1, 2, 4, ... up to 10 minutes.
FIRST_RETRY, LONGEST_RETRY = 1.0, 600.0


class Run(NamedTuple):
    """A handler with its arguments."""

    task: Task[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]


class Verdict(NamedTuple):
    """
    How a delivery ends.

    Args:
        kind: ``ack retry bury``.
        delay: Of a retry, in seconds.
        reason: Of a burial.
        error: For the dead letter and the log.
    """

    kind: str
    delay: float = 0.0
    reason: str = ""
    error: str = ""


DONE = Verdict("ack")


def prepare_run(tasks: Mapping[str, Task[..., Any]], lease: BaseLease) -> Run | Verdict:
    """The run that a delivery asks for, or why it cannot be run and is buried, so that the next ones are."""
    if lease.problem is not None:
        return Verdict("bury", reason=lease.problem.reason, error=str(lease.problem))
    task = tasks.get(lease.task)
    if task is None:
        known = ", ".join(sorted(tasks)) or "none"
        return Verdict("bury", reason="unknown_task", error=f"no task {lease.task!r} here; known: {known}")
    if lease.attempt > task.retries + 1:
        # The earlier deliveries ended without a word: they took their worker with them, or hung.
        error = (
            f"delivery {lease.attempt} of a job with {task.retries} retries; {lease.expired_leases} leases were lost"
        )
        return Verdict("bury", reason="max_deliveries", error=error)
    try:
        args, kwargs = run_arguments(lease.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Verdict("bury", reason="undecodable", error=f"the payload is not JSON [args, kwargs]: {error}")
    try:
        return Run(task, *_converter(task.function)(args, kwargs))
    except Exception as error:  # types have opinions of their own: __post_init__, _missing_
        return Verdict("bury", reason="bad_arguments", error=f"{lease.task}: {error or type(error).__name__}")


def perform(run: Run, attempt: int, around: AbstractContextManager[None]) -> Verdict:
    """Call a plain function, here and now, inside ``around``: how its delivery ends."""
    try:
        with around:
            result = run.task.function(*run.args, **run.kwargs)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("the task returned a coroutine, which nobody runs: declare it with async def")
    except BaseException as error:
        return judge(run.task, attempt, error)
    return DONE


def judge(task: Task[..., Any], attempt: int, error: BaseException) -> Verdict:
    """How a run that raised ends: retried with back-off, retried as asked, or buried. Raises nothing itself."""
    try:
        return _judge(task, attempt, error)
    except Exception as failure:  # a class derived from Retry, say, that leaves out what that one promises
        return _judge(task, attempt, failure)


def _judge(task: Task[..., Any], attempt: int, error: BaseException) -> Verdict:
    if isinstance(error, Bury):
        return Verdict("bury", reason=error.reason, error=error.error)
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, DataError):
        return Verdict("bury", reason=error.reason, error=text)
    if attempt > task.retries:
        where = "".join(traceback.format_exception(error, limit=-3))
        return Verdict("bury", reason="retries", error=where[-1900:])
    if isinstance(error, Retry) and error.after is not None:
        return Verdict("retry", delay=min(error.after + jitter(error.after), LONGEST), error=error.error)
    return Verdict("retry", delay=backoff(attempt), error=text)


def judge_crash(task: Task[..., Any], attempt: int, error: str) -> Verdict:
    """How a run that took its process with it ends: as a failure, with a reason of its own for the last one."""
    if attempt > task.retries:
        return Verdict("bury", reason="crashed", error=error)
    return Verdict("retry", delay=backoff(attempt), error=error)


def backoff(attempt: int) -> float:
    """Seconds before the next run after ``attempt`` failed ones: doubled each time, capped, with jitter on top."""
    pause = min(FIRST_RETRY * 2.0 ** (attempt - 1), LONGEST_RETRY)
    return pause + jitter(pause)


def jitter(pause: float) -> float:
    """Up to a quarter more, never less: an explicit delay is a floor."""
    return random.random() * pause / 4


Arguments = tuple[list[Any], dict[str, Any]]


@lru_cache(1024)
def _converter(function: Callable[..., Any]) -> Callable[[list[Any], dict[str, Any]], Arguments]:
    """What makes arguments, from what JSON could hold of them, as the function's annotations say."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    try:
        hints = get_type_hints(function)
    except Exception:  # annotations that cannot be resolved bind nobody
        hints = {}
    types = [hints.get(parameter.name, Any) for parameter in parameters]
    least = sum(parameter.default is inspect.Parameter.empty for parameter in parameters)
    plain = all(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)

    def convert(args: list[Any], kwargs: dict[str, Any]) -> Arguments:
        if plain and not kwargs and least <= len(args) <= len(types):  # binding takes longer than all else
            return [_convert(value, hint) for value, hint in zip(args, types, strict=False)], kwargs
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            hint, kind = hints.get(name, Any), signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(_convert(one, hint) for one in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: _convert(one, hint) for key, one in value.items()}
            else:
                bound.arguments[name] = _convert(value, hint)
        return list(bound.args), bound.kwargs

    return convert


def _convert(value: Any, hint: Any) -> Any:
    # What JSON had already in the type that is wanted, or wanted by nobody, stays as it is: so it is for most.
    return value if hint is Any or type(value) is hint else msgspec.convert(value, hint)
