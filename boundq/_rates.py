"""
Rates and a forecast from looks at a queue. Pure arithmetic: it asks nobody, and reads no clock.

Rules:

- Time is the server's, from the looks themselves: how long an answer took on its way does not matter.
- What came in is what was admitted. What went out is everything that is not held any more: acked, buried, cancelled,
  expired, dropped, purged.
- Bounds are two standard deviations of what is left to chance: the jobs are taken to come and go independently of each
  other or, where there are looks enough to tell, as unevenly as they did.
- Where few jobs moved, or where the bounds leave open which way it goes, that is the answer, and not a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, Literal

import msgspec

from boundq.model import Stats

# Fewer jobs in and out together, or a shorter time in seconds, say nothing about what comes.
THIN_JOBS = 10
THIN_SECONDS = 0.2
# So many looks more than the first tell how uneven it is.
UNEVEN_LOOKS = 4
# From then on "nothing moves" is a statement, in seconds.
IDLE_SECONDS = 5.0
# Sizes vary: a spread as large as their mean is assumed where it was not seen.
SIZE_SPREAD = sqrt(2)

Kind = Literal["unknown", "full", "filling", "emptying", "steady", "idle", "empty"]


class Estimate(msgspec.Struct, frozen=True):
    """A number, and between which others it probably lies; ``high`` None: there is no saying how high."""

    value: float
    low: float
    high: float | None


class Rates(msgspec.Struct, frozen=True):
    """
    What moved between two looks, a second.

    Args:
        seconds: Between them.
        arrived, left, claimed: Jobs admitted, gone, delivered; ``claimed`` counts each delivery.
        rejected: Jobs refused.
        net: By how many jobs it grew.
        net_bytes: By how many bytes, as charged.
        moved: Jobs in and out together, how many and not a second: what the rest rests on.
    """

    seconds: float
    arrived: Estimate
    left: Estimate
    claimed: Estimate
    rejected: Estimate
    net: Estimate
    net_bytes: Estimate
    moved: int


class Forecast(msgspec.Struct, frozen=True):
    """
    What becomes of a queue at the rates that were seen.

    Args:
        kind: ``filling`` and ``emptying`` have ``time``; ``full``, ``empty`` and ``idle`` (nothing moves) are so now;
            ``steady``: it goes neither way as far as can be told; ``unknown``: too little moved to say.
        time: Seconds until it is full, or empty.
        limit: Which limit it reaches, or has reached: ``jobs`` or ``bytes``.
        wait: Seconds that a job which comes now, at the lowest priority, will wait; None: unknown.
    """

    kind: Kind
    time: Estimate | None = None
    limit: str | None = None
    wait: Estimate | None = None


class Look(msgspec.Struct, frozen=True):
    """What counts of one look at a queue."""

    at: float
    jobs: int
    bytes: int
    ready: int
    admitted: int
    claimed: int
    rejected: int

    @classmethod
    def of(cls, stats: Stats) -> Look:
        """Out of a queue's numbers."""
        rejected = sum(stats.rejected.values())
        return cls(stats.at, stats.jobs, stats.bytes, stats.ready, stats.admitted, stats.deliveries, rejected)

    @property
    def left(self) -> int:
        """Jobs that are not held any more, ever."""
        return self.admitted - self.jobs

    def follows(self, before: Look) -> bool:
        """Whether this look is a later one at the same queue: its clock and its counters went on."""
        counters = ("admitted", "left", "claimed", "rejected")
        return self.at > before.at and all(getattr(self, name) >= getattr(before, name) for name in counters)


class Trace:
    """
    Looks at one queue, the last ones.

    Args:
        window: Seconds over which rates are taken.
        keep: How many looks.
    """

    def __init__(self, window: float = 30.0, keep: int = 600) -> None:
        self._window = window
        # None where the server did not answer: a picture has a gap there.
        self.looks: deque[Look | None] = deque(maxlen=keep)
        self.latest: Stats | None = None

    def add(self, stats: Stats) -> None:
        """One more look. A queue that was made anew, or a clock that was set back, begins anew."""
        look = Look.of(stats)
        last = self._last()
        self.latest = stats
        if last is not None and look.at == last.at:
            return
        if last is not None and not look.follows(last):
            self.looks.clear()
        self.looks.append(look)

    def gap(self) -> None:
        """No answer this time."""
        self.looks.append(None)

    def rates(self) -> Rates | None:
        """Over the window; None before the second look."""
        return rates(self.recent())

    def forecast(self) -> Forecast:
        """From the window and the latest look."""
        return forecast(self.latest, self.rates()) if self.latest else Forecast("unknown")

    def unclaimed(self) -> float:
        """For how many seconds jobs were ready at each look, and none was claimed, up to the latest one."""
        seen = [look for look in self.looks if look is not None]
        last = since = seen[-1] if seen else None
        for look in reversed(seen):
            if last is None or not look.ready or look.claimed != last.claimed:
                break
            since = look
        return last.at - since.at if last and since and last.ready else 0.0

    def claimed(self) -> bool:
        """Whether a claim was seen, between any two looks."""
        return len({look.claimed for look in self.looks if look is not None}) > 1

    def recent(self) -> list[Look]:
        """The looks of the window, and the last one before it where the window has no more than one."""
        seen = [look for look in self.looks if look is not None]
        since = seen[-1].at - self._window if seen else 0.0
        inside = [look for look in seen if look.at >= since]
        return inside if len(inside) > 1 else seen[-2:]

    def steps(self, name: Literal["admitted", "left"]) -> list[float | None]:
        """The rate of each step from one look to the next, None where one of them is missing."""
        looks = list(self.looks)
        return [
            (getattr(after, name) - getattr(before, name)) / (after.at - before.at) if before and after else None
            for before, after in pairwise(looks)
        ]

    def held(self) -> list[float | None]:
        """The jobs at each look, None where there was no answer."""
        return [None if look is None else look.jobs for look in self.looks]

    def _last(self) -> Look | None:
        return next((look for look in reversed(self.looks) if look is not None), None)


