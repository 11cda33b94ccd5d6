"""What several verbs share: where the server is, and how results are shown."""

from __future__ import annotations

import getpass
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from boundq._core.control import BY_BYTES
from boundq.cli._text import printable
from boundq.errors import BoundqError, Unavailable

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


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


def queue_argument(function: F) -> F:
    """``QUEUE``, completed by the shell from the server."""
    return click.argument("queue", shell_complete=queue_names)(function)


def queue_arguments(function: F) -> F:
    """``QUEUE...``, given to the function as ``queues``."""
    return click.argument("queues", nargs=-1, required=True, metavar="QUEUE...", shell_complete=queue_names)(function)


def queue_names(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The names of queues that begin so; none where the server does not say so in time."""
    from boundq.cli._names import names_in_time

    del parameter
    given = set(context.params.get("queues") or ())
    return [name for name in names_in_time(context.params.get("url")) if name.startswith(begun) and name not in given]


class Number(click.FloatRange):
    """A number within bounds; unlike click's, never "nan", which no comparison ends, nor "inf"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number of the range {self._describe_range()}.", param, ctx)
        return number


def yes_option(function: F) -> F:
    """``--yes``: do not ask."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


def dry_run_option(function: F) -> F:
    """``--dry-run``, given to the function as ``dry_run``."""
    return click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(function)


def reason_option(function: F) -> F:
    """``--reason``: why; recorded with who."""
    return click.option("--reason", metavar="TEXT", help="Why: recorded with your name, and shown by stats.")(function)


def ask(question: str, *, yes: bool) -> None:
    """Go on only if somebody says so; where nobody can be asked, exit code 2."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask at: say --yes.")
    click.confirm(question, abort=True, err=True)


def who(reason: str | None) -> str:
    """Who does it, and why, as the server records it, cut to a bound."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in a container
        name = "boundq"
    text = f"{name}: {reason}" if reason else name
    if len(text.encode("utf-8", "replace")) > BY_BYTES:
        kept = text.encode("utf-8", "replace")[:BY_BYTES].decode("utf-8", "ignore")
        click.echo(f"boundq: note: {BY_BYTES} bytes are recorded: {printable(kept)!s}", err=True)
    return text


def on_each(queues: tuple[str, ...], work: Callable[[str], R]) -> tuple[list[R], int]:
    """Do it for each queue; what fails is said, and the others go on. Results, and the exit code."""
    from boundq.cli._exit import exit_code

    results, code = [], 0
    for name in dict.fromkeys(queues):
        try:
            results.append(work(name))
        except BoundqError as error:
            click.echo(f"boundq: {printable(str(error), 2000)}", err=True)
            code = code or exit_code(error)
            if isinstance(error, Unavailable) and error.reason != "no_permission":
                break  # the server is away: the others would fare no better, a deadline each
    return results, code


def a_duration(text: str | float) -> float:
    """Seconds of ``90``, ``90s``, ``10min``, ``2h``, ``7d``; a type of options."""
    return _number(text, {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}, "a time: 90, 90s, 10min, 2h or 7d")


def a_rate(text: str | float) -> float:
    """A second, of ``100/s``, ``500/min``; a type of options."""
    rate = _number(text, {"": 1, "/s": 1, "/min": 1 / 60, "/h": 1 / 3600}, "a rate: 500/s or 30/min")
    if rate <= 0:
        raise click.BadParameter(f"{text!r} is not a rate at which anything would happen: write 500/s or 30/min")
    return rate


def a_share(text: str | float) -> float:
    """``0.8`` or ``80%``, as a fraction; a type of options."""
    number = _number(text, {"": 1, "%": 0.01}, "a share: 0.8 or 80%")
    if not 0 < number <= 1:
        raise click.BadParameter(f"{text!r} is no share; write 0.8 or 80%, more than 0 and at most 1")
    return number


def _number(text: str | float, units: dict[str, float], what: str) -> float:
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z/%]*)\s*", str(text))
    if match is None or match[2] not in units:
        raise click.BadParameter(f"{text!r} is not {what}")
    return float(match[1]) * units[match[2]]


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
    if context.resilient_parsing:  # the shell asks for completions: say nothing
        return value or context.meta.get("boundq.url")
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
