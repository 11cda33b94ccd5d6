"""Delivery: flows that claim jobs and end their leases."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from boundq import _status as status
from boundq._call import Answer, Both, Call, Flow, Wait
from boundq._core.base import Core
from boundq._envelope import Envelope, unpack
from boundq._keys import ENDINGS
from boundq._retry import ErrorReply
from boundq._scripts import load
from boundq._session import Session
from boundq._sizes import LONGEST_LEASE, milliseconds
from boundq.errors import ConfigError, DataError, Unavailable
from boundq.model import PRIORITIES, Priority, as_text

# One claim's reply carries at most so many bytes of envelopes (one job is given whatever its size): what a server
# holds in a client's output buffer counts as used memory.
REPLY_BYTES = 4 * 2**20
MOST_JOBS = 500
# An idle worker asks again after so long at the latest, in seconds: two commands a second.
IDLE_SECONDS = 1.0
# Reason and error text of a dead letter are cut to so many bytes; they are charged to the dead budget.
REASON_BYTES, TEXT_BYTES = 200, 2000

# Tell deliveries of one number apart, not secretly. Those of a process follow one another, so that a settlement which
# comes late, after its job was given back and claimed again by this process, is not taken for the new one's, unless by
# its 256th claim since. The beginning is drawn by lot, for other processes, and a fail-over, which turns counters back.
_nonces = itertools.count(random.randrange(256))


def _after_fork() -> None:
    global _nonces  # a child must not count along with its parent
    _nonces = itertools.count(random.randrange(256))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Delivery(msgspec.Struct, frozen=True):
    """
    One job under a lease.

    Args:
        id: The job.
        fence: Proof of this delivery.
        envelope: The job, read; None where ``problem`` says why it could not be.
        raw: The envelope's bytes as stored.
        problem: Why the envelope cannot be read.
        claimed: When, Unix seconds by the server's clock.
        deadline: When the lease ends, likewise.
        expires_at: The same on this process's monotonic clock.
    """

    id: str
    fence: int
    envelope: Envelope | None
    raw: bytes
    problem: DataError | None
    claimed: float
    deadline: float
    expires_at: float

    @property
    def attempt(self) -> int:
        """Which delivery this is, from 1; given-back ones do not count."""
        return self.fence % 128

    @property
    def expired_leases(self) -> int:
        """How many earlier deliveries ended in a lost lease: a crash, or a handler that hung."""
        return self.fence // 128 % 16

    @property
    def priority(self) -> Priority:
        """The level the job was enqueued with."""
        return PRIORITIES[int(self.id) % 4]


class Settlement(msgspec.Struct):
    """What to do with a batch of deliveries; each of them in one of the lists only."""

    acks: Sequence[Delivery] = ()
    retries: Sequence[tuple[Delivery, float]] = ()
    releases: Sequence[Delivery] = ()
    buries: Sequence[tuple[Delivery, str, str]] = ()


class Lost(msgspec.Struct, frozen=True):
    """A delivery whose lease was gone; ``cancelled``: the job is gone too."""

    delivery: Delivery
    cancelled: bool


class Deliveries:
    """Flows that claim from one queue, and settle."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._keys = core.keys.of(*ENDINGS, "wake", "room", "turn")
        self._lease_keys = core.keys.of("state", "leases")
        (self._wake,) = core.keys.of("wake")

    def claim(self, n: int, lease: object, wait: float) -> Flow[list[Delivery]]:
        """Up to n jobs; where there is none, wait up to ``wait`` seconds for the first."""
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST_JOBS:
            raise ConfigError("n", n, f"it must be from 1 to {MOST_JOBS}")
        lease_ms = milliseconds(lease, "lease", least=100, most=LONGEST_LEASE)
        ends = time.monotonic() + wait
        mode, block = int(wait > 0), None
        while True:
            answer = yield self._claim_call(n, lease_ms, mode, block)
            reply = answer.reply
            if reply[0] == status.UNDECLARED and self._core.declared is not None:
                yield from self._core.attach(Session(), producer=False)
                block = None
                continue
            self._core.check(answer)
            next_ms, more = (-1, 0) if reply[0] == status.PAUSED else (reply[3], reply[4])
            if len(reply) > 5:
                return self._read(reply, lease_ms / 1000)
            if answer.trouble is not None:
                raise answer.trouble
            left = ends - time.monotonic()
            if more:
                block = None
            elif left <= 0:
                return []
            else:
                mode, block = 2, (self._wake, max(self._pause(left, next_ms), 0.005))

    def claim_or_register(self, n: int, lease: float, *, woken: bool) -> Flow[tuple[list[Delivery], float]]:
        """Up to n jobs; where there is none, say that somebody waits, and for how many seconds it should (`wait`)."""
        lease_ms = milliseconds(lease, "lease", least=100, most=LONGEST_LEASE)
        call = self._claim_call(n, lease_ms, 2 if woken else 1, None)
        answer = yield call
        if answer.reply[0] == status.UNDECLARED and self._core.declared is not None:
            yield from self._core.attach(Session(), producer=False)
            answer = yield call
        return self._claimed_or_registered(answer, lease_ms / 1000, time.monotonic())

    def wait_and_claim(self, seconds: float, lease: float) -> Flow[tuple[list[Delivery], float]]:
        """
        `wait`, and then `claim_or_register` one job, in one exchange: the answer comes at once where there is a job.

        The lease is taken to begin with the wait: how long the answer lay somewhere on its way cannot be told.
        """
        lease_ms, began = milliseconds(lease, "lease", least=100, most=LONGEST_LEASE), time.monotonic()
        answer = yield self._claim_call(1, lease_ms, 2, (self._wake, seconds))
        if answer.reply[0] == status.UNDECLARED:
            return [], 0.0
        claimed, pause = self._claimed_or_registered(answer, lease_ms / 1000, began)
        if answer.trouble is not None and not claimed:
            raise answer.trouble
        return claimed, pause

    def _claimed_or_registered(self, answer: Answer, lease: float, began: float) -> tuple[list[Delivery], float]:
        reply = self._core.check(answer)
        if reply[0] != status.OK:
            return [], IDLE_SECONDS
        if len(reply) > 5 or reply[4]:
            return self._read(reply, lease, began), 0.0
        return [], max(self._pause(IDLE_SECONDS, reply[3]), 0.005)

    def wait(self, seconds: float) -> Flow[bool]:
        """Wait for the queue to wake somebody, after `claim_or_register`; False when the time was over."""
        answer = yield Wait((self._wake, seconds))
        return answer.reply is not None

    def settle(self, work: Settlement, *, resent: bool = False) -> Flow[list[Lost]]:
        """
        End deliveries; those whose lease is gone come back. In several calls where there are more than 500.

        ``resent``: this was sent before and its answer was lost.
        """
        lost: list[Lost] = []
        for part in _parts(work):
            call = self._settle_call(part)
            answer = yield call.resend() if resent else call
            lost += self._read_settled(part, answer.reply, answer.resent or resent)
        return lost

    def settle_and_claim(self, work: Settlement, n: int, lease: float) -> Flow[tuple[list[Lost], list[Delivery]]]:
        """`settle` up to 500 deliveries and `claim` up to n, in one round trip."""
        lease_ms = milliseconds(lease, "lease", least=100, most=LONGEST_LEASE)
        claim = self._claim_call(n, lease_ms, 0, None)
        try:
            answer = yield Both(self._settle_call(work), claim)
        except Unavailable as error:
            # What the claim took, if it took any, comes back when its lease ends. Settling is fenced: once more.
            return (yield from self.settle(work, resent=error.outcome == "unknown")), []
        settled, claimed = answer.reply
        if isinstance(settled, ErrorReply):
            lost = yield from self.settle(work)
        else:
            lost = self._read_settled(work, settled, resent=False)
        if isinstance(claimed, ErrorReply) or claimed[0] != status.OK:
            return lost, (yield from self.claim(n, lease, 0.0))
        return lost, self._read(claimed, lease_ms / 1000)

    def _settle_call(self, work: Settlement) -> Call:
        args: list[bytes | str | int] = [
            *(0, len(work.acks), len(work.retries), len(work.releases), len(work.buries)),
            *(word for one in work.acks for word in (one.id, one.fence)),
            *(word for one, delay in work.retries for word in (one.id, one.fence, milliseconds(delay, "delay"))),
            *(word for one in work.releases for word in (one.id, one.fence)),
        ]
        for one, reason, text in work.buries:
            args += (one.id, one.fence, _cut(reason, REASON_BYTES).replace(b"\n", b" "), _cut(text, TEXT_BYTES))
        return Call(load("settle"), self._keys, args, flags=0)

    def _read_settled(self, work: Settlement, reply: list[Any], resent: bool) -> list[Lost]:
        deliveries = _all(work)
        if reply[0] == status.UNDECLARED:  # the whole queue is gone, and these jobs with it
            return [Lost(one, cancelled=True) for one in deliveries]
        self._core.check(Answer(reply, resent))
        # Where our own first sending was done and its answer lost, the second finds the lease gone.
        return [
            Lost(deliveries[place - 1], bool(gone))
            for place, gone in zip(reply[3::2], reply[4::2], strict=True)
            if not (resent and (gone or place > len(work.acks)))
        ]

    def _claim_call(self, n: int, lease_ms: int, mode: int, block: tuple[bytes, float] | None) -> Call:
        nonce = next(_nonces) % 256
        # Never repeated blindly: what a lost answer held stays leased until the lease ends.
        return Call(load("claim"), self._keys, (n, REPLY_BYTES, lease_ms, nonce, mode), repeat=False, block=block)

    def extend(self, deliveries: Sequence[Delivery], lease: object) -> Flow[tuple[float, list[Delivery]]]:
        """Lengthen leases to ``lease`` seconds from now: the new deadline, and those that are lost."""
        lease_ms = milliseconds(lease, "lease", least=100, most=LONGEST_LEASE)
        deadline = 0.0
        lost: list[Delivery] = []
        for start in range(0, len(deliveries), MOST_JOBS):
            part = deliveries[start : start + MOST_JOBS]
            args = (lease_ms, *(word for one in part for word in (one.id, one.fence)))
            answer = yield Call(load("extend"), self._lease_keys, args)
            if answer.reply[0] == status.UNDECLARED:
                lost += part
                continue
            self._core.check(answer)
            deadline = answer.reply[1] / 1000
            lost += [part[place - 1] for place in answer.reply[2:]]
        return deadline, lost

    def _pause(self, left: float, next_ms: int) -> float:
        pause = min(left, IDLE_SECONDS)
        if 0 <= next_ms < pause * 1000:
            pause = min(next_ms / 1000 + random.random() / 100, pause)
        return pause

    def _read(self, reply: list[Any], lease: float, began: float | None = None) -> list[Delivery]:
        """``began``: when the lease did, at the earliest; None: now, for want of better knowledge."""
        claimed, deadline = reply[1] / 1000, reply[2] / 1000
        ends = (time.monotonic() if began is None else began) + lease
        found = []
        for at in range(5, len(reply), 3):
            job_id, fence, raw = as_text(reply[at]), reply[at + 1], reply[at + 2]
            envelope, problem = None, None
            try:
                envelope = unpack(self._core.name, job_id, raw)
            except DataError as error:
                problem = error
            found.append(Delivery(job_id, fence, envelope, raw, problem, claimed, deadline, ends))
        return found


def _all(work: Settlement) -> list[Delivery]:
    return [
        *work.acks,
        *(one for one, _ in work.retries),
        *work.releases,
        *(one for one, _, _ in work.buries),
    ]


def _parts(work: Settlement) -> Iterable[Settlement]:
    if len(_all(work)) <= MOST_JOBS:
        yield work
        return
    for start in range(0, len(work.acks), MOST_JOBS):
        yield Settlement(acks=work.acks[start : start + MOST_JOBS])
    for start in range(0, len(work.retries), MOST_JOBS):
        yield Settlement(retries=work.retries[start : start + MOST_JOBS])
    for start in range(0, len(work.releases), MOST_JOBS):
        yield Settlement(releases=work.releases[start : start + MOST_JOBS])
    for start in range(0, len(work.buries), MOST_JOBS):
        yield Settlement(buries=work.buries[start : start + MOST_JOBS])


def _cut(text: str, most: int) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= most else data[: most - 3] + b"..."
