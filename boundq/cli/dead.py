"""``boundq dead``: what to do with dead letters."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Literal

import click

from boundq import Queue, Server
from boundq.cli._exit import ABSENT, FULL
from boundq.cli._export import write
from boundq.cli._listing import listing
from boundq.cli._progress import progress
from boundq.cli._select import all_dead, dead_filters, matcher, page, paging
from boundq.cli._shared import (
    a_rate,
    ask,
    dry_run_option,
    json_option,
    print_json,
    queue_argument,
    server_options,
    yes_option,
)
from boundq.cli._text import printable
from boundq.cli.show import show_job
from boundq.errors import BoundqError

# Jobs in one step, and steps a second when a rate is given.
STEP, STEPS = 100, 5


@click.group("dead")
def command() -> None:
    """
    Look at dead letters, put them back to work, drop or export them.

    A dead letter is a job that was buried: it failed too often, could not be run, or its handler said so. `boundq
    stats` counts them; beyond their limits the oldest are dropped.

    \b
    Examples:
      boundq dead ls emails
      boundq dead retry emails --all --task send --rate 100/s
    """


@command.command("ls", short_help="List dead letters.")
@queue_argument
@dead_filters
@paging
@server_options
@json_option
def ls(
    queue: str,
    task: str | None,
    error: str | None,
    older_than: float | None,
    limit: int,
    after: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """
    List dead letters, the oldest first.

    A filter looks at 2,000 of them, and says where to go on.

    \b
    Examples:
      boundq dead ls emails
      boundq dead ls emails --task send --error timeout --older-than 2h
      boundq dead ls emails --json | jq -r '.jobs[] | [.id, .reason] | @tsv'
    """
    found, further, looked = page(Server(url).queue(queue), "dead", matcher(task, error, older_than), limit, after)
    listing(found, further, looked, as_json=as_json, queue=queue, state="dead")


@command.command("show", short_help="Show one dead letter.")
@queue_argument
@click.argument("job_id", metavar="ID")
@click.option("--raw", is_flag=True, help="The payload's bytes as they are; into a pipe or file only.")
@server_options
@json_option
def show_one(queue: str, job_id: str, raw: bool, url: str | None, as_json: bool) -> None:
    """
    Show all there is to know of one dead letter, its error text included.

    Exit code 1: there is no such dead letter.

    \b
    Examples:
      boundq dead show emails 9
    """
    show_job(queue, job_id, url, raw=raw, as_json=as_json, dead=True)


@command.command("retry", short_help="Put dead letters back to work.")
@queue_argument
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that the filters let through.")
@dead_filters
@click.option("--rate", type=a_rate, metavar="N/s", help="So many a second at most: 100/s, 500/min.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="With --all: so many at most, the oldest first.")
@dry_run_option
@server_options
@json_option
def retry(
    queue: str,
    job_ids: tuple[str, ...],
    everything: bool,
    task: str | None,
    error: str | None,
    older_than: float | None,
    rate: float | None,
    limit: int | None,
    dry_run: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Put dead letters back to work: due at once, with no deliveries counted.

    They go through admission, under the queue's limits. At a full queue it stops, says how many are left, and exits
    with 75: type it again later. Each is put back in one step, so twice is once, and a kill loses nothing.

    Exit code 75: the queue is full or sealed; 1: none of the IDs was a dead letter.

    \b
    Examples:
      boundq dead retry emails 9 17
      boundq dead retry emails --all --task send --error timeout --dry-run
      boundq dead retry emails --all --older-than 10min --rate 100/s --limit 1000
    """
    target = Server(url).queue(queue)
    ids = _chosen(target, job_ids, everything, (task, error, older_than), limit)
    if dry_run:
        here = ids if everything else _still_dead(target, ids)
        _would("be put back to work", queue, here, ids, as_json=as_json)
        return
    back, absent, kept, left, rejection = 0, 0, 0, len(ids), None
    step = STEP if rate is None else max(min(int(rate / STEPS), STEP), 1)
    started = time.monotonic()
    try:
        with progress("retry", len(ids)) as advance:
            for at in range(0, len(ids), step):
                if rate is not None and (ahead := started + back / rate - time.monotonic()) > 0:
                    time.sleep(ahead)
                told = target.retry_dead(ids[at : at + step])
                back, absent, kept = back + len(told.back), absent + len(told.absent), kept + len(told.kept)
                left = len(ids) - at - step + len(told.left) if told.left else max(len(ids) - at - step, 0)
                rejection = told.rejection
                advance(len(told.back))
                if rejection is not None:
                    break
    finally:  # also where the server has gone
        problem = str(rejection.error()) if rejection else None
        still = _dead(target)
        if as_json:
            counts = {"retried": back, "absent": absent, "kept": kept, "left": left, "dead": still}
            print_json({"queue": queue, "dry_run": False, **counts, "error": problem})
        else:
            _tell(queue, back, absent, kept, left, problem, still)
    if rejection is not None:
        sys.exit(FULL)
    if ids and absent == len(ids) and not everything:
        sys.exit(ABSENT)


