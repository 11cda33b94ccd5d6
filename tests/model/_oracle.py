"""
A queue in plain Python, and a reader of the real one's keys, for the state machine to compare.

The oracle is told of each script that has run: what it was given, what it answered, what time it was. It knows from
the documented contract what the answer and the keys must be, and shares no code with boundq: the charge formula
below is written from the data model, only its constants are read out of the Lua files.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LUA = Path(__file__).resolve().parents[2] / "lua"


def constant(file: str, pattern: str) -> tuple[int, ...]:
    """Numbers out of a Lua file, so that a changed constant is a changed expectation, and a lost one an error."""
    found = re.search(pattern, (LUA / file).read_text(encoding="utf-8"))
    assert found, f"{pattern} is not in {file}"
    return tuple(int(number) for number in found.groups())


UNIQUE, WINDOW = constant("lib/unique.lua", r"local UNIQUE, WINDOW = (\d+), (\d+)")
TEXT_JEMALLOC, TEXT_LIBC = constant("lib/dead.lua", r"cost > 0 and (\d+) or (-\d+)")
(COUNT_BITS,) = constant("lib/layout.lua", r"= 2 \^ 20, 2 \^ (\d+)")
(BACK_BITS,) = constant("lib/layout.lua", r"GIVEN_BACK, .* 2 \^ (\d+), 15")
RELEASED = 1 << BACK_BITS
(EPOCH,) = constant("lib/layout.lua", r"local EPOCH, TICK = (\d+), 100")
COSTS = (
    *constant("attach.lua", r"cost = redis\.pcall\('INFO', 'memory'\), (\d+)"),
    *constant("attach.lua", r"cost = (-\d+) end"),
)
NAMES = re.findall(r"[A-Z_]+", "".join((LUA / "lib/status.lua").read_text(encoding="utf-8").split("\n")[1:]))
STATUS = {name: code for code, name in enumerate((name for name in NAMES if len(name) > 1), 1)}


def charge_of(size: int, cost: int) -> int:
    """Bytes charged for a stored string: its allocation, and ``cost`` for all that stands around it."""
    stored = size + (4 if size < 256 else 6 if size < 65536 else 10)
    if cost < 0:  # libc
        large = (-(-stored // 128) if stored >= 32768 else 0) + (4096 if stored >= 131000 else 0)
        return stored + 24 - cost + large
    if stored <= 128:
        return -(-stored // 16) * 16 + cost
    step = 2 ** (math.frexp(stored - 1)[1] - 3)
    return -(-stored // step) * step + cost


def note_charge(note: bytes, cost: int) -> int:
    """Bytes charged for a dead letter's reason and text."""
    return charge_of(len(note), TEXT_JEMALLOC if cost > 0 else TEXT_LIBC) if note else 0


def head_of(envelope: bytes) -> tuple[int, int | None, bytes]:
    """Created, expires (None: never) and digest (b"": none) of an envelope."""
    flags, at, expires, digest = envelope[1], 8, None, b""
    if flags & 1:
        expires, at = int.from_bytes(envelope[8:14], "big"), 14
    if flags & 2:
        digest = envelope[at : at + 16]
    return int.from_bytes(envelope[2:8], "big"), expires, digest


@dataclass
class Job:
    """One job as the oracle has it; ``when``: due or buried, Unix ms, or the tick at which its lease ends."""

    id: str
    envelope: bytes
    place: str
    when: int = 0
    attempt: int = 0
    expired: int = 0
    fence: int = 0
    note: bytes = b""
    delivered: bool = field(default=False, compare=False)  # once, and given back perhaps
    released: bool = False  # that is how it came to be scheduled

    @property
    def level(self) -> int:
        return int(self.id) % 4

    @property
    def created(self) -> int:
        return head_of(self.envelope)[0]

    @property
    def expires(self) -> int | None:
        return head_of(self.envelope)[1]

    @property
    def digest(self) -> bytes:
        return head_of(self.envelope)[2]

    @property
    def counts(self) -> int:
        return self.expired * 128 + self.attempt


PARTS = (
    *("state", "jobs", "leases", "due0", "due1", "due2", "due3", "dead", "errors", "unique", "windows"),
    *("wake", "room", "turn"),
)
READS = {"hash": (b"HGETALL",), "zset": (b"ZRANGE", 0, -1, b"WITHSCORES"), "list": (b"LRANGE", 0, -1)}
KINDS = dict(zip(PARTS, ["hash", "hash", *["zset"] * 6, "hash", "hash", "zset", *["list"] * 3], strict=True))


