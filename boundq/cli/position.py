"""``boundq position``."""

from __future__ import annotations

import click

from boundq import Server
from boundq._sizes import duration
from boundq.cli._shared import json_option, print_json, queue_argument, server_options
from boundq.cli._text import when
from boundq.cli.show import absent


@click.command("position")
@queue_argument
@click.argument("job_id", metavar="ID")
@server_options
@json_option
def command(queue: str, job_id: str, url: str | None, as_json: bool) -> None:
    """
    Say how many ready jobs of its priority come before a job, at most, and about how long that takes.

    Exit code 1: there is no such job (any more).

    \b
    Examples:
      boundq position emails 25
      boundq position emails 25 --json | jq .ahead
    """
    target = Server(url).queue(queue)
    job = target.get(job_id)
    if job is None:
        return absent(queue, job_id, None)
    rate = target.stats().drain_rate
    wait = job.ahead / rate if job.ahead is not None and rate else None
    if as_json:
        print_json({"queue": queue, "id": job.id, "state": job.state, "ahead": job.ahead, "wait": wait})
    elif job.ahead is None:
        word = {"scheduled": "due", "active": "lease ends", "dead": "buried"}[job.state]
        click.echo(f"job {job.id} is {job.state}, {word} {when(job.due or 0, job.seen)}")
    else:
        about = f"about {duration(wait)} at the present rate" if wait is not None else "the drain rate is unknown"
        click.echo(f"job {job.id} is ready, {job.ahead} before it in priority {job.priority}; {about}")
    return None
