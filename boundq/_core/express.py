"""
Express: how one plain job goes to a queue that its producer knows: its bytes made in one go, one attempt, a receipt or
a refusal. Nearly all that is ever enqueued goes this way. What is out of the ordinary, before or after the attempt,
goes the long way (admission.py), under the same number.

A producer that enqueues now and then has cold caches: the calls that a flow goes through took half of its time.
"""

from __future__ import annotations

from typing import Any

from boundq import _status as status
from boundq._call import opening
from boundq._core.admission import Admission, Outcome, rejection
from boundq._core.base import Core
from boundq._job import Prepared
from boundq._scripts import load
from boundq._session import Session
from boundq.model import Receipt

# Words of the command: EVALSHA, the hash, the number of keys; three keys; producer, number, flags, priority, envelope.
_WORDS = 11


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

    def request(self, session: Session, job: Prepared) -> bytes | None:
        """The command that admits the job, under a new number; None: it has to go the long way."""
        if job.general or session.stale or self._memory.troubled or job.size > (self._core.max_job_bytes or 0):
            return None
        if not session.opening:
            session.opening = b"*%d\r\n%b" % (_WORDS, opening(load("enqueue").sha, self._keys))
        return session.plain_call(job)

    def outcome(self, reply: list[Any]) -> Outcome | None:
        """What the server has answered; None: the long way has to be gone."""
        if reply[0] == status.OK:
            return Receipt(str(reply[2]), False, reply[3], reply[4])
        if reply[0] in status.REASONS and len(reply) > 5:
            return rejection(self._core.name, *reply[3:])
        return None
