"""One page of jobs, as JSON or as a table, with a word on how to go on."""

from __future__ import annotations

import sys
from typing import Any

import click

from boundq.cli._jobs import RIGHT, columns, summary
from boundq.cli._shared import console, print_json
from boundq.model import Job


def listing(found: list[Job], after: str | None, looked: int, *, as_json: bool, **more: Any) -> None:
    """Print it. In JSON, ``more`` comes first."""
    if as_json:
        print_json({**more, "jobs": [summary(job) for job in found], "after": after, "looked_at": looked})
        return
    if found:
        _table(*columns(found))
    elif not looked:
        click.echo(f"no {more['state']} jobs in {more['queue']}")
    else:
        click.echo(f"none of the {looked} jobs looked at")
    if after is not None:
        click.echo(f"there is more: go on with --after {after}", err=True)


def _table(titles: list[str], rows: list[list[str]]) -> None:
    """As wide as the terminal; in a pipe in full, and without the cost of fitting it to anything."""
    if not sys.stdout.isatty():
        lines = [titles, *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = zip(titles, line, widths, strict=True)
            padded = (text.rjust(width) if title in RIGHT else text.ljust(width) for title, text, width in cells)
            click.echo("  ".join(padded).rstrip())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True)  # what is left of the width is the calls'
    for title in titles:
        if title in ("call", "error"):
            table.add_column(title, no_wrap=True, overflow="ellipsis", ratio=3 if title == "call" else 2)
        else:
            table.add_column(title, no_wrap=True, justify="right" if title in RIGHT else "left")
    for row in rows:
        table.add_row(*row)
    console().print(table)