def _tell(queue: str, back: int, absent: int, kept: int, left: int, problem: str | None, still: int | None) -> None:
    click.echo(f"{back} dead letters of {queue} put back to work")
    if still:
        click.echo(f"{still} dead letters are still there")
    if absent:
        click.echo(f"{absent} are no dead letters (any more)")
    if kept:
        click.echo(f"{kept} stay: another job holds their unique key, or they are larger than the limits now allow")
    if left:
        click.echo(f"boundq: {left} left: {printable(problem or 'interrupted', 500)}; type it again later", err=True)


def _dead(queue: Queue) -> int | None:
    """How many there are now, also those that were not meant; None where the server does not say."""
    try:
        return queue.stats().dead
    except BoundqError:
        return None


@command.command("drop", short_help="Delete dead letters for good.")
@queue_argument
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that the filters let through.")
@dead_filters
@yes_option
@dry_run_option
@server_options
@json_option
def drop(
    queue: str,
    job_ids: tuple[str, ...],
    everything: bool,
    task: str | None,
    error: str | None,
    older_than: float | None,
    yes: bool,
    dry_run: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Delete dead letters for good. The ledger counts them as dropped.

    `boundq dead export` keeps a copy to look at, `boundq purge QUEUE --state dead --to FILE` one that can be restored.

    Exit code 1: none of the IDs was a dead letter.

    \b
    Examples:
      boundq dead drop emails 9 17 --yes
      boundq dead drop emails --all --task send --older-than 7d --dry-run
    """
    target = Server(url).queue(queue)
    ids = _chosen(target, job_ids, everything, (task, error, older_than), None)
    if dry_run:
        _would("be dropped", queue, ids if everything else _still_dead(target, ids), ids, as_json=as_json)
        return
    if ids:
        ask(f"Delete {len(ids)} dead letter{'s' * (len(ids) > 1)} of {queue} for good?", yes=yes)
    dropped = 0
    with progress("drop", len(ids)) as advance:
        for at in range(0, len(ids), STEP):
            dropped += len(target.drop_dead(ids[at : at + STEP]))
            advance(STEP)
    if as_json:
        print_json({"queue": queue, "dry_run": False, "dropped": dropped, "absent": len(ids) - dropped})
    else:
        click.echo(f"{dropped} dead letters of {queue} dropped")
    if ids and not dropped:
        sys.exit(ABSENT)


@command.command("export", short_help="Write dead letters to a file.")
@queue_argument
@dead_filters
@click.option("--to", "path", metavar="FILE", required=True, help="A new file; - is standard output.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "csv"]),
    default="ndjson",
    show_default=True,
    help="csv: for a spreadsheet, with no cell that it would take for a formula.",
)
@server_options
@json_option
def export(
    queue: str,
    task: str | None,
    error: str | None,
    older_than: float | None,
    path: str,
    kind: Literal["ndjson", "csv"],
    url: str | None,
    as_json: bool,
) -> None:
    """
    Write dead letters to a file, one a line, with payload and error text. Nothing is changed.

    The file appears when it is complete. To take jobs out and put them back, see `boundq purge` and `restore`.

    \b
    Examples:
      boundq dead export emails --to dead.ndjson
      boundq dead export emails --task send --format csv --to dead.csv
      boundq dead export emails --to - | jq -r .error
    """
    target = Server(url).queue(queue)
    count = write(all_dead(target, matcher(task, error, older_than)), path, kind)
    if path == "-":
        return
    if as_json:
        print_json({"queue": queue, "exported": count, "file": str(Path(path))})
    else:
        click.echo(f"{count} dead letters of {queue} in {printable(path, 200)}")


def _chosen(
    queue: Queue,
    job_ids: tuple[str, ...],
    everything: bool,
    filters: tuple[str | None, str | None, float | None],
    limit: int | None,
) -> list[str]:
    """The ids that are meant: those given, or with --all those that match now. What is buried later is not."""
    if bool(job_ids) == everything:
        raise click.UsageError("name IDs, or say --all (with --task, --error, --older-than)")
    if job_ids:
        if limit is not None or any(one is not None for one in filters):
            raise click.UsageError("--task, --error, --older-than and --limit go with --all")
        return list(dict.fromkeys(job_ids))
    ids = []
    for job in all_dead(queue, matcher(*filters)):
        ids.append(job.id)
        if len(ids) == limit:
            break
    return ids


def _still_dead(queue: Queue, ids: list[str]) -> list[str]:
    found = [queue.get(job_id) for job_id in ids]
    return [job.id for job in found if job is not None and job.state == "dead"]


def _would(done: str, queue: str, here: list[str], ids: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"queue": queue, "dry_run": True, "would": len(here), "absent": len(ids) - len(here)})
    else:
        click.echo(f"{len(here)} dead letters of {queue} would {done}")
    if ids and not here:
        sys.exit(ABSENT)
