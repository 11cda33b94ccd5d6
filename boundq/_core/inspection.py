"""Inspection: flows that look and change nothing, but for what a recount repairs."""

from __future__ import annotations

import time
from typing import Any, get_args

import msgspec

from boundq import _status as status
from boundq._call import Answer, Call, Command, Flow, Pause
from boundq._core.base import Core, pairs
from boundq._envelope import Envelope, unpack
from boundq._keys import PLACES
from boundq._scripts import load
from boundq._sizes import positive_int
from boundq.errors import ConfigError, DataError
from boundq.limits import Limits
from boundq.model import PRIORITIES, Job, Page, State, Stats, as_text

EPOCH_MS = 1704067200000
# A page carries at most so many bytes of envelopes.
PAGE_BYTES = 2**20
# Who waits for a queue to be empty looks after so long, doubled up to so long, in seconds.
FIRST_LOOK, LAST_LOOK = 0.02, 0.5
_COUNTERS = (
    *("acked", "buried", "retried", "released", "cancelled", "expired", "dropped", "purged", "deliveries"),
    *("leases_expired", "leases_lost", "missing"),
)
_STATS_PARTS = (*PLACES[:7], "unique", "windows")
_REASONS = ("jobs", "bytes", "job_bytes", "sealed", "waiters")


# Id, score, envelope and note of a job.
Stored = tuple[str, int, bytes, bytes]


class Recount(msgspec.Struct, frozen=True):
    """
    What a recount found.

    Args:
        bytes, dead_bytes, dead: The counters as they stood.
        counted_bytes, counted_dead_bytes: What the stored jobs add up to.
        counted_dead: Dead letters that there are.
        steady: Nothing moved meanwhile, so the two can be compared.
        repaired: The counters were set to what was counted.
    """

    bytes: int
    dead_bytes: int
    dead: int
    counted_bytes: int
    counted_dead_bytes: int
    counted_dead: int
    steady: bool
    repaired: bool

    @property
    def ok(self) -> bool:
        """Whether the counters are right, as far as could be seen."""
        counted = (self.counted_bytes, self.counted_dead_bytes, self.counted_dead)
        return (self.bytes, self.dead_bytes, self.dead) == counted


