"""
Memory: what a waiting job costs the server, beside a list of the same payloads, and what is left after a drain.

A job is a call of a task with one argument of that size; the list holds the argument alone. ``used_memory`` is exact
when the server is at rest. The picture shows what comes on top of the argument.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from typing import NamedTuple

from bench._harness import Arm, Column, Curves, Figures, Group, Options, Result, in_turns
from bench._place import Place
from tests._memory import quieten, used_memory

PAYLOADS = (100, 200, 1024, 4096, 16 * 1024)
COLUMNS = (
    Column("job", "bytes/job", compared=True),
    Column("extra", "on top of the argument"),
    Column("charged", "charged/job"),
    Column("left", "bytes left"),
    Column("keys", "keys left"),
)
_BATCH = 500


class Size(NamedTuple):
    """Jobs and bytes of arguments, at most; rounds."""

    jobs: int
    bytes: int
    rounds: int


SIZES = {
    "tiny": Size(1000, 2**21, 1),
    "quick": Size(10_000, 2**25, 1),
    "full": Size(100_000, 2**28, 3),
}


class Stored(Arm):
    """
    Jobs stored, and taken out.

    Args:
        jobs: How many.
        payload: Bytes of each one's argument.
    """

    def __init__(self, name: str, place: Place, jobs: int, payload: int) -> None:
        super().__init__(name)
        self.place, self.jobs, self.payload = place, jobs, payload

    @abstractmethod
    def fill(self, jobs: int) -> Figures:
        """Store so many, and hang up; what else is known of them."""

    @abstractmethod
    def drain(self) -> None:
        """Take all out, and hang up."""

    def run(self) -> Figures:
        self.place.flush()
        self.fill(1)  # what a queue keeps whatever it holds is no job's cost
        self.drain()
        before, keys = self._used(), self._keys()
        figures = self.fill(self.jobs)
        job = (self._used() - before) / self.jobs
        self.drain()
        return {
            **figures,
            "job": job,
            "extra": job - self.payload,
            "left": float(self._used() - before),
            "keys": float(self._keys() - keys),
        }

    def _used(self) -> int:
        self.place.wire.close()  # the only client beside it
        try:
            return used_memory(self.place.server)
        finally:
            self.place.reconnect()

    def _keys(self) -> int:
        return int(self.place.wire.say("DBSIZE"))


class InQueue(Stored):
    """In a queue; taken out by claims and acks."""

    def fill(self, jobs: int) -> Figures:
        with ExitStack() as stack:
            queue = self.place.queue(stack)
            job = queue.named("noop").call("x" * self.payload)
            assert all(one.ok for one in queue.enqueue_many(job for _ in range(jobs)))
            return {"charged": queue.stats().bytes / jobs}

    def drain(self) -> None:
        with ExitStack() as stack:
            queue = self.place.queue(stack)
            while leases := queue.claim(_BATCH):
                queue.settle(acks=leases)


class InList(Stored):
    """In a list; taken out by RPOP."""

    def fill(self, jobs: int) -> Figures:
        payload = b"x" * self.payload
        with ExitStack() as stack:
            client = self.place.redis(stack)
            for start in range(0, jobs, _BATCH):
                client.lpush("list", *[payload] * min(_BATCH, jobs - start))
        return {}

    def drain(self) -> None:
        with ExitStack() as stack:
            client = self.place.redis(stack)
            while client.rpop("list", _BATCH):
                pass


def measure(place: Place, options: Options) -> Result:
    """Each size of argument."""
    size = SIZES[options.size]
    quieten(place.server)
    groups = []
    extra: dict[str, list[tuple[float, float]]] = {"boundq": [], "list": []}
    for payload in sorted({*PAYLOADS, options.payload}):
        jobs = min(size.jobs, size.bytes // payload)
        arms = [InList("list", place, jobs, payload), InQueue("boundq", place, jobs, payload)]
        group = Group(
            f"{payload:,} bytes, {jobs:,} jobs", in_turns(arms, options.of(size.rounds), warm_up=0), "list", COLUMNS
        )
        groups.append(group)
        for name, points in extra.items():
            found = group.values(name, "extra")
            assert found is not None
            points.append((payload, found.median))
    return Result(groups, [Curves("bytes a job on top of its argument", "bytes of the argument", extra, log_x=True)])
