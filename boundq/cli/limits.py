"""``boundq limits``."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click

from boundq import Limits, Server, Stats
from boundq._sizes import duration, format_size, moment
from boundq.cli._shared import (
    a_duration,
    ask,
    dry_run_option,
    json_option,
    print_json,
    queue_argument,
    reason_option,
    server_options,
    who,
    yes_option,
)
from boundq.cli._suggest import suggest_for
from boundq.cli._text import printable

_TIMES = ("dead_ttl", "max_age")


@click.group("limits")
def command() -> None:
    """
    Show, set or suggest a queue's limits. They live on the server, for everybody.

    \b
    Examples:
      boundq limits show emails
      boundq limits set emails --max-jobs 200000 --reason "black friday"
      boundq limits suggest emails --wait 5min
    """


@command.command("show", short_help="Show limits, what is used, who changed them.")
@queue_argument
@server_options
@json_option
def show(queue: str, url: str | None, as_json: bool) -> None:
    """
    Show the limits, what is used of them, and who changed them lately.

    \b
    Examples:
      boundq limits show emails
      boundq limits show emails --json | jq .limits.max_jobs
    """
    target = Server(url).queue(queue)
    stats = target.stats()
    changes = [event for event in target.events(100) if event.what == "limits"][:5]
    if as_json:
        entries = [{"at": one.at, "by": one.by, "old": one.old, "new": one.new} for one in changes]
        print_json({"queue": queue, "limits": _values(stats.limits), "used": _used(stats), "changes": entries})
        return
    used = _used(stats)
    for name in stats.limits.to_fields():
        row = f"{name:16} {_shown(name, getattr(stats.limits, name)):>12}"
        click.echo(f"{row}   {_shown(name, used[name])} used" if name in used else row)
    for one in changes:
        click.echo(
            f"changed {moment(one.at)}, by {printable(one.by) or 'nobody who said so'}: {_words(one.old, one.new)}"
        )


@command.command("set", short_help="Change limits, for everybody.")
@queue_argument
@click.option("--max-jobs", type=int, help="Most jobs held.")
@click.option("--max-bytes", metavar="SIZE", help='Most bytes charged for them: "64 MiB".')
@click.option("--max-job-bytes", metavar="SIZE", help="Most bytes of one job.")
@click.option("--max-dead-jobs", type=int, help="Most dead letters; beyond it the oldest are dropped.")
@click.option("--max-dead-bytes", metavar="SIZE", help="Most bytes of them, likewise.")
@click.option("--dead-ttl", metavar="AGE", help='Drop dead letters of this age: 7d; "none": do not.')
@click.option("--max-deliveries", type=int, help="Bury a job after so many deliveries.")
@click.option("--max-age", type=a_duration, metavar="AGE", help="Do not deliver again what is older: 90d.")
@reason_option
@yes_option
@dry_run_option
@server_options
@json_option
def set_(
    queue: str, reason: str | None, yes: bool, dry_run: bool, url: str | None, as_json: bool, **options: Any
) -> None:
    """
    Change limits, for everybody, from the next call on. The others stay. Recorded with your name.

    Lower than what is held: nothing is lost, only admission stops until there is room. Lowered limits of dead letters
    drop the oldest: it asks first.

    \b
    Examples:
      boundq limits set emails --max-jobs 200000 --max-bytes "256 MiB" --reason "black friday"
      boundq limits set emails --max-dead-jobs 1000 --dry-run
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        raise click.UsageError("say which: --max-jobs, --max-bytes, ... (see --help)")
    if "dead_ttl" in given:
        given["dead_ttl"] = None if given["dead_ttl"] == "none" else a_duration(given["dead_ttl"])
    target = Server(url).queue(queue)
    stats = target.stats()
    new = replace(stats.limits, **given)
    before, after = _values(stats.limits), _values(new)
    changes = {name: {"from": before[name], "to": after[name]} for name in before if before[name] != after[name]}
    warnings = _warnings(stats, new)
    drops = _drops(stats, new)
    for text in [*warnings, *([drops] if drops else [])]:
        click.echo(f"boundq: note: {text}", err=True)
    by = who(reason)
    changed = False
    if not dry_run:
        if drops:
            ask(f"Change the limits of {queue}, and drop dead letters?", yes=yes)
        changed = target.configure(new, by)
    if as_json:
        notes = [*warnings, *([drops] if drops else [])]
        print_json(
            {"queue": queue, "dry_run": dry_run, "changed": changed, "changes": changes, "notes": notes, "by": by}
        )
        return
    old = {name: getattr(stats.limits, name) for name in changes}
    for name in changes:
        click.echo(f"{name}: {_shown(name, old[name])} -> {_shown(name, getattr(new, name))}")
    if not changes:
        click.echo("nothing changes")
    elif dry_run:
        click.echo("(dry run: nothing was changed)")


