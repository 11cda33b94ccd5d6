"""``boundq ls``."""

from __future__ import annotations

from typing import Any

import click

from boundq import Server, Stats
from boundq._sizes import format_size
from boundq.cli._shared import bar, console, json_option, print_json, server_options
from boundq.cli._text import duration
from boundq.cli.stats import to_json


@click.command("ls")
@server_options
@json_option
def command(url: str | None, as_json: bool) -> None:
    """
    List the queues of a server, and how full they are.

    \b
    Examples:
      boundq ls
      boundq ls --json | jq '.queues[] | select(.fill > 0.8) | .name'
    """
    server = Server(url)
    found = [server.queue(name).stats() for name in server.queues()]
    memory = server.info("memory")
    if as_json:
        print_json({"queues": [to_json(stats) for stats in found], "server": _memory(memory)})
        return
    out = console()
    if found:
        out.print(_table(found, out.width))
    else:
        click.echo("no queues on this server; enqueueing, or a worker, creates one")
    used = _memory(memory)
    if used["max"]:
        out.print(f"server memory {format_size(used['used'])} of {format_size(used['max'])} ({used['policy']})")
    elif used["used"]:
        out.print(f"server memory {format_size(used['used'])}, no maxmemory set")


def _memory(info: dict[str, str]) -> dict[str, Any]:
    return {
        "used": int(info.get("used_memory", 0)),
        "max": int(info.get("maxmemory", 0)),
        "policy": info.get("maxmemory_policy", "unknown"),
    }


def _table(found: list[Stats], width: int) -> Any:
    """One row a queue; the bars and limits in full only where they fit."""
    from rich.table import Table

    wide = width >= 120
    table = Table(box=None, pad_edge=False)
    table.add_column("queue", overflow="fold")
    for title in ("full", "jobs", "bytes"):
        table.add_column(title, no_wrap=True)
    for title in ("ready", "active", "sched.", "dead", "oldest"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in found:
        most = int(one.limits.max_bytes)
        table.add_row(
            one.name,
            bar(one.fill, 10 if wide else 5),
            f"{one.jobs} of {one.limits.max_jobs}" if wide else str(one.jobs),
            f"{format_size(one.bytes)} of {format_size(most)}" if wide else format_size(one.bytes),
            *(str(number) for number in (one.ready, one.active, one.scheduled, one.dead)),
            duration(one.oldest_age) if one.oldest_age else "-",
            " ".join(word for word, since in (("paused", one.paused_since), ("sealed", one.sealed_since)) if since),
        )
    return table
