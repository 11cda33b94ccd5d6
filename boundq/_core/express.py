"""
Express: how plain jobs of one priority go to a queue that their producer knows: the bytes of the call made in one go,
one attempt, receipts. Nearly all that is ever enqueued goes this way. What is out of the ordinary, before or after the
attempt, goes the long way (admission.py), under the same number.

A producer that enqueues now and then has cold caches: the calls that a flow goes through took half of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from boundq import _status as status
from boundq._call import opening
from boundq._core.admission import Admission, Outcome, receipts
from boundq._core.base import Core
from boundq._job import Prepared
from boundq._scripts import load
from boundq._session import Session


class Express:
    """
    Args:
        core: The queue.
        admission: The long way.
    """

    def __init__(self, core: Core, admission: Admission) -> None:
        self._core = core
        self._memory = admission.memory
        self._keys = admission.plain_keys

    def request(self, session: Session, jobs: Sequence[Prepared]) -> bytes | None:
        """
        The command that admits the longest prefix that fits, under a new number; None: they have to go the long way.

        Args:
            session: Of the producer.
            jobs: One script's worth; those that are plain are of one priority.
        """
        if session.stale or self._memory.troubled:
            return None
        most = self._core.max_job_bytes or 0
        for job in jobs:
            if job.general or job.size > most:
                return None
        return session.plain_call(self._opening, jobs)

    def outcomes(self, reply: list[Any]) -> list[Outcome] | None:
        """As `Admission.enqueue` says it, from what the server has answered; None: the long way has to be gone."""
        return receipts(self._core.name, reply) if reply[0] in _ANSWERS else None

    @cached_property
    def _opening(self) -> bytes:
        return opening(load("enqueue").sha, self._keys)


# Stored, all or some of them; or refused for one of these reasons.
_ANSWERS = (status.OK, status.FULL_JOBS, status.FULL_BYTES, status.TOO_LARGE)
