"""Running benches from a command line: on which servers, with what options, and where the figures go."""

from __future__ import annotations

import gc
import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench._draw import draw
from bench._harness import Measure, Options, Result
from bench._place import Place
from bench._report import RESULTS, circumstances, save, show
from tests._servers import REDIS_7_0, SUPPORTED, VALKEY_9_1, Kind, Missing

KINDS = {kind.id: kind for kind in SUPPORTED}
DEFAULT = (VALKEY_9_1.id, REDIS_7_0.id)
_WIDTH = 200


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all benches have."""
    for option in reversed(
        (
            click.option(
                *("--server", "servers"),
                multiple=True,
                type=click.Choice(list(KINDS)),
                help=f"May be repeated. Default: {', '.join(DEFAULT)}.",
            ),
            click.option("--full", is_flag=True, help="Longer runs, more rounds: for figures to publish."),
            click.option("--size", type=click.Choice(["tiny", "quick", "full"]), default="quick", hidden=True),
            click.option("--rounds", type=click.IntRange(1), help="Instead of the bench's own number."),
            click.option("--seconds", type=click.FloatRange(0.05), help="Of one run, where a bench runs for a time."),
            click.option(
                "--payload", type=click.IntRange(1), default=200, show_default=True, help="Bytes of a job's argument."
            ),
            click.option(
                "--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder for JSON and SVG."
            ),
        )
    ):
        command = option(command)
    return command


def run(
    benches: Mapping[str, tuple[str, Measure]],
    servers: Sequence[str],
    options: Options,
    results: Path,
    *,
    tcp: bool = False,
) -> None:
    """
    Run benches one after the other.

    Args:
        benches: Name -> its headline, and what measures.
        servers: Kinds, by id; none: those of `DEFAULT` that are here.
        options: For all.
        results: Folder for the figures.
        tcp: See `Place`.
    """
    kinds = [KINDS[server] for server in servers] or [KINDS[server] for server in DEFAULT if here(KINDS[server])]
    for kind in kinds:
        if not here(kind):
            raise click.ClickException(f"no {kind.id} server here; to get it: {kind.install}")
    if not kinds:
        raise click.ClickException("no server here: " + "; ".join(KINDS[server].install for server in DEFAULT))
    # A table that is cut to the width of a pipe's 80 columns says nothing.
    console = Console() if Console().is_terminal else Console(width=_WIDTH)
    # What is loaded is not for the garbage collector, which would halt a producer for some 10 ms to look through it.
    gc.collect()
    gc.freeze()
    for name, (title, measure) in benches.items():
        begun = time.monotonic()
        console.print(f"[bold]{name}[/]  {title}\n", highlight=False)
        found = {}
        for kind in kinds:
            sys.stdout.flush()  # into a pipe: what is known by now
            with Place(kind, tcp=tcp) as place:
                found[kind.id] = (kind.binary.version, measure(place, options))
            show(console, kind.id, found[kind.id][1])
        path = save(results, name, options, found)
        path.with_suffix(".svg").write_text(picture(title, found))
        console.print(f"{path} and .svg, after {time.monotonic() - begun:.0f} s\n", highlight=False, soft_wrap=True)


def headline(module: Any) -> str:
    """The first sentence of a bench's docstring."""
    return inspect.cleandoc(module.__doc__).partition("\n\n")[0].replace("\n", " ").replace("``", "")


def here(kind: Kind) -> bool:
    """Whether this machine has such a server."""
    try:
        return bool(kind.binary)
    except Missing:
        return False


def picture(title: str, found: dict[str, tuple[str, Result]]) -> str:
    """The SVG of one bench."""
    now = circumstances()
    commit = now["commit"][:9] + ("+" if now["changed"] else "")
    under = f"{now['when'][:10]}, commit {commit}, Python {now['python']}, {now['cpus']} CPUs, {now['system']}"
    name, _, sentence = title.partition(": ")
    return draw(
        name, sentence, under, {f"{kind.replace('-', ' ')} ({version})": one for kind, (version, one) in found.items()}
    )
