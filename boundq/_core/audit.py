"""Auditing: flows that hold what a queue says of itself against what is stored, and set it right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from boundq._call import Flow
from boundq._core.base import Core
from boundq._core.control import Control
from boundq._core.inspection import Inspection, Recount
from boundq._keys import PLACES
from boundq.model import Stats, as_text

# Entries looked at in one script; and of a queue at most so many faulty ones are named.
STEP = 100
MOST_NAMED = 1000
# So often a recount begins anew where the queue moved meanwhile. A small queue is counted between two calls of others.
TRIES = 5
WALKED: Final = ("leases", "due0", "due1", "due2", "due3", "dead", "errors", "jobs")

_WHAT = {
    "stranded": "job in no state: nobody will ever be given it",
    "double": "job in two states at once",
    "no_job": "entry without a job: its envelope is gone",
    "no_letter": "error text without a dead letter",
}


class Difference(msgspec.Struct, frozen=True):
    """
    Something that is not as it should be.

    Args:
        kind: ``ledger bytes dead_bytes dead_jobs stranded double no_job no_letter``.
        what: In words.
        found: What the queue says: a number, or for an entry the key's part.
        counted: What is stored: a number, or for an entry the id.
        repaired: It was set right.
    """

    kind: str
    what: str
    found: int | str
    counted: int | str
    repaired: bool


class Audit(msgspec.Struct, frozen=True):
    """
    What an audit found.

    Args:
        queue: Its name.
        stats: The queue at the end.
        differences: All, up to 1,000 of entries.
        looked_at: Entries and jobs.
        steady: The bytes could be compared: nothing moved while they were added up.
    """

    queue: str
    stats: Stats
    differences: list[Difference]
    looked_at: int
    steady: bool

    @property
    def ok(self) -> bool:
        """Whether all is, or was made, as it should be."""
        return all(one.repaired for one in self.differences)


class Auditing:
    """Flows that audit one queue."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._inspection = Inspection(core)
        self._control = Control(core)

    def audit(self, *, repair: bool) -> Flow[Audit]:
        """Look at everything, in bounded steps; ``repair``: and set right what can be."""
        differences: list[Difference] = []
        looked_at = 0
        for part in WALKED:
            named, count = yield from self._walk(part, repair=repair)
            looked_at += count
            left = named
            if repair and named and part != "jobs":
                left, _ = yield from self._walk(part, repair=False)
            shown = list({**left, **named}.items())[:MOST_NAMED]
            differences += [Difference(what, _WHAT[what], part, job_id, job_id not in left) for job_id, what in shown]
        recount = yield from self._recount(repair)
        charged = "bytes charged, as the queue says and as its jobs add up"
        letters = "dead letters, as the queue says and as there are"
        for kind, what, found, counted in (
            ("bytes", charged, recount.bytes, recount.counted_bytes),
            ("dead_bytes", charged, recount.dead_bytes, recount.counted_dead_bytes),
            ("dead_jobs", letters, recount.dead, recount.counted_dead),
        ):
            if recount.steady and found != counted:
                differences.append(Difference(kind, what, found, counted, recount.repaired))
        stats = yield from self._inspection.stats()
        if stats.imbalance:
            amended = False
            if repair and stats.imbalance > 0:
                yield from self._core.ask("amend", ("state", "jobs"), ())
                stats = yield from self._inspection.stats()
                amended = not stats.imbalance
            here = stats.jobs + stats.dead
            what = "jobs admitted, and jobs here or gone in a known way"
            gone = stats.acked + stats.cancelled + stats.expired + stats.dropped + stats.purged
            differences.append(Difference("ledger", what, stats.admitted, gone + here, amended))
        return Audit(self._core.name, stats, differences, looked_at, recount.steady)

    def _walk(self, part: str, *, repair: bool) -> Flow[tuple[dict[str, str], int]]:
        """What is wrong, up to what is named, and how much was looked at; ``repair``: and remove all that is wrong."""
        named: dict[str, str] = {}
        cursor, looked_at = "0", 0
        while True:
            reply: list[Any] = yield from self._core.ask("audit", PLACES, (part, cursor, STEP))
            cursor, looked_at = as_text(reply[1]), looked_at + reply[2]
            for job_id, what in zip(reply[3::2], reply[4::2], strict=True):
                if len(named) < MOST_NAMED:
                    named[as_text(job_id)] = as_text(what)
            if repair:
                yield from self._remove(part, reply[3::2])
            if cursor == "0":
                return named, looked_at

    def _remove(self, part: str, job_ids: Sequence[bytes | str | int]) -> Flow[None]:
        if part == "errors":
            for start in range(0, len(job_ids), STEP):
                step = job_ids[start : start + STEP]
                yield from self._core.ask("drop_texts", ("state", "dead", "errors"), step)
        elif part != "jobs":
            yield from self._control.cancel([as_text(job_id) for job_id in job_ids], "purged")  # counts them as missing

    def _recount(self, repair: bool) -> Flow[Recount]:
        for _ in range(TRIES):
            found = yield from self._inspection.recount(repair=repair)
            if found.steady and (found.ok or found.repaired or not repair):
                break
        return found
