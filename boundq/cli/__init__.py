"""
The command line. One module for each verb; a verb is imported when it is used, so that ``--help`` is quick.

Everything goes through the public API.
"""

from __future__ import annotations

import importlib
import sys

import click

from boundq import __version__
from boundq.cli._exit import exit_code
from boundq.cli._text import printable
from boundq.errors import BoundqError

# verb -> one line of help, in the order of --help; the module of a verb has its name.
VERBS = {
    "demo": "Replay the incident on a private server: an unbounded queue, then boundq.",
    "ls": "List the queues of a server, and how full they are.",
    "top": "Watch the queues of a server, live.",
    "stats": "Show one queue in numbers.",
    "enqueue": "Add jobs to a queue, from arguments, a file or standard input.",
    "worker": "Run the tasks of one or several queues.",
    "health": "Say whether a worker is well, for probes.",
}


class Verbs(click.Group):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"boundq.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The server: --url, else the environment's BOUNDQ_URL, else redis://localhost:6379/0.",
)
@click.version_option(__version__, "-V", "--version", message="boundq %(version)s")
def app() -> None:
    """
    A job queue on Redis or Valkey that cannot grow beyond its limits.

    \b
    Examples:
      boundq demo                           see what it is for, on a private server
      boundq ls                             all queues, and how full they are
      boundq worker shop.jobs:emails        run a queue's tasks
      boundq enqueue emails send 42 to=ada@example.org
    """


def main() -> None:
    """Run the program; errors of ours become one line and an exit code (README, "Exit codes")."""
    try:
        app()
    except BoundqError as error:
        click.echo(f"boundq: {printable(str(error), 2000)}", err=True)
        sys.exit(exit_code(error))
