"""``boundq top``."""

from __future__ import annotations

import os
import sys
import time

import click

from boundq.cli._shared import Number, console, json_option, queue_names, server_options
from boundq.cli._watch import (
    LEAST_SECONDS,
    MOST_SECONDS,
    WATCH_SECONDS,
    Watch,
    looks,
    print_line,
    print_lost,
    until_interrupted,
)
from boundq.errors import Unavailable


@click.command("top")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=queue_names)
@click.option(
    "-i",
    "--interval",
    type=Number(LEAST_SECONDS, MOST_SECONDS),
    metavar="SECONDS",
    default=WATCH_SECONDS,
    show_default=True,
    help="How often to look.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N looks; 1 or more. Not on a screen.")
@server_options
@json_option
def command(queues: tuple[str, ...], url: str | None, as_json: bool, interval: float, count: int | None) -> None:
    """
    Watch the queues of a server, live: how full, how fast, how old, and what becomes of it.

    All queues, or those that are named. Keys sort the list, inspect a queue, pause or seal it (it asks before it does);
    ? lists them. A look is one command for each queue and one for the server, however many jobs there are. While the
    server does not answer, the screen says so, and that the numbers are old.

    With --json, one line for each look, and no terminal is needed. Without a terminal, plain text, as `boundq ls
    --watch` has it. NO_COLOR is heeded.

    Exit code 0: ended by q, Ctrl-C or --count; 143: by SIGTERM.

    \b
    Examples:
      boundq top
      boundq top --interval 0.5 emails reports
      boundq top --json --count 5 > looks.ndjson
    """
    from boundq.cli._top_poll import server_for

    view = Watch(server_for(url, interval), queues)
    out = console()
    on_screen = out.is_terminal and not out.is_dumb_terminal and sys.stdin.isatty() and os.name == "posix"
    if on_screen and not as_json and count is None:
        from boundq.cli._top_screen import run

        sys.exit(run(view, out, interval))
    from boundq.cli.ls import print_seen

    with until_interrupted(True):
        for seen in looks(view.look, watch=True, interval=interval, count=count):
            if isinstance(seen, Unavailable):
                print_lost(seen, as_json=as_json)
            elif as_json:
                print_line(view.to_json(seen))
            else:
                click.echo(time.strftime("%H:%M:%S"))
                print_seen(view, seen, out)
