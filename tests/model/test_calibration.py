"""
Calibration: what jobs really cost a server against what they are charged (lua/README.md, "Charge").

``used_memory`` is exact (tests/_memory.py), so nothing here is statistical. Counts lie just above those at which a
table doubles, when it costs most: 2**k on Redis, 7 * 2**k on Valkey. Ids are those of a queue that has seen a billion
jobs: shorter ones are cheaper.

    pytest tests/model/test_calibration.py -s      # prints the table: payload, state, bytes a job, real / charged
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from boundq import Limits, Queue
from boundq._job import Prepared, prepare
from boundq.sync.lease import Lease
from tests._memory import quieten, used_memory
from tests._servers import Kind, Server
from tests.conftest import FreshServer

Payloads = Callable[[random.Random], int]
ALL = ("ready", "scheduled", "active", "dead")
FIRST_ID = 10**9
LIMITS = Limits(
    max_jobs=10**9, max_bytes=2**50, max_job_bytes=2**21, max_dead_jobs=10**9, max_dead_bytes=2**50, max_deliveries=127
)
# Keys that come into being are not charged: an empty zset, a listpack. Bytes, for the whole queue.
OWN = 32 * 1024
# Tables that have shrunk to an eighth may keep their size: bytes for each of the most jobs that were ever held.
TABLES = 16
# R-61, and what is aimed at where nothing but the job itself is charged.
MOST, TARGET = 1.25, 1.15


def log_uniform(low: int, high: int) -> Payloads:
    return lambda rnd: round(low * (high / low) ** rnd.random())


@dataclass(frozen=True)
class Mix:
    """Payload sizes, and how many jobs to take of them; ``exact``: no payload is below 1 KiB."""

    name: str
    size: Payloads
    counts: tuple[int, ...]
    exact: bool = False

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


MIXES = (
    Mix("10 B", lambda _: 10, (7170, 8194)),
    Mix("100 B", lambda _: 100, (3586, 4098)),
    Mix("250 B", lambda _: 250, (3586, 4098)),
    Mix("1 KiB", lambda _: 1024, (7170, 8194), exact=True),
    Mix("200-2000 B", lambda rnd: rnd.randint(200, 2000), (3586, 4098)),
    Mix("4 KiB", lambda _: 4096, (3586, 4098), exact=True),
    Mix("64 KiB", lambda _: 65536, (226, 258), exact=True),
    Mix("1 MiB", lambda _: 2**20, (20,), exact=True),
    Mix("10 B-64 KiB", log_uniform(10, 65536), (1794, 2050)),
    Mix("1 KiB-1 MiB", log_uniform(1024, 2**20), (129,), exact=True),
)


@dataclass
class Bench:
    """A queue on a server that nobody else uses, and what it has cost so far."""

    server: Server
    mix: Mix
    queue: Queue = field(init=False)
    rnd: random.Random = field(init=False)
    baseline: int = 0
    rows: list[tuple[str, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        quieten(self.server)
        # Scripts and commands cost something when they first run.
        self.begin("warm-up")
        self.fill(64, delay=100)
        self.fill(64, unique=True, unique_for=100)
        self.fill(64)
        leases = self.claim(40)
        halves = {"acks": leases[:10], "releases": leases[10:20], "retries": [(one, 1) for one in leases[20:30]]}
        self.queue.settle(**halves, buries=[(one, "warm", "up") for one in leases[30:]])
        self.end()

    def begin(self, name: str) -> None:
        """A new queue, made but empty."""
        self.queue = Queue(name, self.server.url, limits=LIMITS, deadline=60)
        self.rnd = random.Random(1)
        self.queue.stats()
        counters = (f"{part}{slot}" for part in ("tail", "head") for slot in range(8 if part == "tail" else 4))
        pairs = [word for counter in counters for word in (counter, FIRST_ID)]
        self.server.cli("HSET", f"boundq:{{{name}}}:state", *pairs)
        self.baseline = self.used()

    def end(self) -> int:
        """Delete every job through the queue; what is left of the growth."""
        self.queue.purge(*ALL)
        # Windows outlive their jobs; their time is not ours to wait for.
        self.server.cli("DEL", *(f"boundq:{{{self.queue.name}}}:{part}" for part in ("unique", "windows")))
        return self.used() - self.baseline

    def used(self) -> int:
        self.queue.close()
        return used_memory(self.server)

    def measure(self, state: str, jobs: int) -> tuple[int, int]:
        """Real growth and what is charged, as a row of the table too."""
        real = self.used() - self.baseline
        stats = self.queue.stats()
        charged = stats.bytes + stats.dead_bytes
        self.rows.append((state, jobs, real, charged))
        return real, charged

    def check(self, state: str, jobs: int, *, most: float = TARGET, tables: int = 0) -> None:
        """
        Real growth lies at or below the charge, and not far below it.

        Args:
            state: What the jobs are in.
            jobs: How many they are.
            most: The charge over the real bytes, at most, where no payload is below 1 KiB.
            tables: Most jobs that were ever held, where they are no longer.
        """
        real, charged = self.measure(state, jobs)
        over = (real - charged) / jobs
        allowed = OWN + TABLES * tables
        assert real <= charged + allowed, f"{state}: {jobs} jobs cost {over:.1f} B each more than they are charged"
        if self.mix.exact:
            assert charged <= most * real, f"{state}: charged {charged / real:.3f} times the real {real / jobs:.0f} B"

    def fill(self, count: int, *, unique: bool = False, **options: Any) -> None:
        def job() -> Prepared:
            payload = self.rnd.randbytes(1) * self.mix.size(self.rnd)
            key = {"unique": str(self.rnd.random())} if unique else {}
            return prepare(self.queue.name, "", payload, {**options, **key})

        results = self.queue.enqueue_many(job() for _ in range(count))
        assert all(result.ok for result in results)

    def claim(self, count: int) -> list[Lease]:
        leases: list[Lease] = []
        while len(leases) < count:
            found = self.queue.claim(min(count - len(leases), 500), lease=3600)
            assert found
            leases += found
        return leases

    def bury(self, leases: list[Lease], longest: int) -> None:
        texts = [(one, "handler", "x" * self.rnd.randint(0, longest)) for one in leases]
        assert not self.queue.settle(buries=texts)


@pytest.fixture(params=MIXES, ids=str)
def mix(request: pytest.FixtureRequest) -> Mix:
    chosen: Mix = request.param
    return chosen


@pytest.fixture
def bench(server_kind: Kind, fresh_server: FreshServer, mix: Mix) -> Iterator[Bench]:
    bench = Bench(fresh_server(server_kind), mix)
    bench.rows.clear()
    yield bench
    for state, jobs, real, charged in bench.rows:
        ratio = f"{real / charged:6.3f}" if charged else "     -"
        line = f"{server_kind.id:11}{mix.name:13}{state:16}{jobs:6}{real / jobs:12.1f}{charged / jobs:12.1f}{ratio}"
        print(line)  # noqa: T201  # the table, for -s


def test_no_state_costs_more_than_its_charge(bench: Bench, mix: Mix) -> None:
    """A job costs the server at most what it was charged, whatever becomes of it, and little less from 1 KiB up."""
    most = mix.counts[-1]

    bench.begin("plain")
    held = 0
    for count in mix.counts:
        bench.fill(count - held)
        held = count
        bench.check("ready", held)
    leases = bench.claim(held)
    bench.check("active", held)
    assert not bench.queue.settle(retries=[(one, 0) for one in leases])
    bench.check("retried", held)
    leases = bench.claim(held)
    bench.bury(leases, 2000)
    bench.check("dead", held, most=MOST)
    assert bench.end() < OWN

    bench.begin("terse")
    bench.fill(most)
    bench.bury(bench.claim(most), 0)
    bench.check("dead, no text", most, most=MOST)
    assert bench.end() < OWN

    bench.begin("later")
    held = 0
    for count in mix.counts:
        bench.fill(count - held, delay=10_000)
        held = count
        bench.check("scheduled", held)
    assert bench.end() < OWN

    bench.begin("half")
    bench.fill(most // 2)
    bench.fill(most - most // 2, delay=10_000)
    bench.check("half scheduled", most)
    assert bench.end() < OWN

    bench.begin("churn")
    bench.fill(most)
    for _ in range(3):
        assert not bench.queue.settle(acks=bench.claim(most // 2))
        bench.fill(most // 2)
    bench.check("churned", most)
    assert bench.end() < OWN


def test_unique_keys_cost_no_more_than_their_charge(bench: Bench, mix: Mix) -> None:
    """Neither does a unique key, with a window or without, also when the window outlives the job."""
    most = mix.counts[-1]

    bench.begin("unique")
    held = 0
    for count in mix.counts:
        bench.fill(count - held, unique=True)
        held = count
        bench.check("unique", held, most=MOST)
    leases = bench.claim(held)
    bench.check("unique, active", held, most=MOST)
    assert not bench.queue.settle(acks=leases)
    assert bench.queue.stats().bytes == 0
    assert bench.end() < OWN

    bench.begin("window")
    held = 0
    for count in mix.counts:
        bench.fill(count - held, unique=True, unique_for=86_400, delay=10_000)
        held = count
        bench.check("window", held, most=MOST)
    assert bench.end() < OWN

    bench.begin("after")
    bench.fill(most, unique=True, unique_for=86_400)
    assert not bench.queue.settle(acks=bench.claim(most))
    bench.check("window, ended", most, most=10)
    assert bench.end() < OWN


def test_a_mixture_and_what_is_left_of_it(bench: Bench, mix: Mix) -> None:
    """Nor do all states at once; what a drained queue keeps beside its charge is small change for each job it held."""
    most = mix.counts[-1]
    part = most // 8
    bench.begin("mixture")
    bench.fill(2 * part)
    bench.fill(part, unique=True)
    bench.fill(part, unique=True, unique_for=86_400, priority="high")
    bench.fill(2 * part, delay=10_000, priority="low")
    leases = bench.claim(3 * part)
    bench.bury(leases[:part], 2000)
    assert not bench.queue.settle(retries=[(one, 10_000) for one in leases[part : 2 * part]])
    bench.fill(2 * part)
    bench.check("mixture", 8 * part, most=MOST)
    assert bench.end() < OWN

    # The tables of a drained queue are at their emptiest: an eighth of the jobs leased, the rest retried and cancelled.
    bench.begin("drained")
    bench.fill(most)
    leases = bench.claim(most)
    kept = most // 7
    assert not bench.queue.settle(retries=[(one, 10_000) for one in leases[kept:]])
    bench.check("retried, 1/7 not", most)
    bench.queue.purge("scheduled")
    bench.check("drained to 1/7", kept, most=MOST, tables=most)
    bench.queue.purge("active")
    assert bench.end() < OWN
