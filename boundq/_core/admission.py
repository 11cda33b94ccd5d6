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
from typing import Any, NamedTuple

from boundq import _status as status
from boundq._call import Answer, Call, Flow, Full, Pause
from boundq._core.base import Core
from boundq._gate import Gate
from boundq._job import Prepared
from boundq._scripts import load
from boundq._session import Session
from boundq.errors import ConfigError, Unavailable
from boundq.model import Receipt, Rejection, as_text, retry_after

# One script takes at most so many jobs, and about so many bytes, whatever a caller hands over.
MOST_PLAIN, MOST_GENERAL, MOST_BYTES = 500, 100, 2**20
MOST_ATOMIC_BYTES = 8 * 2**20
# The producer whose turn it is shows itself this often, in seconds; after 3 s of silence the turn passes on.
TURN_SECONDS = 1.0
# Who waits behind it looks so often, in seconds, whether it is still there. Meanwhile the server keeps the order.
LOOK_SECONDS = 4.0
# While the server is out of memory, one enqueue asks it about so often, in seconds; the others are refused here.
MEMORY_SECONDS = 0.2

_NO, _TAKE_PLACE, _IN_LINE, _LEAVE = range(4)
_FRESH, _TURN, _ROOM = range(3)
_WAITED_FOR = ("jobs", "bytes", "waiters", "memory")
# Where the flags stand among the arguments of both scripts.
FLAGS = 2

Outcome = Receipt | Rejection


class Attempt(NamedTuple):
    """
    How to ask.

    Args:
        atomic: All or nothing.
        wait: As ``enqueue_general`` takes it.
        block: Wait on this list first.
        again: The same call as before, refused until now: it keeps its number.
        resent: An earlier sending of it may still be on its way.
    """

    atomic: bool = False
    wait: int = 0
    block: tuple[bytes, float] | None = None
    again: bool = False
    resent: bool = False


class Said(NamedTuple):
    """
    What came back.

    Args:
        outcomes: One for each admitted job, and a refusal after them if not all were.
        place: In the line for room.
        resent: An earlier sending may still be on its way.
        asked: The call has a number by now.
    """

    outcomes: list[Outcome]
    place: int
    resent: bool
    asked: bool


