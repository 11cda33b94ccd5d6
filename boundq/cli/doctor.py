"""``boundq doctor``."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from boundq import Server
from boundq._ops.acl import ROLES
from boundq._ops.diagnose import diagnose
from boundq._ops.facts import SMALL, read
from boundq._ops.findings import EXIT, ORDER, Finding, worst
from boundq.cli._shared import Number, console, json_option, print_json, queue_names, server_options
from boundq.cli._text import printable
from boundq.errors import BoundqError, ConfigError, Unavailable

_COLOURS = {"ok": "green", "warning": "yellow", "critical": "red", "unknown": "cyan"}


@click.command("doctor")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=queue_names)
@click.option("--repair", is_flag=True, help="Audit every queue, and set right what can be (as `boundq audit`).")
@click.option("--known", multiple=True, metavar="Q", help="A queue that there should be; others are pointed out.")
@click.option(
    "--unattended",
    type=Number(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long jobs may wait with nobody asking.",
)
@click.option("--role", type=click.Choice(ROLES), help="Whether the user may do the work of this role.")
@click.option("--user", default="", metavar="NAME", help="Another user than the one that is connected.")
@server_options
@json_option
def command(
    queues: tuple[str, ...],
    repair: bool,
    known: tuple[str, ...],
    unattended: float,
    role: str | None,
    user: str,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Look at a server and its queues for what will go wrong: what it is, why it matters, what to type.

    Changes nothing (unless --repair), but teaches the server boundq's scripts where it may. What an ACL or a managed
    server forbids to look at is "unknown".

    Exit code: 0 ok, 1 warning, 2 critical, 3 nothing wrong as far as could be seen, but not all could.

    \b
    Examples:
      boundq doctor
      boundq doctor emails --role producer --user shop
      boundq doctor --json | jq -r '.findings[] | select(.severity != "ok") | .what'
    """
    try:
        found = _findings(Server(url), queues, repair, known, unattended, role, user)
    except Unavailable as error:
        if error.reason in ("auth", "no_permission"):
            raise
        todo = "is the server running, and the URL right? redis-cli -u URL PING"
        found = [Finding("connection", "critical", str(error), "nothing works without it", todo)]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    verdict = worst(one.severity for one in found)
    if as_json:
        print_json({"verdict": verdict, "findings": [msgspec.structs.asdict(one) for one in found]})
    else:
        for line in _lines(found):
            console().print(line)
    sys.exit(EXIT[verdict])


def _findings(
    server: Server,
    queues: tuple[str, ...],
    repair: bool,
    known: tuple[str, ...],
    unattended: float,
    role: str | None,
    user: str,
) -> list[Finding]:
    facts = read(server, queues, user=user, roles=(role,) if role else ROLES)
    found: list[Finding] = []
    for place, stats in enumerate(facts.stats):
        if repair or stats.jobs + stats.dead <= SMALL:
            try:
                audit = server.queue(stats.name).audit(repair=repair)
            except BoundqError as error:
                what = f"{stats.name} could not be audited: {error}"
                found.append(Finding("audit", "unknown", what, "", f"boundq audit {stats.name}", stats.name))
                continue
            facts.stats[place] = audit.stats
            # The ledger is a check of its own.
            wrong = [one for one in audit.differences if not one.repaired and one.kind != "ledger"]
            mended = [one for one in audit.differences if one.repaired]
            if wrong:
                what = f"{stats.name}: {len(wrong)} differences, the first: {wrong[0].what}"
                why = "the queue says other than what is stored"
                todo = f"boundq audit {stats.name}, then boundq audit {stats.name} --repair"
                found.append(Finding("audit", "critical", what, why, todo, stats.name))
            if mended:
                what = f"{stats.name}: {len(mended)} differences were set right"
                found.append(Finding("audit", "ok", what, queue=stats.name))
    found += diagnose(facts, known=known, unattended=unattended)
    return sorted(found, key=lambda one: ORDER.index(one.severity))


def _lines(found: list[Finding]) -> list[Any]:
    from rich.text import Text

    lines: list[Any] = []
    for one in found:
        lines.append(
            Text(f"{one.severity:8} ", style=_COLOURS[one.severity]) + Text(f"{one.check:12} {_safe(one.what)}")
        )
        if one.severity != "ok":
            lines += [
                Text(f"{'':21} {word}: {_safe(text)}") for word, text in (("why", one.why), ("do", one.todo)) if text
            ]
    counts = ", ".join(f"{sum(one.severity == word for one in found)} {word}" for word in ORDER)
    return [*lines, Text(counts)]


def _safe(text: str) -> str:
    return printable(text, 1000)
