"""
How things are compared: arms in turns, and what is known when they have run.

An `Arm` is one of several ways to do the same work. On a busy machine wall times move twofold, so arms run in turns, in
random order within a round, and are compared pair by pair: a ratio is the median of the rounds' ratios, never a ratio
of medians.

A bench is a module with ``SIZES`` and ``measure(place, options) -> Result``; to add one, or to put more arms beside
those that are there, nothing else has to be known.
"""

from __future__ import annotations

import random
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Figures = Mapping[str, float]
"""What one run found: ``rate`` (jobs a second), ``wall`` (microseconds a job), ...; the columns name them."""
Runs = dict[str, list[Figures]]
"""By arm, in the order of the rounds."""


class Arm(ABC):
    """
    One way to do the work.

    Args:
        name: In tables and pictures; those of ours begin with ``boundq``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack = ExitStack()

    def set_up(self) -> None:  # noqa: B027  # an arm without anything to prepare is one
        """Once, before the first round: connect, start processes. What has to be undone goes into ``stack``."""

    @abstractmethod
    def run(self) -> Figures:
        """Once a round: do the work, measured; what is left over from the last round is cleared away before."""

    def tear_down(self) -> None:
        """Once, after the last round, also where `set_up` failed half-way."""
        self.stack.close()


def in_turns(arms: Sequence[Arm], rounds: int, *, warm_up: int = 1) -> Runs:
    """Run every arm once a round, in random order. The first rounds warm up and are thrown away."""
    found: Runs = {arm.name: [] for arm in arms}
    assert len(found) == len(arms), "two arms have the same name"
    with ExitStack() as stack:
        for arm in arms:
            stack.callback(arm.tear_down)
            arm.set_up()
        for number in range(-warm_up, rounds):
            for arm in random.sample(arms, len(arms)):
                figures = arm.run()
                if number >= 0:
                    found[arm.name].append(figures)
    return found


class Spread(NamedTuple):
    """The middle of some runs, and the quarter of them below and above it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return Spread(statistics.median(values), low, high)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


class Column(NamedTuple):
    """
    A figure in the tables.

    Args:
        figure: Its name in `Figures`.
        heading: With the unit.
        compared: Also show its ratio to the base, and draw it.
        digits: Behind the point.
        told: In README.md's tables, too, where it is not compared.
    """

    figure: str
    heading: str
    compared: bool = False
    digits: int = 0
    told: bool = False


@dataclass(frozen=True)
class Group:
    """
    Arms that did the same work.

    Args:
        title: What work.
        runs: Of each arm, equally many.
        base: The arm that the others are compared with; None: they are not.
        columns: What the tables show, in order; not every arm needs to have every figure.
    """

    title: str
    runs: Mapping[str, Sequence[Figures]]
    base: str | None
    columns: Sequence[Column]

    def values(self, arm: str, figure: str) -> Spread | None:
        """Of the arm's runs; None where it has no such figure."""
        found = [run[figure] for run in self.runs[arm] if figure in run]
        return spread(found) if found else None

    def ratio(self, arm: str, figure: str) -> Spread | None:
        """Arm by base, round by round; None for the base itself and where either lacks the figure."""
        if self.base is None or arm == self.base:
            return None
        pairs = zip(self.runs[arm], self.runs[self.base], strict=True)
        found = [
            one[figure] / other[figure] for one, other in pairs if figure in one and figure in other and other[figure]
        ]
        return spread(found) if found else None


@dataclass(frozen=True)
class Curves:
    """A picture of something over something: series -> points."""

    title: str
    x: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False


@dataclass(frozen=True)
class Result:
    """
    What a bench found on one server.

    Args:
        groups: For tables, pictures and ratios.
        curves: For more pictures.
        facts: What else belongs into the JSON.
        notes: Sentences below the tables.
    """

    groups: Sequence[Group]
    curves: Sequence[Curves] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """
    How much to do.

    Args:
        size: ``tiny`` (does it run at all), ``quick`` or ``full``; each bench says what that means, in its ``SIZES``.
        rounds: Instead of the size's.
        seconds: Likewise, where a bench runs for a time.
        payload: Bytes of a job's argument.
    """

    size: str = "quick"
    rounds: int | None = None
    seconds: float | None = None
    payload: int = 200

    def of(self, default: int) -> int:
        """The rounds: as asked for, or as the bench has it."""
        return self.rounds or default


Measure = Callable[[Any, Options], Result]
"""``measure(place, options)``; the place is a `bench._place.Place`."""
