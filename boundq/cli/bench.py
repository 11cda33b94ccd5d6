"""``boundq bench``."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

import click

from boundq import Limits, Queue, Server
from boundq._ops.calibrate import headroom
from boundq._ops.scratch import scratch
from boundq._sizes import parse_size
from boundq.cli._shared import a_duration, console, json_option, print_json, server_options
from boundq.errors import ConfigError
from boundq.model import Rejection

BATCH = 100
MOST_PAYLOAD = 64 * 1024
Row = dict[str, Any]


@click.command("bench")
@click.option("--seconds", type=a_duration, default="2s", show_default=True, help="For each of the three measurements.")
@click.option("--payload", default="200", show_default=True, metavar="SIZE", help="Bytes of a job.")
@server_options
@json_option
def command(seconds: float, payload: str, url: str | None, as_json: bool) -> None:
    """
    Measure how fast a server is for boundq, from here.

    One client, one call at a time, in a queue of its own that is deleted afterwards: enqueue; enqueue_many of 100;
    claim and settle of 100. At most a quarter of the server's free memory is used, and 8 MiB. For comparisons with
    other queues, and with bare Redis, see bench/ in the source.

    \b
    Examples:
      boundq bench
      boundq bench --seconds 1 --payload 4KiB --json
    """
    size = parse_size(payload, "--payload")
    if size > MOST_PAYLOAD:
        raise ConfigError("--payload", size, f"at most {MOST_PAYLOAD} bytes can be measured")
    if seconds <= 0:
        raise ConfigError("--seconds", seconds, "it must be more than 0")
    spare = headroom(Server(url), [size])
    limits = Limits(max_bytes=spare, max_job_bytes=size + 1024)
    body = b"x" * size
    most = max(spare // (2 * size + 1024) // BATCH, 1)  # batches that there is room for
    with scratch(url, "bench", limits) as queue:
        queue.enqueue_bytes(body)  # connects, and creates the queue
        found = [
            _measured("enqueue", 1, seconds, lambda: queue.enqueue_bytes(body), queue.purge, most * BATCH),
            _measured("enqueue_many", BATCH, seconds, lambda: _enqueue_many(queue, body), queue.purge, most),
            _claims(queue, body, seconds, most),
        ]
    if as_json:
        print_json({"payload": size, "measurements": found})
        return
    out = console()
    out.print(_table(found))


def _measured(
    name: str, jobs: int, seconds: float, call: Callable[[], object], empty: Callable[[], object], most: int
) -> Row:
    """Call for so long; every ``most`` calls the queue is emptied, which does not count."""
    took: list[float] = []
    spent = 0.0
    while spent < seconds:
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
        spent += took[-1]
        if len(took) % most == 0:
            empty()
    empty()
    return _row(name, jobs, took)


def _claims(queue: Queue, body: bytes, seconds: float, most: int) -> Row:
    """Fill it, which does not count, and empty it in batches, for so long."""
    took: list[float] = []
    while sum(took) < seconds:
        for _ in range(min(most, 20)):
            _enqueue_many(queue, body)
        while (began := time.perf_counter()) and (leases := queue.claim(BATCH)):
            queue.settle(acks=leases)
            took.append(time.perf_counter() - began)
    return _row("claim and settle", BATCH, took)


def _row(name: str, jobs: int, took: list[float]) -> Row:
    cuts = quantiles(took, n=100) if len(took) > 1 else took * 99
    return {
        "name": name,
        "jobs_per_call": jobs,
        "jobs_per_second": round(len(took) * jobs / sum(took), 1),
        "p50": round(cuts[49], 6),
        "p99": round(cuts[98], 6),
    }


def _enqueue_many(queue: Queue, body: bytes) -> None:
    for result in queue.enqueue_many([body] * BATCH):
        if result.receipt is None:
            raise result.error or (result.rejection or Rejection(queue.name, "jobs")).error()


def _table(found: list[Row]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("jobs a call", "jobs/s", "p50 of a call", "p99"):
        table.add_column(title, justify="right")
    for one in found:
        table.add_row(
            one["name"],
            str(one["jobs_per_call"]),
            f"{one['jobs_per_second']:,.0f}",
            f"{one['p50'] * 1000:.3f} ms",
            f"{one['p99'] * 1000:.3f} ms",
        )
    return table
