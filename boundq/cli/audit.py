"""``boundq audit``."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from boundq import Server
from boundq._core.audit import Audit
from boundq.cli._shared import json_option, on_each, print_json, queue_names, server_options
from boundq.cli._text import printable

# Lines printed for one queue; --json has all.
_MOST_LINES = 50


@click.command("audit")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=queue_names)
@click.option("--repair", is_flag=True, help="Set right what can be.")
@server_options
@json_option
def command(queues: tuple[str, ...], repair: bool, url: str | None, as_json: bool) -> None:
    """
    Hold what queues say of themselves against what is stored.

    By default all queues: the ledger, the bytes charged, and each entry. In bounded steps, while they are in use.

    --repair sets the bytes to what was counted, removes entries whose job is gone, and counts jobs that are gone
    without a trace as dropped.

    Exit code 0: all is right, or was set right; 1: differences; 3: no difference, but a busy queue's bytes could not
    be compared (again in a quieter moment, or after `boundq seal` and `boundq pause`); 65: a queue cannot be read,
    which is said, and the others were audited.

    \b
    Examples:
      boundq audit emails
      boundq audit --json | jq '.queues[] | select(.ok | not)'
      boundq audit emails --repair
    """
    server = Server(url)
    found, code = on_each(queues or tuple(server.queues()), lambda name: server.queue(name).audit(repair=repair))
    if as_json:
        print_json({"queues": [to_json(one) for one in found]})
    else:
        for one in found:
            for line in _lines(one):
                click.echo(line)
        if not found and not code:
            click.echo("no queues on this server")
    if code:
        sys.exit(code)
    if not all(one.ok for one in found):
        sys.exit(1)
    if not all(one.steady for one in found):
        sys.exit(3)


def to_json(audit: Audit) -> dict[str, Any]:
    """The documented shape."""
    return {
        "name": audit.queue,
        "ok": audit.ok,
        "steady": audit.steady,
        "jobs": audit.stats.jobs,
        "dead": audit.stats.dead,
        "looked_at": audit.looked_at,
        "differences": [msgspec.structs.asdict(one) for one in audit.differences],
    }


def _lines(audit: Audit) -> list[str]:
    verdict = "right" if not audit.differences else "repaired" if audit.ok else "NOT RIGHT"
    moved = "" if audit.steady else "; it is busy: its bytes could not be compared"
    lines = [f"{audit.queue}: {verdict}; {audit.stats.jobs} jobs, {audit.stats.dead} dead letters looked at{moved}"]
    for one in audit.differences[:_MOST_LINES]:
        done = "repaired" if one.repaired else "not repaired"
        if isinstance(one.counted, int):
            lines.append(f"  {one.kind}: {one.what}: {one.found} and {one.counted}; {done}")
        else:
            lines.append(f"  {one.kind}: {one.what}: {printable(one.counted, 40)} in {one.found}; {done}")
    if (more := len(audit.differences) - _MOST_LINES) > 0:
        lines.append(f"  and {more} more")
    return lines
