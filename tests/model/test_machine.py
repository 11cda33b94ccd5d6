"""
A state machine over all operations of a queue, beside a queue in plain Python (`_oracle.py`).

The scripts run on a real server and the calls go through the real link; the clock is the test's, and the line
between them loses what it is told to lose (`_world.py`). After every script that has run, all keys are read: bytes
are the sum of the charges, each job is in one state, the ledger balances, nothing held exceeds a limit, and every job,
counter and answer is what the oracle says.

    BOUNDQ_MODEL=20x50 pytest tests/model/test_machine.py     # examples x steps; in CI 200x50, on each server
    BOUNDQ_MODEL=2000x100 BOUNDQ_SEED=7 pytest ...            # others
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from boundq import Limits, Queue
from boundq._core import delivery
from boundq._job import JobOptions, Prepared, prepare
from boundq.errors import Unavailable
from boundq.lease import BaseLease
from boundq.model import PRIORITIES, EnqueueResult, Receipt
from boundq.sync.lease import Lease
from tests._servers import Server
from tests.model._oracle import EPOCH, Job
from tests.model._world import FAULTS, World, virtual_time

EXAMPLES, STEPS = (int(number) for number in os.environ.get("BOUNDQ_MODEL", "200x50").split("x"))
SEED = os.environ.get("BOUNDQ_SEED")

# Half of the time nothing goes wrong; what goes wrong for ever outlasts every deadline.
faults = st.one_of(
    st.just([]),
    st.just([]),
    st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3),
    st.sampled_from([["refused", "ever"], ["request", "ever"], ["reply", "ever"]]),
)
meanwhile = st.lists(
    st.sampled_from(
        [
            "claim",
            "ack",
            "bury",
            "purge",
            "cancel",
            "enqueue",
            "fill",
            "late",
            "second",
            "day",
            "flush",
            "pause",
            "raise",
        ]
    ),
    max_size=3,
)
sizes = st.sampled_from([0, 1, 10, 100, 231, 232, 233, 247, 300, 700, 3000])
options = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(PRIORITIES),
        "delay": st.sampled_from([0, 0.001, 0.1, 1, 60, 86400]),
        "expires": st.sampled_from([0.001, 0.05, 1, 30, 86400]),
        "unique": st.sampled_from(["a", "b", "c"]),
        "headers": st.sampled_from([{}, {"traceparent": "00-1"}]),
    },
)
places = st.integers(0, 40)
limits = st.builds(
    Limits,
    max_jobs=st.sampled_from([1, 2, 5, 12, 12, 100]),
    max_bytes=st.sampled_from([300, 700, 2000, 8000, 8000, 2**20]),
    max_job_bytes=st.sampled_from([50, 400, 5000, 5000]),
    max_dead_jobs=st.sampled_from([1, 3, 10]),
    max_dead_bytes=st.sampled_from([300, 1500, 10000]),
    dead_ttl=st.sampled_from([None, None, 60, 100000]),
    max_deliveries=st.sampled_from([1, 2, 3, 20, 127]),
    max_age=st.sampled_from([1, 60, 86400, 90 * 86400]),
)


def payload_of(job: Prepared) -> bytes:
    rest: bytes = job.rest
    return rest[rest.rindex(b"#") :]


def expected(error: Unavailable) -> None:
    """The line was down. Anything else that makes a server unavailable is a script that has failed."""
    assert error.reason in ("refused", "reset", "memory"), error


class Machine(RuleBasedStateMachine):
    """Everything that can be done to a queue, by two clients, in any order."""

    world: World
    names: Iterator[str]

    @initialize(limits=limits, reply_bytes=st.sampled_from([4 * 2**20, 4 * 2**20, 400]))
    def begin(self, limits: Limits, reply_bytes: int) -> None:
        name = next(self.names)
        self.world.begin(name)
        self.world.set_clock()
        self.queues = [self.world.client(Queue(name, self.world.url, limits=limits)) for _ in range(3)]
        self.leases: list[Lease] = []
        self.refusals: list[bytes] = []
        self.paper = count(1)
        delivery.REPLY_BYTES = reply_bytes
        random.seed(0)

    def teardown(self) -> None:
        if hasattr(self, "queues"):
            self.world.faults.clear()
            self.world.others.clear()
            try:
                if sys.exc_info()[0] is None:  # else a step has failed, and that is what to tell
                    self.drain()
            finally:
                self.world.end()

    @property
    def oracle(self) -> Any:
        return self.world.oracle

    def drain(self) -> None:
        """At the end all can be had, once, by workers alone: nothing that was accepted is out of reach."""
        self.queues[0].resume()
        for _ in range(400):
            if not self.oracle.held:
                break
            self.settle(acks=self.claim(100, 30))
            self.world.time.seconds += 86400
        assert not self.oracle.held, f"cannot be had: {self.oracle.held}"

    # -- calls

    def trouble(self, faults: list[str], meanwhile: list[str]) -> None:
        """What goes wrong in the next call, and what others do when it does, or while the call waits."""
        self.world.faults.extend(faults)
        actions: dict[str, Callable[[], Any]] = {
            "claim": lambda: self.claim(3, 1, client=2),
            "ack": lambda: self.settle(2, acks=self.claim(1, 1, client=2)),
            "bury": lambda: self.settle(2, buries=[(one, "r", "t") for one in self.claim(2, 1, client=2)]),
            "purge": lambda: self.queues[2].purge("ready", "scheduled"),
            "cancel": lambda: [self.queues[2].cancel(job_id) for job_id in list(self.oracle.jobs)[:2]],
            "enqueue": lambda: self.admit(2, [self.job(10, {})]),
            "fill": lambda: self.admit(2, [self.job(10, {}) for _ in range(20)], many=True),
            "late": self.world.arrive,
            "second": lambda: self.pass_time(1000),
            "day": lambda: self.pass_time(86_400_000),
            "flush": lambda: self.world.line.command("SCRIPT", "FLUSH"),
            "pause": lambda: self.queues[2].pause("them"),
            "raise": lambda: self.queues[2].configure(Limits(), "them"),
        }
        self.world.others.extend(actions[name] for name in meanwhile)

    def calm(self) -> None:
        self.world.faults.clear()
        self.world.others.clear()

    def pass_time(self, ms: int) -> None:
        self.world.time.seconds += ms / 1000

    def job(self, size: int, options: dict[str, Any]) -> Prepared:
        """A job whose payload no other has."""
        return prepare(self.queues[0].name, "", b"#%d" % next(self.paper) + b"." * size, JobOptions(**options))

    def admit(
        self, client: int, jobs: list[Prepared], *, atomic: bool = False, many: bool = False, wait: float = 0.0
    ) -> None:
        """Enqueue, and compare what the caller is told of each job with what happened to it."""
        queue, before = self.queues[client], set(self.oracle.issued)
        results: list[EnqueueResult]
        try:
            if many:
                results = queue.enqueue_many(jobs, atomic=atomic)
            else:
                outcome = queue._admit(jobs[0], {"wait": wait})
                results = [EnqueueResult(**{"receipt" if isinstance(outcome, Receipt) else "rejection": outcome})]
        except Unavailable as error:
            expected(error)
            results = [EnqueueResult(error=error)] * len(jobs)
        assert len(results) == len(jobs)
        issued = {job_id: envelope for job_id, envelope in self.oracle.issued.items() if job_id not in before}
        self.refusals += [payload_of(job) for job, result in zip(jobs, results, strict=True) if result.rejection]
        refused = False
        for job, result in zip(jobs, results, strict=True):
            mine = [job_id for job_id, envelope in issued.items() if envelope.endswith(payload_of(job))]
            assert len(mine) <= 1, f"one job, admitted as {mine}"
            if result.receipt:
                assert not refused, "a later job overtook one that was refused"
                assert mine == ([] if result.receipt.duplicate else [result.receipt.id]), (
                    f"told {result.receipt.id}, was {mine}"
                )
                assert result.receipt.id in self.oracle.issued
                assert atomic <= all(one.receipt is not None for one in results), "all or nothing"
            elif result.rejection:
                assert not mine, f"refused, and admitted as {mine}"
                limit = self.oracle.limits["max_job_bytes"]
                if result.rejection.reason != "job_bytes":
                    refused = True
                elif not atomic and result.rejection.limit == limit:
                    assert job.size > limit
            else:
                assert isinstance(result.error, Unavailable)
                assert result.error.outcome == "unknown" or not mine, f"not sent, and admitted as {mine}"
                refused = True

    # -- admission

    @rule(
        size=sizes,
        options=options,
        unique_for=st.sampled_from([None, 0.5, 60]),
        at=st.sampled_from([None, None, None, -1000, 0, 5000, EPOCH - 1, 1_799_000_000_000]),
        client=st.integers(0, 1),
        faults=faults,
        meanwhile=meanwhile,
    )
    def enqueue(
        self,
        size: int,
        options: dict[str, Any],
        unique_for: float | None,
        at: int | None,
        client: int,
        faults: list[str],
        meanwhile: list[str],
    ) -> None:
        """One job, with any options."""
        chosen = dict(options)
        if unique_for and "unique" in chosen:
            chosen["unique_for"] = unique_for
        if at is not None and "delay" not in chosen:
            chosen["at"] = datetime.fromtimestamp(at / 1000, UTC)
        self.trouble(faults, meanwhile)
        self.admit(client, [self.job(size, chosen)])
        self.calm()

    @rule(
        size=sizes,
        n=st.integers(1, 15),
        level=st.sampled_from(PRIORITIES),
        atomic=st.booleans(),
        client=st.integers(0, 1),
        faults=faults,
        meanwhile=meanwhile,
    )
    def enqueue_plain(
        self, size: int, n: int, level: str, atomic: bool, client: int, faults: list[str], meanwhile: list[str]
    ) -> None:
        """Many plain jobs of one priority."""
        self.trouble(faults, meanwhile)
        self.admit(client, [self.job(size, {"priority": level}) for _ in range(n)], atomic=atomic, many=True)
        self.calm()

    @rule(
        jobs=st.lists(st.tuples(sizes, options), min_size=1, max_size=8),
        atomic=st.booleans(),
        client=st.integers(0, 1),
        faults=faults,
        meanwhile=meanwhile,
    )
    def enqueue_mixed(
        self,
        jobs: list[tuple[int, dict[str, Any]]],
        atomic: bool,
        client: int,
        faults: list[str],
        meanwhile: list[str],
    ) -> None:
        """Many jobs, each with options of its own, duplicates among them."""
        self.trouble(faults, meanwhile)
        self.admit(client, [self.job(*one) for one in jobs], atomic=atomic, many=True)
        self.calm()

    @rule(
        size=sizes,
        options=options,
        wait=st.sampled_from([0.001, 0.5, 5, 30]),
        client=st.integers(0, 1),
        faults=faults,
        meanwhile=meanwhile,
    )
    def enqueue_waiting(
        self, size: int, options: dict[str, Any], wait: float, client: int, faults: list[str], meanwhile: list[str]
    ) -> None:
        """One job that waits for room, while others make some, or do not."""
        self.trouble(faults, meanwhile)
        self.admit(client, [self.job(size, options)], wait=wait)
        self.calm()

    # -- delivery

    def claim(self, n: int, lease: float, *, client: int = 0, wait: float = 0.0) -> list[Lease]:
        try:
            found = self.queues[client].claim(n, lease=lease, wait=wait)
        except Unavailable as error:
            expected(error)
            return []  # leased to nobody, if at all
        if not found and not self.oracle.paused:
            assert not self.oracle.order(), f"due and not given out: {self.oracle.order()[0]}"
        self.leases += found
        return found

    @rule(
        n=st.integers(1, 12),
        lease=st.sampled_from([0.1, 1, 30, 86400]),
        client=st.integers(0, 1),
        faults=faults,
        meanwhile=meanwhile,
    )
    def take(self, n: int, lease: float, client: int, faults: list[str], meanwhile: list[str]) -> None:
        """Claim; where the answer is lost, so are the leases."""
        self.trouble(faults, meanwhile)
        self.claim(n, lease, client=client)
        self.calm()

    @rule(n=st.integers(1, 3), wait=st.sampled_from([0.01, 1, 10]), meanwhile=meanwhile)
    def take_waiting(self, n: int, wait: float, meanwhile: list[str]) -> None:
        """Claim, and wait for the first one."""
        self.trouble([], meanwhile)
        self.claim(n, 30, wait=wait)
        self.calm()

    def settle(self, client: int = 0, **work: Any) -> None:
        """Settle, and compare who is told that his lease was lost."""
        leases = [
            *work.get("acks", ()),
            *(one for one, _ in work.get("retries", ())),
            *work.get("releases", ()),
            *(one for one, _, _ in work.get("buries", ())),
        ]
        smooth, stale = not self.world.faults, [one for one in leases if not self.holds(one)]
        try:
            lost = self.queues[client].settle(**work)
        except Unavailable as error:
            return expected(error)
        twice = [one for place, one in enumerate(leases) if one.id in {other.id for other in leases[:place]}]
        for one in stale if smooth else ():
            assert any(one is other for other in lost), f"the lease of {one.id} was lost, and nobody said so"
        for one in lost:
            mine = [other for other in (*stale, *twice) if other is one]
            assert mine or not smooth, f"the lease of {one.id} is said to be lost"

    def holds(self, lease: BaseLease) -> bool:
        job: Job | None = self.oracle.jobs.get(lease.id)
        return job is not None and job.place == "active" and job.fence == lease.delivery.fence

    def pick(self, places: list[int]) -> list[Lease]:
        """Leases out of all there ever were, the newest first; stale ones among them."""
        newest = self.leases[::-1]
        return [newest[place % len(newest)] for place in places] if newest else []

    @precondition(lambda self: self.leases)
    @rule(
        kind=st.sampled_from(["acks", "retries", "releases", "buries"]),
        places=st.lists(places, min_size=1, max_size=4),
        delay=st.sampled_from([0, 0.001, 1, 3600]),
        text=st.sampled_from(["", "x" * 200, "é\n" * 90]),
        faults=faults,
        meanwhile=meanwhile,
    )
    def settle_some(
        self, kind: str, places: list[int], delay: float, text: str, faults: list[str], meanwhile: list[str]
    ) -> None:
        """Ack, retry, release or bury some: valid ones, lost ones, one twice."""
        leases = self.pick(places)
        shapes: dict[str, Callable[[Any], Any]] = {
            "retries": lambda one: (one, delay),
            "buries": lambda one: (one, "reason", text),
        }
        self.trouble(faults, meanwhile)
        self.settle(**{kind: [shapes.get(kind, lambda one: one)(one) for one in leases]})
        self.calm()

    @precondition(lambda self: self.leases)
    @rule(
        acks=st.lists(places, max_size=3),
        retries=st.lists(places, max_size=3),
        releases=st.lists(places, max_size=3),
        buries=st.lists(places, max_size=3),
        faults=faults,
        meanwhile=meanwhile,
    )
    def settle_mixed(
        self,
        acks: list[int],
        retries: list[int],
        releases: list[int],
        buries: list[int],
        faults: list[str],
        meanwhile: list[str],
    ) -> None:
        """All kinds in one call, one lease in several lists too."""
        self.trouble(faults, meanwhile)
        self.settle(
            acks=self.pick(acks),
            retries=[(one, 1) for one in self.pick(retries)],
            releases=self.pick(releases),
            buries=[(one, "reason", "") for one in self.pick(buries)],
        )
        self.calm()

    @rule(
        acks=st.lists(places, max_size=3),
        retries=st.lists(places, max_size=2),
        buries=st.lists(places, max_size=2),
        n=st.integers(1, 4),
        faults=faults,
        meanwhile=meanwhile,
    )
    def turn(
        self,
        acks: list[int],
        retries: list[int],
        buries: list[int],
        n: int,
        faults: list[str],
        meanwhile: list[str],
    ) -> None:
        """A worker's round: settle what is done, and claim what is next."""
        self.trouble(faults, meanwhile)
        work = self.pick(acks), [(one, 1) for one in self.pick(retries)], [(one, "r", "") for one in self.pick(buries)]
        try:
            self.leases += self.queues[0]._turn(*work, n, 30)[1]
        except Unavailable as error:
            expected(error)
        self.calm()

    @precondition(lambda self: self.oracle.limits)  # _claim_or_register does not create a queue
    @rule(n=st.integers(1, 3), together=st.booleans(), meanwhile=meanwhile)
    def idle(self, n: int, together: bool, meanwhile: list[str]) -> None:
        """A worker finds nothing, waits, and is woken or not; its next claim comes after the wait, or with it."""
        self.trouble([], meanwhile)
        found, pause = self.queues[0]._claim_or_register(n, 30, woken=False)
        if pause and together:
            found, _ = self.queues[0]._wait_and_claim(pause, 30)
        elif pause:
            woken = self.queues[0]._wait(pause)
            found, _ = self.queues[0]._claim_or_register(n, 30, woken=woken)
        self.leases += found
        self.calm()

    @precondition(lambda self: self.leases)
    @rule(
        places=st.lists(places, min_size=1, max_size=4),
        lease=st.sampled_from([0.1, 1, 30, 3600]),
        faults=faults,
        meanwhile=meanwhile,
    )
    def extend(self, places: list[int], lease: float, faults: list[str], meanwhile: list[str]) -> None:
        """Lengthen leases, or shorten them."""
        leases = self.pick(places)
        self.trouble(faults, meanwhile)
        try:
            lost = self.queues[0].extend(leases, lease)
        except Unavailable as error:
            return expected(error)
        finally:
            self.calm()
        for one in leases:
            assert self.holds(one) != any(one is other for other in lost)

    @precondition(lambda self: self.leases)
    @rule(place=places)
    def die(self, place: int) -> None:
        """A worker dies: its lease is never heard of again."""
        self.leases.pop(place % len(self.leases))

    # -- control

    @rule(
        place=places,
        state=st.sampled_from(["ready", "scheduled", "active", "dead", "gone"]),
        faults=faults,
        meanwhile=meanwhile,
    )
    def cancel(self, place: int, state: str, faults: list[str], meanwhile: list[str]) -> None:
        """Cancel a job in any state, or one that is gone."""
        ids = [job.id for job in self.oracle.at(state)] if state != "gone" else [*self.oracle.ended, "0", "99999999"]
        if ids:
            self.trouble(faults, meanwhile)
            self.control(lambda queue: queue.cancel(ids[place % len(ids)]))

    @precondition(lambda self: self.oracle.at("dead"))
    @rule(places=st.lists(places, min_size=1, max_size=4), faults=faults, meanwhile=meanwhile)
    def retry_dead(self, places: list[int], faults: list[str], meanwhile: list[str]) -> None:
        """Dead letters go back to work, one named twice perhaps, and one that is none."""
        dead = [job.id for job in self.oracle.at("dead")]
        ids = [*(dead[place % len(dead)] for place in places), *list(self.oracle.jobs)[:1]]
        self.trouble(faults, meanwhile)
        smooth = not faults and not meanwhile
        told = self.control(lambda queue: queue.retry_dead(ids))
        if told is None:
            return
        assert sorted([*told.back, *told.absent, *told.kept, *told.left]) == sorted(ids), "each is told of, once"
        assert bool(told.left) == (told.rejection is not None)
        if smooth:
            states = {job_id: job.place for job_id, job in self.oracle.jobs.items()}
            assert [states[job_id] for job_id in told.back] == ["scheduled"] * len(told.back)
            assert all(states[job_id] == "dead" for job_id in told.kept)

    @rule(places=st.lists(places, min_size=1, max_size=3), faults=faults)
    def drop_dead(self, places: list[int], faults: list[str]) -> None:
        """Dead letters are dropped; what is not dead stays."""
        ids = list(self.oracle.jobs)
        if ids:
            self.trouble(faults, [])
            self.control(lambda queue: queue.drop_dead([ids[place % len(ids)] for place in places]))

    @rule(
        states=st.lists(st.sampled_from(["ready", "scheduled", "active", "dead"]), min_size=1, max_size=2),
        faults=faults,
    )
    def purge(self, states: list[Any], faults: list[str]) -> None:
        """Empty some states."""
        self.trouble(faults, [])
        self.control(lambda queue: queue.purge(*states))

    @rule(
        state=st.sampled_from(["ready", "scheduled", "active", "dead"]),
        limit=st.integers(1, 9),
        file=st.booleans(),
        faults=faults,
        meanwhile=meanwhile,
    )
    def purge_some(self, state: Any, limit: int, file: bool, faults: list[str], meanwhile: list[str]) -> None:
        """Purge up to some jobs of a state, for good or into a file."""
        self.trouble(faults, meanwhile)
        with TemporaryDirectory() as folder:
            to = f"{folder}/jobs" if file else None
            self.control(lambda queue: queue.purge(state, to=to, limit=limit))

    @rule(what=st.sampled_from(["pause", "resume", "resume", "seal", "unseal", "unseal"]), faults=faults)
    def switch(self, what: Any, faults: list[str]) -> None:
        """Pause, resume, seal, unseal."""
        self.trouble(faults, [])
        self.control(lambda queue: getattr(queue, what)("test"))

    @rule(limits=limits, faults=faults)
    def configure(self, limits: Limits, faults: list[str]) -> None:
        """Raise and lower limits, below what is held too."""
        self.trouble(faults, [])
        self.control(lambda queue: queue.configure(limits, "test"))

    def control(self, call: Callable[[Queue], Any]) -> Any:
        try:
            return call(self.queues[0])
        except Unavailable as error:
            return expected(error)
        finally:
            self.calm()

    # -- looking

    @rule(place=places)
    def get(self, place: int) -> None:
        """A job is shown as it is, and one that is gone is not."""
        ids = [*self.oracle.jobs, *self.oracle.ended]
        if not ids:
            return
        job_id = ids[place % len(ids)]
        shown, job = self.queues[0].get(job_id), self.oracle.jobs.get(job_id)
        if job is None:
            assert shown is None
            return
        assert (shown.state, shown.deliveries, shown.expired_leases) == (job.place, job.attempt, job.expired)
        assert shown.deliveries == shown.failures + shown.expired_leases + (job.place == "active")
        before = [
            other for other in self.oracle.at("ready") if other.level == job.level and int(other.id) < int(job_id)
        ]
        assert (shown.ahead is None) == (job.place != "ready")
        assert shown.ahead is None or shown.ahead >= len(before)

    @rule(state=st.sampled_from(["ready", "scheduled", "active", "dead"]), n=st.integers(1, 4), remove=st.booleans())
    def peek(self, state: Any, n: int, remove: bool) -> None:
        """All pages together show all jobs of a state, in order, also while the jobs shown are taken out."""
        expected = [job.id for job in self.oracle.at(state)]
        shown, after = [], None
        while True:
            page = self.queues[0].peek(state, n, after)
            shown += [job.id for job in page.jobs]
            if remove:
                for job in page.jobs:
                    self.queues[0].cancel(job.id)
            after = page.after
            if after is None:
                break
        assert shown == expected

    @rule(faults=faults)
    def look(self, faults: list[str]) -> None:
        """Stats and recount say what is there."""
        self.trouble(faults, [])
        stats = self.control(lambda queue: queue.stats())
        if stats is None:
            return
        oracle = self.oracle
        for state in ("ready", "scheduled", "active", "dead"):
            assert getattr(stats, state) == len(oracle.at(state))
        assert (stats.jobs, stats.bytes, stats.imbalance) == (len(oracle.held), oracle.bytes, 0)
        count = self.queues[0].recount(repair=True)
        assert count.ok
        assert count.steady
        assert not count.repaired

    # -- the world

    @rule()
    def flush(self) -> None:
        """The server forgets the scripts."""
        self.world.line.command("SCRIPT", "FLUSH")

    @rule()
    def arrive(self) -> None:
        """What its client gave up arrives: nothing that was refused is stored after all, nothing comes in twice."""
        self.world.arrive()

    @rule(ms=st.sampled_from([1, 50, 99, 100, 101, 1000, 3001, 61_000, 3_600_000, 86_400_000, 10 * 86_400_000]))
    def time_passes(self, ms: int) -> None:
        """Time passes for all."""
        self.pass_time(ms)

    @rule(ms=st.sampled_from([-1, -150, -5000, -3_600_000, 1, 150, 5000, 3_600_000]))
    def clock_jump(self, ms: int) -> None:
        """The server's clock is set back a little, or forward."""
        self.world.time.step_ms += ms

    @precondition(lambda self: self.oracle.answers)
    @rule(place=places)
    def forget_producer(self, place: int) -> None:
        """A producer is one of more than 4,096: the server does not know it any more."""
        producer = sorted(self.oracle.answers)[place % len(self.oracle.answers)]
        del self.oracle.answers[producer]
        self.world.line.command("HDEL", self.world.keys["state"], producer)

    @invariant()
    def answers(self) -> None:
        """What was refused was certainly not stored, and one job is stored once."""
        if hasattr(self, "queues"):
            payloads = [envelope[envelope.rindex(b"#") :] for envelope in self.oracle.issued.values()]
            assert len(set(payloads)) == len(payloads), "one job is in twice"
            wrong = set(payloads).intersection(self.refusals)
            assert not wrong, f"refused, and stored all the same: {wrong}"


@pytest.mark.everywhere
def test_machine(any_server: Server, queue_name: str) -> None:
    """Whatever is done to a queue, in whatever order, with answers lost and clocks set: it is as the model says."""
    numbers = count(1)
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=SEED is None,  # CI is the same at every run; exploring is done with seeds
        print_blob=True,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    with virtual_time() as time, pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "REPLY_BYTES", delivery.REPLY_BYTES)
        world = World(any_server.url, time)

        class OnServer(Machine):
            pass

        OnServer.world, OnServer.names = world, (f"{queue_name}.{number}" for number in numbers)
        if SEED:
            OnServer = seed(int(SEED))(OnServer)  # type: ignore[misc]
        try:
            run_state_machine_as_test(OnServer, settings=chosen)
        finally:
            world.line.hang_up()
