"""``python -m bench [NAME...]``, and ``python -m bench peers [NAME...]``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from bench._harness import Options
from bench._run import headline, run, with_options
from bench.peers._command import main as peers

NAMES = (
    "enqueue",
    "polling",
    "bulk",
    "drain",
    "latency",
    "idle",
    "memory",
    "server_cost",
    "overload",
    "scale",
    "once",
    "verbs",
)


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[NAME]...")
@with_options
@click.option("--tcp", is_flag=True, help="TCP on this machine, not a unix socket.")
@click.option("--list", "listed", is_flag=True, help="Say what there is, and end.")
def main(
    names: tuple[str, ...],
    servers: tuple[str, ...],
    full: bool,
    size: str,
    rounds: int | None,
    seconds: float | None,
    payload: int,
    tcp: bool,
    results: Path,
    listed: bool,
) -> None:
    """
    Run the benches of these names, or all, print tables, and write JSON and SVG into bench/results.

    `python -m bench peers` runs other Redis queues beside this one.
    """
    modules = {name: importlib.import_module(f"bench.{name}") for name in names or NAMES}
    if listed:
        for name, module in modules.items():
            click.echo(f"  {name:12} {headline(module)}")
        return
    options = Options("full" if full else size, rounds, seconds, payload)
    run(
        {name: (headline(module), module.measure) for name, module in modules.items()},
        servers,
        options,
        results,
        tcp=tcp,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["peers"]:
        peers(sys.argv[2:], prog_name="python -m bench peers")
    main(prog_name="python -m bench")
