"""``boundq stats``."""

from __future__ import annotations

import time
from typing import Any

import click

from boundq import Server, Stats
from boundq._rates import Estimate, Trace
from boundq._sizes import duration, format_size
from boundq.cli._forecast import bounds, sentence
from boundq.cli._shared import bar, console, json_option, print_json, queue_argument, server_options
from boundq.cli._warnings import number, of_queue
from boundq.cli._watch import Watch, looks, print_line, print_lost, queue_to_json, until_interrupted, watch_options
from boundq.errors import Unavailable


@click.command("stats")
@queue_argument
@watch_options
@server_options
@json_option
def command(queue: str, url: str | None, as_json: bool, interval: float | None, watch: bool, count: int | None) -> None:
    """
    Show one queue in numbers: what it holds, its limits, what became of its jobs, and what is wrong.

    Rates and a forecast need two looks: --interval. They come with bounds, two standard deviations of what is left to
    chance, and "unknown" means that too little moved to say.

    Exit code 0; 65: there is no such queue; 69: no answer.

    \b
    Examples:
      boundq stats emails
      boundq stats emails --interval 5
      boundq stats emails --watch
      boundq stats emails --json | jq .oldest_age
    """
    view = Watch(Server(url), [queue])
    out = console()
    with until_interrupted(watch):
        for seen in looks(view.look, watch=watch, interval=interval, count=count):
            if isinstance(seen, Unavailable):
                print_lost(seen, as_json=as_json)
                continue
            for error in seen.unreadable.values():
                raise error
            stats, trace = seen.queues[queue], view.traces[queue]
            if as_json:
                (print_line if watch else print_json)(queue_to_json(stats, trace))
                continue
            if watch:
                out.clear()
                click.echo(time.strftime("%H:%M:%S"))
            for row in rows(stats, trace):
                out.print(row)


def rows(stats: Stats, trace: Trace) -> list[Any]:
    """All there is to say about a queue, as rich prints it."""
    from rich.table import Table

    held = Table(box=None, pad_edge=False, show_header=False)
    most, most_dead = int(stats.limits.max_bytes), int(stats.limits.max_dead_bytes)
    held.add_row("jobs", bar(stats.jobs / stats.limits.max_jobs, 20), f"{stats.jobs} of {stats.limits.max_jobs}")
    held.add_row(
        "bytes", bar(stats.bytes / most, 20), f"{format_size(stats.bytes)} of {format_size(most)} (as charged)"
    )
    held.add_row(
        "dead",
        bar(max(stats.dead / stats.limits.max_dead_jobs, stats.dead_bytes / most_dead), 20),
        f"{stats.dead} of {stats.limits.max_dead_jobs}, {format_size(stats.dead_bytes)} of {format_size(most_dead)}",
    )
    gone = (stats.acked, stats.dead, stats.cancelled, stats.expired, stats.dropped, stats.purged, stats.jobs)
    names = ("acked", "dead", "cancelled", "expired", "dropped", "purged", "held")
    ledger = " + ".join(f"{number} {name}" for number, name in zip(gone, names, strict=True))
    refused = ", ".join(f"{count} {reason}" for reason, count in stats.rejected.items() if count) or "none"
    found: list[Any] = [
        f"queue {stats.name}",
        held,
        f"states     {stats.ready} ready, {stats.active} active, {stats.scheduled} scheduled",
        f"oldest     {duration(stats.oldest_age) if stats.oldest_age else '-'}",
        f"drain      {'unknown' if stats.drain_rate is None else f'{stats.drain_rate:.1f} jobs/s'}",
        *_moving(trace),
        f"ledger     {stats.admitted} admitted = {ledger}"
        + (f"; {stats.imbalance} UNACCOUNTED FOR, see `boundq audit`" if stats.imbalance else ""),
        f"refused    {refused}",
        f"deliveries {stats.deliveries} claimed, {stats.retried} retried, {stats.released} released, "
        f"{stats.leases_expired} leases expired, {stats.leases_lost} settled too late",
    ]
    found += [f"warning    {one.text}" for one in of_queue(stats, trace)]
    return found


def _moving(trace: Trace) -> list[str]:
    rates, forecast = trace.rates(), trace.forecast()
    if rates is None:
        return ["rates      unknown: they need two looks (--interval 5)"]
    return [
        f"rates      {_rate(rates.arrived)} in, {_rate(rates.left)} out, {_rate(rates.claimed)} claimed a second, "
        f"over {duration(rates.seconds)}",
        f"forecast   {sentence(forecast)}",
        f"wait       {f'{duration(forecast.wait.value)} {bounds(forecast.wait)}' if forecast.wait else 'unknown'}",
    ]


def _rate(one: Estimate) -> str:
    return f"{number(one.value)} ({number(one.low)} to {number(one.high or one.value)})"
