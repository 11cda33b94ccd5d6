"""Numbers of a queue that never was."""

from __future__ import annotations

from typing import Any

from boundq import Limits, Stats

COUNTERS = (
    *("acked", "buried", "retried", "released", "cancelled", "expired", "dropped", "purged", "deliveries"),
    *("leases_expired", "leases_lost", "missing", "unique_keys", "producers", "dead", "dead_bytes", "active"),
    *("scheduled", "admitted", "jobs", "bytes"),
)


def stats(name: str = "mails", *, at: float = 1000.0, rejected: int = 0, **changed: Any) -> Stats:
    """A queue of 100 jobs and 1 MiB at most; whatever is not said is 0, and all jobs are ready."""
    values: dict[str, Any] = dict.fromkeys(COUNTERS, 0)
    values |= {"limits": Limits(max_jobs=100, max_bytes=2**20), "oldest_age": 0.0, "next_event": None}
    values |= {"paused_since": None, "paused_by": "", "sealed_since": None, "sealed_by": "", "drain_rate": None}
    values |= {"claimed_at": None}
    values |= {"rejected": {"jobs": rejected}, **changed}
    values.setdefault("ready", values["jobs"])
    return Stats(name=name, at=at, **values)
