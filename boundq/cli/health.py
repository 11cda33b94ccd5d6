"""``boundq health``."""

from __future__ import annotations

import sys

import click

from boundq._health import LEAST_AGE, MAX_AGE, look, say
from boundq.cli._shared import Number


@click.command("health")
@click.argument("path")
@click.option(
    "--max-age",
    type=Number(LEAST_AGE),
    default=MAX_AGE,
    show_default=True,
    help="Seconds that any sign of life may be old.",
)
@click.option("--ready", is_flag=True, help="Ask for more: it claims, all processes are there, the server answers.")
def command(path: str, max_age: float, ready: bool) -> None:
    """
    Say whether a worker is well, from the file that it writes with --health-file PATH. For probes.

    It looks at that file only, and asks no server: a worker that backs off because the server is away is well. Not well
    is one of which any process, queue loop or event loop has shown no sign of life for so long. A handler that holds
    the interpreter lock looks like that too: let --max-age be longer than that.

    Exit code 0: well; 1: not, and the line says why; 2: wrong usage.

    \b
    Examples:
      boundq health /run/boundq/health
      boundq health /run/boundq/health --ready
      boundq health /run/boundq/health --max-age 300
    """
    sys.exit(say(*look(path, max_age=max_age, ready=ready)))
