"""One page of jobs, as JSON or as a table, with a word on how to go on."""

from __future__ import annotations

from typing import Any

import click

from boundq.cli._jobs import summary, table
from boundq.cli._shared import console, print_json
from boundq.model import Job


def listing(found: list[Job], after: str | None, looked: int, *, as_json: bool, **more: Any) -> None:
    """Print it. In JSON, ``more`` comes first."""
    if as_json:
        print_json({**more, "jobs": [summary(job) for job in found], "after": after, "looked_at": looked})
        return
    if found:
        console().print(table(found))
    elif not looked:
        click.echo(f"no {more['state']} jobs in {more['queue']}")
    else:
        click.echo(f"none of the {looked} jobs looked at")
    if after is not None:
        click.echo(f"there is more: go on with --after {after}", err=True)
