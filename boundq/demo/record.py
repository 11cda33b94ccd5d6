"""What an act leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from boundq.demo.load import Receipts
from boundq.demo.maildir import Mail
from boundq.demo.plan import QUEUES

__all__ = ["Level", "Record", "Sample"]


class Level(NamedTuple):
    """One queue at an instant; the last three count since the act began."""

    jobs: int
    bytes: int
    accepted: int
    refused: int
    done: int


class Sample(NamedTuple):
    """
    Server and queues at an instant.

    Args:
        at: Seconds since the act began.
        memory: The server's ``used_memory``.
        levels: By queue.
    """

    at: float
    memory: int
    levels: dict[str, Level]


@dataclass(slots=True)
class Record:
    """
    One act.

    Attributes:
        began: In Unix seconds, to compare with the times of mails.
        samples: In order.
        receipts: What the producers were told, by queue.
        mails: Delivered in this act, the oldest first, read from the Maildir.
        held: Ids in the queue at the end, by queue, looked up one by one.
        carried: Ids of an earlier act that the queue held at the beginning, by queue.
        flood_at: Seconds into the act at which the campaign producers started.
        full_at: At which the first campaign message was refused; None: none was.
        ended: At which the producers stopped.
        closed: At which studio's worker was through with what they had left, or was given up.
        imbalance: Jobs that the queues' own ledgers cannot account for.
        drain_at: At which a campaigns worker started, on a server that is full to the last byte.
        drained_in: Seconds that it took, or was given.
        refused_writes, refused_claims: What the server had no memory for in that time: the neighbour's writes,
            the worker's claims.
    """

    began: float
    samples: list[Sample] = field(default_factory=list)
    receipts: dict[str, Receipts] = field(default_factory=lambda: {queue: Receipts() for queue in QUEUES})
    mails: list[Mail] = field(default_factory=list)
    held: dict[str, list[str]] = field(default_factory=dict)
    carried: dict[str, list[str]] = field(default_factory=dict)
    flood_at: float = 0.0
    full_at: float | None = None
    ended: float = 0.0
    closed: float = 0.0
    imbalance: int = 0
    drain_at: float = 0.0
    drained_in: float = 0.0
    refused_writes: int = 0
    refused_claims: int = 0

    def mails_between(self, queue: str, start: float, end: float) -> int:
        """How many mails of a queue came in between two times of the act."""
        return sum(start < mail.at - self.began <= end for mail in self.mails if queue_of(mail.id) == queue)


def new_id(act: int, queue: str, producer: int, n: int) -> str:
    """An id that no other message has."""
    return f"act{act}.{queue}.{producer}.{n:06d}"


def queue_of(message_id: str) -> str:
    """The queue that a message was meant for."""
    return message_id.split(".")[1]
