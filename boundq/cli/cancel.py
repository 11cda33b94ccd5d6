"""``boundq cancel``."""

from __future__ import annotations

import sys

import click

from boundq import Server
from boundq.cli._exit import ABSENT
from boundq.cli._shared import ask, dry_run_option, json_option, print_json, queue_argument, server_options, yes_option
from boundq.cli._text import printable


@click.command("cancel")
@queue_argument
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@yes_option
@dry_run_option
@server_options
@json_option
def command(queue: str, job_ids: tuple[str, ...], yes: bool, dry_run: bool, url: str | None, as_json: bool) -> None:
    """
    Take jobs out of a queue, whatever their state. A worker that runs one is told that its lease is lost.

    It cannot be undone; `boundq purge --to FILE` can. Exit code 1: none of them was there.

    \b
    Examples:
      boundq cancel emails 25 --yes
      boundq cancel emails 25 33 41 --dry-run
    """
    target, ids = Server(url).queue(queue), list(dict.fromkeys(job_ids))
    if dry_run:
        here = [job_id for job_id in ids if target.get(job_id) is not None]
    else:
        target.stats()  # ask about a queue that is there
        ask(f"Cancel {len(ids)} job{'s' * (len(ids) > 1)} of {queue}?", yes=yes)
        here = [job_id for job_id in ids if target.cancel(job_id)]
    gone = [job_id for job_id in ids if job_id not in set(here)]
    if as_json:
        print_json({"queue": queue, "dry_run": dry_run, "cancelled": here, "absent": gone})
    else:
        for job_id in here:
            click.echo(f"job {job_id} {'would be cancelled' if dry_run else 'cancelled'}")
        for job_id in gone:
            click.echo(f"job {printable(job_id, 40)}: there is none of this id", err=True)
    if not here:
        sys.exit(ABSENT)
