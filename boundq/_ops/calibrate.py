"""
Calibration: what jobs are charged against what they take, on the server at hand.

A scratch queue is filled with jobs of one size, in a bounded number of steps, and deleted. `used_memory` belongs to
the whole server, so others who write meanwhile blur the figure: it is taken when it has come to rest, and the spread
of what moves without us is reported beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from boundq import Lease, Limits, Queue, Server
from boundq._ops.facts import too_old, version
from boundq._ops.scratch import scratch
from boundq.errors import ConfigError

# A measurement takes so much memory at most, as charged, and so many jobs; no less than it takes to drown the noise.
MOST_BYTES, MOST_JOBS, LEAST_JOBS = 8 * 2**20, 20_000, 20
# What the buffers of clients come and go by meanwhile, in bytes, beside a payload or two that lie in them.
BUFFERS = 64 * 1024
# Of what is free below maxmemory, or of RAM, at most this share.
SHARE = 0.25
# One reading is the middle one of so many, so far apart in seconds.
READINGS, APART = 5, 0.02


class Sample(msgspec.Struct, frozen=True):
    """
    One payload size in one state.

    Args:
        payload: Bytes.
        state: ``ready active scheduled``.
        jobs: So many were measured.
        charged: Bytes charged for one.
        real: Bytes that one took.
    """

    payload: int
    state: str
    jobs: int
    charged: float
    real: float

    @property
    def share(self) -> float:
        """Real over charged: above 1 the bound is too wide on this server."""
        return self.real / self.charged


class Calibration(msgspec.Struct, frozen=True):
    """
    The result.

    Args:
        server: Its name, version and allocator.
        noise: Bytes by which the server's memory moved without us, beside each sample.
        samples: One a size and state.
    """

    server: str
    noise: int
    samples: list[Sample]

    @property
    def ok(self) -> bool:
        """Whether no job takes more than it is charged, beyond the noise."""
        return all(
            one.real * one.jobs <= one.charged * one.jobs + self.noise + BUFFERS + 2 * one.payload
            for one in self.samples
        )


def headroom(server: Server, sizes: Sequence[int]) -> int:
    """
    Bytes that may be taken for the measurement.

    Raises:
        ConfigError: The server has not that much to spare, or does not let us see.
    """
    info = server.info()
    if "used_memory" not in info or too_old(info):
        raise ConfigError(
            "server", "its INFO", "calibration needs to read used_memory, on Redis 7.0, Valkey 7.2 or newer"
        )
    most = int(info.get("maxmemory", 0)) or int(info.get("total_system_memory", 0))
    free = max(most - int(info["used_memory"]), 0)
    spare = min(int(free * SHARE), MOST_BYTES)
    needed = LEAST_JOBS * (max(sizes) + 1024) * 2
    if spare < needed:
        raise ConfigError(
            "server", f"{free} bytes free", f"a quarter of it must hold {needed} bytes; try a smaller --payload"
        )
    return spare


def calibrate(where: str | None, sizes: Sequence[int], spare: int) -> Calibration:
    """Fill, measure and delete, a size after the other."""
    server = Server(where)
    info = server.info()
    kind = "Valkey" if "valkey_version" in info else "Redis"
    number = info.get("valkey_version", info.get("redis_version", "?"))
    noise = 0
    samples: list[Sample] = []
    limits = Limits(max_jobs=MOST_JOBS, max_bytes=4 * MOST_BYTES, max_job_bytes=max(sizes) + 1024)
    with scratch(where, "calibrate", limits) as queue:
        # Scripts, buffers and the queue itself cost something when they are first used.
        _through(queue, b"x" * 100, 50, server, [])
        for size in sizes:
            before = _used(server)
            noise = max(noise, abs(_used(server) - before))
            jobs = max(min(MOST_JOBS, spare // (size + 1024)), LEAST_JOBS)
            _through(queue, b"x" * size, jobs, server, samples)
    return Calibration(f"{kind} {number}, {info.get('mem_allocator', 'unknown allocator')}", noise, samples)


def _through(queue: Queue, payload: bytes, jobs: int, server: Server, samples: list[Sample]) -> None:
    """Take jobs through their states, and measure each."""

    def measured(state: str) -> None:
        stats = queue.stats()
        real = _used(server) - baseline
        samples.append(Sample(len(payload), state, jobs, stats.bytes / jobs, real / jobs))

    baseline = _used(server)
    _fill(queue, payload, jobs)
    measured("ready")
    leases: list[Lease] = []
    while len(leases) < jobs:
        found = queue.claim(min(jobs - len(leases), 500), lease=600)
        if not found:
            break
        leases += found
    measured("active")
    queue.settle(retries=[(lease, 3600) for lease in leases])
    measured("scheduled")
    queue.purge()


def _fill(queue: Queue, payload: bytes, jobs: int) -> None:
    for result in queue.enqueue_many(payload for _ in range(jobs)):
        if result.rejection is not None:
            raise result.rejection.error()
        if result.error is not None:
            raise result.error


def _used(server: Server) -> int:
    """``used_memory`` without the scripts' heap, which Redis counts in from 7.4 on."""
    kind, number = version(server.info("server"))
    readings = []
    for _ in range(READINGS):
        info = server.info("memory")
        heap = int(info.get("used_memory_vm_eval", 0)) if kind == "Redis" and number >= (7, 4) else 0
        readings.append(int(info["used_memory"]) - heap)
        time.sleep(APART)
    return sorted(readings)[READINGS // 2]
