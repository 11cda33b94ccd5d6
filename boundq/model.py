"""The values that calls return. Times are Unix seconds by the server's clock; durations are seconds."""

from __future__ import annotations

import random
from typing import Any, Final, Literal

import msgspec

from boundq.errors import JobTooLarge, QueueFull, QueueSealed, Rejected
from boundq.limits import Limits

__all__ = [
    "PRIORITIES",
    "EnqueueResult",
    "Event",
    "Job",
    "Matching",
    "Page",
    "Priority",
    "Receipt",
    "Rejection",
    "Restored",
    "Retried",
    "State",
    "Stats",
]

Priority = Literal["low", "normal", "high", "critical"]
PRIORITIES: Final[tuple[Priority, ...]] = ("low", "normal", "high", "critical")
State = Literal["ready", "scheduled", "active", "dead"]


class Receipt(msgspec.Struct, frozen=True):
    """
    A job is in the queue.

    Args:
        id: Issued by the server; ordered within a priority.
        duplicate: Nothing was added: the unique key is held, by the job of this id. False where only our own
            resend of a lost call was recognised: that call added its job, once.
        jobs: Jobs held now.
        bytes: Bytes charged for them now.
    """

    id: str
    duplicate: bool
    jobs: int
    bytes: int


class Rejection(msgspec.Struct, frozen=True):
    """A job was refused, and certainly not stored. Fields as in `Rejected`; `error` makes the exception."""

    queue: str
    reason: str
    used: int = 0
    limit: int = 0
    requested: int = 0
    oldest_age: float | None = None
    retry_after: float | None = None
    since: float = 0.0
    by: str = ""

    def error(self) -> Rejected:
        """The exception that ``enqueue`` raises for this."""
        if self.reason == "sealed":
            return QueueSealed(self.queue, self.since, self.by)
        kind = JobTooLarge if self.reason == "job_bytes" else QueueFull
        return kind(
            self.queue,
            self.reason,
            self.used,
            self.limit,
            self.requested,
            self.oldest_age,
            self.retry_after,
        )


class EnqueueResult(msgspec.Struct, frozen=True):
    """
    What happened to one job of `enqueue_many`.

    Exactly one is set: ``receipt``, ``rejection``, or ``error`` where the server's answer was lost (see its
    ``outcome``).
    """

    receipt: Receipt | None = None
    rejection: Rejection | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the job is in the queue."""
        return self.receipt is not None


class Job(msgspec.Struct, frozen=True):
    """
    A stored job, looked at.

    Args:
        id: As in the receipt.
        state: ``ready scheduled active dead``.
        priority: ``low normal high critical``.
        task: The task's name, "" for a raw payload.
        payload: As given to ``enqueue_bytes``; JSON ``[args, kwargs]`` for a task.
        headers: The string map beside the payload.
        created: When it was admitted.
        expires: When it may no longer be started, None for never.
        due: When it may run (scheduled), its lease ends (active) or it was buried (dead); None when ready.
        deliveries: Claims that were not given back.
        expired_leases: Those that ended in a lost lease.
        failures: Those that ended in a retry or a burial by the handler.
        unique: Digest of its unique key, None without one.
        reason: Why it was buried, "" when it was not.
        error: The error text stored with it, cut.
        ahead: Ready jobs before it in its priority, at most; None in other states.
        seen: When it was looked at; ages are taken from it.
    """

    id: str
    state: State
    priority: Priority
    task: str
    payload: bytes
    headers: dict[str, str]
    created: float
    expires: float | None
    due: float | None
    deliveries: int
    expired_leases: int
    failures: int
    unique: str | None
    reason: str
    error: str
    ahead: int | None
    seen: float = 0.0


class Page(msgspec.Struct, frozen=True):
    """Some jobs of a state; ``after`` goes into the next call, None when this was the last page."""

    jobs: list[Job]
    after: str | None


class Matching(msgspec.Struct, frozen=True):
    """How many jobs a selection has, and the bytes of their envelopes."""

    jobs: int
    bytes: int


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a restore did.

    Args:
        restored: Jobs put back now.
        before: Jobs of the file that were back already.
        left: Jobs not put back, because the queue would not take them (``reason``); restore again to go on.
        large: Jobs not put back because they are larger than ``max_job_bytes`` allows.
        dead: Dead letters that stay in the file, since they were not asked for.
        duplicates: Of ``restored``, jobs whose unique key another job holds by now, which stands for them.
        unsure: Of ``restored``, jobs of which nobody could say any more whether they were back: they may be in twice.
        unfinished: The purge that wrote the file did not come to its end.
        damaged: What in the file cannot be read, by line.
        reason: Why it stopped, "" when it came to the end.
    """

    restored: int = 0
    before: int = 0
    left: int = 0
    large: int = 0
    dead: int = 0
    duplicates: int = 0
    unsure: int = 0
    unfinished: bool = False
    damaged: list[str] = []
    reason: str = ""


