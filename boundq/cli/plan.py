"""``boundq plan``."""

from __future__ import annotations

import re
from typing import Any

import click

from boundq import Limits, Server, Stats
from boundq._charge import COSTS
from boundq._ops.plan import Fit, Plan, QueuePlan, fit, plan, to_json
from boundq._sizes import format_size, parse_size
from boundq.cli._shared import Number, console, json_option, print_json, server_options
from boundq.errors import ConfigError

_COUNT = re.compile(r"([0-9]{1,15})([kKmM]?)\Z")
_DEFAULT_SIZES = ("100 B", "1 KiB", "10 KiB", "100 KiB")


def _count(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number of jobs: ``250``, ``100k``, ``2M``."""
    del context, parameter
    if value is None:
        return None
    match = _COUNT.match(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no number of jobs; write 250, 100k or 2M")
    return int(match[1]) * {"": 1, "k": 1000, "m": 1_000_000}[match[2].lower()]


@click.command("plan")
@click.option("--max-jobs", callback=_count, metavar="N", help="Of the queue, such as 100k. Default: 100000.")
@click.option("--max-bytes", metavar="SIZE", help="Of the queue, such as 64MiB. Default: 64 MiB.")
@click.option("--max-dead-bytes", metavar="SIZE", help="Of the queue. Default: 16 MiB.")
@click.option("--max-job-bytes", metavar="SIZE", help="Of the queue. Default: 256 KiB.")
@click.option("--queues", default=1, show_default=True, type=click.IntRange(1), help="So many queues like this one.")
@click.option("--existing", is_flag=True, help="The queues of a server instead, with their limits.")
@click.option("--payload", "payloads", multiple=True, metavar="SIZE", help="A job's payload; several if given again.")
@click.option("--around", default="32", show_default=True, metavar="SIZE", help="Bytes of task name and headers.")
@click.option("--clients", default=50, show_default=True, type=click.IntRange(0), help="Connections, at the most.")
@click.option("--batch", default=10, show_default=True, type=click.IntRange(1), help="Jobs that each has under way.")
@click.option("--foreign", metavar="SIZE", help="Other data on the server.")
@click.option("--backlog", metavar="SIZE", help="repl-backlog-size, where there are replicas.")
@click.option(
    "--copy-on-write",
    default=0.5,
    show_default=True,
    type=Number(0, 1),
    help="Share of the data written to while it saves; 0: it never saves.",
)
@click.option("--allocator", type=click.Choice(sorted(COSTS)), default="jemalloc", help="Of the server's build.")
@server_options
@json_option
def command(
    max_jobs: int | None,
    max_bytes: str | None,
    max_dead_bytes: str | None,
    max_job_bytes: str | None,
    queues: int,
    existing: bool,
    payloads: tuple[str, ...],
    around: str,
    clients: int,
    batch: int,
    foreign: str | None,
    backlog: str | None,
    copy_on_write: float,
    allocator: str,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Reckon how much memory a server needs for its queues, and how many jobs of a size they hold.

    Needs no server, but for --existing. Sizes are as "64MiB" (2^20) or "64MB" (10^6).

    \b
    Examples:
      boundq plan --max-jobs 100k --max-bytes 64MiB --payload 1KiB
      boundq plan --queues 12 --clients 400 --json | jq .maxmemory
      boundq plan --existing
    """
    given = {
        "max_jobs": max_jobs,
        "max_bytes": max_bytes,
        "max_dead_bytes": max_dead_bytes,
        "max_job_bytes": max_job_bytes,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if existing and changed:
        raise click.UsageError("--existing takes the limits from the server: leave the others out")
    sizes = [parse_size(size, "--payload") for size in payloads or _DEFAULT_SIZES]
    beside = 0 if around == "0" else parse_size(around, "--around")
    if existing:
        every = _of_server(Server(url))
        if not every:
            raise ConfigError("--existing", "a server", "there are no queues on it")
    else:
        every = [QueuePlan("", Limits(**changed), COSTS[allocator])] * queues  # type: ignore[arg-type]  # by name
    fits = [fit(every[0], size, beside) for size in sizes] if not existing else []
    found = plan(
        every,
        clients=clients,
        batch_bytes=batch * (_average(every) if existing else max(sizes)),
        foreign=parse_size(foreign, "--foreign") if foreign else 0,
        backlog=parse_size(backlog, "--backlog") if backlog else 0,
        forks=copy_on_write,
    )
    if as_json:
        print_json(to_json(found, fits, every if existing else every[:1]))
        return
    out = console()
    if existing:
        out.print(_queues(every))
    else:
        out.print(_fits(fits, every[0]))
    for line in _sum(found):
        out.print(line)


def _of_server(server: Server) -> list[QueuePlan]:
    every = []
    for name, stats in server.stats(server.queues()).items():
        if not isinstance(stats, Stats):
            raise stats  # a sum without it would promise too much
        every.append(QueuePlan(name, stats.limits, held=stats.jobs, held_bytes=stats.bytes))
    return every


def _average(queues: list[QueuePlan]) -> int:
    """Bytes of a job, as they are held now; a kibibyte where none is."""
    held = sum(queue.held for queue in queues)
    return round(sum(queue.held_bytes for queue in queues) / held) if held else 1024


def _queues(queues: list[QueuePlan]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("queue", overflow="fold")
    for title in ("budget", "max_bytes", "max_dead_bytes", "held", "a job now"):
        table.add_column(title, justify="right", no_wrap=True)
    for queue in queues:
        table.add_row(
            queue.name,
            format_size(queue.budget),
            format_size(int(queue.limits.max_bytes)),
            format_size(int(queue.limits.max_dead_bytes)),
            str(queue.held),
            format_size(queue.held_bytes / queue.held) if queue.held else "-",
        )
    return table


def _fits(fits: list[Fit], queue: QueuePlan) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("payload", "charge", "jobs that fit", "ends at", f"max_bytes for {queue.limits.max_jobs} jobs"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in fits:
        ends = {"jobs": "max_jobs", "bytes": "max_bytes", "job_bytes": "max_job_bytes: refused"}[one.limit]
        table.add_row(format_size(one.payload), f"{one.charge} B", str(one.jobs), ends, format_size(one.needed))
    return table


def _sum(found: Plan) -> list[str]:
    rows = [f"  {part.name:14} {format_size(part.bytes):>10}   {part.how}" for part in found.parts]
    extra = [f"  {part.name:14} {format_size(part.bytes):>10}   {part.how}" for part in found.extra]
    mebibytes = -(-found.maxmemory // 2**20)
    return [
        "",
        "used_memory at its worst:",
        *rows,
        f"  {'sum':14} {format_size(found.used):>10}",
        "",
        f"maxmemory        {format_size(found.maxmemory):>10}   the sum, or budgets / 75 %: whichever is more",
        *extra,
        f"RAM of the server{format_size(found.ram):>10}",
        "",
        f"to type: CONFIG SET maxmemory {mebibytes}mb; CONFIG SET maxmemory-policy noeviction; CONFIG REWRITE",
    ]
