"""``boundq restore``."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from boundq import Queue
from boundq.cli._exit import FULL
from boundq.cli._moving import STATES, cannot_write, moving, states_of
from boundq.cli._shared import (
    a_duration,
    a_rate,
    a_share,
    ask,
    dry_run_option,
    json_option,
    print_json,
    queue_names,
    server_options,
    yes_option,
)
from boundq.cli._text import printable
from boundq.model import Restored
from boundq.sync.archive import queue_of

# Damaged lines that are shown one by one.
_SHOWN = 20


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--queue",
    "queue",
    metavar="NAME",
    shell_complete=queue_names,
    help="Into this queue; by default the one they came from.",
)
@click.option(
    "--state",
    "states",
    type=click.Choice([*STATES, "all"]),
    multiple=True,
    help="Those of this state; may be repeated. Default: all but the dead. A dead letter comes back to be run.",
)
@click.option("--rate", type=a_rate, metavar="RATE", help="Not faster than that: 500/s, 30/min.")
@click.option("--wait", type=a_duration, metavar="TIME", help="Wait that long for room, each time there is none.")
@click.option("--until-full", is_flag=True, help="Put back what fits; the rest is no failure.")
@click.option("--until-fill", type=a_share, metavar="SHARE", help="The same, up to this share of the limits: 80%.")
@click.option("--create/--no-create", default=False, help="Create the queue, with default limits, if there is none.")
@yes_option
@dry_run_option
@server_options
@json_option
def command(
    file: Path,
    queue: str | None,
    states: tuple[str, ...],
    rate: float | None,
    wait: float | None,
    until_full: bool,
    until_fill: float | None,
    create: bool,
    dry_run: bool,
    yes: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Put the jobs of a purge's FILE back, under the limits of the queue, each once.

    However often it is run or interrupted, no job is lost or doubled: FILE.restored notes what is back. Jobs keep
    payload, headers, priority, due time, expiry and age; their first id is in the header boundq-restored.

    Exit code 75: the queue would not take all of them; 65: some lines are damaged, the rest is back.

    \b
    Examples:
      boundq restore emails.ndjson.zst
      boundq restore emails.ndjson.zst --rate 500/s --wait 10m --yes
      boundq restore dead.ndjson --state dead --queue emails --until-fill 80%
      boundq restore emails.ndjson.zst --dry-run
    """
    if wait is not None and (until_full or until_fill is not None):
        raise click.UsageError("give --wait, or --until-full or --until-fill, not both")
    try:
        name = queue or queue_of(file)
        target = Queue(name, url, create=create)
        which = states_of(states)
        survey = target.restore(file, *which, dry_run=True)
        if dry_run:
            _say(survey, name, file, as_json=as_json, dry_run=True)
            sys.exit(65 if survey.damaged else 0)
        if survey.left:
            ask(f"Put {survey.left} jobs back into queue {name}?", yes=yes)
        with moving("restore", survey.left) as step:
            said = target.restore(
                file,
                *which,
                rate=rate,
                wait=wait or 0.0,
                until_fill=until_fill or 1.0,
                progress=lambda done, total: step(done, done),
            )
    except OSError as error:
        cannot_write(error.filename or file, error, "with that mended, the same command goes on")
    _say(said, name, file, as_json=as_json, dry_run=False)
    if said.left and said.reason and not until_full and until_fill is None:
        sys.exit(FULL)
    sys.exit(65 if said.damaged or said.large else 0)


def _say(said: Restored, queue: str, file: Path, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_json({"queue": queue, **msgspec.structs.asdict(said), "dry_run": dry_run})
        return
    name = printable(str(file))
    if dry_run:
        click.echo(f"{said.left} jobs would be put back into {queue}, {said.before} are back already")
    else:
        click.echo(f"{said.restored} jobs put back into {queue}, {said.before} were back already, {said.left} are left")
    for count, text in (
        (said.duplicates, "of them have a unique key that another job holds by now, which stands for them"),
        (said.unsure, "of them may be in the queue twice: the server has forgotten what became of the last step"),
        (said.large, "are larger than max_job_bytes allows: raise it (`boundq limits set`), and restore again"),
        (said.dead, f"dead letters stay in the file: `boundq restore {name} --state dead` puts them back, to be run"),
    ):
        if count:
            click.echo(f"{count} {text}")
    if said.unfinished:
        click.echo("the purge into this file did not come to its end; what it had deleted is put back")
    for text in said.damaged[:_SHOWN]:
        click.echo(f"boundq: {name}: {printable(text, 300)}", err=True)
    if len(said.damaged) > _SHOWN:
        click.echo(f"boundq: {name}: {len(said.damaged) - _SHOWN} more places cannot be read", err=True)
    if said.reason:
        click.echo(
            f"boundq: stopped: {printable(said.reason, 500)}; {said.left} are left: the same command goes on "
            "(--wait waits for room)",
            err=True,
        )