class Retried(msgspec.Struct, frozen=True):
    """
    What became of dead letters that were to go back to work.

    Args:
        back: Ids of those that did. They are due at once.
        absent: There is no such dead letter (any more).
        kept: Still dead: another job holds their unique key, or they are larger than the limits now allow.
        left: Still dead: the queue took no more, see ``rejection``; they can be tried again.
        rejection: Why it took no more, None when all were looked at.
    """

    back: list[str]
    absent: list[str]
    kept: list[str]
    left: list[str]
    rejection: Rejection | None


class Event(msgspec.Struct, frozen=True):
    """
    A change of a queue's limits or switches.

    Args:
        at: When.
        what: ``limits pause resume seal unseal``.
        by: Who, and why, as they said.
        old, new: The limits that were changed, as they are stored: bytes, milliseconds.
    """

    at: float
    what: str
    by: str
    old: dict[str, int]
    new: dict[str, int]


class Stats(msgspec.Struct, frozen=True):
    """
    A queue in numbers.

    ``jobs`` and ``bytes`` are what the limits bound: ready, scheduled and active together. The counters run from
    the queue's creation: ``admitted = acked + dead + cancelled + expired + dropped + purged + jobs``; see
    `imbalance`. ``at``: when all of this was so. ``claimed_at``: when somebody last asked for jobs, to within a
    second; None: nobody ever did. A worker that lives, idle or not, asks at least once a second while the queue is
    not paused, or has no free hand.
    """

    name: str
    jobs: int
    bytes: int
    ready: int
    scheduled: int
    active: int
    dead: int
    dead_bytes: int
    limits: Limits
    oldest_age: float | None
    next_event: float | None
    paused_since: float | None
    paused_by: str
    sealed_since: float | None
    sealed_by: str
    drain_rate: float | None
    claimed_at: float | None
    admitted: int
    acked: int
    buried: int
    retried: int
    released: int
    cancelled: int
    expired: int
    dropped: int
    purged: int
    deliveries: int
    leases_expired: int
    leases_lost: int
    missing: int
    rejected: dict[str, int]
    unique_keys: int
    producers: int
    at: float

    @property
    def fill(self) -> float:
        """The fuller of the two limits, 0.0 to 1.0."""
        most_bytes = self.limits.max_bytes
        assert isinstance(most_bytes, int)
        return max(self.jobs / self.limits.max_jobs, self.bytes / most_bytes)

    @property
    def imbalance(self) -> int:
        """Jobs that the ledger cannot account for; anything but 0 means that a key was lost or edited."""
        gone = self.acked + self.cancelled + self.expired + self.dropped + self.purged
        return self.admitted - gone - self.dead - self.jobs


def retry_after(missing_jobs: float, rate: float) -> float:
    """Seconds until ``missing_jobs`` have left at ``rate`` jobs a second, 50 ms at least, with up to a quarter more."""
    return max(missing_jobs / rate, 0.05) * (1 + random.random() / 4)  # jitter needs no secret randomness


def as_text(value: Any) -> str:
    """A reply element as text; ints come as ints or as bytes, depending on the path."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
