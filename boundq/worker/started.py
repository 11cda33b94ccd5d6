"""Started: a job in this worker's hands, and `Ended`: one whose run is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from boundq._runner import Run, Verdict
from boundq.job_control import CurrentJob
from boundq.lease import BaseLease
from boundq.sync.lease import Lease

if TYPE_CHECKING:
    from boundq.worker.claimer import Claimer

# By queue, job and fence: a job whose lease was lost may come back to the very worker that still runs it.
Key = tuple[str, str, int]


class Started(NamedTuple):
    """
    A claimed job.

    Args:
        claimer: Who claimed it, and settles it.
        lease: The delivery.
        job: What the handler sees of it.
        run: What to call; or the verdict where there is nothing to call.
        kind: Of the slot that it takes.
        at: When it was claimed, by the monotonic clock.
    """

    claimer: Claimer
    lease: Lease
    job: CurrentJob
    run: Run | Verdict
    kind: str
    at: float

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.claimer.queue.name

    @property
    def key(self) -> Key:
        """By which it is known."""
        return key_of(self.claimer.queue.name, self.lease)

    @property
    def about(self) -> dict[str, object]:
        """For structured logs: which job a line is about."""
        return about(self.queue, self.lease)


def key_of(queue: str, lease: BaseLease) -> Key:
    """By which a delivery is known."""
    return queue, lease.id, lease.delivery.fence


def about(queue: str, lease: BaseLease) -> dict[str, object]:
    """For structured logs: which job a line is about."""
    return {"queue": queue, "job_id": lease.id, "task": lease.task, "attempt": lease.attempt}


class Ended(NamedTuple):
    """A job whose run is over."""

    lease: Lease
    verdict: Verdict
