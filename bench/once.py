"""
Once-only: what it costs an enqueue that a resend of it would be recognised.

Two arms: the script ``enqueue`` as it is, and the same text without the lines that look the producer's last number up
and write the new one, with 200 other producers enlisted. For each: the server's time in the script, all of the server's
CPU, and wall and CPU time of the client, per enqueue, one at a time. Target: a tenth of the enqueue at most.
"""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

from bench._harness import Arm, Column, Figures, Group, Options, Result, in_turns
from bench._place import Place
from boundq import _scripts as scripts
from boundq._call import pack
from boundq._scripts import Script, load

COLUMNS = (
    Column("script", "us in the script", compared=True, digits=2),
    Column("server", "us server CPU", compared=True, digits=2),
    Column("raw", "us wall, socket", compared=True, digits=1),
    Column("wall", "us wall, Queue", compared=True, digits=1),
    Column("client", "us CPU, Queue", compared=True, digits=1),
)
OTHERS = 200


class Size(NamedTuple):
    """Calls of a run, and rounds."""

    calls: int
    rounds: int


SIZES = {"tiny": Size(100, 2), "quick": Size(1000, 7), "full": Size(10_000, 15)}


def without_bookkeeping() -> Script:
    """The script without what recognises a resend. Fails when the script's text has changed underneath."""
    text = scripts.source("enqueue")
    for begins, ends, instead in (
        # 1. Look the producer up.
        (
            "call('HMGET', state, 'gate', 'format', producer, tail_field,",
            "",
            "call('HMGET', state, 'gate', 'format', tail_field,",
        ),
        ("local gate, last = s[1], s[3]", "", "local gate = s[1]"),
        # 2. Compare.
        ("-- After a flush or a fail-over", "local bytes, held", "local bytes, held"),
        ("if last >= number then", "if gate ~= '0'", "if gate ~= '0'"),
        # 3. Write the new number.
        (",\n  producer, number .. ' p' .. admitted .. ' ' .. first_id)", "", ")"),
    ):
        start = text.index(begins)
        end = text.index(ends, start) + len(ends) if ends else start + len(begins)
        text = text[:start] + instead + text[end:]
    # The fields behind the producer's move up by one.
    text = re.sub(r"\bs\[(\d+)\]", lambda found: f"s[{int(found[1]) - 1}]" if int(found[1]) > 3 else found[0], text)
    plain = text.split("\n", 1)[1]
    return Script("enqueue", text, scripts._sha(text), plain, scripts._sha(plain))


class Once(Arm):
    """
    Enqueues with this text of the script: through a bare socket first, then through `Queue`.

    Args:
        script: The text.
        calls: Of a run.
        payload: Bytes of a job.
    """

    def __init__(self, name: str, place: Place, script: Script, calls: int, payload: int) -> None:
        super().__init__(name)
        self._place, self._script, self._calls, self._payload = place, script, calls, b"p" * payload

    def set_up(self) -> None:
        self._wire = self._place.new_wire(self.stack)
        self._wire.say("SCRIPT", "LOAD", self._script.text)

    def run(self) -> Figures:
        return {**self._bare(), **self._through_queue()}

    def _bare(self) -> Figures:
        keys = self._furnish()
        nonce = self._wire.say("HGET", keys[0], "p1")[:8]
        envelope = b"\x01\x00123456\x00" + self._payload
        self._place.forget_commands()
        meter = self._place.meter()
        for number in range(2, self._calls + 2):
            numbered = b"%b%010d" % (nonce, number)
            reply = self._wire.exchange(pack("EVALSHA", self._script.sha, 3, *keys, "p1", numbered, 0, 1, envelope))
            assert reply[0] == 1, reply
        figures = meter.read(self._calls)
        calls, micros = self._place.spent("evalsha")
        assert calls == self._calls
        return {"script": micros / calls, "server": figures["server"], "raw": figures["wall"]}

    def _through_queue(self) -> Figures:
        self._furnish()
        admission: Any = sys.modules["boundq._core.admission"]
        real = admission.load
        admission.load = lambda name: self._script if name == "enqueue" else load(name)
        queue = self._place.queue(self.stack)
        try:
            queue.enqueue_bytes(self._payload)
            meter = self._place.meter()
            for _ in range(self._calls):
                queue.enqueue_bytes(self._payload)
            figures = meter.read(self._calls)
        finally:
            admission.load = real
            queue.close()
        return {"wall": figures["wall"], "client": figures["client"]}

    def _furnish(self) -> list[bytes]:
        """A queue in which 200 other producers are enlisted; its keys, as the script wants them."""
        self._place.flush()
        queue = self._place.queue(self.stack)
        queue._hub.link()._sessions.clear()
        queue.enqueue_bytes(self._payload)
        queue.close()
        keys = [self._place.key(queue.name, part) for part in ("state", "jobs", "wake")]
        for producer in range(2, OTHERS):
            self._wire.say("HSET", keys[0], f"p{producer}", b"0123abcd0000000001 p1 9")
        self._wire.say("HSET", keys[0], "producer", OTHERS)
        return keys


def measure(place: Place, options: Options) -> Result:
    """With the bookkeeping and without."""
    calls, rounds = SIZES[options.size]
    arms = [
        Once("without", place, without_bookkeeping(), calls, options.payload),
        Once("boundq, with", place, load("enqueue"), calls, options.payload),
    ]
    runs = in_turns(arms, options.of(rounds))
    return Result([Group(f"enqueue of {options.payload} bytes", runs, arms[0].name, COLUMNS)])
