"""``boundq ls``."""

from __future__ import annotations

import time
from typing import Any

import click

from boundq import Server, Stats
from boundq._rates import Trace
from boundq._sizes import duration, format_size
from boundq.cli._forecast import short
from boundq.cli._shared import bar, console, json_option, print_json, queue_names, server_options
from boundq.cli._text import printable
from boundq.cli._warnings import number, of_queue
from boundq.cli._watch import Seen, Watch, looks, print_line, print_lost, until_interrupted, watch_options
from boundq.errors import Unavailable


@click.command("ls")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=queue_names)
@watch_options
@server_options
@json_option
def command(
    queues: tuple[str, ...], url: str | None, as_json: bool, interval: float | None, watch: bool, count: int | None
) -> None:
    """
    List the queues of a server, how full they are, and what is wrong.

    All queues, or those that are named: then the server's keys are not walked through, which takes a second where there
    are a million foreign ones, and on a cluster shows one node's queues only.

    Rates and a forecast need two looks: --interval. "Unknown" means that too little moved to say. There is no list of
    workers; a warning "no consumer" means that jobs were ready and nobody claimed one.

    Exit code 0; 65: a queue that was named is not there; 69: no answer.

    \b
    Examples:
      boundq ls
      boundq ls --interval 5
      boundq ls --watch emails reports
      boundq ls --json | jq '.queues[] | select(.fill > 0.8) | .name'
      boundq ls --json --watch --count 3      one line each
    """
    view = Watch(Server(url), queues)
    out = console()
    with until_interrupted(watch):
        for seen in looks(view.look, watch=watch, interval=interval, count=count):
            if isinstance(seen, Unavailable):
                print_lost(seen, as_json=as_json)
            elif as_json:
                (print_line if watch else print_json)(view.to_json(seen))
            else:
                if watch:
                    out.clear()
                    click.echo(time.strftime("%H:%M:%S"))
                print_seen(view, seen, out)
            for name, error in () if watch or isinstance(seen, Unavailable) else seen.unreadable.items():
                if name in view.named:
                    raise error


def print_seen(view: Watch, seen: Seen, out: Any) -> None:
    """One look, as text."""
    if seen.queues:
        out.print(_table(list(seen.queues.values()), view.traces, out.width))
    elif not seen.unreadable:
        click.echo("no queues on this server; enqueueing, or a worker, creates one")
    for name, error in seen.unreadable.items():
        out.print(f"! {name}: {printable(str(error), 500)}")
    for name, stats in seen.queues.items():
        for one in of_queue(stats, view.traces[name]):
            if one.code != "fill":  # the bar says so
                out.print(f"! {name}: {one.text}")
    out.print(seen.memory.text())
    for one in view.warnings(seen):
        if one.code not in ("maxmemory_unset", "memory_unknown"):  # the line before says so
            out.print(f"! {one.text}")


def _table(found: list[Stats], traces: dict[str, Trace], width: int) -> Any:
    """One row a queue; the bars, limits and sizes in full only where they fit."""
    from rich.table import Table

    wide = width >= 140
    rated = any(traces[one.name].rates() for one in found)
    table = Table(box=None, pad_edge=False)
    table.add_column("queue", overflow="fold")
    for title in ("full", "jobs", *(("bytes",) if wide or not rated else ())):
        table.add_column(title, no_wrap=True)
    for title in ("ready", "active", "sched.", "dead", "oldest") if wide or not rated else ("active", "dead", "oldest"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("in/s", "out/s") if rated else ():
        table.add_column(title, justify="right", no_wrap=True)
    if rated:
        table.add_column("forecast", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in found:
        most = int(one.limits.max_bytes)
        cells = [
            one.name,
            bar(one.fill, 10 if wide else 5),
            f"{one.jobs} of {one.limits.max_jobs}" if wide else str(one.jobs),
        ]
        if wide or not rated:
            cells.append(f"{format_size(one.bytes)} of {format_size(most)}" if wide else format_size(one.bytes))
            cells += [str(one.ready), str(one.active), str(one.scheduled), str(one.dead)]
        else:
            cells += [str(one.active), str(one.dead)]
        cells.append(duration(one.oldest_age) if one.oldest_age else "-")
        if rated:
            rates = traces[one.name].rates()
            cells += [number(rates.arrived.value), number(rates.left.value)] if rates else ["-", "-"]
            cells.append(short(traces[one.name].forecast()))
        switches = (("paused", one.paused_since), ("sealed", one.sealed_since))
        cells.append(" ".join(word for word, since in switches if since))
        table.add_row(*cells)
    return table
