"""``boundq stats``."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from boundq import Server, Stats
from boundq._sizes import format_size
from boundq.cli._shared import bar, console, json_option, print_json, server_options
from boundq.cli._text import duration, printable


@click.command("stats")
@click.argument("queue")
@server_options
@json_option
def command(queue: str, url: str | None, as_json: bool) -> None:
    """
    Show one queue in numbers: what it holds, its limits, and what became of its jobs.

    \b
    Examples:
      boundq stats emails
      boundq stats emails --json | jq .oldest_age
    """
    stats = Server(url).queue(queue).stats()
    if as_json:
        print_json(to_json(stats))
    else:
        out = console()
        for row in _rows(stats):
            out.print(row)


def to_json(stats: Stats) -> dict[str, Any]:
    """All fields of `Stats`, ``fill`` and ``imbalance``; sizes in bytes, times in seconds."""
    return {
        **msgspec.structs.asdict(stats),
        "limits": {name: getattr(stats.limits, name) for name in stats.limits.to_fields()},
        "fill": round(stats.fill, 4),
        "imbalance": stats.imbalance,
    }


def _rows(stats: Stats) -> list[Any]:
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
    rows = [
        f"queue {stats.name}",
        held,
        f"states     {stats.ready} ready, {stats.active} active, {stats.scheduled} scheduled",
        f"oldest     {duration(stats.oldest_age) if stats.oldest_age else '-'}",
        f"drain      {'unknown' if stats.drain_rate is None else f'{stats.drain_rate:.1f} jobs/s'}",
        f"ledger     {stats.admitted} admitted = {ledger}"
        + (f"; {stats.imbalance} UNACCOUNTED FOR, see `boundq audit`" if stats.imbalance else ""),
        f"refused    {refused}",
        f"deliveries {stats.deliveries} claimed, {stats.retried} retried, {stats.released} released, "
        f"{stats.leases_expired} leases expired, {stats.leases_lost} settled too late",
    ]
    for word, since, by in (
        ("paused", stats.paused_since, stats.paused_by),
        ("sealed", stats.sealed_since, stats.sealed_by),
    ):
        if since:
            rows.append(f"{word:10} since {_when(since)}{f', by {printable(by)}' if by else ''}")
    return rows


def _when(since: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
