"""
Server cost: what a job costs the server's CPU, in the scripts and in all, beside the least that scripts and lists take.

``script`` is the server's own clock around the commands (``INFO commandstats``), and beside it what of that a script's
own commands took; ``server`` is all of its CPU time, with reading, parsing and answering. For 100 jobs in a call there
are three floors: a script that pushes 100 values with one command, which jobs with ids cannot do, one that puts 100
values with ids into a hash, and 100 scripts that push one value each. Claim and settle stand beside LMOVE and LREM.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from bench._harness import Arm, Column, Figures, Group, Options, Result, in_turns
from bench._place import BARE_PUSH, Place
from boundq._call import pack

COLUMNS = (
    Column("script", "us/job in commands", compared=True, digits=2),
    Column("inner", "of them in a script's commands", digits=2, told=True),
    Column("server", "us/job, all CPU", compared=True, digits=2),
)
BATCHES = (1, 10, 100)
_PUSH_ALL = "return redis.call('LPUSH', KEYS[1], unpack(ARGV))"
_PUT_ALL = "return redis.call('HSET', KEYS[1], unpack(ARGV))"
_FILL = 500

Call = Callable[[], object]
Ready = tuple[Call, Callable[[int], object]]
"""The call, and what stores the jobs that it will need."""
Connect = Callable[[Place, ExitStack], Ready]


class Size(NamedTuple):
    """Jobs of a run, and rounds."""

    jobs: int
    rounds: int


SIZES = {"tiny": Size(200, 2), "quick": Size(3000, 7), "full": Size(20_000, 15)}


class Cost(Arm):
    """
    Calls, each of which does something to ``batch`` jobs.

    Args:
        connect: Makes the call.
        jobs: In a run.
        batch: In a call.
        commands: What the server counts them as.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        connect: Connect,
        jobs: int,
        batch: int,
        *commands: str,
    ) -> None:
        super().__init__(name)
        self._place, self._connect, self._jobs, self._batch, self._commands = place, connect, jobs, batch, commands

    def set_up(self) -> None:
        self._call, self._prepare = self._connect(self._place, self.stack)

    def run(self) -> Figures:
        self._place.flush()
        calls = self._jobs // self._batch
        self._prepare((calls + 1) * self._batch)
        self._call()  # connects, declares, loads the scripts
        self._place.forget_commands()
        meter = self._place.meter()
        for _ in range(calls):
            self._call()
        jobs = calls * self._batch
        figures = meter.read(jobs)
        count, micros = self._place.spent(*self._commands)
        assert count in (calls, 2 * calls, 100 * calls), f"{self.name}: {count} commands in {calls} calls"
        inner = {"inner": self._place.spent_by_scripts() / jobs} if self._commands == ("evalsha",) else {}
        return {**figures, "script": micros / jobs, **inner}


def measure(place: Place, options: Options) -> Result:
    """Admission of 1 and of 100, claim and settle of 1, 10 and 100."""
    size = SIZES[options.size]
    jobs, rounds, payload = size.jobs, options.of(size.rounds), b"x" * options.payload

    def lpush(place: Place, stack: ExitStack) -> Ready:
        wire, request = place.new_wire(stack), pack("LPUSH", "list", payload)
        return lambda: wire.exchange(request), _nothing

    def push(batch: int, text: str, at_once: int = 1) -> Connect:
        def connect(place: Place, stack: ExitStack) -> Ready:
            wire = place.new_wire(stack)
            request = pack("EVALSHA", wire.say("SCRIPT", "LOAD", text), 1, "list", *[payload] * batch)

            def call() -> None:
                wire.send(request * at_once)
                for _ in range(at_once):
                    wire.receive()

            return call, _nothing

        return connect

    def put_100(place: Place, stack: ExitStack) -> Ready:
        wire, ids = place.new_wire(stack), itertools.count(10_000)
        sha = wire.say("SCRIPT", "LOAD", _PUT_ALL)

        def call() -> None:
            wire.say("EVALSHA", sha, 1, "hash", *(word for _ in range(100) for word in (next(ids), payload)))

        return call, _nothing

    def enqueue(batch: int) -> Connect:
        def connect(place: Place, stack: ExitStack) -> Ready:
            queue = place.queue(stack)
            job = queue.named("noop").call("x" * options.payload)
            return lambda: queue.enqueue_many([job] * batch), _nothing

        return connect

    def take(place: Place, stack: ExitStack) -> Ready:
        wire = place.new_wire(stack)
        move, remove = pack("LMOVE", "list", "taken", "RIGHT", "LEFT"), pack("LREM", "taken", 1, payload)

        def call() -> None:
            wire.exchange(move)
            wire.exchange(remove)

        def fill(jobs: int) -> None:
            for _ in range(0, jobs, _FILL):
                wire.say("LPUSH", "list", *[payload] * _FILL)

        return call, fill

    def claim(batch: int) -> Connect:
        def connect(place: Place, stack: ExitStack) -> Ready:
            queue = place.queue(stack)
            job = queue.named("noop").call("x" * options.payload)

            def call() -> None:
                leases = queue.claim(batch)
                assert len(leases) == batch
                queue.settle(acks=leases)

            return call, lambda jobs: queue.enqueue_many(job for _ in range(jobs))

        return connect

    admit_1 = [
        Cost("EVALSHA of a push", place, push(1, BARE_PUSH), jobs, 1, "evalsha"),
        Cost("LPUSH", place, lpush, jobs, 1, "lpush"),
        Cost("boundq enqueue", place, enqueue(1), jobs, 1, "evalsha"),
    ]
    admit_100 = [
        Cost("EVALSHA, one push of 100", place, push(100, _PUSH_ALL), jobs, 100, "evalsha"),
        Cost("EVALSHA, one HSET of 100", place, put_100, jobs, 100, "evalsha"),
        Cost("100 EVALSHA of a push", place, push(1, BARE_PUSH, 100), jobs, 100, "evalsha"),
        Cost("boundq enqueue_many", place, enqueue(100), jobs, 100, "evalsha"),
    ]
    deliver = [Cost("LMOVE, LREM", place, take, jobs, 1, "lmove", "lrem")]
    deliver += [Cost(f"boundq, {batch} a call", place, claim(batch), jobs, batch, "evalsha") for batch in BATCHES]
    groups = {"enqueue, 1 job a call": admit_1, "enqueue, 100 jobs a call": admit_100, "claim and settle": deliver}
    return Result([Group(title, in_turns(arms, rounds), arms[0].name, COLUMNS) for title, arms in groups.items()])


def _nothing(jobs: int) -> None:
    """Nothing has to be done before."""
