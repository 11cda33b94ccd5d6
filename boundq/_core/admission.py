"""
Admission: flows that enqueue.

A producer has one call under way at a time, numbered; a resend carries the same number, and the script recognises
it. Plain jobs of one priority go through the script ``enqueue``; all else through ``enqueue_general``, which answers
for the same numbers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from boundq import _status as status
from boundq._call import Answer, Call, Flow, Full
from boundq._core.base import Core
from boundq._job import Prepared
from boundq._scripts import load
from boundq._session import Session
from boundq.errors import ConfigError, Unavailable
from boundq.model import Receipt, Rejection, as_text, retry_after

# One script takes at most so many jobs, and about so many bytes, whatever a caller hands over.
MOST_PLAIN, MOST_GENERAL, MOST_BYTES = 500, 100, 2**20
# The producer whose turn it is shows itself this often, in seconds; after 3 s of silence the turn passes on.
TURN_SECONDS = 1.0
# After the server said that it is out of memory, do not ask it again for about so long, in seconds.
MEMORY_SECONDS = 0.2

_NO, _TAKE_PLACE, _IN_LINE, _LEAVE = range(4)
_FRESH, _TURN, _ROOM = range(3)

Outcome = Receipt | Rejection


class Admission:
    """Flows that enqueue into one queue."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._plain_keys = core.keys.of("state", "jobs", "wake", "producers")
        self._general_keys = core.keys.of(
            *("state", "jobs", "wake", "producers", "room", "turn", "unique", "windows"),
            *("due0", "due1", "due2", "due3", "dead", "leases"),
        )
        self._room, self._turn = core.keys.of("room", "turn")
        self._memory_until = 0.0

    def enqueue(self, session: Session, jobs: Sequence[Prepared], *, atomic: bool = False) -> Flow[list[Outcome]]:
        """
        Add the longest prefix of the jobs that fits, or, ``atomic``, all or none.

        The list has a `Receipt` for each admitted job, in order, and after them one `Rejection` if not all were.
        """
        size = max(job.size for job in jobs)
        if size > (yield from self._most(session, size)):
            first = next(place for place, job in enumerate(jobs) if job.size > (self._core.max_job_bytes or 0))
            refusal = Rejection(self._core.name, "job_bytes", 0, self._core.max_job_bytes or 0, jobs[first].size)
            if atomic or first == 0:
                return [refusal]
            return [*(yield from self.enqueue(session, jobs[:first])), refusal]
        outcomes, _ = yield from self._numbered(session, jobs, atomic, _NO, None)
        return outcomes

    def _most(self, session: Session, size: int) -> Flow[int]:
        """The queue's ``max_job_bytes``; asked for anew before a job is refused for it, since it may have grown."""
        if session.producer == 0 or size > (self._core.max_job_bytes or 0):
            yield from self._core.attach(session, producer=session.producer == 0)
        return self._core.max_job_bytes or 0

    def enqueue_waiting(self, session: Session, job: Prepared, wait: float) -> Flow[Outcome]:
        """Add one job; if there is no room, stand in line for it up to ``wait`` seconds."""
        ends = time.monotonic() + wait
        if job.size > (yield from self._most(session, job.size)):
            return Rejection(self._core.name, "job_bytes", 0, self._core.max_job_bytes or 0, job.size)
        (outcome,), place = yield from self._numbered(session, [job], False, _TAKE_PLACE, None)
        while isinstance(outcome, Rejection) and outcome.reason in ("jobs", "bytes", "waiters", "memory"):
            left = ends - time.monotonic()
            if left <= 0:
                (outcome,), _ = yield from self._numbered(session, [job], False, _LEAVE, None, again=True)
                break
            if outcome.reason == "memory":
                block = (self._room, min(left, MEMORY_SECONDS * (1 + random.random())))
            elif place == _TURN:
                block = (self._turn, min(left, TURN_SECONDS))
            else:
                block = (self._room, left)
            (outcome,), place = yield from self._numbered(session, [job], False, _IN_LINE, block, again=True)
        return outcome

    def _numbered(
        self,
        session: Session,
        jobs: Sequence[Prepared],
        atomic: bool,
        wait: int,
        block: tuple[bytes, float] | None,
        *,
        again: bool = False,
    ) -> Flow[tuple[list[Outcome], int]]:
        """One numbered call; ``again``: the same call as before, refused until now."""
        if wait == _NO and time.monotonic() < self._memory_until:
            return [Rejection(self._core.name, "memory", requested=len(jobs))], _FRESH
        if session.producer == 0 or session.stale:
            yield from self._core.attach(session, producer=session.producer == 0)
        if not again:
            session.number += 1
        general = wait != _NO or any(job.general or job.level != jobs[0].level for job in jobs)
        if atomic and len(jobs) > (MOST_GENERAL if general else MOST_PLAIN):
            most = MOST_GENERAL if general else MOST_PLAIN
            raise ConfigError("jobs", len(jobs), f"atomic=True takes {most} of these at most: one script's worth")
        resent = False
        while True:
            call = (self._general if general else self._plain)(session, jobs, atomic, wait)
            try:
                answer = yield call._replace(block=block)
            except Full:
                self._memory_until = time.monotonic() + MEMORY_SECONDS * (1 + random.random() / 2)
                return [Rejection(self._core.name, "memory", requested=len(jobs))], _ROOM
            resent = resent or answer.resent
            code = answer.reply[0]
            if code == status.GENERAL:
                general = True
            elif code in (status.STRANGER, status.UNDECLARED):
                if resent:
                    # The server does not know us any more, so it cannot say whether our first sending was done.
                    raise Unavailable(self._core.name, "unknown", "reset", "the server has forgotten this producer")
                yield from self._core.attach(session, producer=True)
                session.number = 1
            else:
                read = self._read_general if general else self._read_plain
                return read(answer, jobs)
            block = None

    def _plain(self, session: Session, jobs: Sequence[Prepared], atomic: bool, _wait: int) -> Call:
        created = session.created()
        envelopes = [job.envelope(created) for job in jobs]
        number = b"%010d" % session.number
        args: tuple[bytes | str | int, ...] = (session.producer, number, int(atomic), jobs[0].level, *envelopes)
        return Call(load("enqueue"), self._plain_keys, args)

    def _general(self, session: Session, jobs: Sequence[Prepared], atomic: bool, wait: int) -> Call:
        created = session.created()
        args: list[bytes | str | int] = [session.producer, b"%010d" % session.number, int(atomic), wait]
        for job in jobs:
            args += (job.level, job.due, job.expires, job.digest, job.window, job.envelope(created))
        return Call(load("enqueue_general"), self._general_keys, args)

    def _read_plain(self, answer: Answer, _jobs: Sequence[Prepared]) -> tuple[list[Outcome], int]:
        reply = self._core.check(answer)
        if reply[0] == status.SEALED:
            return [self._sealed(reply)], _FRESH
        _, admitted, first, held, size, *refusal = reply
        outcomes: list[Outcome] = [
            Receipt(str(number), False, held, size) for number in range(first, first + 8 * admitted, 8)
        ]
        if refusal and refusal[0]:
            outcomes.append(self._rejection(held, size, *refusal))
        return outcomes, _FRESH

    def _read_general(self, answer: Answer, jobs: Sequence[Prepared]) -> tuple[list[Outcome], int]:
        reply = self._core.check(answer)
        if reply[0] == status.SEALED:
            return [self._sealed(reply)], _FRESH
        if reply[0] == status.CLASH:
            due = jobs[int(reply[1])].due.decode()
            raise ConfigError("at" if due[:1] != "+" else "delay", f"{due} ms", "that is too far away (the year 2163)")
        held, size, place = reply[2], reply[3], reply[10]
        outcomes: list[Outcome] = [
            Receipt(str(number), bool(duplicate), held, size)
            for number, duplicate in zip(reply[11::2], reply[12::2], strict=True)
        ]
        if reply[4]:
            outcomes.append(self._rejection(held, size, *reply[4:10]))
        return outcomes, place

    def _sealed(self, reply: list[Any]) -> Rejection:
        return Rejection(self._core.name, "sealed", since=reply[1] / 1000, by=as_text(reply[2]))

    def _rejection(
        self,
        held: int,
        size: int,
        reason: int,
        used: int,
        limit: int,
        requested: int,
        oldest_ms: int,
        rate: int,
    ) -> Rejection:
        over: float = used + requested - limit
        if reason == status.FULL_BYTES:
            over = over * held / max(size, 1)
        return Rejection(
            self._core.name,
            status.REASONS[reason],
            used,
            limit,
            requested,
            oldest_ms / 1000 if oldest_ms >= 0 else 0.0,
            retry_after(over, rate / 1000) if rate > 0 else None,
        )
