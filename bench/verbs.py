"""
Verbs: how long the inspecting verbs of the command line take beside a queue of a million jobs, and for how long the
server is held by one of their calls.

Each is a process of its own, as typed, so its start is in it. What holds the server is the longest entry of its slow
log; on a busy machine that counts waiting for a CPU too. Targets: 300 ms and 5 ms.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple

from bench._harness import Arm, Column, Figures, Group, Options, Result, in_turns
from bench._place import Place
from bench._report import ROOT

COLUMNS = (
    Column("wall", "ms", compared=True, digits=0),
    Column("held", "longest call, server ms", compared=True, digits=2),
)
QUEUE = "bench"
_BATCH, _DEAD = 500, 5000


class Size(NamedTuple):
    """Jobs held, and rounds."""

    jobs: int
    rounds: int


SIZES = {"tiny": Size(2000, 1), "quick": Size(1_000_000, 5), "full": Size(1_000_000, 15)}


class Verb(Arm):
    """
    One verb with its words.

    Args:
        words: Behind ``boundq``.
    """

    def __init__(self, place: Place, *words: str) -> None:
        super().__init__(f"boundq {' '.join(words)}")
        self._place, self._words = place, words

    def run(self) -> Figures:
        self._place.wire.say("SLOWLOG", "RESET")
        command = [sys.executable, "-m", "boundq", *self._words]
        begun = time.perf_counter()
        done = subprocess.run(
            command, env={**os.environ, "BOUNDQ_URL": self._place.url}, cwd=ROOT, capture_output=True, check=False
        )
        wall = time.perf_counter() - begun
        assert done.returncode in (0, 1), done.stderr.decode()  # 1: check and doctor have something to say
        slow = max((entry[2] for entry in self._place.wire.say("SLOWLOG", "GET", 1000)), default=0)
        return {"wall": wall * 1e3, "held": slow / 1e3}


def measure(place: Place, options: Options) -> Result:
    """Every verb that only looks."""
    size = SIZES[options.size]
    job, letter = _fill(place, size.jobs, options.payload)
    place.wire.say("CONFIG", "SET", "slowlog-log-slower-than", 0)
    place.wire.say("CONFIG", "SET", "slowlog-max-len", 1000)
    verbs = (
        *(("ls",), ("stats", QUEUE), ("top", "--json", "--count", "1")),
        *(("peek", QUEUE), ("peek", QUEUE, "--state", "active"), ("peek", QUEUE, "--state", "dead")),
        *(("show", QUEUE, job), ("position", QUEUE, job)),
        *(("dead", "ls", QUEUE), ("dead", "show", QUEUE, letter)),
        *(("limits", "show", QUEUE), ("check", QUEUE), ("doctor",)),
    )
    runs = in_turns([Verb(place, *words) for words in verbs], options.of(size.rounds))
    # The ids differ from size to size; the picture needs names that do not.
    named = {name.replace(job, "ID").replace(letter, "ID"): found for name, found in runs.items()}
    return Result([Group(f"beside {size.jobs:,} jobs", named, None, COLUMNS)])


def _fill(place: Place, jobs: int, payload: int) -> tuple[str, str]:
    """Jobs of which some are active and some dead; the ids of a ready one and of a dead one."""
    queue = place.queue(place.stack, QUEUE)
    for start in range(0, jobs, 10_000):
        results = queue.enqueue_many([b"x" * payload] * min(10_000, jobs - start))
        assert all(one.ok for one in results)
    leases = [lease for _ in range(min(2 * _DEAD, jobs // 2) // _BATCH) for lease in queue.claim(_BATCH, lease=3600)]
    for start in range(0, len(leases) // 2, _BATCH):
        buried = leases[start : start + _BATCH]
        assert queue.settle(buries=[(one, "retries", "TimeoutError: too long") for one in buried]) == []
    return queue.peek("ready", 1).jobs[0].id, queue.peek("dead", 1).jobs[0].id
