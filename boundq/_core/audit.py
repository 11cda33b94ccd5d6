"""Auditing: flows that hold what a queue says of itself against what is stored, and set it right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from boundq._call import Flow
from boundq._core.base import Core
from boundq._core.control import Control
from boundq._core.inspection import Inspection, Recount, is_id
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
        kind: ``ledger bytes dead_bytes stranded double no_job no_letter``.
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
            faulty, count = yield from self._walk(part)
            looked_at += count
            differences += yield from self._named(part, faulty, repair)
        recount = yield from self._recount(repair)
        for kind, found, counted in (
            ("bytes", recount.bytes, recount.counted_bytes),
            ("dead_bytes", recount.dead_bytes, recount.counted_dead_bytes),
        ):
            if recount.steady and found != counted:
                what = "bytes charged, as the queue says and as its jobs add up"
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

    def _walk(self, part: str) -> Flow[tuple[list[tuple[str, str]], int]]:
        faulty: dict[str, str] = {}
        cursor, looked_at = "0", 0
        while True:
            reply: list[Any] = yield from self._core.ask("audit", PLACES, (part, cursor, STEP))
            cursor, looked_at = as_text(reply[1]), looked_at + reply[2]
            for job_id, what in zip(reply[3::2], reply[4::2], strict=True):
                faulty[as_text(job_id)] = as_text(what)
            if cursor == "0" or len(faulty) >= MOST_NAMED:
                return list(faulty.items()), looked_at

    def _named(self, part: str, faulty: Sequence[tuple[str, str]], repair: bool) -> Flow[list[Difference]]:
        repaired: set[str] = set()
        if repair and part not in ("jobs", "errors"):
            ids = [job_id for job_id, _ in faulty if is_id(job_id)]
            yield from self._control.cancel(ids, "purged")  # counts them as missing
            left, _ = yield from self._walk(part)
            repaired = set(ids) - {job_id for job_id, _ in left}
        return [Difference(what, _WHAT[what], part, job_id, job_id in repaired) for job_id, what in faulty]

    def _recount(self, repair: bool) -> Flow[Recount]:
        for _ in range(TRIES):
            found = yield from self._inspection.recount(repair=repair)
            if found.steady and (found.ok or found.repaired or not repair):
                break
        return found
