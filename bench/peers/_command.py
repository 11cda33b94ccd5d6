"""``python -m bench peers [NAME...]``."""

from __future__ import annotations

from pathlib import Path

import click

from bench._harness import Options
from bench._run import headline, run, with_options
from bench.peers import _bench
from bench.peers._peer import peers

_PEERS = peers()


@click.command("peers", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(_PEERS)), metavar="[NAME]...")
@with_options
@click.option("--list", "listed", is_flag=True, help="Say whom there is, and end.")
def main(
    names: tuple[str, ...],
    servers: tuple[str, ...],
    full: bool,
    size: str,
    rounds: int | None,
    seconds: float | None,
    payload: int,
    results: Path,
    listed: bool,
) -> None:
    """
    Run the peers of these names, or all, beside boundq and redis-py, through TCP on this machine.

    Each is installed into build/peers when it first runs, from the package index that pip is set up for.
    """
    chosen = [_PEERS[name] for name in names or _PEERS]
    if listed:
        for peer in chosen:
            click.echo(f"  {peer.name:14} {peer.packages[0]}")
        return
    options = Options("full" if full else size, rounds, seconds, payload)
    # A unix socket is not something that all of them can be given.
    run({"peers": (headline(_bench), _bench.measure_peers(chosen))}, servers, options, results, tcp=True)
