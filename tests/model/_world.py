"""
A world for the state machine: one real server, whose scripts and whose clients live by a clock that the test moves,
and a line between them that loses what it is told to lose.

- The scripts read their time from a key beside the queue's own instead of from ``TIME`` (lua/lib/clock.lua is
  replaced as they are loaded); the client's modules see a ``time`` of the same clock. No step waits.
- Calls go through the real `Link` and its `Attempts`; `Line.once` is one attempt: it runs the script, or not, and
  gives its answer, or loses it. Between a loss and the next attempt, and while a client waits on a list, others act.
- After each script that has run, all keys are read, and the oracle is told.
"""

from __future__ import annotations

import sys
import time as real_time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hiredis
import pytest

from boundq import Queue, _scripts
from boundq._call import Both, Call, Request, Wait, pack
from boundq._keys import Keys
from boundq._retry import ErrorReply, Lost
from boundq._target import Target
from boundq.sync._link import Hub, WireOnce
from boundq.sync._wire import Wire
from tests.model._oracle import KINDS, LUA, PARTS, READS, Keyspace, Oracle

START_MS = 1_800_000_000_000
CLOCK = "local now = tonumber(redis.call('GET', string.match(KEYS[1], '^.*}:') .. 'clock'))\n"
FAULTS = ("refused", "request", "reply", "token", "late", "memory")
"""Not connected | lost on the way there | done, and the answer lost | lost, after it took its token off a list |
given up by its client, and done later all the same | the server is at its maxmemory."""


class Time:
    """What boundq's modules see as ``time``: it passes when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.step_ms = 0  # by how much the server's clock was set forward or back

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return self.server_ms / 1000

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    @property
    def server_ms(self) -> int:
        return START_MS + int(self.seconds * 1000) + self.step_ms


@contextmanager
def virtual_time() -> Iterator[Time]:
    """Everything of boundq that is loaded lives by one `Time`, scripts too."""
    time, patch = Time(), pytest.MonkeyPatch()
    original, clock = _scripts.source, (LUA / "lib/clock.lua").read_text(encoding="utf-8")
    assert "redis.call('TIME')" in clock

    def source(name: str) -> str:
        text = original(name).replace(clock, CLOCK)
        assert "redis.call('TIME')" not in text
        return text

    for name, module in list(sys.modules.items()):
        # _wire times real sockets.
        if name.startswith("boundq") and name != "boundq.sync._wire" and getattr(module, "time", None) is real_time:
            patch.setattr(module, "time", time)
    patch.setattr(_scripts, "source", source)
    _scripts.load.cache_clear()
    try:
        yield time
    finally:
        patch.undo()
        _scripts.load.cache_clear()


class Line:
    """One attempt at a call, over a line that loses things."""

    def __init__(self, world: World) -> None:
        self._inner = WireOnce(Target("single", world.url))
        self._wire: Wire | None = None
        self._world = world

    def once(self, call: Request, deadline: float) -> tuple[Any, ErrorReply | None]:
        world = self._world
        if isinstance(call, Both):
            return self._both(call)
        if isinstance(call, Wait):
            return (None if world.wait_on(*call.block) else [b"", b"1"]), None
        assert isinstance(call, Call)
        fault = world.faults[0] if world.faults else ""
        if list(world.faults)[1:] != ["ever"]:
            world.faults.popleft() if world.faults else None
        if fault == "refused":
            raise Lost("refused", False, "as the test wished")
        if fault == "memory" and call.script.name.startswith("enqueue"):
            raise ErrorReply("OOM command not allowed when used memory > 'maxmemory'.")
        if fault == "memory":
            fault = ""
        if call.block and fault != "request":
            world.wait_on(*call.block)
        if fault == "late":
            world.late.append(call)
        elif fault not in ("request", "token"):
            answer = self.run(call)
            if not fault:
                return answer
        world.others_act()
        raise Lost("reset", True, "as the test wished")

    def express(self, data: bytes, deadline: float) -> list[Any] | None:
        """As `WireOnce.express`: what is wrong with the call is for the long way to find out."""
        try:
            reply: list[Any] = self.once(_read(data), deadline)[0]
        except ErrorReply:
            return None
        return reply

    def _both(self, call: Both) -> tuple[Any, None]:
        """Two calls, of which nobody else comes between; a script that is not known fails for itself."""
        fault = self._world.faults.popleft() if self._world.faults else ""
        if fault == "refused":
            raise Lost("refused", False, "as the test wished")
        replies: list[Any] = []
        for one in (call.first, call.second) if fault in ("", "reply", "memory") else ():
            known = self.command("SCRIPT", "EXISTS", one.script.sha)[0]
            replies.append(self.run(one)[0] if known else ErrorReply("NOSCRIPT no matching script"))
        if fault in ("", "memory"):
            return replies, None
        self._world.others_act()
        raise Lost("reset", True, "as the test wished")

    def run(self, call: Call) -> tuple[Any, ErrorReply | None]:
        """The call, with nothing in its way. Its block, if any, was spent on the test's clock."""
        self._world.set_clock()
        if self._inner._wire is None:
            self._inner._wire = Wire(self._inner._target, None, real_time.monotonic() + 30)
        answer = self._inner.once(call._replace(block=None), real_time.monotonic() + 30)
        self._world.look(call, answer[0])
        return answer

    def close(self) -> None:
        """The world's own lines stay."""

    def hang_up(self) -> None:
        self._inner.close()
        if self._wire is not None:
            self._wire.close()

    def command(self, *words: bytes | str | int) -> Any:
        """One command beside the calls."""
        return self.commands([words])[0]

    def commands(self, many: list[tuple[bytes | str | int, ...]]) -> list[Any]:
        if self._wire is None:
            self._wire = Wire(Target("single", self._world.url), None, real_time.monotonic() + 30)
        replies = self._wire.exchange(b"".join(pack(*one) for one in many), len(many), real_time.monotonic() + 30)
        for reply in replies:
            if isinstance(reply, ErrorReply):
                raise reply
        return replies


