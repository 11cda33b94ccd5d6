"""Selection: which jobs a purge is about, and a walk over them in bounded steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

import msgspec

from boundq._call import Flow
from boundq._core.inspection import Inspection, Stored
from boundq._envelope import created_of, task_of
from boundq._keys import check_name
from boundq._sizes import milliseconds, positive_int
from boundq.errors import ConfigError
from boundq.model import PRIORITIES, State

# Jobs that are looked at in one step.
PAGE = 100


class Selection(msgspec.Struct, frozen=True):
    """
    Which jobs.

    Args:
        states: In this order.
        task: Of this task, "" for raw payloads; None: of any.
        older_than: Milliseconds since they were admitted, at least; None: of any age.
        level: Of this priority, 0 to 3; None: of any.
        limit: So many at most; None: all.
    """

    states: tuple[State, ...]
    task: str | None = None
    older_than: int | None = None
    level: int | None = None
    limit: int | None = None

    @property
    def plain(self) -> bool:
        """Whether it is a matter of states only."""
        return (self.task, self.older_than, self.level, self.limit) == (None, None, None, None)

    def filters(self) -> dict[str, Any]:
        """What was chosen, as a file's header has it."""
        return {
            "states": sorted(self.states),
            "task": self.task,
            "older_than_ms": self.older_than,
            "priority": PRIORITIES[self.level] if self.level is not None else None,
            "limit": self.limit,
        }


def select(
    states: Sequence[State],
    task: str | None = None,
    older_than: float | timedelta | None = None,
    priority: str | None = None,
    limit: int | None = None,
) -> Selection:
    """
    A selection; ready and scheduled jobs where no state is named.

    Raises:
        ConfigError: Something that makes no sense.
    """
    for state in states:
        if state not in get_args(State):
            raise ConfigError("state", state, f"it must be one of {', '.join(get_args(State))}")
    if task:
        check_name(task, "task name")
    if priority is not None and priority not in PRIORITIES:
        raise ConfigError("priority", priority, f"it must be one of {', '.join(PRIORITIES)}")
    return Selection(
        tuple(dict.fromkeys(states)) or ("ready", "scheduled"),
        task,
        milliseconds(older_than, "older_than") if older_than is not None else None,
        PRIORITIES.index(priority) if priority is not None else None,
        positive_int(limit, "limit") if limit is not None else None,
    )


class Walk:
    """
    A walk over the jobs of a selection that were admitted before it began, in the order of `peek`.

    Args:
        inspection: The queue's.
        chosen: Which jobs.
        before_ms: Created at this time or earlier, where age matters.
    """

    def __init__(self, inspection: Inspection, chosen: Selection, before_ms: int | None) -> None:
        self._inspection = inspection
        self._chosen = chosen
        self._task = chosen.task.encode() if chosen.task is not None else None
        self._before = before_ms if chosen.older_than is not None else None
        self._state, *self._states = chosen.states
        self._after = self._first()
        self._ends: list[int] = []
        self.looked_at = 0
        self.over = False

    def step(self) -> Flow[tuple[State, list[Stored]]]:
        """Look at up to a hundred jobs of one state: those of them that are chosen."""
        if not self._ends:
            _, self._ends = yield from self._inspection.admitted_until_now()
        state = self._state
        page, self._after = yield from self._inspection.raw_page(state, PAGE, self._after)
        self.looked_at += len(page)
        # Jobs that come in meanwhile are not ours, and no reason to go on for ever.
        passed = state == "ready" and bool(page) and all(self._newer(one[0]) for one in page)
        if passed and self._after is not None:
            level = int(page[-1][0]) % 4
            self._after = f"{level - 1}//" if level else None
        if self._after is None or (self._level and not self._after.startswith(self._level)):
            self.over = not self._states
            if self._states:
                self._state, *self._states = self._states
                self._after = self._first()
        return state, [one for one in page if self._matches(one)]

    @property
    def _level(self) -> str:
        """The part of a cursor that says which priority, where only one is chosen and states are stored by it."""
        by_level = self._chosen.level is not None and self._state in ("ready", "scheduled")
        return f"{self._chosen.level}/" if by_level else ""

    def _first(self) -> str | None:
        return f"{self._level}/" if self._level else None

    def _newer(self, job_id: str) -> bool:
        sequence, slot = divmod(int(job_id), 8)
        return sequence > self._ends[slot]

    def _matches(self, job: Stored) -> bool:
        job_id, _, raw, _ = job
        return (
            not self._newer(job_id)
            and (self._chosen.level is None or int(job_id) % 4 == self._chosen.level)
            and (self._before is None or created_of(raw) <= self._before)
            and (self._task is None or task_of(raw) == self._task)
        )
