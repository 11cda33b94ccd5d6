"""Looks at the server and at both queues, again and again."""

from __future__ import annotations

import time

from boundq import Server
from boundq.demo.load import Arm
from boundq.demo.plan import QUEUES
from boundq.demo.record import Level, Record, Sample

__all__ = ["Watch"]


class Watch:
    """
    Takes the samples of one act.

    Args:
        server: To be asked for its memory.
        arm: To be asked for its queues.
        record: Gets the samples; its receipts are counted.
        sent: A list for each queue that is as long as many mails were delivered, for the display.
    """

    def __init__(self, server: Server, arm: Arm, record: Record, sent: dict[str, list[str]]) -> None:
        self._server = server
        self._arm = arm
        self._record = record
        self._sent = sent
        self._before = {queue: len(ids) for queue, ids in sent.items()}
        self._clock = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the act began."""
        return time.monotonic() - self._clock

    def take(self) -> Sample:
        """One more sample."""
        memory = int(self._server.info("memory")["used_memory"])
        sample = Sample(self.now, memory, {queue: self._level(queue) for queue in QUEUES})
        self._record.samples.append(sample)
        return sample

    def _level(self, queue: str) -> Level:
        receipts = self._record.receipts[queue]
        done = len(self._sent[queue]) - self._before[queue]
        return Level(*self._arm.held(queue), len(receipts.accepted), len(receipts.refused), done)
