"""What several verbs share: where the server is, and how results are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

F = TypeVar("F", bound=Callable[..., Any])


def server_options(function: F) -> F:
    """``--url`` and ``--url-file``, given to the function as ``url``."""
    function = click.option(
        "--url-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_from_file,
        expose_value=False,
        is_eager=True,
        help="File whose first line is the URL: keeps a password out of the process list.",
    )(function)
    return click.option(
        "--url",
        callback=_checked,
        metavar="URL",
        help="The server; by default BOUNDQ_URL, then redis://localhost:6379/0.",
    )(function)


def json_option(function: F) -> F:
    """``--json``, given to the function as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def print_json(value: object) -> None:
    """One JSON document, ASCII only: no byte of it can steer a terminal."""
    click.echo(json.dumps(value, ensure_ascii=True, indent=2))


def console(*, stderr: bool = False) -> Any:
    """A rich console: as wide as the terminal; wide enough for everything in a pipe."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not made.is_terminal:
        made.width = 240
    return made


def bar(share: float, width: int = 10) -> Any:
    """A fill bar as rich text: green, yellow from 60 %, red from 80 %."""
    from rich.text import Text

    filled = min(round(share * width), width) if share > 0 else 0
    filled = max(filled, 1) if share > 0.001 else filled
    colour = "red" if share >= 0.8 else "yellow" if share >= 0.6 else "green"
    return Text("█" * filled, style=colour) + Text("░" * (width - filled), style="dim") + Text(f" {share:4.0%}")


def _checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    del parameter
    if value is None:
        from_file: str | None = context.meta.get("boundq.url")
        return from_file
    try:
        secret = urlsplit(value).password
    except ValueError:
        secret = None
    if secret:
        click.echo(
            "boundq: warning: a password in --url can be read in the process list; use BOUNDQ_URL or --url-file",
            err=True,
        )
    return value


def _from_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    del parameter
    if value is not None:
        lines = value.read_text(encoding="utf-8").splitlines()
        if not lines or not lines[0].strip():
            raise click.BadParameter("the file is empty; its first line should be the URL")
        context.meta["boundq.url"] = lines[0].strip()