class Admission:
    """
    Flows that enqueue into one queue.

    Attributes:
        plain_keys: Of the script ``enqueue``.
        memory: The gate before a server that is out of memory.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.plain_keys = core.keys.of("state", "jobs", "wake")
        self._general_keys = core.keys.of(
            *("state", "jobs", "wake", "room", "turn", "unique", "windows"),
            *("due0", "due1", "due2", "due3", "dead", "leases"),
        )
        self._room, self._turn = core.keys.of("room", "turn")
        self.memory = Gate(MEMORY_SECONDS)

    def enqueue(
        self,
        session: Session,
        jobs: Sequence[Prepared],
        *,
        atomic: bool = False,
        again: bool = False,
        resent: bool = False,
    ) -> Flow[list[Outcome]]:
        """
        Add the longest prefix of the jobs that fits, or, ``atomic``, all or none.

        The list has a `Receipt` for each admitted job, in order, and after them one `Rejection` if not all were.
        ``again``: the call has its number, and the sizes were looked at. ``resent``: it may even have been executed.
        """
        size = jobs[0].size if len(jobs) == 1 else max(job.size for job in jobs)
        known = again or (session.producer != 0 and size <= (self._core.max_job_bytes or 0))
        if not known and size > (yield from self._most(session, size)):
            first = next(place for place, job in enumerate(jobs) if job.size > (self._core.max_job_bytes or 0))
            refusal = self._too_large(jobs[first])
            if atomic or first == 0:
                return [refusal]
            before = yield from self.enqueue(session, jobs[:first])
            return [*before, refusal] if isinstance(before[-1], Receipt) and len(before) == first else before
        said = yield from self._numbered(session, jobs, Attempt(atomic=atomic, again=again, resent=resent))
        return said.outcomes

    def enqueue_waiting(self, session: Session, job: Prepared, wait: float) -> Flow[Outcome]:
        """Add one job; if there is no room, stand in line for it up to ``wait`` seconds."""
        ends = time.monotonic() + wait
        if job.size > (yield from self._most(session, job.size)):
            return self._too_large(job)
        said = yield from self._numbered(session, [job], Attempt(wait=_TAKE_PLACE))
        while isinstance(outcome := said.outcomes[0], Rejection) and outcome.reason in _WAITED_FOR:
            left = ends - time.monotonic()
            # The number stays the same from attempt to attempt, so that only one of them can be admitted.
            attempt = Attempt(wait=_IN_LINE if left > 0 else _LEAVE, again=said.asked, resent=said.resent)
            if left > 0 and outcome.reason == "memory":
                yield Pause(min(left, MEMORY_SECONDS * (1 + random.random())))
            elif left > 0 and said.place == _TURN:
                attempt = attempt._replace(block=(self._turn, min(left, TURN_SECONDS)))
            elif left > 0:
                attempt = attempt._replace(block=(self._room, min(left, LOOK_SECONDS * (1 + random.random() / 4))))
            said = yield from self._numbered(session, [job], attempt)
            if left <= 0:
                return said.outcomes[0]
        return outcome

    def once(self, session: Session, jobs: Sequence[Prepared], *, resent: bool) -> Flow[list[Outcome] | None]:
        """
        One attempt under the session's present number, which the caller has written down.

        Args:
            session: Enlisted.
            jobs: One script's worth.
            resent: An earlier process may have sent this call.

        Returns:
            As `enqueue`; None where the queue does not know the producer (any more); nothing where an earlier
            sending was refused for good, so that a new number is needed.
        """
        general = any(job.general or job.level != jobs[0].level for job in jobs)
        while True:
            call = (self._general if general else self._plain)(session, jobs, Attempt())
            try:
                answer = yield call.resend() if resent else call
            except Full:
                return [Rejection(self._core.name, "memory", requested=len(jobs))]
            code = answer.reply[0]
            if code == status.GENERAL:
                general, resent = True, resent or answer.resent
            elif code in (status.STRANGER, status.UNDECLARED):
                if answer.resent:
                    raise Unavailable(self._core.name, "unknown", "reset", "the server has forgotten this producer")
                return None
            elif code == status.REPEATED and answer.reply[1] == 0:
                return []
            else:
                return (self._read_general if general else self._read_plain)(answer, jobs)[0]

    def _most(self, session: Session, size: int) -> Flow[int]:
        """The queue's ``max_job_bytes``; asked for anew before a job is refused for it, since it may have grown."""
        if session.producer == 0 or size > (self._core.max_job_bytes or 0):
            yield from self._core.attach(session, producer=session.producer == 0)
        return self._core.max_job_bytes or 0

    def _numbered(self, session: Session, jobs: Sequence[Prepared], attempt: Attempt) -> Flow[Said]:
        """One attempt at a numbered call, until the server has an answer to it."""
        final = attempt.wait in (_NO, _LEAVE)
        if not self.memory.open() and not (final and attempt.resent):
            refusal = Rejection(self._core.name, "memory", requested=len(jobs))
            return Said([refusal], _ROOM, attempt.resent, attempt.again)
        if not attempt.again:
            if session.producer == 0 or session.stale:
                yield from self._core.attach(session, producer=session.producer == 0)
            session.next_number()
        level = jobs[0].level
        general = attempt.wait != _NO or jobs[0].general
        if len(jobs) > 1 and not general:
            general = any(job.general or job.level != level for job in jobs)
        if attempt.atomic and len(jobs) > (MOST_GENERAL if general else MOST_PLAIN):
            most = MOST_GENERAL if general else MOST_PLAIN
            raise ConfigError("jobs", len(jobs), f"atomic=True takes {most} of these at most: one script's worth")
        if attempt.atomic and (size := sum(job.size for job in jobs)) > MOST_ATOMIC_BYTES:
            raise ConfigError("jobs", f"{size} bytes", f"atomic=True takes {MOST_ATOMIC_BYTES} bytes at most")
        block, resent = attempt.block, attempt.resent
        while True:
            call = (self._general if general else self._plain)(session, jobs, attempt)
            try:
                call = call.resend() if resent else call
                answer = yield call._replace(block=block) if block else call
            except Full:
                self.memory.close()
                if final and resent:
                    raise Unavailable(self._core.name, "unknown", "memory", "and an earlier answer was lost") from None
                refusal = Rejection(self._core.name, "memory", requested=len(jobs))
                return Said([refusal], _ROOM, resent, asked=True)
            self.memory.reopen()
            resent, block = resent or answer.resent, None
            code = answer.reply[0]
            if code == status.GENERAL:
                general = True
            elif code in (status.STRANGER, status.UNDECLARED):
                if resent:
                    # The server does not know us any more, so it cannot say whether our first sending was done.
                    raise Unavailable(self._core.name, "unknown", "reset", "the server has forgotten this producer")
                yield from self._core.attach(session, producer=True)
                session.next_number()
            elif code == status.REPEATED and answer.reply[1] == 0:
                # An earlier sending was refused, for good. Ask anew: there may be room by now.
                session.next_number()
                resent = False
            else:
                outcomes, place = (self._read_general if general else self._read_plain)(answer, jobs)
                if answer.trouble is not None and isinstance(outcomes[-1], Rejection):
                    raise answer.trouble
                return Said(outcomes, place, resent, asked=True)

    def _plain(self, session: Session, jobs: Sequence[Prepared], attempt: Attempt) -> Call:
        created = session.created()
        envelopes = [job.envelope(created) for job in jobs]
        head = (session.field, session.number, int(attempt.atomic), jobs[0].level)
        return Call(load("enqueue"), self.plain_keys, (*head, *envelopes), flags=FLAGS)

    def _general(self, session: Session, jobs: Sequence[Prepared], attempt: Attempt) -> Call:
        created = session.created()
        args: list[bytes | str | int] = [session.field, session.number, int(attempt.atomic), attempt.wait]
        for job in jobs:
            args += (job.level, job.due, job.expires, job.digest, job.window, job.envelope(created))
        return Call(load("enqueue_general"), self._general_keys, args, flags=FLAGS)

    def _too_large(self, job: Prepared) -> Rejection:
        return Rejection(self._core.name, "job_bytes", 0, self._core.max_job_bytes or 0, job.size)

    def _read_plain(self, answer: Answer, _jobs: Sequence[Prepared]) -> tuple[list[Outcome], int]:
        return receipts(self._core.name, self._core.check(answer)), _FRESH

    def _read_general(self, answer: Answer, jobs: Sequence[Prepared]) -> tuple[list[Outcome], int]:
        reply = self._core.check(answer)
        if reply[0] == status.SEALED:
            return [sealed(self._core.name, reply)], _FRESH
        if reply[0] == status.CLASH:
            due = jobs[int(reply[1])].due.decode()
            raise ConfigError("at" if due[:1] != "+" else "delay", f"{due} ms", "that is too far away (the year 2163)")
        held, size, place = reply[2], reply[3], reply[10]
        outcomes: list[Outcome] = [
            Receipt(str(number), bool(duplicate), held, size)
            for number, duplicate in zip(reply[11::2], reply[12::2], strict=True)
        ]
        if reply[4]:
            outcomes.append(rejection(self._core.name, held, size, *reply[4:10]))
        return outcomes, place


