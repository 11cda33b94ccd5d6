"""Operations on a queue of some size, timed by the server's own clock; what `lua/test_scale.py` and the bench use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from boundq import Queue
from boundq.sync.lease import Lease
from tests._servers import Server


@dataclass
class Sized:
    """A queue of some size, and the samples taken on it: operation -> microseconds a call."""

    server: Server
    queue: Queue
    held: list[Lease] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=dict)

    def fill(self, jobs: int) -> None:
        """Nine in ten ready; the rest scheduled for tomorrow or leased for an hour, half and half."""
        other = jobs // 20
        assert all(one.ok for one in self.queue.enqueue_many(b"x" * 16 for _ in range(jobs - other)))
        assert all(one.ok for one in self.queue.enqueue_many((b"x" * 16 for _ in range(other)), delay=86_400))
        while len(self.held) < other:
            self.held += self.queue.claim(min(500, other - len(self.held)), lease=3600)
        assert self.queue.stats().jobs == jobs

    def time(self, name: str, calls: list[Callable[[], Any]]) -> list[Any]:
        """Run the calls; the server's time for each, on average, is one sample."""
        self.server.cli("CONFIG", "RESETSTAT")
        results = [call() for call in calls]
        stats = dict(part.split("=") for part in self.server.info("commandstats")["cmdstat_evalsha"].split(","))
        assert int(stats["calls"]) == len(calls), "other calls were counted too"
        self.times.setdefault(name, []).append(float(stats["usec_per_call"]))
        return results

    def sample(self, name: str) -> None:
        """One sample of an operation. All operations together leave the queue as large as it was."""
        queue = self.queue
        if name == "enqueue":
            self.time(name, [lambda: queue.enqueue_bytes(b"x" * 16)] * 20)
        elif name == "enqueue 100":
            self.time(name, [lambda: queue.enqueue_many([b"x" * 16] * 100)] * 2)
        elif name == "claim 10":
            leases = self.time(name, [lambda: queue.claim(10, lease=3600)] * 20)
            self.held += [one for some in leases for one in some]
        elif name == "extend 10":
            self.time(name, [lambda: queue.extend(self.held[-10:], lease=7200)] * 20)
        elif name == "retry 10":
            batches = self.batches(10)
            self.time(
                name, [lambda batch=batch: queue.settle(retries=[(one, 0) for one in batch]) for batch in batches]
            )
            self.held += queue.claim(100, lease=3600)
        elif name == "ack 10":
            self.time(name, [lambda batch=batch: queue.settle(acks=batch) for batch in self.batches(20)])
        elif name == "cancel":
            wanted = [job.id for job in queue.peek("ready", 20).jobs]
            assert all(self.time(name, [lambda job_id=job_id: queue.cancel(job_id) for job_id in wanted]))
        elif name == "get":
            wanted = [one.id for one in self.held[:20]] + [job.id for job in queue.peek("ready", 20).jobs]
            self.time(name, [lambda job_id=job_id: queue.get(job_id) for job_id in wanted])
        elif name == "stats":
            self.time(name, [queue.stats] * 30)
        else:
            state = name.removeprefix("peek ")
            after = queue.peek(state, 5).after  # type: ignore[arg-type]  # it is a state
            self.time(name, [lambda: queue.peek(state, 10, after)] * 30)  # type: ignore[arg-type]  # likewise

    def batches(self, count: int) -> list[list[Lease]]:
        """So many times ten of the leases, which are taken out."""
        taken, self.held = self.held[-10 * count :], self.held[: -10 * count]
        return [taken[at : at + 10] for at in range(0, len(taken), 10)]


OPERATIONS: tuple[str, ...] = (
    *("enqueue", "enqueue 100", "claim 10", "extend 10", "retry 10", "ack 10", "cancel", "get", "stats"),
    *("peek ready", "peek active"),
)
