"""
Claimer: one queue's rounds. While there is work, a round is one exchange with the server: settle what is done and claim
the next. With nothing to do it waits on the server; what is done meanwhile is settled by the thread that did it.

The rounds have no thread of their own. Whoever of the crew makes them and finds a plain job after having waited hands
the rounds to the next free thread and runs the job himself (leader and followers): a job that comes to an idle worker
waits for no other thread to wake up, which takes as long as asking the server does.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from boundq._core.delivery import MOST_JOBS
from boundq.errors import BoundqError
from boundq.lease import BaseLease
from boundq.sync._link import Link
from boundq.sync._wire import Withdrawn
from boundq.sync.lease import Lease
from boundq.sync.queue import Queue
from boundq.worker.crew import LEAVE
from boundq.worker.pace import Pace
from boundq.worker.started import Ended, Started, about

if TYPE_CHECKING:
    from boundq.worker.worker import Worker

log = logging.getLogger("boundq.worker")

# So many errors in a row that nobody expected, and the worker gives up, so that a supervisor starts it afresh.
MOST_ERRORS = 10
# A job that may have killed its worker is run alone for so many seconds.
SUSPICION = 5.0
# When a job has come to an idle worker, for the event loop, this thread holds still for so many seconds or until the
# job has ended: it would hold the interpreter lock, which the loop needs.
TO_BEGIN = 0.0005
# A server that answers does so within so many seconds after a claim was withdrawn.
SILENCE = 0.3
# The claim goes out with the wait where the lease is so many times as long: it counts from the start of the wait.
LEASE_TO_WAIT = 3


class Claimer:
    """
    One queue's rounds: settle what is done, claim the next, start it.

    Args:
        worker: Whose.
        queue: Which.
        kind: Of the slot that a job takes which cannot be run.
        pace: How many jobs it may claim ahead.
    """

    def __init__(self, worker: Worker, queue: Queue, kind: str, pace: Pace) -> None:
        self.queue = queue
        self.kind = kind
        self.pace = pace
        self._worker = worker
        self._lock = threading.Lock()
        self._ended: list[Ended] = []
        self._waiting = False  # on the server: what is done meanwhile is settled by who did it
        self._pause = 0.0  # for how long to wait on the server, when there was nothing
        self._woken = False
        self._link: Link | None = None  # on which a claim waits together with it
        self._silent_at = math.inf  # the claim was withdrawn, and the server would have answered by then
        self._reserved = 0  # slots, for what is claimed now
        self._errors = 0
        self._down = False
        self._round_at = time.monotonic()
        self._asked = False
        self._chores: Callable[[], object] = _nothing  # of the round before, for whoever goes on
        self.over = threading.Event()

    def start(self) -> None:
        """Begin the rounds; they last until the worker stops."""
        self.queue._hub.gate.on_shut.append(self._shut)
        self._worker.crew.submit(self._go_on)

    def _go_on(self) -> object:
        """
        Rounds, in this thread, until they are over or another one goes on with them. When they are over the thread is
        not needed any more: it would be one handler more than there are threads for.
        """
        mine = None
        try:
            self._chores()
            self._chores = _nothing
            mine = self._rounds()
        except BaseException:
            log.exception("queue %s: unexpected error; the worker gives up", self.queue.name)
            self._worker.give_up()
        if mine is not None:
            self._worker.crew.submit(self._go_on)
            self._worker.run_here(mine)
            return None
        self.queue._hub.gate.on_shut.remove(self._shut)
        with self._lock:
            self._waiting = True  # from now on who is done settles by himself
        try:
            self.settle_ended()
        finally:
            self.over.set()
        return LEAVE

    @property
    def waits(self) -> bool:
        """Whether it is waiting on the server, or has ended, and will bring no job once the worker is stopping."""
        return self._waiting and (self._link is None or time.monotonic() > self._silent_at)

    def _rounds(self) -> Started | None:
        """Rounds until the worker stops, or until there is a job to be run by this thread, while another goes on."""
        worker = self._worker
        while not worker.stopping:
            self._round_at = time.monotonic()
            if worker.is_quiet:
                self._rest()
                continue
            waits = self._pause > 0 and not worker.burst
            found, mine = self._begin(self._wait_for_work if waits else self._claim, take_on=waits or self._woken)
            if mine is not None:
                return mine
            if found or not worker.burst:
                continue
            if not self._down and not self._ended and not worker.running:
                break
            worker.wait_for_an_end()
        return None

    def _begin(self, obtain: Callable[[], list[Lease] | None], *, take_on: bool) -> tuple[bool, Started | None]:
        """
        Start what `obtain` brings, in the slots it has reserved.

        Returns:
            False where the server has nothing; and what is to be run by this thread.
        """
        worker = self._worker
        leases: list[Lease] | None = None
        mine, slots = None, 0
        try:
            if (found := obtain()) is None:
                return True, None
            if found and worker.is_quiet:  # since the claim was sent
                worker.release(self.queue, found)
                return True, None
            leases, suspect = self._set_apart(found)
            if leases:
                mine = self._start(leases, take_on=take_on and not suspect)
            self._up()
            if suspect:
                self._watch(suspect)
        except BoundqError as error:
            self._trouble(error)
        except Exception:
            self._unexpected()
            leases = None
        finally:
            slots, self._reserved = self._reserved, 0
            if mine is None:
                worker.give_slots(self.queue.name, slots - len(leases or ()))
        if mine is not None:
            self._chores = functools.partial(worker.took_on, mine, slots)
        return bool(leases), mine

    def _start(self, leases: list[Lease], *, take_on: bool) -> Started | None:
        try:
            if take_on and len(leases) == 1 and (mine := self._worker.take_on(self, leases[0])):
                return mine
            self._worker.start(self, leases)
        except Exception:
            # They are in nobody's hands: somebody else, or we, may have them at once.
            self._worker.release(self.queue, leases)
            raise
        if take_on:
            self._worker.wait_for_an_end(TO_BEGIN)
        return None

    def _set_apart(self, leases: list[Lease]) -> tuple[list[Lease], Lease | None]:
        """
        Among jobs whose worker died with them, one that has no run left after this one: it runs without company.

        Whichever of them it was that took the worker down, the others get their last run without it.
        """
        tasks = self.queue.tasks
        for lease in leases:
            task = tasks.get(lease.task)
            if lease.expired_leases:
                self.pace.caution()
            if task and lease.expired_leases and 1 < lease.attempt == task.retries + 1:
                others = [one for one in leases if one is not lease]
                if others:
                    self.queue.settle(releases=others)
                return [lease], lease
        return leases, None

    def _watch(self, suspect: Lease) -> None:
        """Claim nothing while it runs, for some seconds: what kills its process does so soon."""
        worker = self._worker
        with self._lock:
            self._waiting = True
        self.settle_ended()
        ends = time.monotonic() + SUSPICION
        while not worker.stopping and worker.runs(self.queue, suspect) and time.monotonic() < ends:
            worker.wait_for_an_end()
        with self._lock:
            self._waiting = worker.stopping

    def _rest(self) -> None:
        """Claim nothing while the worker is quiet; who is done settles by himself."""
        worker = self._worker
        with self._lock:
            self._waiting = True
        self.settle_ended()
        while worker.is_quiet and not worker.stopping:
            self._round_at = time.monotonic()
            worker.wait_for_stop(0.1)
        with self._lock:
            self._waiting = worker.stopping

    def last_round(self) -> tuple[float, bool | None] | None:
        """When the loop last ended a round, and whether the server is away, None before the first; None: it is over."""
        return None if self.over.is_set() else (self._round_at, self._down if self._asked else None)

    def ended(self, ended: Ended) -> None:
        """A job's run is over."""
        if not self.note(ended):
            self._settle([ended])

    def note(self, ended: Ended) -> bool:
        """A job's run is over: whether the next round settles it."""
        with self._lock:
            if not self._waiting:
                self._ended.append(ended)
            return not self._waiting

    def settle_ended(self) -> None:
        """Settle all that is done and not settled yet, whatever is left of it by the rounds."""
        while ended := self._take_ended():
            self._settle(ended)

    def _claim(self) -> list[Lease] | None:
        """Settle what is done, claim what there are slots for; None where there are none, or nothing is to be had."""
        worker = self._worker
        slots = self._reserved = worker.take_slots(self)
        if not slots:
            self.settle_ended()  # all slots are busy: what is done need not wait for a free one
            return None
        if worker.stopping or worker.is_quiet:
            return None
        ended = self._take_ended()
        if ended:
            lost, leases = self._settle_and_claim(ended, slots)
            self._tell_lost(lost)
            return leases
        woken, self._woken = self._woken, False
        leases, self._pause = self.queue._claim_or_register(slots, worker.lease, woken=woken)
        return leases

    def _wait_for_work(self) -> list[Lease] | None:
        """
        Wait on the server, holding no slot, for a job; meanwhile who is done settles by himself. None: claim now.

        The claim of one job is sent along with the wait, as design.md has it: that saves a round trip. The server runs
        it when the wait ends, whatever has become of us. So a worker that stops takes it back (`withdraw`), and one
        that finds it can do nothing with the job gives it back. Where neither can be relied upon, because the
        connection cannot be closed by halves (TLS), or the lease is short beside the wait, the claim comes after the
        wait.
        """
        worker, link = self._worker, self.queue._hub.link()
        pause, self._pause = self._pause, 0.0
        together = link.withdrawable and worker.lease >= LEASE_TO_WAIT * pause
        with self._lock:
            if self._ended or worker.stopping:
                return None
            self._waiting = True
            self._link, self._silent_at = link if together else None, math.inf
        leases: list[Lease] = []
        try:
            if together:
                leases, self._pause = self.queue._wait_and_claim(pause, worker.lease)
            else:
                self.queue._wait(pause)
                self._woken = True
                return None
        except Withdrawn:
            return None
        finally:
            with self._lock:
                self._waiting = worker.stopping and not leases  # who stops waits until they are given back, below
                self._link = None
        if leases:
            # A handler may have held up this thread with the interpreter lock, while the answer lay there.
            late = leases[0].remaining < worker.lease / 2
            if late or worker.stopping or not worker.take_free_slot(self):
                worker.release(self.queue, leases)
                return None
            self._reserved = 1
        return leases

    def withdraw(self) -> None:
        """The worker claims no more: take back the claim that has been sent along with the wait, if one has."""
        with self._lock:
            if self._link is not None:
                self._link.withdraw()
                self._silent_at = min(self._silent_at, time.monotonic() + SILENCE)

    def _settle_and_claim(self, ended: list[Ended], slots: int) -> tuple[list[BaseLease], list[Lease]]:
        self._let_go(ended)
        try:
            return self.queue._turn(*_sorted(ended), slots, self._worker.lease)
        except BaseException:
            with self._lock:
                self._ended = ended + self._ended  # not lost: with the next round
            raise

    def _settle(self, ended: list[Ended]) -> None:
        """Settle now; while the server is away, until the leases end."""
        self._let_go(ended)
        while True:
            try:
                acks, retries, buries = _sorted(ended)
                self._tell_lost(self.queue.settle(acks=acks, retries=retries, buries=buries))
                return
            except BoundqError as error:
                self._trouble(error)
                for lease, _ in ended:
                    if lease.remaining <= 0:
                        log.error(
                            *("queue %s: job %s is done but not settled; it may run again", self.queue.name, lease.id),
                            extra=about(self.queue.name, lease),
                        )
                ended = [one for one in ended if one.lease.remaining > 0]
                if not ended:
                    return

    def _let_go(self, ended: Sequence[Ended]) -> None:
        """Their leases need not be kept any more. Before they are settled: then the same job may be claimed anew."""
        self._worker.let_go(self.queue, [one.lease for one in ended])

    def _take_ended(self) -> list[Ended]:
        with self._lock:
            ended, self._ended = self._ended[:MOST_JOBS], self._ended[MOST_JOBS:]
        return ended

    def _tell_lost(self, lost: Sequence[BaseLease]) -> None:
        for lease in lost:
            self._worker.tell_lost(self.queue.name, lease)

    def _up(self) -> None:
        self._errors = 0
        self._asked = True
        if self._down:
            self._down = False
            log.info("queue %s: the server is back", self.queue.name, extra={"queue": self.queue.name})

    def _shut(self, reason: str) -> None:
        """The server has failed twice in a row: said now, and not when a call gives up at its deadline."""
        self._away(f"queue {self.queue.name}: the server is unavailable ({reason})")

    def _trouble(self, error: BoundqError) -> None:
        """The library's own back-off bounds the commands."""
        self._away(str(error))
        self._round_at = time.monotonic()
        self._worker.wait_for_stop(0.2)

    def _away(self, what: str) -> None:
        """One line when it begins."""
        with self._lock:
            known, self._down = self._down, True
        self._asked = True
        if not known:
            log.warning("%s; trying on", what, extra={"queue": self.queue.name})

    def _unexpected(self) -> None:
        self._errors += 1
        log.exception("queue %s: unexpected error, %d of %d in a row", self.queue.name, self._errors, MOST_ERRORS)
        if self._errors >= MOST_ERRORS:
            self._worker.give_up()
        self._worker.wait_for_stop(0.2)


def _nothing() -> None:
    """No chores."""


def _sorted(
    ended: Sequence[Ended],
) -> tuple[list[BaseLease], list[tuple[BaseLease, float | timedelta]], list[tuple[BaseLease, str, str]]]:
    """Acks, retries and buries."""
    acks: list[BaseLease] = []
    retries: list[tuple[BaseLease, float | timedelta]] = []
    buries: list[tuple[BaseLease, str, str]] = []
    for lease, verdict in ended:
        if verdict.kind == "ack":
            acks.append(lease)
        elif verdict.kind == "retry":
            retries.append((lease, verdict.delay))
        else:
            buries.append((lease, verdict.reason, verdict.error))
    return acks, retries, buries
