"""What purge and restore share: their words for ages and rates, the question before they start, and the bar."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from boundq.cli._shared import console
from boundq.cli._text import printable
from boundq.model import PRIORITIES, State

STATES: tuple[State, ...] = ("ready", "scheduled", "active", "dead")
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_NUMBER = r"\s*([0-9]+(?:\.[0-9]+)?)\s*"

priorities = click.Choice(PRIORITIES)


def duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """``90``, ``90s``, ``15m``, ``2h``, ``3d``: seconds as a float."""
    if value is None:
        return None
    match = re.fullmatch(_NUMBER + "([a-z]*)", value)
    if match is None or match[2] not in _UNITS:
        raise click.BadParameter(f"{value!r} is no duration; write seconds, or 90s, 15m, 2h, 3d")
    return float(match[1]) * _UNITS[match[2]]


def rate_of(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """``500``, ``500/s``, ``30/min``: a second, as a float."""
    if value is None:
        return None
    match = re.fullmatch(_NUMBER + r"(?:/\s*(s|m|min|h))?", value)
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is no rate; write jobs a second, such as 500/s, or 30/min")
    return float(match[1]) / _UNITS[match[2] or "s"]


def share(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """``0.8`` or ``80%``, as a float."""
    if value is None:
        return None
    match = re.fullmatch(_NUMBER + "(%?)", value)
    number = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < number <= 1:
        raise click.BadParameter(f"{value!r} is no share; write 0.8 or 80%, more than 0 and at most 1")
    return number


def states_of(words: tuple[str, ...]) -> tuple[State, ...]:
    """The states that were named; ``all`` is each of them."""
    return STATES if "all" in words else tuple(state for state in STATES if state in words)


def ask(question: str, yes: bool) -> None:
    """Go on only if told so: by --yes, or on the terminal. Where nobody can be asked: exit code 2."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}\nThere is no terminal to ask on: add --yes to do it.")
    click.confirm(question, abort=True, err=True)


@contextmanager
def moving(word: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """
    A bar on a terminal, nothing elsewhere; and what to call with the jobs done and those looked at.

    A signal of the keyboard ends the verb with a sentence, since nothing is lost by it.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out = console(stderr=True)
    bar = Progress(
        *(
            TextColumn(word),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        ),
        console=out,
        disable=not out.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total, rate="")

        def step(done: int, looked_at: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            shown = f"{speed:,.0f} jobs/s" if speed else ""
            bar.update(task, completed=looked_at, rate=f"{shown}, {done:,} moved" if done != looked_at else shown)

        try:
            yield step
        except KeyboardInterrupt:
            bar.stop()
            click.echo("boundq: stopped; nothing is lost, the same command goes on", err=True)
            sys.exit(130)


def cannot_write(path: object, error: OSError, what: str) -> None:
    """A full disk, a missing folder: one line, exit code 74."""
    click.echo(f"boundq: {printable(str(path))}: {error.strerror or error}; {what}", err=True)
    sys.exit(74)
