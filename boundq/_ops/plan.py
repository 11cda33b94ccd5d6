"""
Sizing: how much memory a server needs for its queues, and how many jobs of a size they hold. Pure.

The parts of the sum are what lua/README.md ("Charge") names: the budgets, which are exact, and beside them what no
budget covers, each with the figure that was measured for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from boundq._charge import COSTS, HEAD, charge_of
from boundq.limits import Limits

# An empty server, with boundq's scripts: 1.4 to 1.5 MB on Redis 7.0 and 8.2, Valkey 8.1 and 9.1.
SERVER = 2 * 2**20
# A queue's state and events (lua/README.md).
QUEUE = 256 * 2**10
# Producers that a queue remembers, at most; and the bytes of one whose last call was a batch of 100 jobs with options:
# 1.7 KB on Valkey 8.1 and 9.1, 1.84 KB on Redis 7.0 and 8.2, with ids of 15 digits. Others take about 100.
PRODUCERS, PRODUCER = 4096, 1840
# A drained queue keeps so many bytes of tables for each of the most jobs that it ever held.
TABLES = 13
# An idle connection: 17 KB on Redis 8.2 and Valkey, 38 KB on Redis 7.0.
CONNECTION = 40 * 2**10
# Keep the budgets below this share of maxmemory.
SHARE = 0.75
# Pages that the server's allocator cannot use: mem_fragmentation_ratio 1.1 to 1.2 in a steady state.
FRAGMENTATION = 0.15


class QueuePlan(msgspec.Struct, frozen=True):
    """
    A queue and its share.

    Args:
        name: "" for one that is only thought of.
        limits: Its limits.
        cost: Its charge's constant.
        held, held_bytes: What it holds now.
    """

    name: str
    limits: Limits
    cost: int = COSTS["jemalloc"]
    held: int = 0
    held_bytes: int = 0

    @property
    def budget(self) -> int:
        """The most it may take: live jobs and dead letters."""
        return int(self.limits.max_bytes) + int(self.limits.max_dead_bytes)


class Fit(msgspec.Struct, frozen=True):
    """
    Jobs of one size in a queue.

    Args:
        payload: Bytes.
        charge: Bytes taken from the budget for one.
        jobs: How many fit.
        limit: Which limit ends it: ``jobs bytes job_bytes``.
        needed: ``max_bytes`` for ``max_jobs`` of them.
    """

    payload: int
    charge: int
    jobs: int
    limit: str
    needed: int


class Part(msgspec.Struct, frozen=True):
    """A term of the sum: what it is, its bytes, and how they come about."""

    name: str
    bytes: int
    how: str


class Plan(msgspec.Struct, frozen=True):
    """
    What a server needs.

    Args:
        parts: The terms of ``used_memory`` at its worst.
        used: Their sum.
        maxmemory: What to set.
        extra: The terms beside maxmemory: fragmentation, copy-on-write.
        ram: What the machine, or the container, should have for the server.
    """

    parts: list[Part]
    used: int
    maxmemory: int
    extra: list[Part]
    ram: int


def fit(queue: QueuePlan, payload: int, around: int) -> Fit:
    """How many jobs of a payload fit, with so many bytes of task name and headers around it."""
    size = payload + around + HEAD
    charge = charge_of(size, queue.cost)
    limits = queue.limits
    needed = charge * limits.max_jobs
    if size > int(limits.max_job_bytes):
        return Fit(payload, charge, 0, "job_bytes", needed)
    by_bytes = int(limits.max_bytes) // charge
    if by_bytes < limits.max_jobs:
        return Fit(payload, charge, by_bytes, "bytes", needed)
    return Fit(payload, charge, limits.max_jobs, "jobs", needed)


def plan(
    queues: Sequence[QueuePlan],
    *,
    clients: int,
    batch_bytes: int,
    foreign: int = 0,
    backlog: int = 0,
    forks: float = 0.5,
) -> Plan:
    """
    The sum.

    Args:
        queues: Those of the server.
        clients: Connections at the most.
        batch_bytes: What one of them has under way: a batch of jobs, claimed or enqueued.
        foreign: Bytes of other data on the server.
        backlog: ``repl-backlog-size``; 0 without replicas.
        forks: Share of the data that is written to while the server saves or rewrites its log: those pages exist twice.
            0 where it never forks, 1 at worst.
    """
    budgets = sum(queue.budget for queue in queues)
    tables = sum(queue.limits.max_jobs * TABLES for queue in queues)
    parts = [
        Part("budgets", budgets, f"max_bytes + max_dead_bytes of {len(queues)} queue(s)"),
        Part("queues", len(queues) * QUEUE, f"state and events, {QUEUE} B each"),
        Part(
            "producers",
            len(queues) * PRODUCERS * PRODUCER,
            f"at worst: {PRODUCERS} a queue, {PRODUCER} B each after a batch with options; else about 100 B",
        ),
        Part("tables", tables, f"{TABLES} B for each of max_jobs: what a drained queue may keep"),
        Part(
            "clients",
            clients * (CONNECTION + batch_bytes),
            f"{clients} x ({CONNECTION} B + a batch of {batch_bytes} B)",
        ),
        Part("server", SERVER, "the server itself, and the scripts"),
    ]
    if backlog:
        parts.append(Part("backlog", backlog, "repl-backlog-size, for replicas"))
    if foreign:
        parts.append(Part("foreign", foreign, "data that are not boundq's"))
    used = sum(part.bytes for part in parts)
    maxmemory = max(used, math.ceil((budgets + foreign) / SHARE))
    extra = [
        Part("fragmentation", round(maxmemory * FRAGMENTATION), f"{FRAGMENTATION:.0%} of maxmemory"),
        Part("copy-on-write", round((budgets + foreign) * forks), f"{forks:.0%} of the data, while it saves"),
    ]
    return Plan(parts, used, maxmemory, extra, maxmemory + sum(part.bytes for part in extra))


def to_json(found: Plan, fits: Sequence[Fit], queues: Sequence[QueuePlan]) -> dict[str, Any]:
    """The documented shape: all sizes in bytes."""
    return {
        "queues": [
            {
                "name": queue.name,
                "max_jobs": queue.limits.max_jobs,
                "max_bytes": queue.limits.max_bytes,
                "max_dead_bytes": queue.limits.max_dead_bytes,
                "budget": queue.budget,
                "jobs": queue.held,
                "bytes": queue.held_bytes,
            }
            for queue in queues
        ],
        "fits": [msgspec.structs.asdict(one) for one in fits],
        **msgspec.to_builtins(found),
    }
