"""Looks at the queues of a server, one after the other: what ls, stats and top have in common."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

import click
import msgspec

from boundq import Server, Stats
from boundq._rates import Trace, to_json
from boundq.cli._forecast import sentence
from boundq.cli._shared import Number
from boundq.cli._text import printable
from boundq.cli._warnings import Memory, Warned, of_queue, of_server
from boundq.errors import BoundqError, DataError, Unavailable

F = TypeVar("F", bound=Callable[..., Any])

# The server's keys are walked through again after so long at the earliest, and after so many times as long as it took.
WALK_SECONDS = 30.0
WALK_SHARE = 20
WATCH_SECONDS = 2.0
LEAST_SECONDS, MOST_SECONDS = 0.1, 3600.0


class Seen(msgspec.Struct):
    """
    What one look showed.

    Args:
        queues: Those that could be read, in the order of their names.
        unreadable: The others: a name and why.
        memory: The server's.
        wall: When, by our own clock.
    """

    queues: dict[str, Stats]
    unreadable: dict[str, BoundqError]
    memory: Memory
    wall: float


class Watch:
    """
    Looks at a server.

    Args:
        server: Which.
        names: The queues; none: all that are found.
    """

    def __init__(self, server: Server, names: Sequence[str] = ()) -> None:
        self.server = server
        self.named = list(dict.fromkeys(names))
        self.traces: dict[str, Trace] = {}
        self._found: list[str] = []
        self._walk_at = float("-inf")

    def look(self) -> Seen:
        """
        Look, and remember it for rates.

        Raises:
            Unavailable: The server does not answer.
        """
        try:
            seen = self.fetch(self.names())
        except Unavailable:
            for trace in self.traces.values():
                trace.gap()
            raise
        self.note(seen)
        return seen

    def names(self) -> list[str]:
        """Which queues there are; found anew once in a while."""
        if self.named:
            return self.named
        begun = time.monotonic()
        if begun >= self._walk_at:
            self._found = self.server.queues()
            now = time.monotonic()
            self._walk_at = now + max(WALK_SECONDS, (now - begun) * WALK_SHARE)
        return self._found

    def fetch(self, names: Sequence[str]) -> Seen:
        """Ask the server, and remember nothing."""
        found = self.server.stats(names)
        memory = Memory.of(self.server.info("memory", "cluster"))
        good = {name: one for name, one in sorted(found.items()) if isinstance(one, Stats)}
        bad = {name: one for name, one in sorted(found.items()) if isinstance(one, BoundqError)}
        if not self.named:  # it was there when the keys were walked through, and is gone
            bad = {name: one for name, one in bad.items() if not (isinstance(one, DataError) and is_missing(one))}
        return Seen(good, bad, memory, time.time())

    def note(self, seen: Seen) -> None:
        """Remember a look."""
        self.traces = {name: self.traces.get(name) or Trace() for name in seen.queues}
        for name, stats in seen.queues.items():
            self.traces[name].add(stats)

    def warnings(self, seen: Seen) -> list[Warned]:
        """Of the server."""
        found = of_server(seen.memory)
        return [one for one in found if not (self.named and one.code == "cluster")]

    def to_json(self, seen: Seen) -> dict[str, Any]:
        """``queues``, ``unreadable``, ``server``, ``warnings``, ``at``: the shape that ``ls`` and ``top`` print."""
        return {
            "at": round(seen.wall, 3),
            "queues": [queue_to_json(stats, self.traces[name]) for name, stats in seen.queues.items()],
            "unreadable": [{"name": name, "error": str(error)} for name, error in seen.unreadable.items()],
            "server": {"used": seen.memory.used, "max": seen.memory.max, "policy": seen.memory.policy},
            "warnings": _warned(self.warnings(seen)),
        }


def is_missing(error: DataError) -> bool:
    """Whether it says that there is no such queue."""
    return error.reason == "missing"


def queue_to_json(stats: Stats, trace: Trace) -> dict[str, Any]:
    """
    All fields of `Stats`, ``fill`` and ``imbalance``; sizes in bytes, times in seconds, rates a second.

    ``rates`` is null before the second look.
    """
    return {
        **msgspec.structs.asdict(stats),
        "limits": {name: getattr(stats.limits, name) for name in stats.limits.to_fields()},
        "fill": round(stats.fill, 4),
        "imbalance": stats.imbalance,
        "rates": to_json(trace.rates()),
        "forecast": {**(to_json(trace.forecast()) or {}), "text": sentence(trace.forecast())},
        "warnings": _warned(of_queue(stats, trace)),
    }


def watch_options(function: F) -> F:
    """``--interval``, ``--watch`` and ``--count``."""
    function = click.option(
        "--count", type=click.IntRange(1), metavar="N", help="With --watch: end after N looks; 1 or more."
    )(function)
    function = click.option("-w", "--watch", is_flag=True, help="Look again and again, until Ctrl-C.")(function)
    return click.option(
        "-i",
        "--interval",
        type=Number(LEAST_SECONDS, MOST_SECONDS),
        metavar="SECONDS",
        help="Look twice, so long apart, for rates and a forecast; with --watch: this often (default 2).",
    )(function)


def looks(
    look: Callable[[], Seen], *, watch: bool, interval: float | None, count: int | None
) -> Iterator[Seen | Unavailable]:
    """
    The looks to show: one; the second of two; or, to watch, one after the other, with the error where none was had.

    Raises:
        Unavailable: Where it is not to be watched.
    """
    if count is not None and not watch:
        raise click.UsageError("--count is for --watch")
    if not watch:
        seen = look()
        if interval is not None:
            time.sleep(interval)
            seen = look()
        yield seen
        return
    every, number = interval or WATCH_SECONDS, 0
    while True:
        begun = time.monotonic()
        try:
            yield look()
        except Unavailable as error:
            yield error
        number += 1
        if number == count:
            return
        time.sleep(max(begun + every - time.monotonic(), 0.0))


def until_interrupted(watch: bool) -> AbstractContextManager[None]:
    """Ctrl-C is how watching ends, and no error then."""
    return suppress(KeyboardInterrupt) if watch else nullcontext()


def print_line(value: object) -> None:
    """JSON on one line, at once."""
    click.echo(json.dumps(value, ensure_ascii=True))


def print_lost(error: Unavailable, *, as_json: bool) -> None:
    """A look that was not answered, to whom watches: never the old numbers."""
    text = f"no answer: {printable(str(error), 500)}"
    if as_json:
        print_line({"at": round(time.time(), 3), "error": text})
    else:
        click.echo(f"{time.strftime('%H:%M:%S')} {text}")


def _warned(found: list[Warned]) -> list[dict[str, str]]:
    return [{"code": one.code, "text": one.text} for one in found]
