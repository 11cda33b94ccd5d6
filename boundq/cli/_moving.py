"""What purge and restore share: the states they take, the bar, and what stops them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from boundq.cli._shared import console
from boundq.cli._text import printable
from boundq.model import PRIORITIES, State

STATES: tuple[State, ...] = ("ready", "scheduled", "active", "dead")

priorities = click.Choice(PRIORITIES)


def states_of(words: tuple[str, ...]) -> tuple[State, ...]:
    """The states that were named; ``all`` is each of them."""
    return STATES if "all" in words else tuple(state for state in STATES if state in words)


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