class Keyspace:
    """All keys of a queue, as read in one go; refuses what is not consistent in itself."""

    def __init__(self, replies: Sequence[Any]) -> None:
        raw = dict(zip(PARTS, replies, strict=True))
        self.raw = raw
        flat = {
            part: dict(zip(raw[part][::2], raw[part][1::2], strict=True)) for part in PARTS if KINDS[part] != "list"
        }
        self.state = {name.decode(): value.decode() for name, value in flat["state"].items()}
        self.envelopes = {name.decode(): value for name, value in flat["jobs"].items()}
        self.unique = {digest: job.decode() for digest, job in flat["unique"].items()}
        self.windows = {digest: int(score) for digest, score in flat["windows"].items()}
        self.producers = {name for name in self.state if name[0] == "p" and name[1:].isdecimal()}
        self.tokens = {part: len(raw[part]) for part in ("wake", "room", "turn")}
        self.errors = {name.decode(): value for name, value in flat["errors"].items()}
        zsets = {part: {name.decode(): int(score) for name, score in flat[part].items()} for part in PARTS[2:8]}
        self.jobs: dict[str, Job] = {}
        for part, members in zsets.items():
            for name, score in members.items():
                assert name in self.envelopes, f"{name} is in {part} and has no envelope"
                assert name not in self.jobs, f"{name} is in {part}, and {self.jobs[name].place} too"
                if part == "leases":
                    job = Job(name, b"", "active", score >> 20, score & 127, score >> 7 & 15, score & (1 << 20) - 1)
                else:
                    place = "dead" if part == "dead" else "scheduled"
                    job = Job(name, b"", place, (score >> COUNT_BITS) + EPOCH, score & 127, score >> 7 & 15)
                    job.released = bool(score & RELEASED)
                    assert part in ("dead", f"due{job.level}"), f"{name} is in {part}"
                self.jobs[name] = job
        if not self.state:
            assert not any(raw.values()), "there are keys and no state"
            return
        for level in range(4):
            head, tail = self.number(f"head{level}"), self.number(f"tail{level}")
            assert 0 <= head <= tail, f"ring {level} is {head}..{tail}"
            for seq in range(head + 1, tail + 1):
                name = str(seq * 8 + level)
                assert name not in self.jobs, f"{name} is in its ring, and {self.jobs[name].place}"
                if name in self.envelopes:
                    self.jobs[name] = Job(name, b"", "ready")
        for name, envelope in self.envelopes.items():
            assert name in self.jobs, f"{name} has an envelope and is in no state"
            self.jobs[name].envelope = envelope
        for name, note in self.errors.items():
            assert name in self.jobs, f"{name} has a note and no envelope"
            assert self.jobs[name].place == "dead", f"{name} has a note and is {self.jobs[name].place}"
            self.jobs[name].note = note
        self._check()

    def number(self, name: str) -> int:
        return int(self.state[name])

    @property
    def held(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.place != "dead"]

    @property
    def upcoming(self) -> int | None:
        """Unix ms of the next due job or the next end of a lease."""
        times = [job.when for job in self.held if job.place == "scheduled"]
        times += [job.when * 100 + EPOCH for job in self.held if job.place == "active"]
        return min(times, default=None)

    def _check(self) -> None:
        """What must be true of the keys of any queue at any time."""
        cost = self.number("cost")
        dead = [job for job in self.jobs.values() if job.place == "dead"]
        charged = sum(charge_of(len(job.envelope), cost) for job in self.held)
        charged += UNIQUE * len(self.unique) + WINDOW * len(self.windows)
        assert self.number("bytes") == charged, f"bytes is {self.state['bytes']}, the charges add up to {charged}"
        charged = sum(charge_of(len(job.envelope), cost) + note_charge(job.note, cost) for job in dead)
        assert self.number("dead_bytes") == charged, f"dead_bytes is {self.state['dead_bytes']}, should be {charged}"
        assert self.number("dead_jobs") == len(dead)
        for limit, used in (("max_dead_jobs", "dead_jobs"), ("max_dead_bytes", "dead_bytes")):
            assert self.number(used) <= self.number(limit), f"{used} is {self.state[used]} > {limit}"
        admitted = sum(self.number(f"tail{slot}") for slot in range(8))
        gone = sum(self.number(name) for name in ("acked", "cancelled", "expired", "dropped", "purged"))
        assert admitted == gone + len(dead) + len(self.held), "the ledger does not balance"
        hint, event = self.number("next_event"), self.upcoming
        assert event is None or hint == 0 or hint <= event, f"something happens at {event}, claims look at {hint}"
        for part, count in self.tokens.items():
            assert count <= 1, f"{count} tokens in {part}"
        for digest, holder in self.unique.items():
            job = self.jobs.get(holder)
            here = job is not None and job.place != "dead" and job.digest == digest
            assert here or digest in self.windows, f"a unique key is held by {job}, with no window open"
        for digest in self.windows:
            assert digest in self.unique, "a window is open for a key that nobody holds"
        for job in self.held:
            assert not job.digest or self.unique.get(job.digest) == job.id, f"{job.id} has lost its unique key"
            assert job.attempt >= job.expired + (job.place == "active"), f"{job} was lost more often than delivered"


