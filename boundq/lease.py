"""What a lease says of its job, whichever shell made it."""

from __future__ import annotations

import time

from boundq._core.delivery import Delivery
from boundq.errors import DataError
from boundq.model import Priority

__all__ = ["BaseLease"]


class BaseLease:
    """
    One delivery of a job: what it is, and until when.

    Attributes:
        settled: It was acked, retried, released or buried through this object.
        cancelled: Known once it is lost: the job is gone too.
    """

    __slots__ = ("__weakref__", "cancelled", "delivery", "ends", "settled")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.ends = delivery.expires_at
        self.settled = False
        self.cancelled = False

    @property
    def id(self) -> str:
        """The job's id."""
        return self.delivery.id

    @property
    def payload(self) -> bytes:
        """The payload; the stored bytes as they are where the envelope cannot be read (see `problem`)."""
        return self.delivery.envelope.payload if self.delivery.envelope else self.delivery.raw

    @property
    def task(self) -> str:
        """The task's name, "" for a raw payload."""
        return self.delivery.envelope.task if self.delivery.envelope else ""

    @property
    def headers(self) -> dict[str, str]:
        """The string map beside the payload."""
        return self.delivery.envelope.headers if self.delivery.envelope else {}

    @property
    def created(self) -> float:
        """When the job was admitted, Unix seconds by the server's clock."""
        return self.delivery.envelope.created_ms / 1000 if self.delivery.envelope else 0.0

    @property
    def attempt(self) -> int:
        """Which delivery this is, from 1."""
        return self.delivery.attempt

    @property
    def expired_leases(self) -> int:
        """How many earlier deliveries ended in a lost lease."""
        return self.delivery.expired_leases

    @property
    def priority(self) -> Priority:
        """The level the job was enqueued with."""
        return self.delivery.priority

    @property
    def deadline(self) -> float:
        """When the lease as claimed ends, Unix seconds by the server's clock."""
        return self.delivery.deadline

    @property
    def remaining(self) -> float:
        """Seconds until the lease ends, extensions counted; negative when it has."""
        return self.ends - time.monotonic()

    @property
    def problem(self) -> DataError | None:
        """Why the stored bytes cannot be read, None when they can."""
        return self.delivery.problem

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of job {self.id}, attempt {self.attempt}>"
