"""``boundq check``."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import click
import msgspec

from boundq import Server, Stats
from boundq._ops.findings import EXIT, Severity
from boundq._ops.thresholds import (
    DEFAULT_CRITICAL,
    DEFAULT_WARN,
    METRICS,
    Checked,
    check,
    nagios,
    overall,
    parse,
    prometheus,
)
from boundq.cli._shared import Number, json_option, print_json, queue_names, server_options
from boundq.cli._text import printable
from boundq.errors import BoundqError

# With what the interpreter takes, an answer comes within 2 s, whatever the server does.
SECONDS = 1.4


@click.command("check")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=queue_names)
@click.option(
    "--warn", default=DEFAULT_WARN, show_default=True, metavar="NAME=NUMBER,...", help="Exit 1 from these on."
)
@click.option("--critical", default=DEFAULT_CRITICAL, show_default=True, metavar="NAME=NUMBER,...", help="Exit 2.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "nagios", "prometheus"]),
    default="text",
    show_default=True,
    help="Of what is printed.",
)
@click.option(
    "--timeout",
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    type=Number(0.01, 3600),
    help="For everything.",
)
@server_options
@json_option
def command(
    queues: tuple[str, ...],
    warn: str,
    critical: str,
    form: str,
    timeout: float,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Hold queues (by default all) against thresholds, for a monitoring system.

    Numbers: fill and dead_fill (0 to 1, or 80%), age (seconds, of the oldest job that could run), jobs, dead, silence
    (seconds since a worker asked for jobs), paused, sealed (seconds), ledger (jobs unaccounted for).

    Exit code: 0 ok, 1 warning, 2 critical, 3 unknown: a queue that cannot be read, or no answer from the server, which
    is said within 2 seconds unless --timeout says otherwise.

    \b
    Examples:
      boundq check emails --warn fill=0.8,age=60,dead=1 --critical fill=95%,silence=120
      boundq check --format nagios
      boundq check --format prometheus > /var/lib/node_exporter/boundq.prom
    """
    low, high = parse(warn, "--warn"), parse(critical, "--critical")
    form = "json" if as_json else form
    checked: list[Checked] = []
    trouble: list[str] = []
    # A name that does not resolve, say, is nothing that a socket's time-out covers: the main thread keeps the time.
    work = threading.Thread(target=_look, args=(url, timeout, queues, low, high, checked, trouble), daemon=True)
    work.start()
    work.join(timeout)
    if work.is_alive():
        trouble = [f"no answer within {timeout:g} s"]
    up = not trouble
    verdict = overall(checked, up=up)
    _show(form, list(checked) if up else [], verdict, printable("; ".join(trouble), 500))
    sys.stdout.flush()
    if work.is_alive():
        os._exit(EXIT[verdict])  # whatever it hangs in would hold up the interpreter's end
    sys.exit(EXIT[verdict])


def _look(
    url: str | None,
    timeout: float,
    queues: tuple[str, ...],
    warn: dict[str, float],
    critical: dict[str, float],
    checked: list[Checked],
    trouble: list[str],
) -> None:
    try:
        server = Server(url, deadline=timeout * 0.8)
        for name, found in server.stats(queues or server.queues()).items():
            if isinstance(found, Stats):
                checked.append(check(found, warn, critical))
            else:
                checked.append(Checked(printable(name, 64), [], printable(str(found), 300)))
    except BoundqError as error:
        trouble.append(str(error))
    except Exception as error:  # a mistake of ours: to a monitoring system it is "unknown" too, and never "ok"
        trouble.append(f"{type(error).__name__}: {error}")


def _show(form: str, checked: list[Checked], verdict: Severity, trouble: str) -> None:
    if form == "json":
        print_json({"verdict": verdict, "error": trouble, "queues": [_to_json(one) for one in checked]})
    elif form == "nagios":
        click.echo(nagios(checked, verdict, trouble))
    elif form == "prometheus":
        click.echo(prometheus(checked, verdict, up=not trouble))
    else:
        for line in _lines(checked, verdict, trouble):
            click.echo(line)


def _to_json(one: Checked) -> dict[str, Any]:
    return {
        "name": one.queue,
        "severity": one.severity,
        "error": one.error,
        "numbers": {number.name: msgspec.structs.asdict(number) for number in one.measured},
    }


def _lines(checked: list[Checked], verdict: Severity, trouble: str) -> list[str]:
    lines = [trouble] if trouble else []
    for one in checked:
        lines += [f"{one.severity:8} {one.queue}: {one.error}"] if one.error else []
        for number in one.measured:
            if number.severity != "ok" or number.warn is not None or number.critical is not None:
                value = "unknown" if number.value is None else f"{number.value:.6g}"
                bounds = ", ".join(
                    f"{word} from {bound:g}"
                    for word, bound in (("warning", number.warn), ("critical", number.critical))
                    if bound is not None
                )
                lines.append(f"{number.severity:8} {one.queue}: {METRICS[number.name].help}: {value} ({bounds})")
    return [*lines, verdict]