@dataclass
class Oracle:
    """The model. `ran` takes one script's run; whatever it did not expect is an AssertionError."""

    jobs: dict[str, Job] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    limits: dict[str, int] = field(default_factory=dict)
    unique: dict[bytes, str] = field(default_factory=dict)
    windows: dict[bytes, int] = field(default_factory=dict)
    answers: dict[str, tuple[str, list[tuple[str, bool]], bool]] = field(default_factory=dict)
    tails: list[int] = field(default_factory=lambda: [0] * 8)
    cost: int = 0
    producers: int = 0
    paused: int = 0
    sealed: int = 0
    expiring: bool = False
    turn: str = ""
    turn_at: int = 0
    blocked: bool = False
    tokens: dict[str, int] = field(default_factory=dict)
    purger: bytes = b""
    batch: int = 0
    took: tuple[int, bytes] = (0, b"")
    now: int = 0
    issued: dict[str, bytes] = field(default_factory=dict)  # id -> envelope, of all jobs ever
    seconds: float = 0.0  # of the clients' clock
    line_at: float = 0.0  # when somebody last took or kept a place in the line
    turned_away: int = 0  # newcomers, since then, for the sake of those in the line

    # -- what the numbers are

    @property
    def held(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.place != "dead"]

    @property
    def bytes(self) -> int:
        live = sum(charge_of(len(job.envelope), self.cost) for job in self.held)
        return live + UNIQUE * len(self.unique) + WINDOW * len(self.windows)

    def at(self, place: str) -> list[Job]:
        """The jobs of one state, in the order in which they will, or did, come."""
        found = [job for job in self.jobs.values() if job.place == place]
        if place == "ready":
            return sorted(found, key=lambda job: (-job.level, int(job.id)))
        if place == "scheduled":
            return sorted(found, key=lambda job: (-job.level, job.when, job.released, job.counts, job.id))
        if place == "dead":
            return sorted(found, key=lambda job: (job.when, job.counts, job.id))
        return sorted(found, key=lambda job: (job.when, job.fence, job.id))

    def over(self, job: Job) -> bool:
        """Its time to be started has passed."""
        return job.expires is not None and job.expires <= self.now

    def lost(self, job: Job) -> bool:
        """Its lease has run out."""
        return job.place == "active" and job.when <= (self.now - EPOCH) // 100

    def doom(self, job: Job) -> str:
        """Why it is buried and not given out once more, "" when it is not."""
        if job.attempt > 0 and job.attempt >= self.limits["max_deliveries"]:
            return "max_deliveries"
        if self.lost(job) and job.expired == 14:
            return "lost_leases"
        if job.delivered and self.now - job.created > self.limits["max_age"]:
            return "max_age"
        return ""

    def outlived(self, job: Job) -> bool:
        """Its time as a dead letter has passed."""
        return self.limits["dead_ttl"] > 0 and job.when < self.now - self.limits["dead_ttl"]

    def order(self) -> list[Job]:
        """What claims would give out now: lost leases, then for each priority what is due, and what is ready."""
        lost = [job for job in self.at("active") if self.lost(job) and not self.doom(job)]
        due = [
            job for job in self.at("scheduled") if job.when <= self.now and not self.over(job) and not self.doom(job)
        ]
        ready = [job for job in self.at("ready") if not self.over(job)]
        for level in (3, 2, 1, 0):
            lost += [job for job in (*due, *ready) if job.level == level]
        return lost

    # -- what a script did

    def ran(self, name: str, args: Sequence[Any], reply: list[Any], now: int, after: Keyspace) -> None:
        """A script ran. Its reply and the keys must be what they should be."""
        self.now = now
        words = [word if isinstance(word, bytes) else str(word).encode() for word in args]
        self.tokens = {"wake": 0, "room": 0, "turn": 0, **self.tokens}
        if name != "attach" and not self.limits:
            assert reply == [STATUS["UNDECLARED"]]
            return
        held, size = len(self.held), self.bytes
        getattr(self, f"_{name}")(words, reply, after)
        self._compare(after)
        for limit, used, before in (("max_jobs", len(self.held), held), ("max_bytes", self.bytes, size)):
            assert used <= max(self.limits[limit], before), f"{used} held, {limit} is {self.limits[limit]}"

    def _compare(self, after: Keyspace) -> None:
        for name in self.jobs.keys() | after.jobs.keys():
            assert self.jobs.get(name) == after.jobs.get(name), f"{self.jobs.get(name)} is {after.jobs.get(name)}"
        assert after.unique == self.unique
        assert after.windows == self.windows
        assert after.number("bytes") == self.bytes
        assert [after.number(f"tail{slot}") for slot in range(8)] == self.tails
        assert after.number("paused_at") == self.paused
        assert after.number("sealed_at") == self.sealed
        assert {name: after.number(name) for name in self.limits} == self.limits
        assert after.producers == set(self.answers)
        for counter in (
            *("acked", "buried", "cancelled", "expired", "dropped", "purged", "retried", "released", "deliveries"),
            *("leases_expired", "leases_lost", "missing", "rejected_jobs", "rejected_bytes", "rejected_job_bytes"),
            *("rejected_sealed", "rejected_waiters"),
        ):
            found = after.number(counter)
            assert found == self.counters[counter], f"{counter} is {found}, should be {self.counters[counter]}"
        # The line of waiting producers is the script's own affair; it is looked at from outside.
        self.turn, self.turn_at = after.state["turn"], after.number("turn_at")
        gate = after.number("gate")
        self.blocked, self.tokens = bool(gate & 2), dict(after.tokens)
        assert bool(gate & 4) == bool(self.turn)
        assert bool(gate & 8) == bool(self.sealed)

    # -- jobs come and go

    def _admit(self, slot: int, envelope: bytes, due: int | None) -> str:
        self.tails[slot] += 1
        name = str(self.tails[slot] * 8 + slot)
        assert name not in self.issued, f"id {name} was issued twice"
        self.jobs[name] = Job(name, envelope, "ready" if due is None else "scheduled", due or 0)
        self.expiring = self.expiring or self.jobs[name].expires is not None
        self.issued[name] = envelope
        return name

    def _end(self, job: Job, how: str) -> None:
        del self.jobs[job.id]
        self.ended[job.id] = how
        self.counters[how] += 1
        if job.place != "dead":
            self._free(job)

    def _free(self, job: Job) -> None:
        if job.digest and self.unique.get(job.digest) == job.id and job.digest not in self.windows:
            del self.unique[job.digest]

    def _bury(self, job: Job, note: bytes) -> None:
        self._free(job)
        job.place, job.when, job.note, job.fence, job.released = "dead", self.now, note, 0, False
        self.counters["buried"] += 1

    def _drop(self) -> None:
        """Hold the dead letters to their limits, the oldest going first."""
        dead = self.at("dead")
        size = sum(charge_of(len(job.envelope), self.cost) + note_charge(job.note, self.cost) for job in dead)
        while dead and (
            len(dead) > self.limits["max_dead_jobs"] or size > self.limits["max_dead_bytes"] or self.outlived(dead[0])
        ):
            job = dead.pop(0)
            size -= charge_of(len(job.envelope), self.cost) + note_charge(job.note, self.cost)
            self._end(job, "dropped")

    # -- the scripts

    def _attach(self, args: list[bytes], reply: list[Any], after: Keyspace) -> None:
        created = not self.limits
        if created:
            self.cost = after.number("cost")
            assert self.cost in COSTS
            self.limits = {args[i].decode(): int(args[i + 1]) for i in range(2, len(args), 2)}
        if args[1]:
            self.producers += 1
            self.answers[f"p{self.producers}"] = (args[1].decode() + "0000000000", [], True)
        assert reply[:4] == [STATUS["OK"], self.now, self.producers if args[1] else 0, int(created)]

    def _known(self, args: list[bytes], reply: list[Any], count: int, *, general: bool) -> bool:
        """Whether the call needs no admission: a stranger's, a repeat, a sealed queue's."""
        producer, number = args[0].decode(), args[1].decode()
        if producer not in self.answers or self.answers[producer][0][:8] != number[:8]:
            assert reply == [STATUS["STRANGER"]]
            return True
        last, first_answer, by_general = self.answers[producer]
        if last >= number:
            if by_general and not general:
                assert reply == [STATUS["GENERAL"]]
                return True
            assert reply[0] == STATUS["REPEATED"]
            if general:
                said = [(str(reply[i]), bool(reply[i + 1])) for i in range(11, len(reply), 2)]
            else:
                said = [(str(reply[2] + 8 * i), False) for i in range(reply[1])]
            assert said == first_answer, f"the first answer was {first_answer}, the resend got {said}"
            return True
        if self.sealed and not general:
            assert reply == [STATUS["GENERAL"]]
            return True
        if self.sealed:
            assert reply[:2] == [STATUS["SEALED"], self.sealed]
            self._refused("SEALED", count, args)
            return True
        return False

    def _fits(self, size: int, charge: int, held: int, used: int) -> tuple[str, int, int, int]:
        """The reason of a refusal, "" for none; used, limit, requested."""
        if size > self.limits["max_job_bytes"]:
            return "TOO_LARGE", 0, self.limits["max_job_bytes"], size
        if charge > self.limits["max_bytes"]:
            return "TOO_LARGE", 0, self.limits["max_bytes"], charge
        if held + 1 > self.limits["max_jobs"]:
            return "FULL_JOBS", held, self.limits["max_jobs"], 1
        if used + charge > self.limits["max_bytes"]:
            return "FULL_BYTES", used, self.limits["max_bytes"], charge
        return "", 0, 0, 0

    def _refused(self, reason: str, count: int, args: list[bytes]) -> None:
        if int(args[2]) & 2:  # a resend: its first sending must not be admitted after this
            self.answers[args[0].decode()] = (args[1].decode(), [], True)
            return
        names = {"TOO_LARGE": "job_bytes", "FULL_JOBS": "jobs", "FULL_BYTES": "bytes"}
        name = names.get(reason, reason.lower())
        self.counters[f"rejected_{name}"] += 1 if reason == "TOO_LARGE" else count

    def _enqueue(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        envelopes, level, atomic = args[4:], int(args[3]), bool(int(args[2]) & 1)
        if self._known(args, reply, len(envelopes), general=False):
            return
        if self.blocked or self.turn:
            assert reply == [STATUS["GENERAL"]]
            return
        held, size = len(self.held), self.bytes
        fitting, refusal = 0, ("", 0, 0, 0)
        for envelope in envelopes:
            charge = charge_of(len(envelope), self.cost)
            refusal = self._fits(len(envelope), charge, held, size)
            if refusal[0]:
                break
            fitting, held, size = fitting + 1, held + 1, size + charge
        reason, used, limit, requested = refusal
        if atomic and reason:
            if reason == "FULL_JOBS":
                used, requested = len(self.held), len(envelopes)
            elif reason == "FULL_BYTES":
                used, requested = self.bytes, sum(charge_of(len(one), self.cost) for one in envelopes)
            fitting = 0
        if reason in ("FULL_JOBS", "FULL_BYTES") and self.expiring:
            assert reply == [STATUS["GENERAL"]]
            return
        names = [self._admit(level, envelope, None) for envelope in envelopes[:fitting]]
        if reason:
            self._refused(reason, len(envelopes) - fitting, args)
        if names:
            self.answers[args[0].decode()] = (args[1].decode(), [(name, False) for name in names], False)
        code = STATUS["OK"] if names else STATUS[reason]
        expected = [code, fitting, int(names[0]) if names else 0, len(self.held), self.bytes]
        if reason:
            assert reply[5:9] == [STATUS[reason], used, limit, requested]
        assert reply[:5] == expected, f"enqueue said {reply}, should say {expected}"

    def _enqueue_general(self, args: list[bytes], reply: list[Any], after: Keyspace) -> None:
        jobs = [args[i : i + 6] for i in range(4, len(args), 6)]
        atomic, wait = bool(int(args[2]) & 1), int(args[3])
        if self._known(args, reply, len(jobs), general=True):
            return
        may_enter = self._may_enter(f"{args[0].decode()}.{args[1].decode()}", wait)
        self._close_windows()
        plan, reason, rest = self._fit(jobs, atomic=atomic, may_enter=may_enter)
        if plan is None:
            assert reply[0] == STATUS["CLASH"]
            return
        if reason in ("FULL_JOBS", "FULL_BYTES") and self.expiring:
            # Looked at anew in any case: a lapsed holder of a unique key, met behind the first refusal, made room too.
            self._drop_expired()
            plan, reason, rest = self._fit(jobs, atomic=atomic, may_enter=may_enter)
            assert plan is not None
        if reason and atomic and len(jobs) > 1:
            plan = []
        assert reply[4] == (STATUS[reason] if reason else 0), f"refused with {reply[4]}, should be {reason or 0}"
        if reason and not (atomic and len(jobs) > 1):
            assert tuple(reply[5:8]) == rest, f"used, limit, requested are {reply[5:8]}, should be {rest}"
        if reason == "TOO_LARGE":
            self._refused(reason, 1, args)
        elif reason and wait in (0, 3):
            self._refused(reason, len(jobs) - len(plan), args)
            if reason == "WAITERS" and self.seconds - self.line_at > 3.5:
                self.turned_away += 1  # the first finds out that nobody is there
                assert self.turned_away == 1, "turned away, and nobody has been waiting for long"
        elif reason:
            self.line_at, self.turned_away = self.seconds, 0
            assert reply[10] in (1, 2), "no place in the line"
        said = []
        for job in plan:
            level, due, expires, digest, window, envelope = job
            if isinstance(due, str):  # a duplicate of that id, or of an earlier one of this batch
                said.append((due or self.unique[digest], True))
                continue
            if expires:
                envelope = envelope[:8] + (self.now + int(expires)).to_bytes(6, "big") + envelope[14:]
            name = self._admit(int(level) + (0 if due is None else 4), envelope, due)
            if digest:
                self.unique[digest] = name
                if int(window):
                    self.windows[digest] = self.now + int(window)
                    self.expiring = True
            said.append((name, False))
        assert [(str(reply[i]), bool(reply[i + 1])) for i in range(11, len(reply), 2)] == said
        assert reply[0] == (STATUS["OK"] if plan else STATUS[reason])
        assert reply[1:4] == [len(plan), len(self.held), self.bytes]
        if plan:
            self.answers[args[0].decode()] = (args[1].decode(), said, True)

    def _close_windows(self) -> None:
        """Unique keys are free whose window has passed and whose job has ended."""
        for digest, until in list(self.windows.items()):
            if until <= self.now:
                del self.windows[digest]
                holder = self.jobs.get(self.unique[digest])
                if holder is None or holder.place == "dead":
                    del self.unique[digest]

    def _fit(self, jobs: list[list[bytes]], *, atomic: bool, may_enter: bool) -> Any:
        """The plan (None: a job is scheduled too far away), the reason of the first refusal, and its numbers."""
        plan: list[list[Any]] = []
        held, size, seen = len(self.held), self.bytes, set()
        reason, numbers = "", (0, 0, 0)
        for level, due, expires, digest, window, envelope in jobs:
            holder = self.unique.get(digest) if digest else None
            found = self.jobs.get(holder or "")
            if found and found.place in ("ready", "scheduled") and self.over(found):
                before = len(self.held), self.bytes
                self._end(found, "expired")  # it will never be started: its key is free
                held, size = held + len(self.held) - before[0], size + self.bytes - before[1]
                holder = self.unique.get(digest)
            if digest in seen:
                if not reason:
                    plan.append([level, "", expires, digest, window, envelope])
                continue
            if holder and (holder in self.jobs or digest in self.windows):
                if not reason:
                    plan.append([level, holder, expires, digest, window, envelope])
                continue
            charge = charge_of(len(envelope), self.cost)
            if digest:
                charge += UNIQUE + (WINDOW if int(window) else 0)
            if not reason:
                first, *rest = self._fits(len(envelope), charge, held, size)
                if first != "TOO_LARGE" and not may_enter:
                    first, rest = "WAITERS", [held, self.limits["max_jobs"], 1]
                if first == "WAITERS":
                    rest[0] = len(self.held)
                reason, numbers = first, tuple(rest)
            if reason and not atomic:
                return plan, reason, numbers
            if reason:
                continue
            at = None
            if due:
                at = int(due) + (self.now if due[:1] == b"+" else 0)
                if at - EPOCH >= 2**42:
                    return None, "", ()
                at = max(at, EPOCH)
            plan.append([level, at, expires, digest, window, envelope])
            held, size = held + 1, size + charge
            if digest:
                seen.add(digest)
        return plan, reason, numbers

    def _may_enter(self, ticket: str, wait: int) -> bool:
        """Newcomers do not overtake those who wait; one who has not shown itself for 3 s has left."""
        if self.turn and self.turn != ticket:
            if 0 <= self.now - self.turn_at < 3000:
                return False
            self.turn = ""
        return not (self.blocked and not self.turn and wait < 2 and self.tokens["room"] == 0)

    def _drop_expired(self) -> None:
        """At a full queue, expired jobs at the heads of the rings go; those behind one that has not expired stay."""
        gone = []
        for level in range(4):
            for job in (job for job in self.at("ready") if job.level == level):
                if not self.over(job):
                    break
                gone.append(job)
        for job in gone:
            self._end(job, "expired")

    def _claim(self, args: list[bytes], reply: list[Any], after: Keyspace) -> None:
        n, budget, lease, nonce, _wait = (int(word) for word in args)
        if self.paused:
            assert reply == [STATUS["PAUSED"], self.now, self.paused]
            return
        tick = -(-(self.now + lease - EPOCH) // 100)
        assert reply[:3] == [STATUS["OK"], self.now, tick * 100 + EPOCH]
        buried = False
        # How far a claim looks is its own affair: what it ended must have been at its end, and need not be all.
        for job in list(self.jobs.values()):
            there = after.jobs.get(job.id)
            waiting = job.place == "ready" or (job.place == "scheduled" and job.when <= self.now)
            if there is None and waiting and self.over(job):
                self._end(job, "expired")
            elif job.place == "dead" and there is None and self.outlived(job):
                self._end(job, "dropped")
            elif job.place != "dead" and (there is None or there.place == "dead"):
                assert self.lost(job) or (waiting and not self.over(job)), f"{job} ended without a reason"
                why = self.doom(job)
                assert why, f"{job} was buried without a reason"
                if self.lost(job):
                    job.expired = job.expired + 1
                    self.counters["leases_expired"] += 1
                self._bury(job, why.encode() + b"\n")
                buried = True
        if buried:
            self._drop()
        order = self.order()
        taken = [reply[i].decode() for i in range(5, len(reply), 3)]
        assert len(taken) <= n, f"asked for {n}, got {len(taken)}"
        expected = [job.id for job in order[: len(taken)]]
        assert taken == expected, f"claimed {taken}, should be {expected}"
        size = 0
        for place, name in enumerate(taken):
            job = self.jobs[name]
            assert job.place != "active" or self.lost(job), f"{name} is leased to somebody, until {job.when}"
            if job.place == "active":
                job.expired = job.expired + 1
                self.counters["leases_expired"] += 1
            job.attempt, job.delivered = job.attempt + 1, True
            job.place, job.when, job.released = "active", tick, False
            job.fence = (1 << 19 if job.digest else 0) | nonce << 11 | job.expired << 7 | job.attempt
            size += len(job.envelope)
            assert reply[6 + 3 * place : 8 + 3 * place] == [job.fence, job.envelope]
        self.counters["deliveries"] += len(taken)
        if len(taken) < min(n, len(order)) and not reply[4]:
            left = order[len(taken)]
            assert taken, f"{left.id} could be given out, and was not"
            assert size + len(left.envelope) > budget, f"{left.id} would have fitted, and was not given out"
        if not taken:
            event = after.upcoming
            assert reply[3] == (-1 if event is None else max(event - self.now, 0)) or reply[4]

    def _settle(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        counts, at, resent = [int(word) for word in args[1:5]], 5, args[0] == b"2"
        work: list[tuple[int, list[bytes]]] = []
        for kind, width in enumerate((2, 3, 2, 4)):
            for _ in range(counts[kind]):
                work.append((kind, args[at : at + width]))
                at += width
        lost, buried = [], False
        for place, (kind, (raw, fence, *rest)) in enumerate(work, 1):
            job = self.jobs.get(raw.decode())
            if job is None or job.place != "active" or job.fence != int(fence):
                lost.append((place, int(job is None), job))
                self.counters["leases_lost"] += not resent
            elif kind == 0:
                self._end(job, "acked")
            elif kind == 3:
                self._bury(job, rest[0] + b"\n" + rest[1])
                buried = True
            else:
                self.counters["retried" if kind == 1 else "released"] += 1
                job.attempt -= kind == 2
                job.released = kind == 2
                job.place, job.fence = "scheduled", 0
                job.when = self.now + (int(rest[0]) if kind == 1 else 0)
        if buried:
            self._drop()
        assert reply[:3] == [STATUS["OK"], len(self.held), self.bytes]
        assert reply[3::2] == [place for place, _, _ in lost], f"lost {reply[3::2]}, should be {lost}"
        for said, (_, gone, job) in zip(reply[4::2], lost, strict=True):
            assert said == gone or (job is not None and job.place == "dead")

    def _extend(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        tick, lost = -(-(self.now + int(args[0]) - EPOCH) // 100), []
        for place, i in enumerate(range(1, len(args), 2), 1):
            job = self.jobs.get(args[i].decode())
            if job is None or job.place != "active" or job.fence != int(args[i + 1]):
                lost.append(place)
            else:
                job.when = tick
        assert reply == [STATUS["OK"], tick * 100 + EPOCH, *lost]

    def _remove(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        here = [job for job in map(self.jobs.get, dict.fromkeys(raw.decode() for raw in args[1:])) if job]
        if args[0] == b"dropped":
            here = [job for job in here if job.place == "dead"]
        assert reply == [STATUS["OK"], len(here), *(job.id.encode() for job in here)]
        for job in here:
            self._end(job, args[0].decode())

    def _retry_dead(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        if self.sealed:
            assert reply[:2] == [STATUS["SEALED"], self.sealed]
            return
        may_enter = self._may_enter("", 0)
        self._close_windows()
        outcomes, reason, numbers = [], "", (0, 0, 0)
        for raw in args:
            job = self.jobs.get(raw.decode())
            if job is None or job.place != "dead":
                outcomes.append(0)
                continue
            holder = self.unique.get(job.digest)
            if holder and holder != job.id:
                outcomes.append(2)
                continue
            charge = charge_of(len(job.envelope), self.cost) + (UNIQUE if job.digest and not holder else 0)
            reason, *rest = self._fits(len(job.envelope), charge, len(self.held), self.bytes)
            if reason == "TOO_LARGE":
                reason = ""
                outcomes.append(3)
                continue
            if not may_enter:
                reason, rest = "WAITERS", [len(self.held), self.limits["max_jobs"], 1]
            if reason:
                numbers = tuple(rest)
                break
            if job.digest:
                self.unique[job.digest] = job.id
            job.place, job.when, job.note, job.released = "scheduled", self.now, b"", True
            job.attempt = job.expired = 0
            outcomes.append(1)
        assert reply[:4] == [STATUS["OK"], len(self.held), self.bytes, STATUS[reason] if reason else 0]
        assert tuple(reply[4:7]) == numbers
        assert reply[9:] == outcomes, f"{reply[9:]} became of the dead letters, should be {outcomes}"

    def _purge(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        here = self.at(args[0].decode())
        assert reply[:2] == [STATUS["OK"], len(here)]
        for job in here:
            self._end(job, "purged")

    def _take(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        mark, number, which, ids = args[0], int(args[1]), args[2].decode(), [raw.decode() for raw in args[3:]]
        known = int(bool(mark) and mark == self.purger)
        if known and number <= self.batch:
            assert reply == [STATUS["REPEATED"], 0, *self.took]
            return
        if not ids:
            assert which == "begin"
            self.purger, self.batch, self.took = mark, number, (0, b"")
            assert reply == [STATUS["OK"], 0, *self.took, known]
            return
        here = [job for job in (self.jobs.get(name) for name in ids) if job and job.place == which]
        bits = "".join(str(int(name in {job.id for job in here})) for name in ids)
        took = bytes(48 + int(bits[at : at + 6][::-1], 2) for at in range(0, len(bits), 6))
        assert reply == [STATUS["OK"], len(here), number, took, known]
        if mark:
            self.purger, self.batch, self.took = mark, number, (number, took)
        for job in here:
            self._end(job, "purged")

    def _control(self, args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        what = args[0].decode()
        if what == "limits":
            limits = {args[i].decode(): int(args[i + 1]) for i in range(2, len(args), 2)}
            assert reply[1] == int(limits != self.limits)
            self.limits = limits
            self._drop()
            return
        name, on = "sealed" if "seal" in what else "paused", what in ("pause", "seal")
        changed = bool(getattr(self, name)) != on
        assert reply[1] == int(changed)
        if changed:
            setattr(self, name, self.now if on else 0)

    def _nothing(self, _args: list[bytes], reply: list[Any], _after: Keyspace) -> None:
        assert reply[0] in (STATUS["OK"], STATUS["ABSENT"])

    _stats = _get = _peek = _recount = _events = _nothing
