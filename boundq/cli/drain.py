"""``boundq drain``."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import Any

import click

from boundq import Server, Stats
from boundq._sizes import duration
from boundq.cli._exit import OVER
from boundq.cli._shared import (
    a_duration,
    console,
    json_option,
    print_json,
    queue_arguments,
    reason_option,
    server_options,
    who,
)

# Seconds between two looks.
FIRST_LOOK, LAST_LOOK = 0.05, 0.5


@click.command("drain")
@queue_arguments
@click.option("--timeout", type=a_duration, metavar="TIME", help="Give up after that: 90s, 10min, 2h. Default: never.")
@click.option("--seal", is_flag=True, help="Seal the queues first, so that nothing new comes; they stay sealed.")
@reason_option
@server_options
@json_option
def command(
    queues: tuple[str, ...], timeout: float | None, seal: bool, reason: str | None, url: str | None, as_json: bool
) -> None:
    """
    Wait until queues hold nothing: no job ready, scheduled or active. Dead letters do not count.

    It only waits: workers do the work, and producers may bring more unless --seal stops them.

    Exit code 75: the time was over first.

    \b
    Examples:
      boundq drain emails --timeout 10min
      boundq drain emails reports --seal --reason "moving to another server" && echo all done
    """
    server = Server(url)
    targets = [server.queue(name) for name in dict.fromkeys(queues)]
    begun = [target.stats() for target in targets]  # all are there, before anything is done
    if seal:
        by = who(reason)
        for target in targets:
            target.seal(by)
        begun = [target.stats() for target in targets]
    for stats in begun:
        _warn(stats)
    started, pause, now = time.monotonic(), FIRST_LOOK, begun
    with _live() as live:
        while any(stats.jobs for stats in now):
            if live is not None:
                live.update(_table(begun, now, time.monotonic() - started))
            left = float("inf") if timeout is None else started + timeout - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(pause * 2, LAST_LOOK)
            now = [target.stats() for target in targets]
    took, drained = time.monotonic() - started, not any(stats.jobs for stats in now)
    if as_json:
        rows = [{"name": stats.name, "jobs": stats.jobs, "dead": stats.dead} for stats in now]
        print_json({"drained": drained, "seconds": round(took, 3), "queues": rows})
    else:
        for stats in now:
            held = f"{stats.jobs} jobs held after {duration(took)}" if stats.jobs else f"empty after {duration(took)}"
            click.echo(f"{stats.name}: {held}{f'; {stats.dead} dead letters' if stats.dead else ''}")
    sys.exit(0 if drained else OVER)


def _warn(stats: Stats) -> None:
    """What will keep it from becoming empty."""
    if not stats.jobs:
        return
    if stats.paused_since:
        click.echo(f"boundq: note: {stats.name} is paused: nothing is claimed until `boundq resume`", err=True)
    if stats.next_event is not None and stats.next_event > 60 and stats.ready + stats.active == 0:
        click.echo(f"boundq: note: {stats.name}: the next job is due in {duration(stats.next_event)}", err=True)
    if not stats.sealed_since:
        click.echo(f"boundq: note: {stats.name} goes on taking jobs; --seal stops that", err=True)


def _live() -> Any:
    out = console(stderr=True)
    if not out.is_terminal:
        return nullcontext()
    from rich.live import Live

    return Live(console=out, transient=True, auto_refresh=False)


def _table(begun: list[Stats], now: list[Stats], passed: float) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("queue", "held", "ready", "active", "scheduled", "jobs/s", "empty in"):
        table.add_column(title, justify="left" if title == "queue" else "right")
    for before, stats in zip(begun, now, strict=True):
        gone = stats.admitted - stats.jobs - before.admitted + before.jobs
        rate = gone / passed if passed > 1 else stats.drain_rate
        left = duration(stats.jobs / rate) if rate else "unknown"
        numbers = (stats.jobs, stats.ready, stats.active, stats.scheduled)
        table.add_row(stats.name, *map(str, numbers), f"{rate:.1f}" if rate is not None else "-", left)
    return table
