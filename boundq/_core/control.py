"""Control: flows that change a queue as a whole, or take jobs out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from boundq import _status as status
from boundq._call import Call, Flow
from boundq._core.admission import rejection, sealed
from boundq._core.base import Core
from boundq._core.inspection import is_id
from boundq._keys import ENDINGS, PLACES
from boundq._scripts import load
from boundq._sizes import positive_int
from boundq.errors import ConfigError
from boundq.limits import Limits
from boundq.model import Event, Retried, State, as_text

# A purge takes out so many jobs in one script.
PURGE_STEP = 300
# Who changed something, and why, is kept in so many bytes.
BY_BYTES = 200
# Dead letters in one script, and events on one page.
RETRY_STEP = 100
EVENTS_PAGE = 100
_CONTROL = (*PLACES, "wake", "room", "turn", "events")
_REMOVE = (*ENDINGS, "room", "turn")
_RETRY = (*ENDINGS, "wake", "room")


class Took(msgspec.Struct, frozen=True):
    """
    What a purge has taken.

    Args:
        removed: Jobs, by this call.
        last: The last batch; -1: not known.
        bits: Which jobs of that, as the script says it.
        sure: The call was done once for certain.
    """

    removed: int
    last: int
    bits: str
    sure: bool

    def kept(self, job_ids: Sequence[str]) -> list[str]:
        """Those of a batch that were not taken."""
        return [job_id for place, job_id in enumerate(job_ids) if not self._bit(place)]

    def _bit(self, place: int) -> bool:
        return place // 6 < len(self.bits) and bool((ord(self.bits[place // 6]) - 48) >> place % 6 & 1)


class Control:
    """Flows that operate one queue."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def switch(self, what: Literal["pause", "resume", "seal", "unseal"], by: str) -> Flow[bool]:
        """Pause, resume, seal or unseal; whether that changed anything."""
        reply = yield from self._core.ask("control", _CONTROL, (what, _by(by)))
        return bool(reply[1])

    def configure(self, limits: Limits, by: str) -> Flow[bool]:
        """Set the limits, for everybody, from the next call on; whether that changed anything."""
        if not isinstance(limits, Limits):
            raise ConfigError("limits", limits, "give a Limits(...)")
        args: list[bytes | str | int] = ["limits", _by(by)]
        for field, value in limits.to_fields().items():
            args += (field, value)
        changed = False
        while True:
            reply = yield from self._core.ask("control", _CONTROL, args)
            changed = changed or bool(reply[1])
            state = {as_text(name): as_text(value) for name, value in zip(reply[2::2], reply[3::2], strict=True)}
            # Lowered dead limits drop the oldest dead letters, 2,000 in one script.
            if int(state["dead_jobs"]) <= limits.max_dead_jobs and int(state["dead_bytes"]) <= int(
                state["max_dead_bytes"]
            ):
                return changed

    def cancel(self, job_ids: Sequence[str], counter: str = "cancelled") -> Flow[list[str]]:
        """Take jobs out in whatever state they are; or dead letters, counted as dropped. Those that were here."""
        ids = [job_id for job_id in job_ids if is_id(job_id)]
        removed: list[str] = []
        for start in range(0, len(ids), PURGE_STEP):
            args = (counter, *ids[start : start + PURGE_STEP])
            reply = yield from self._core.ask("remove", _REMOVE, args)
            removed += [as_text(job_id) for job_id in reply[2:]]
        return removed

    def take(self, mark: str, number: int, which: str, job_ids: Sequence[str]) -> Flow[Took]:
        """One batch of a purge, of jobs read in one state; without ids: ``begin`` or ``ask`` (lua/take.lua)."""
        args: list[bytes | str | int] = [mark, number, which, *job_ids]
        answer = yield Call(load("take"), self._core.keys.of(*_REMOVE), args)
        reply = self._core.check(answer)
        sure = not answer.resent or reply[0] == status.REPEATED or bool(reply[4])
        return Took(reply[1], reply[2], as_text(reply[3]), sure)

    def retry_dead(self, job_ids: Sequence[str]) -> Flow[Retried]:
        """Dead letters back to work, in bounded steps, until one is refused."""
        back: list[str] = []
        absent = [job_id for job_id in job_ids if not is_id(job_id)]
        kept: list[str] = []
        ids = [job_id for job_id in job_ids if is_id(job_id)]
        at = 0
        while at < len(ids):
            step = ids[at : at + RETRY_STEP]
            reply = yield from self._core.ask("retry_dead", _RETRY, step)
            if reply[0] == status.SEALED:
                return Retried(back, absent, kept, ids[at:], sealed(self._core.name, reply))
            _, held, size, reason, *numbers = reply[:9]
            outcomes = reply[9:]
            for job_id, outcome in zip(step, outcomes, strict=False):  # fewer, where it stopped
                (absent, back, kept, kept)[outcome].append(job_id)
            at += len(outcomes)
            if reason:
                refusal = rejection(self._core.name, held, size, reason, *numbers)
                return Retried(back, absent, kept, ids[at:], refusal)
        return Retried(back, absent, kept, [], None)

    def events(self, n: int) -> Flow[list[Event]]:
        """The latest changes of limits and switches, the newest first."""
        if positive_int(n, "n") > EVENTS_PAGE:
            raise ConfigError("n", n, f"it must be from 1 to {EVENTS_PAGE}")
        reply = yield from self._core.ask("events", ("state", "events"), (n,))
        texts = [as_text(word) for word in reply[1:]]
        rows = zip(*(texts[place::5] for place in range(5)), strict=True)
        return [
            Event(int(entry.partition("-")[0]) / 1000, what, by, _values(old), _values(new))
            for entry, what, by, old, new in rows
        ]

    def purge(self, states: Sequence[State]) -> Flow[int]:
        """Take out all jobs of these states, in bounded steps; how many they were."""
        count = 0
        for state in states:
            more = 1
            while more:
                reply = yield from self._core.ask("purge", _REMOVE, (state, PURGE_STEP))
                count, more = count + reply[1], reply[2]
        return count


def _values(text: str) -> dict[str, int]:
    return {name: int(value or 0) for name, _, value in (word.partition("=") for word in text.split())}


def _by(by: str) -> bytes:
    cut = by.encode("utf-8", "replace")[:BY_BYTES]
    return cut.decode("utf-8", "ignore").encode()  # no half character
