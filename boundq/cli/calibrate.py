"""``boundq calibrate``."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from boundq import Server
from boundq._ops.calibrate import calibrate, headroom
from boundq._sizes import format_size, parse_size
from boundq.cli._shared import ask, console, dry_run_option, json_option, print_json, server_options, yes_option
from boundq.errors import ConfigError

_SIZES = ("100 B", "1 KiB", "10 KiB")
_MOST = 2**20


@click.command("calibrate")
@click.option("--payload", "payloads", multiple=True, metavar="SIZE", help="Up to 1 MiB; several if given again.")
@yes_option
@dry_run_option
@server_options
@json_option
def command(payloads: tuple[str, ...], yes: bool, dry_run: bool, url: str | None, as_json: bool) -> None:
    """
    Compare what jobs are charged with the memory they take, on the server at hand.

    Fills a scratch queue with at most 8 MiB for each payload size (and at most a quarter of what is free below
    maxmemory, or it refuses), measures, and deletes it. Others who write meanwhile blur the figure.

    Exit code 0: no job takes more than it is charged; 1: some do.

    \b
    Examples:
      boundq calibrate --yes
      boundq calibrate --payload 4KiB --payload 64KiB --yes --json
    """
    sizes = [parse_size(size, "--payload") for size in payloads or _SIZES]
    if max(sizes) > _MOST:
        raise ConfigError("--payload", max(sizes), f"at most {_MOST} bytes can be measured")
    spare = headroom(Server(url), sizes)
    if dry_run:
        if as_json:
            print_json({"dry_run": True, "payloads": sizes, "bytes": spare})
        else:
            click.echo(f"a scratch queue would be filled with up to {format_size(spare)}, and deleted")
        return
    ask(f"Fill a scratch queue with up to {format_size(spare)}, and delete it?", yes=yes)
    found = calibrate(url, sizes, spare)
    if as_json:
        samples = [{**msgspec.structs.asdict(one), "share": round(one.share, 4)} for one in found.samples]
        print_json({"server": found.server, "ok": found.ok, "noise": found.noise, "samples": samples})
    else:
        out = console()
        out.print(found.server)
        out.print(_table(found))
        if found.noise:
            out.print(f"the server's memory moved by {format_size(found.noise)} without us")
    sys.exit(0 if found.ok else 1)


def _table(found: Any) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("payload", "state", "jobs", "charged", "real", "real / charged"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found.samples:
        row = (format_size(one.payload), one.state, str(one.jobs), f"{one.charged:.0f} B", f"{one.real:.0f} B")
        table.add_row(*row, f"{one.share:.2f}")
    return table
