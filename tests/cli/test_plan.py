"""``boundq plan``: its figures against what real servers admit and use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from boundq import Limits, Queue
from boundq._ops.plan import PRODUCERS, QueuePlan, plan
from boundq._sizes import format_size
from tests._servers import Kind, Server
from tests.conftest import FreshServer


def run(*words: str, url: str = "redis://127.0.0.1:1/0") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "BOUNDQ_URL": url, "NO_COLOR": "1"}
    words = (sys.executable, "-m", "boundq", *words)
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)


def planned(*words: str, url: str = "redis://127.0.0.1:1/0") -> Any:
    done = run("plan", "--json", *words, url=url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_as_many_jobs_fit_as_it_says(server_kind: Kind, fresh_server: FreshServer) -> None:
    """The queue takes exactly that many jobs of each size, and the full server uses no more than the sum."""
    server = fresh_server(server_kind)
    allocator = "libc" if server.info("memory")["mem_allocator"] == "libc" else "jemalloc"
    sizes = ("100 B", "1 KiB", "20 KiB")
    words = [word for size in sizes for word in ("--payload", size)]
    found = planned(
        "--max-jobs", "5k", "--max-bytes", "2MiB", "--around", "0", "--allocator", allocator, "--queues", "3", *words
    )
    assert [one["limit"] for one in found["fits"]] == ["jobs", "bytes", "bytes"]
    for number, one in enumerate(found["fits"]):
        queue = Queue(f"q{number}", server.url, max_jobs=5000, max_bytes="2 MiB")
        results = queue.enqueue_many([b"x" * one["payload"]] * (one["jobs"] + 1))
        assert sum(result.ok for result in results) == one["jobs"]
        rejection = results[-1].rejection
        assert rejection is not None
        assert rejection.reason == one["limit"]
        assert rejection.used <= one["charge"] * one["jobs"] or one["limit"] == "jobs"
    assert int(server.info("memory")["used_memory"]) <= found["used"]


def test_producers_at_worst(server_kind: Kind, fresh_server: FreshServer) -> None:
    """As many as a queue remembers, after the calls that it remembers most of, take no more than is reckoned."""
    server = fresh_server(server_kind)
    queue = Queue("q", server.url)
    queue.enqueue_many([b"x"] * 100, delay=3600)
    (record,) = (value for name, value in stored(server, "boundq:{q}:state").items() if re.fullmatch(rb"p[0-9]+", name))
    number, *ids = record.split()
    assert len(ids) == 100
    before = int(server.info("memory")["used_memory"])
    worst = b" ".join([number, *(b"9" * 15 for _ in ids)])
    for first in range(1, PRODUCERS, 128):
        server.cli("HSET", "boundq:{q}:state", *(word for n in range(first, first + 128) for word in (f"p{n}", worst)))
    (part,) = (one for one in planned()["parts"] if one["name"] == "producers")
    took = int(server.info("memory")["used_memory"]) - before
    assert 0.8 * part["bytes"] < took <= part["bytes"] + 256 * 2**10
    assert "at worst" in part["how"]


def stored(server: Server, key: str) -> dict[bytes, bytes]:
    flat = server.cli("HGETALL", key)
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def test_needs_no_server_and_shows_its_sum() -> None:
    """Every term is named with its figure; the parts add up; the advice can be typed."""
    done = run("plan", "--max-jobs", "100k", "--max-bytes", "64MiB", "--payload", "1KiB")
    assert done.returncode == 0, done.stderr
    found = planned("--max-jobs", "100k", "--max-bytes", "64MiB", "--payload", "1KiB")
    assert sum(part["bytes"] for part in found["parts"]) == found["used"] <= found["maxmemory"]
    assert found["maxmemory"] + sum(part["bytes"] for part in found["extra"]) == found["ram"]
    assert found["parts"][0]["bytes"] == found["queues"][0]["budget"] == 80 * 2**20
    for part in (*found["parts"], *found["extra"]):
        assert part["name"] in done.stdout
        assert format_size(part["bytes"]) in done.stdout
    assert "CONFIG SET maxmemory " in done.stdout
    assert str(found["fits"][0]["jobs"]) in done.stdout


def test_existing_queues(fresh_server: FreshServer) -> None:
    """The limits of a server's own queues are added up."""
    server: Server = fresh_server()
    assert run("plan", "--existing", url=server.url).returncode == 78
    Queue("a", server.url, limits=Limits(max_bytes="8 MiB", max_dead_bytes="1 MiB")).enqueue_bytes(b"x")
    Queue("b", server.url, limits=Limits(max_bytes="16 MiB", max_dead_bytes="1 MiB")).stats()
    found = planned("--existing", url=server.url)
    assert [one["name"] for one in found["queues"]] == ["a", "b"]
    assert found["parts"][0]["bytes"] == 26 * 2**20
    assert "16.0 MiB" in run("plan", "--existing", url=server.url).stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--max-jobs", "many"], 2),
        (["--max-jobs", "0"], 78),
        (["--payload", "1 elephant"], 78),
        (["--max-bytes", "-1"], 78),
        (["--existing", "--max-jobs", "5"], 2),
        (["--copy-on-write", "2"], 2),
    ],
)
def test_bad_input(words: list[str], code: int) -> None:
    """What makes no sense is named, with its value, and nothing is printed in its place."""
    done = run("plan", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    assert any(word.lstrip("-") in done.stderr for word in words)


def test_more_of_anything_needs_more() -> None:
    """No term is forgotten: each argument raises the sum or the RAM."""
    queues = [QueuePlan("", Limits())]
    least = plan(queues, clients=10, batch_bytes=1000, forks=0)
    for more in (
        plan(queues * 2, clients=10, batch_bytes=1000, forks=0),
        plan(queues, clients=5000, batch_bytes=1000, forks=0),
        plan(queues, clients=10, batch_bytes=10**8, forks=0),
        plan(queues, clients=10, batch_bytes=1000, foreign=2**30, forks=0),
        plan(queues, clients=10, batch_bytes=1000, backlog=2**30, forks=0),
        plan(queues, clients=10, batch_bytes=1000, forks=1),
    ):
        assert more.ram > least.ram