def receipts(queue: str, reply: list[Any]) -> list[Outcome]:
    """A receipt for each job that ``enqueue`` has admitted, and the refusal of the next one, if not all were."""
    _, admitted, first, held, size, *refusal = reply
    outcomes: list[Outcome] = [
        Receipt(str(number), False, held, size) for number in range(first, first + 8 * admitted, 8)
    ]
    if refusal and refusal[0]:
        outcomes.append(rejection(queue, held, size, *refusal))
    return outcomes


def sealed(queue: str, reply: list[Any]) -> Rejection:
    """The refusal of a sealed queue, out of a reply SEALED."""
    return Rejection(queue, "sealed", since=reply[1] / 1000, by=as_text(reply[2]))


def rejection(
    queue: str, held: int, size: int, reason: int, used: int, limit: int, requested: int, oldest_ms: int, rate: int
) -> Rejection:
    """The refusal of a full queue, out of what a script says: jobs and bytes held, and its `lib/refuse`."""
    over: float = used + requested - limit
    if reason == status.FULL_BYTES:
        over = over * held / max(size, 1)
    return Rejection(
        queue,
        status.REASONS[reason],
        used,
        limit,
        requested,
        max(oldest_ms, 0) / 1000 if oldest_ms != -2 else None,  # -2: this producer may not read jobs
        retry_after(over, rate / 1000) if rate > 0 else None,
    )