def rates(looks: Sequence[Look]) -> Rates | None:
    """What moved from the first look to the last; None where there are not two, or they are too close."""
    if len(looks) < 2 or looks[-1].at - looks[0].at < THIN_SECONDS:
        return None
    first, last = looks[0], looks[-1]
    arrived, left = last.admitted - first.admitted, last.left - first.left
    moved = arrived + left
    size = last.bytes / last.jobs if last.jobs else first.bytes / first.jobs if first.jobs else 0.0
    return Rates(
        seconds=last.at - first.at,
        arrived=_count(looks, "admitted"),
        left=_count(looks, "left"),
        claimed=_count(looks, "claimed"),
        rejected=_count(looks, "rejected"),
        net=_change(looks, "jobs", sqrt(moved)),
        net_bytes=_change(looks, "bytes", size * SIZE_SPREAD * sqrt(moved)),
        moved=moved,
    )


def forecast(stats: Stats, seen: Rates | None) -> Forecast:
    """What becomes of the queue at these rates."""
    most_bytes = int(stats.limits.max_bytes)
    wait = _wait(stats, seen)
    size = stats.bytes / stats.jobs if stats.jobs else 0.0
    for limit, is_full in (
        ("jobs", stats.jobs >= stats.limits.max_jobs),
        ("bytes", stats.jobs > 0 and stats.bytes + size > most_bytes),
    ):
        if is_full:
            return Forecast("full", limit=limit, wait=wait)
    if seen is None:
        return Forecast("unknown")
    if seen.moved == 0 and (stats.jobs == 0 or seen.seconds >= IDLE_SECONDS):
        return Forecast("idle" if stats.jobs else "empty", wait=wait)
    if seen.moved < THIN_JOBS:
        return Forecast("unknown", wait=wait)
    fills = [
        (time, limit)
        for limit, room, net in (
            ("jobs", stats.limits.max_jobs - stats.jobs, seen.net),
            ("bytes", most_bytes - stats.bytes, seen.net_bytes),
        )
        if net.low > 0 and (time := _time(room, net)) is not None
    ]
    if fills:
        time, limit = min(fills, key=lambda fill: fill[0].value)
        return Forecast("filling", time, limit, wait)
    if seen.net.high is not None and seen.net.high < 0:
        shrink = Estimate(-seen.net.value, -seen.net.high, -seen.net.low)
        return Forecast("emptying", _time(stats.jobs, shrink), wait=wait)
    return Forecast("steady", wait=wait)


def _wait(stats: Stats, seen: Rates | None) -> Estimate | None:
    if seen is None or seen.moved < THIN_JOBS or not seen.left.value:
        return None
    return _time(stats.ready, seen.left)


def _time(way: float, speed: Estimate) -> Estimate | None:
    """How long a way takes; None where there is no saying that it is gone at all."""
    if speed.value <= 0:
        return None
    fastest = speed.high or speed.value
    return Estimate(way / speed.value, way / fastest, way / speed.low if speed.low > 0 else None)


def _count(looks: Sequence[Look], name: str) -> Estimate:
    """A counter's rate: never below nothing; where nothing was counted it may still be up to three."""
    first, last = looks[0], looks[-1]
    seconds, count = last.at - first.at, getattr(last, name) - getattr(first, name)
    spread = max(sqrt(count), _unevenness(looks, name))
    most = count + 2 * spread + (3 if count == 0 else 1)
    return Estimate(count / seconds, max(count - 2 * spread, 0) / seconds, most / seconds)


def _change(looks: Sequence[Look], name: str, chance: float) -> Estimate:
    """The rate of a number that goes up and down."""
    first, last = looks[0], looks[-1]
    seconds, change = last.at - first.at, getattr(last, name) - getattr(first, name)
    spread = max(chance, _unevenness(looks, name))
    return Estimate(change / seconds, (change - 2 * spread) / seconds, (change + 2 * spread) / seconds)


def _unevenness(looks: Sequence[Look], name: str) -> float:
    """The standard deviation of the whole change, as its steps tell; 0 where there are too few."""
    steps = len(looks) - 1
    if steps < UNEVEN_LOOKS:
        return 0.0
    whole = (getattr(looks[-1], name) - getattr(looks[0], name)) / (looks[-1].at - looks[0].at)
    squares = _squares(looks, name, whole)
    return sqrt(squares * steps / (steps - 1))


def _squares(looks: Sequence[Look], name: str, rate: float) -> float:
    steps = ((getattr(after, name) - getattr(before, name), after.at - before.at) for before, after in pairwise(looks))
    return float(sum((change - rate * seconds) ** 2 for change, seconds in steps))


def to_json(value: Rates | Forecast | None) -> dict[str, Any] | None:
    """As the command line prints it: numbers rounded to what they are worth."""
    if value is None:
        return None
    built: dict[str, Any] = msgspec.to_builtins(value)
    return {
        name: {end: None if part is None else float(f"{part:.4g}") for end, part in one.items()}
        if isinstance(one, dict)
        else one
        for name, one in built.items()
    }
