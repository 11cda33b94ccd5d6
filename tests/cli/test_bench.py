"""`boundq bench`: it measures, on a queue of its own, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from tests._servers import Server
from tests.conftest import FreshServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_it_measures_and_leaves_nothing(fresh_server: FreshServer, run_on: Callable[[Server], Run]) -> None:
    """Three measurements, also where there is room for few jobs only; no key is left."""
    server = fresh_server(maxmemory="16mb")
    done = run_on(server)("bench", "--seconds", "0.05", "--payload", "4KiB", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [one["name"] for one in said["measurements"]] == ["enqueue", "enqueue_many", "claim and settle"]
    assert all(one["jobs_per_second"] > 0 and 0 < one["p50"] <= one["p99"] for one in said["measurements"])
    assert server.cli("DBSIZE") == 0


def test_what_it_refuses(fresh_server: FreshServer, run_on: Callable[[Server], Run]) -> None:
    """A server without room, and sizes and times that make no sense."""
    server = fresh_server(maxmemory="2mb")
    run = run_on(server)
    assert run("bench", "--payload", "64KiB").returncode == 78
    for words, text in (
        (("--payload", "1MiB"), "65536"),
        (("--seconds", "0"), "more than 0"),
        (("--payload", "x"), "x"),
    ):
        done = run("bench", *words)
        assert done.returncode != 0
        assert text in done.stderr
    assert server.cli("DBSIZE") == 0