def _read(data: bytes) -> Call:
    """The call of ``enqueue`` that these bytes are."""
    reader = hiredis.Reader()
    reader.feed(data)
    _, sha, count, *words = reader.gets()
    script = _scripts.load("enqueue")
    assert script.sha == sha
    return Call(script, tuple(words[: int(count)]), words[int(count) :])


class World:
    """A queue on a server, an oracle that knows what it should hold, and what goes wrong next."""

    def __init__(self, url: str, time: Time) -> None:
        self.url = url
        self.time = time
        self.line = Line(self)
        self.faults: deque[str] = deque()
        self.others: deque[Callable[[], None]] = deque()
        self.late: list[Call] = []

    def begin(self, queue: str) -> None:
        """A new queue."""
        keys = Keys(queue)
        self.keys = dict(zip(PARTS, keys.of(*PARTS), strict=True))
        self.clock = f"boundq:{{{queue}}}:clock"
        self.oracle = Oracle()
        self.time.seconds, self.time.step_ms = 1000.0, 0
        self.faults.clear()
        self.others.clear()
        self.late.clear()

    def end(self) -> None:
        """Forget it."""
        events = self.keys["state"].replace(b":state", b":events")
        self.line.command("UNLINK", *self.keys.values(), events, self.clock)

    def client(self, queue: Queue) -> Queue:
        """The queue as one more process has it: with producer numbers of its own, over the line."""
        hub = Hub(Target("single", self.url))
        hub.link()._once = self.line
        queue.__dict__["_hub"] = hub
        return queue

    def set_clock(self) -> None:
        self.line.command("SET", self.clock, self.time.server_ms)

    def read(self) -> Keyspace:
        """All keys, checked."""
        commands = [(READS[KINDS[part]][0], self.keys[part], *READS[KINDS[part]][1:]) for part in PARTS]
        return Keyspace(self.line.commands(commands))

    def look(self, call: Call, reply: list[Any]) -> None:
        """A script has run."""
        self.oracle.seconds = self.time.seconds
        self.oracle.ran(call.script.name, call.args, reply, self.time.server_ms, self.read())

    def others_act(self) -> None:
        """Whatever others do meanwhile; nothing goes wrong with that."""
        if self.others:
            action, faults, others = self.others.popleft(), self.faults, self.others
            self.faults, self.others = deque(), deque()
            try:
                action()
            finally:
                self.faults, self.others = faults, others

    def arrive(self) -> None:
        """What was given up and not lost arrives."""
        late, self.late = self.late, []
        for call in late:
            self.line.run(call)

    def wait_on(self, key: bytes, seconds: float) -> bool:
        """A client waits on a list; it goes on at the first token, or when its time is up (True)."""
        ends = self.time.seconds + seconds
        try:
            while self.line.command("LPOP", key) is None:
                if not self.others or self.time.seconds >= ends:
                    self.time.seconds = max(ends, self.time.seconds)
                    return True
                self.others_act()
            return False
        finally:
            for name in ("wake", "room", "turn"):
                if self.keys[name] == key:
                    self.oracle.tokens[name] = int(self.line.command("LLEN", key))