class Inspection:
    """Flows that look at one queue."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def stats(self) -> Flow[Stats]:
        """The queue in numbers."""
        reply = yield from self._core.ask("stats", _STATS_PARTS, ())
        return self._stats(reply)

    def admitted_until_now(self) -> Flow[tuple[int, list[int]]]:
        """The server's clock, Unix ms, and the last sequence number given out in each slot (lua/README.md, "Keys")."""
        reply = yield from self._core.ask("stats", _STATS_PARTS, ())
        state = pairs(reply[13:])
        return int(reply[1]), [int(state[f"tail{slot}"]) for slot in range(8)]

    def stats_call(self) -> Call:
        """The call of `stats` by itself, to be sent with others."""
        return Call(load("stats"), self._core.keys.of(*_STATS_PARTS), ())

    def stats_of(self, answer: Answer) -> Stats:
        """What its answer says."""
        return self._stats(self._core.check(answer))

    def server_ms(self) -> Flow[int]:
        """The server's clock, in Unix milliseconds."""
        answer = yield Command(("TIME",))
        return int(answer.reply[0]) * 1000 + int(answer.reply[1]) // 1000

    def drain(self, timeout: float) -> Flow[bool]:
        """Wait until nothing is held; False when the time is over first."""
        ends, pause = time.monotonic() + timeout, FIRST_LOOK
        while (yield from self.stats()).jobs:
            left = ends - time.monotonic()
            if left <= 0:
                return False
            yield Pause(min(pause, left))
            pause = min(pause * 2, LAST_LOOK)
        return True

    def get(self, job_id: str) -> Flow[Job | None]:
        """One job, None where there is none of this id."""
        if not is_id(job_id):
            return None
        reply = yield from self._core.ask("get", PLACES, (job_id,))
        if reply[0] == status.ABSENT:
            return None
        now, where, score, ahead, raw, note = reply[1:7]
        return self._job(job_id, as_text(where), int(score), raw, note, ahead, int(now))

    def peek(self, state: str, n: int, after: str | None, priority: str | None) -> Flow[Page]:
        """One page of the jobs of a state, in the order in which they will come."""
        found, after, now = yield from self._page(state, n, after, priority)
        return Page([self._job(job_id, state, score, raw, note, -1, now) for job_id, score, raw, note in found], after)

    def raw_page(self, state: str, n: int, after: str | None) -> Flow[tuple[list[Stored], str | None]]:
        """The same as it is stored, and where to go on."""
        found, after, _ = yield from self._page(state, n, after, None)
        return found, after

    def _page(
        self, state: str, n: int, after: str | None, priority: str | None
    ) -> Flow[tuple[list[Stored], str | None, int]]:
        if state not in get_args(State):
            raise ConfigError("state", state, f"it must be one of {', '.join(get_args(State))}")
        positive_int(n, "n")
        levels = ["3", "2", "1", "0"] if state in ("ready", "scheduled") else [""]
        if priority is not None:
            if priority not in PRIORITIES or levels == [""]:
                what = f"it is one of {', '.join(PRIORITIES)}, and for ready and scheduled jobs only"
                raise ConfigError("priority", priority, what)
            levels = [str(PRIORITIES.index(priority))]
        level, score, last = _cursor(after, levels)
        found: list[Stored] = []
        now = 0
        levels = levels[levels.index(level) :]
        while levels and len(found) < n:
            args = (state, levels[0], min(n - len(found), 100), PAGE_BYTES, score, last)
            reply = yield from self._core.ask("peek", PLACES, args)
            now = int(reply[1])
            for at in range(2, len(reply) - 2, 4):
                job_id, at_score, raw, note = reply[at : at + 4]
                found.append((as_text(job_id), int(float(at_score)), raw, note))
            score, last = as_text(reply[-2]), as_text(reply[-1])
            if not last:
                levels.pop(0)
                score = ""
        return found, f"{levels[0]}/{score}/{last}" if levels else None, now

    def recount(self, *, repair: bool) -> Flow[Recount]:
        """Add up what the stored jobs should be charged, in bounded steps; ``repair``: and set the counters to it."""
        before = yield from self.stats()
        cursor, jobs, size, dead, dead_size, keys = "0", 0, 0, 0, 0, 0
        while True:
            parts = ("state", "jobs", "dead", "errors", "unique", "windows")
            reply = yield from self._core.ask("recount", parts, (cursor, 100))
            cursor = as_text(reply[1])
            jobs, size, dead, dead_size = (
                jobs + reply[2],
                size + reply[3],
                dead + reply[4],
                dead_size + reply[5],
            )
            keys, letters = reply[6:8]
            if cursor == "0":
                break
        after = yield from self.stats()
        # The scan may show a job twice while the hash is being resized; the counts tell. Only their sum is what is
        # stored: how it divides into live and dead is what the counter says, which may be wrong.
        steady = _moves(before) == _moves(after) and jobs + dead == after.jobs + after.dead
        found = Recount(
            bytes=after.bytes,
            dead_bytes=after.dead_bytes,
            dead=after.dead,
            counted_bytes=size + keys,
            counted_dead_bytes=dead_size,
            counted_dead=letters,
            steady=steady,
            repaired=False,
        )
        if not repair or not steady or found.ok:
            return found
        counters: list[bytes | str | int] = [found.counted_bytes, found.counted_dead_bytes]
        for name in (
            "acked",
            "buried",
            "retried",
            "cancelled",
            "expired",
            "dropped",
            "purged",
            "bytes",
            "dead_bytes",
        ):
            counters += (name, getattr(after, name))
        counters += ("dead_jobs", after.dead)
        reply = yield from self._core.ask("repair", ("state", "dead"), counters)
        return msgspec.structs.replace(found, repaired=reply[0] == status.OK)

    def _stats(self, reply: list[Any]) -> Stats:
        try:
            return self._read_stats(reply)
        except KeyError as error:  # a field that is not there, or is no number any more
            detail = f"its field {error.args[0]} is not what boundq wrote"
            raise DataError(self._core.name, "state", "undecodable", detail) from error

    def _read_stats(self, reply: list[Any]) -> Stats:
        now, stored, active, *due = reply[1:8]
        oldest, next_ms, unique_keys, _windows, producers = reply[8:13]
        state = pairs(reply[13:])
        numbers = {
            name: int(value) for name, value in state.items() if value.lstrip("-").isdecimal() and value.isascii()
        }
        scheduled, jobs = sum(due), stored - numbers["dead_jobs"]
        drain_known = now - numbers["drain_at"] < 10_000 and numbers["drain_seen"] >= 10
        return Stats(
            name=self._core.name,
            jobs=jobs,
            bytes=numbers["bytes"],
            ready=jobs - active - scheduled,
            scheduled=scheduled,
            active=active,
            dead=numbers["dead_jobs"],
            dead_bytes=numbers["dead_bytes"],
            limits=Limits.from_fields(state),
            oldest_age=oldest / 1000 if oldest >= 0 else 0.0,
            next_event=next_ms / 1000 if next_ms >= 0 else None,
            paused_since=numbers["paused_at"] / 1000 or None,
            paused_by=state.get("paused_by", ""),
            sealed_since=numbers["sealed_at"] / 1000 or None,
            sealed_by=state.get("sealed_by", ""),
            drain_rate=numbers["drain_rate"] / 1000 if drain_known else None,
            claimed_at=numbers["drain_at"] / 1000 or None,
            admitted=sum(numbers[f"tail{slot}"] for slot in range(8)),
            **{name: numbers[name] for name in _COUNTERS},
            rejected={reason: numbers[f"rejected_{reason}"] for reason in _REASONS},
            unique_keys=unique_keys,
            producers=producers,
            at=now / 1000,
        )

    def _job(self, job_id: str, state: str, score: int, raw: bytes, note: bytes, ahead: int, now: int) -> Job:
        try:
            envelope = unpack(self._core.name, job_id, raw)
            problem = ""
        except DataError as error:
            envelope, problem = Envelope(0, None, None, "", {}, raw), str(error)
        attempt, expired = score % 128, score // 128 % 16
        if state == "active":
            due: float | None = (score // 2**20 * 100 + EPOCH_MS) / 1000
        else:
            due = due_ms(score) / 1000 if state != "ready" else None
        reason, _, text = note.decode("utf-8", "replace").partition("\n")
        return Job(
            id=job_id,
            state=state,  # type: ignore[arg-type]  # checked by the caller, or the script's own word
            priority=PRIORITIES[int(job_id) % 4],
            task=envelope.task,
            payload=envelope.payload,
            headers=envelope.headers,
            created=envelope.created_ms / 1000,
            expires=envelope.expires_ms / 1000 if envelope.expires_ms else None,
            due=due,
            deliveries=attempt,
            expired_leases=expired,
            failures=max(attempt - expired - (state == "active"), 0),
            unique=envelope.unique,
            reason=reason,
            error=text or problem,
            ahead=ahead if ahead >= 0 else None,
            seen=now / 1000,
        )


def due_ms(score: int) -> int:
    """Unix ms out of the score of a scheduled or dead job."""
    return score // 2**12 + EPOCH_MS


def is_id(job_id: object) -> bool:
    """Whether this can be a job's id: digits."""
    return isinstance(job_id, str) and job_id.isascii() and job_id.isdecimal() and len(job_id) <= 16


def _cursor(after: str | None, levels: list[str]) -> tuple[str, str, str]:
    if after is None:
        return levels[0], "", ""
    parts = after.split("/") if isinstance(after, str) and after.isascii() else []
    if len(parts) != 3 or parts[0] not in levels or not all(part == "" or part.isdecimal() for part in parts[1:]):
        raise ConfigError("after", after, "it is the `after` of the page before")
    return parts[0], parts[1], parts[2]


def _moves(stats: Stats) -> tuple[int, ...]:
    return (
        *(
            stats.admitted,
            stats.acked,
            stats.buried,
            stats.cancelled,
            stats.expired,
            stats.dropped,
            stats.purged,
        ),
        *(stats.bytes, stats.dead_bytes, stats.dead),
    )