@command.command("suggest", short_help="Suggest limits, and explain the sum.")
@queue_argument
@click.option(
    "--wait", type=a_duration, default="5min", show_default=True, metavar="TIME", help="A job may wait that long."
)
@click.option(
    "--sample", type=a_duration, default="5s", show_default=True, metavar="TIME", help="Watch the rates that long."
)
@server_options
@json_option
def suggest(queue: str, wait: float, sample: float, url: str | None, as_json: bool) -> None:
    """
    Suggest max_jobs and max_bytes, and explain the sum: drain rate, sizes, the server's memory, other queues.

    What cannot be known is "unknown": sizes need jobs in the queue, the drain rate needs workers at work. Nothing is
    changed. Exit code 3: too little is known to suggest anything.

    \b
    Examples:
      boundq limits suggest emails
      boundq limits suggest emails --wait 10min --sample 1s --json
    """
    found = suggest_for(Server(url), queue, wait, sample)
    if as_json:
        print_json(found.as_json())
    else:
        for line in found.lines():
            click.echo(line)
    sys.exit(0 if found.suggested else 3)


def _values(limits: Limits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in limits.to_fields()}


def _used(stats: Stats) -> dict[str, int]:
    return {
        "max_jobs": stats.jobs,
        "max_bytes": stats.bytes,
        "max_dead_jobs": stats.dead,
        "max_dead_bytes": stats.dead_bytes,
    }


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name.endswith("_bytes"):
        return format_size(value)
    return duration(value) if name in _TIMES else str(value)


def _words(old: dict[str, int], new: dict[str, int]) -> str:
    def one(name: str, value: int | None) -> str:
        if value is None:
            return "?"
        return _shown(name, (value / 1000 or None) if name in _TIMES else value)

    return ", ".join(f"{printable(name, 40)} {one(name, old.get(name))} -> {one(name, new[name])}" for name in new)


def _warnings(stats: Stats, new: Limits) -> list[str]:
    found = []
    most = int(new.max_bytes)
    if stats.jobs > new.max_jobs:
        found.append(f"{stats.jobs} jobs are held, more than {new.max_jobs}: admission stops until they are fewer")
    if stats.bytes > most:
        held = f"{format_size(stats.bytes)} are held, more than {format_size(most)}"
        found.append(f"{held}: admission stops until they are fewer")
    if int(new.max_job_bytes) > most:
        found.append(f"a job of max_job_bytes ({format_size(int(new.max_job_bytes))}) would never fit into max_bytes")
    return found


def _drops(stats: Stats, new: Limits) -> str:
    """What becomes of dead letters; "" where nothing does."""
    if stats.dead > new.max_dead_jobs:
        return f"the oldest {stats.dead - new.max_dead_jobs} of {stats.dead} dead letters are dropped"
    if stats.dead_bytes > int(new.max_dead_bytes):
        over = format_size(stats.dead_bytes - int(new.max_dead_bytes))
        return f"the oldest dead letters are dropped: {over} of them at least"
    ttl, before = (one.to_fields()["dead_ttl"] for one in (new, stats.limits))
    if stats.dead and ttl and (ttl < before or not before):
        return f"dead letters older than {duration(ttl / 1000)} are dropped"
    return ""
