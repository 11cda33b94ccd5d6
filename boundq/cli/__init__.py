"""
The command line. One module for each verb; a verb is imported when it is used, so that ``--help`` is quick.

Everything goes through the public API.
"""

from __future__ import annotations

import importlib
import io
import sys

import click
from click.shell_completion import CompletionItem

from boundq import __version__
from boundq.cli._exit import exit_code
from boundq.cli._text import printable
from boundq.errors import BoundqError

# What the shell's completion sets; see the verb `completion`.
COMPLETE_VAR = "_BOUNDQ_COMPLETE"

# verb -> one line of help, in the order of --help; the module of a verb has its name.
VERBS = {
    "demo": "Replay the incident on a private server: an unbounded queue, then boundq.",
    "ls": "List the queues of a server, and how full they are.",
    "top": "Watch the queues of a server, live.",
    "stats": "Show one queue in numbers.",
    "enqueue": "Add jobs to a queue, from arguments, a file or standard input.",
    "purge": "Move jobs out of a queue into a file, all or a selection.",
    "restore": "Put the jobs of a purge's file back, under the limits.",
    "peek": "Look at the jobs of a queue, page by page.",
    "show": "Show all there is to know of one job.",
    "position": "Say how many jobs come before one.",
    "cancel": "Take jobs out of a queue.",
    "dead": "Look at dead letters, put them back to work, drop or export them.",
    "limits": "Show, set or suggest a queue's limits.",
    "pause": "Stop claiming from queues; they go on taking jobs.",
    "resume": "Allow claiming again.",
    "seal": "Stop admission to queues; workers go on.",
    "unseal": "Allow admission again.",
    "drain": "Wait until queues are empty.",
    "completion": "Print what makes a shell complete boundq's words.",
    "worker": "Run the tasks of one or several queues.",
    "health": "Say whether a worker is well, for probes.",
    "bench": "Measure how fast a server is for boundq.",
    "doctor": "Look at a server and its queues for what will go wrong.",
    "audit": "Hold a queue's counters against what is stored, and repair them.",
    "check": "Hold queues against thresholds, for a monitoring system.",
    "calibrate": "Compare what jobs are charged with the memory they take, on this server.",
    "reap": "Take jobs out of the hands of dead workers, where no worker is alive.",
    "acl": "Print the smallest ACL rule for a role.",
    "plan": "Reckon the memory that queues need, and the jobs that fit.",
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

    def invoke(self, ctx: click.Context) -> object:
        """A verb that Ctrl-C stops ends as shells expect it, not with the 1 of a question answered with no."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("boundq: stopped", err=True)
            sys.exit(130)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click does it, without importing every verb."""
        words = [CompletionItem(name, help=line) for name, line in VERBS.items() if name.startswith(incomplete)]
        return words or click.Command.shell_complete(self, ctx, incomplete)

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
    for stream in (sys.stdout, sys.stderr):
        # Where it takes ASCII only, a bar or a name comes out as an escape, and is no traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="boundq", complete_var=COMPLETE_VAR)
    except BoundqError as error:
        click.echo(f"boundq: {printable(str(error), 2000)}", err=True)
        sys.exit(exit_code(error))
