"""Producers that race at the limit, in processes, threads and tasks, while workers run, fail and are killed (R-01)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from boundq import Limits, Queue
from tests._servers import Server, wait_until
from tests.model._racers import LEASE, PAYLOAD

ROOT = Path(__file__).resolve().parents[2]
JOBS = 50


def charge_of_one(server: Server, name: str) -> int:
    """What one job of the race is charged on this server."""
    queue = Queue(f"{name}.one", server.url)
    return queue.enqueue_bytes(b"x" * PAYLOAD).bytes


def race(
    server: Server, name: str, folder: Path, limits: Limits, *, seconds: float, processes: int, tasks: int
) -> None:
    queue = Queue(name, server.url, limits=limits)
    queue.stats()
    command = [sys.executable, "-m", "tests.model._racers", server.url, name, folder, seconds, processes, tasks]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

    told: dict[str, list[list[Any]]] = {"in": [], "no": [], "ack": []}
    for file in folder.glob("*.log"):
        for line in file.read_text().splitlines():
            kind, *what = json.loads(line)
            told[kind].append(what)
    most_jobs = max(jobs for _, _, jobs, _ in told["in"])
    most_bytes = max(size for _, _, _, size in told["in"])
    reached = {"jobs": (most_jobs, limits.max_jobs), "bytes": (most_bytes, limits.max_bytes)}
    for unit, (most, limit) in reached.items():
        assert most <= int(limit), f"{most} {unit} were held, the limit is {limit}"
    assert any(most == limit for most, limit in reached.values()), f"the limit was never reached: {reached}"
    for reason, used, limit, requested in told["no"]:
        assert used <= limit < used + requested, f"refused for {reason}: {used} of {limit} held, {requested} asked for"
    assert told["no"]

    accepted = {job_id: payload for job_id, payload, _, _ in told["in"]}
    assert len(accepted) == len(told["in"]), "an id was given out twice"
    assert len(set(accepted.values())) == len(accepted), "a job was admitted twice"
    stats = queue.stats()
    assert stats.admitted == len(accepted), "what was admitted is not what producers were told"
    assert stats.imbalance == 0
    assert queue.recount().ok

    # Everything that was accepted is found again: done, dead, or still to be had.
    dead, after = [], None
    while True:
        page = queue.peek("dead", 100, after)
        dead += [(job.id, job.payload.decode()) for job in page.jobs]
        after = page.after
        if after is None:
            break
    left: list[tuple[str, str]] = []

    def drained() -> bool:
        leases = queue.claim(500, lease=60)
        left.extend((lease.id, lease.payload.decode()) for lease in leases)
        assert not queue.settle(acks=leases)
        return queue.stats().jobs == 0

    wait_until(drained, "the rest of the jobs", 10 + LEASE)
    assert all(accepted[job_id] == payload for job_id, payload in dead + left)
    held = [job_id for job_id, _ in dead + left]
    assert len(set(held)) == len(held), "a job was there twice"
    acks = Counter(job_id for (job_id,) in told["ack"])
    missing = accepted.keys() - acks.keys() - set(held)
    assert not missing, f"accepted, and never seen again: {sorted(missing)[:5]}"
    assert queue.stats().acked == len(accepted) - len(dead)
    assert queue.stats().bytes == 0
    queue.close()


@pytest.mark.parametrize("bound", ["jobs", "bytes"])
def test_eight_producers_never_pass_the_limit(server: Server, queue_name: str, tmp_path: Path, bound: str) -> None:
    """8 producers race at a limit of jobs, or of bytes: it is reached exactly and never passed, and no job is lost."""
    limits = Limits(max_jobs=JOBS) if bound == "jobs" else Limits(max_bytes=JOBS * charge_of_one(server, queue_name))
    race(server, queue_name, tmp_path, limits, seconds=1, processes=4, tasks=2)


@pytest.mark.everywhere
def test_64_producers_never_pass_the_limit(any_server: Server, queue_name: str, tmp_path: Path) -> None:
    """64 producers in 8 processes, threads and tasks: likewise."""
    race(any_server, queue_name, tmp_path, Limits(max_jobs=JOBS), seconds=4, processes=8, tasks=8)
