"""Which jobs a verb is about: filters, a page of what they let through, and all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from boundq import Queue
from boundq.cli._shared import a_duration
from boundq.model import Job, Priority, State

F = TypeVar("F", bound=Callable[..., Any])
Match = Callable[[Job], bool]
# A listing that filters looks at so many jobs, and says where to go on.
LOOK = 2000


def paging(function: F) -> F:
    """``--limit`` and ``--after``."""
    function = click.option("--after", metavar="CURSOR", help="Go on where the page before said.")(function)
    return click.option(
        "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many jobs."
    )(function)


def dead_filters(function: F) -> F:
    """``--task``, ``--error`` and ``--older-than``, for dead letters."""
    function = click.option(
        "--older-than", type=a_duration, metavar="AGE", help="Buried at least so long ago: 90s, 10min, 2h, 7d."
    )(function)
    function = click.option("--error", metavar="TEXT", help="With this text in reason or error, in any case.")(function)
    return click.option("--task", metavar="NAME", help="Of this task.")(function)


def matcher(
    task: str | None = None,
    error: str | None = None,
    older_than: float | None = None,
    priority: str | None = None,
) -> Match:
    """What the filters let through."""
    text = error.casefold() if error else None

    def match(job: Job) -> bool:
        return (
            (task is None or job.task == task)
            and (text is None or text in f"{job.reason}\n{job.error}".casefold())
            and (older_than is None or job.seen - (job.due or job.created) >= older_than)
            and (priority is None or job.priority == priority)
        )

    return match


def page(
    queue: Queue, state: State, match: Match, limit: int, after: str | None, priority: Priority | None = None
) -> tuple[list[Job], str | None, int]:
    """Up to ``limit`` jobs that match, where to go on, and how many were looked at: `LOOK` at most."""
    level = priority if state in ("ready", "scheduled") else None
    found: list[Job] = []
    looked = 0
    while True:
        got = queue.peek(state, min(limit - len(found), 100), after, level)
        looked, after = looked + len(got.jobs), got.after
        found += filter(match, got.jobs)
        if after is None or len(found) == limit or looked >= LOOK:
            return found, after, looked


def all_dead(queue: Queue, match: Match) -> Iterator[Job]:
    """The dead letters that match, the oldest first; not those that are buried while it looks."""
    left, after = queue.stats().dead, None
    while left > 0:
        got = queue.peek("dead", min(left, 100), after)
        yield from filter(match, got.jobs)
        left, after = left - len(got.jobs), got.after
        if after is None:
            return
