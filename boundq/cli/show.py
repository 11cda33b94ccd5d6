"""``boundq show``."""

from __future__ import annotations

import sys

import click

from boundq import Server
from boundq.cli._exit import ABSENT
from boundq.cli._jobs import details, in_full
from boundq.cli._shared import json_option, print_json, queue_argument, server_options
from boundq.cli._text import printable
from boundq.model import Job


@click.command("show")
@queue_argument
@click.argument("job_id", metavar="ID")
@click.option("--raw", is_flag=True, help="The payload's bytes as they are; into a pipe or file only.")
@server_options
@json_option
def command(queue: str, job_id: str, raw: bool, url: str | None, as_json: bool) -> None:
    """
    Show all there is to know of one job, whatever its state.

    Times are in UTC by the server's clock. Exit code 1: there is no such job (any more).

    \b
    Examples:
      boundq show emails 25
      boundq show emails 25 --json | jq .args
      boundq show emails 25 --raw | xxd
    """
    show_job(queue, job_id, url, raw=raw, as_json=as_json)


def show_job(queue: str, job_id: str, url: str | None, *, raw: bool, as_json: bool, dead: bool = False) -> None:
    """Print the job, or exit; ``dead``: dead letters only."""
    if raw and sys.stdout.isatty():
        raise click.UsageError("--raw could steer the terminal: send it into a pipe or a file")
    job = Server(url).queue(queue).get(job_id)
    if job is None or (dead and job.state != "dead"):
        absent(queue, job_id, job)
    elif raw:
        sys.stdout.buffer.write(job.payload)
    elif as_json:
        print_json({"queue": queue, **in_full(job)})
    else:
        for name, text in details(job):
            click.echo(f"{name:10}  {text}".rstrip())


def absent(queue: str, job_id: str, job: Job | None) -> None:
    """Say so, and exit."""
    what = "there is no such job; it may be done" if job is None else f"it is {job.state}, no dead letter"
    click.echo(f"boundq: job {printable(job_id, 40)} of {queue}: {what}", err=True)
    sys.exit(ABSENT)
