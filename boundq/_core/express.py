"""
Express: how plain jobs of one priority go to a queue that their producer knows: the bytes of the call made in one go,
one attempt, receipts. Nearly all that is ever enqueued goes this way. What is out of the ordinary, before or after the
attempt, goes the long way (admission.py), under the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from boundq import _status as status
from boundq._call import Flow, opening
from boundq._core.admission import Admission, Outcome, receipts
from boundq._core.base import Core
from boundq._job import Prepared
from boundq._retry import Lost
from boundq._scripts import load
from boundq._session import Session

# Stored, all or some of them; or refused for one of these reasons.
_ANSWERS = (status.OK, status.FULL_JOBS, status.FULL_BYTES, status.TOO_LARGE)


class Express:
    """
    Args:
        core: The queue.
        admission: The long way.
    """

    def __init__(self, core: Core, admission: Admission) -> None:
        self._core = core
        self._admission = admission
        self.queue = core.name

    def request(self, session: Session, jobs: Sequence[Prepared]) -> bytes | None:
        """
        The command that admits the longest prefix that fits, under a new number; None: they have to go the long way.

        Args:
            session: Of the producer.
            jobs: One script's worth; those that are plain are of one priority.
        """
        if session.stale or self._admission.memory.troubled:
            return None
        most = self._core.max_job_bytes or 0
        for job in jobs:
            if job.general or job.size > most:
                return None
        session.next_number()
        created, field = session.created(), session.field
        words = [
            b"*%d\r\n%b$%d\r\n%b\r\n$18\r\n%b\r\n$1\r\n0\r\n$1\r\n%d\r\n"
            % (10 + len(jobs), self._opening, len(field), field, session.number, jobs[0].level)
        ]
        for job in jobs:
            envelope = job.envelope(created)
            words.append(b"$%d\r\n%b\r\n" % (len(envelope), envelope))
        return b"".join(words)

    def outcomes(self, reply: list[Any] | None) -> list[Outcome] | None:
        """As `Admission.enqueue` says it, from what the server has answered; None: the long way has to be gone."""
        return receipts(self.queue, reply) if reply is not None and reply[0] in _ANSWERS else None

    def long_way(
        self, session: Session, jobs: Sequence[Prepared], *, numbered: bool, failed: Lost | None
    ) -> Flow[list[Outcome]]:
        """
        The flow that goes on where the short way has ended.

        Args:
            session, jobs: As of `request`.
            numbered: There was a request.
            failed: How the attempt at it went; give it to the link's ``drive`` with the flow.
        """
        return self._admission.enqueue(session, jobs, again=numbered, resent=failed is not None and failed.sent)

    @cached_property
    def _opening(self) -> bytes:
        return opening(load("enqueue").sha, self._admission.plain_keys)
