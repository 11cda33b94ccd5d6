"""``boundq purge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from boundq import Server
from boundq._sizes import format_size
from boundq.cli._moving import STATES, cannot_write, moving, priorities, states_of
from boundq.cli._shared import (
    a_duration,
    ask,
    dry_run_option,
    json_option,
    print_json,
    queue_argument,
    server_options,
    yes_option,
)
from boundq.cli._text import printable


@click.command("purge")
@queue_argument
@click.option(
    "--to",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the jobs here, and flush them, before they are deleted. FILE.zst is compressed.",
)
@click.option("--discard", is_flag=True, help="Delete them for good, without a file.")
@click.option("--task", metavar="NAME", help="Only jobs of this task.")
@click.option("--older-than", type=a_duration, metavar="AGE", help="Only those admitted that long ago: 90s, 15m, 2h.")
@click.option("--priority", type=priorities, help="Only those of this priority.")
@click.option(
    "--state",
    "states",
    type=click.Choice([*STATES, "all"]),
    multiple=True,
    help="In this state; may be repeated. Default: ready and scheduled. The leases of active ones are lost.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="So many at most, in the order of peek.")
@yes_option
@dry_run_option
@server_options
@json_option
def command(
    queue: str,
    path: Path | None,
    discard: bool,
    states: tuple[str, ...],
    url: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """
    Move jobs out of QUEUE into a file, from which `boundq restore` puts them back.

    Works while the server is at maxmemory, and in steps so short that workers and producers do not notice. However it
    is interrupted, no job is lost or doubled: the same command goes on. A finished file is not written again.

    The file is NDJSON: a header, and a line for each job, each with a checksum. FILE.zst needs the extra zstd.

    \b
    Examples:
      boundq purge emails --to emails.ndjson.zst
      boundq purge emails --to old.ndjson --task send --older-than 2h --dry-run
      boundq purge emails --to dead.ndjson --state dead --yes
      boundq purge emails --discard --priority low --limit 1000
    """
    if (path is not None) == discard and not dry_run:
        raise click.UsageError("give --to FILE, or --discard to delete the jobs for good")
    target = Server(url).queue(queue)
    chosen = states_of(states) or ("ready", "scheduled")
    stats = target.stats()
    there = sum(int(getattr(stats, state)) for state in chosen)
    if dry_run:
        with moving("count", there) as step:
            found = target.matching(*chosen, **filters, progress=step)
        if as_json:
            print_json({"queue": queue, "matching": found.jobs, "bytes": found.bytes, "dry_run": True})
        else:
            click.echo(f"{found.jobs} jobs, {format_size(found.bytes)}, would be purged; nothing was changed")
        return
    narrowed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in filters.items() if value is not None)
    which = f"those of {there} {' and '.join(chosen)} jobs with {narrowed}" if narrowed else f"{there} jobs"
    if path is not None:
        ask(f"Move {which} out of queue {queue} into {printable(str(path))}?", yes=yes)
    else:
        ask(f"Delete {which} of queue {queue} for good, without a file?", yes=yes)
    try:
        with moving("purge", there) as step:
            moved = target.purge(*chosen, to=path, **filters, progress=step)
    except OSError as error:
        cannot_write(path, error, "what was deleted is in the file; with room for it, the same command goes on")
    size = path.stat().st_size if path is not None else None
    if as_json:
        shown = str(path) if path is not None else None
        print_json({"queue": queue, "purged": moved, "file": shown, "file_bytes": size, "dry_run": False})
    elif path is None:
        click.echo(f"{moved} jobs deleted")
    else:
        name = printable(str(path))
        click.echo(f"{moved} jobs moved into {name} ({format_size(size or 0)}); `boundq restore {name}` puts them back")
