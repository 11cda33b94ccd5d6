"""``boundq reap``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from boundq import Queue, Server, Stats
from boundq.cli._shared import dry_run_option, json_option, on_each, print_json, queue_names, server_options
from boundq.model import Job

# Jobs of one step: claimed, and given back.
STEP = 100


@click.command("reap")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=queue_names)
@dry_run_option
@server_options
@json_option
def command(queues: tuple[str, ...], dry_run: bool, url: str | None, as_json: bool) -> None:
    """
    Take jobs out of the hands of dead workers, where no worker is alive to do it.

    Claims do this by themselves, so with any one worker alive there is nothing to do. It claims as a worker would and
    gives the jobs back at once: those whose lease has expired are due again, as if released, and the lost lease counts;
    those that have lost too many are buried. Queues: by default all.

    Exit code 0; 65: a queue cannot be read, which is said, and the others were done.

    \b
    Examples:
      boundq reap emails
      boundq reap --dry-run
      boundq reap --json
    """
    server = Server(url)
    rows, code = on_each(
        queues or tuple(server.queues()), lambda name: (_look if dry_run else _reap)(server.queue(name))
    )
    if as_json:
        print_json({"queues": rows})
        sys.exit(code)
    for row in rows:
        if row["paused"]:
            click.echo(f"{row['name']}: paused, nothing was done (boundq resume {row['name']})")
            continue
        done = f"{row['leases']} leases have expired, nothing was done"
        if not dry_run:
            done = f"{row['leases']} leases had expired, {row['buried']} jobs were buried"
        click.echo(f"{row['name']}: {done}; {row['ready'] + row['scheduled']} wait, {row['active']} active")
    if not rows and not code:
        click.echo("no queues on this server")
    sys.exit(code)


def _look(queue: Queue) -> dict[str, Any]:
    now = queue.stats()
    overdue, page = 0, queue.peek("active", STEP)
    while True:
        overdue += _overdue(page.jobs, now.at)
        if page.after is None:
            return _row(now, overdue, 0)
        page = queue.peek("active", STEP, page.after)


def _reap(queue: Queue) -> dict[str, Any]:
    before = now = queue.stats()
    while not now.paused_since:
        # Expired leases come first in a claim: one for just so many touches no other job.
        overdue = _overdue(queue.peek("active", STEP).jobs, now.at)
        if not overdue:
            break
        queue.settle(releases=queue.claim(overdue))
        last, now = now, queue.stats()
        if now.leases_expired == last.leases_expired:
            break  # somebody else was quicker
    return _row(now, now.leases_expired - before.leases_expired, now.buried - before.buried)


def _overdue(jobs: Sequence[Job], at: float) -> int:
    return sum(1 for job in jobs if job.due is not None and job.due <= at)


def _row(now: Stats, leases: int, buried: int) -> dict[str, Any]:
    return {
        "name": now.name,
        "paused": now.paused_since is not None,
        "leases": leases,
        "buried": buried,
        "ready": now.ready,
        "scheduled": now.scheduled,
        "active": now.active,
    }
