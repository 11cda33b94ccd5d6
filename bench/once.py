"""
Once-only: what it costs an enqueue that a resend of it would be recognised.

Two arms in turns: the script ``enqueue`` as it is, and the same text without the lines that look the producer's last
number up and write the new one. For each: the server's time in the script, all of the server's CPU, and wall and CPU
time of the client, per enqueue, one at a time over a unix socket. Target: a tenth of the enqueue at most.
"""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Callable
from typing import Any

import hiredis

from bench._harness import Clock, Figures, in_turns, more, save, spread, table
from boundq import Queue
from boundq import _scripts as scripts
from boundq._call import pack
from boundq._core import admission
from boundq._scripts import Script, load
from tests._servers import REDIS_7_0, VALKEY_9_1, Kind, Server

FIGURES = {
    "script": "server, in the script",
    "server": "server, all CPU",
    "raw": "wall, bare socket",
    "wall": "wall, Queue.enqueue_bytes",
    "client": "client CPU, Queue.enqueue_bytes",
}
OTHERS = 200


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


class Bench:
    """A server with one queue in which 200 other producers are enlisted."""

    def __init__(self, server: Server, calls: int, payload: int) -> None:
        self._server = server
        self._calls = calls
        self._payload = b"p" * payload
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(server.socket_path)
        self._reader = hiredis.Reader()

    def arm(self, script: Script) -> Callable[[], Figures]:
        """One run with this text of the script: through a bare socket first, then through `Queue`."""
        self._say("SCRIPT", "LOAD", script.text)

        def run() -> Figures:
            return {**self._bare(script), **self._through_queue(script)}

        return run

    def _bare(self, script: Script) -> Figures:
        keys = self._furnish()
        said = self._say("HGET", keys[0], "p1")
        assert isinstance(said, bytes)
        nonce = said[:8]
        self._say("CONFIG", "RESETSTAT")
        before, clock = self._cpu(), Clock()
        for number in range(2, self._calls + 2):
            envelope = b"\x01\x00123456\x00" + self._payload
            reply = self._say("EVALSHA", script.sha, 3, *keys, "p1", b"%b%010d" % (nonce, number), 0, 1, envelope)
            assert isinstance(reply, list), reply
            assert reply[0] == 1, reply
        wall, _ = clock.read()
        server = self._cpu() - before
        calls = self._server.info("commandstats")["cmdstat_evalsha"]
        micros = float(calls.split("usec_per_call=")[1].split(",")[0])
        return {"script": micros, "server": server / self._calls * 1e6, "raw": wall / self._calls * 1e6}

    def _through_queue(self, script: Script) -> Figures:
        self._furnish()
        real = admission.load
        admission.load = lambda name: script if name == "enqueue" else load(name)  # type: ignore[assignment]
        try:
            queue = Queue("bench", self._server.url, max_jobs=10**7, max_bytes="8 GiB")
            queue.enqueue_bytes(self._payload)
            clock = Clock()
            for _ in range(self._calls):
                queue.enqueue_bytes(self._payload)
            wall, cpu = clock.read()
            queue.close()
        finally:
            admission.load = real
        return {"wall": wall / self._calls * 1e6, "client": cpu / self._calls * 1e6}

    def _furnish(self) -> tuple[bytes, ...]:
        self._say("FLUSHALL")
        queue = Queue("bench", self._server.url, max_jobs=10**7, max_bytes="8 GiB")
        queue._hub.link()._sessions.clear()
        queue.enqueue_bytes(self._payload)
        queue.close()
        keys = queue._core.keys.of("state", "jobs", "wake")
        for producer in range(2, OTHERS):
            self._say("HSET", keys[0], f"p{producer}", b"0123abcd0000000001 p1 9")
        self._say("HSET", keys[0], "producer", OTHERS)
        return keys

    def _cpu(self) -> float:
        info = self._server.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def _say(self, *words: bytes | str | int) -> Any:
        self._socket.sendall(pack(*words))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        return reply

    def close(self) -> None:
        self._socket.close()


def measure(kind: Kind, rounds: int, calls: int, payload: int) -> dict[str, Any]:
    """All figures of one server, printed and as a dict."""
    with Server(kind) as server:
        bench = Bench(server, calls, payload)
        runs = in_turns({"with": bench.arm(load("enqueue")), "without": bench.arm(without_bookkeeping())}, rounds)
        bench.close()
    rows = []
    found: dict[str, Any] = {"version": kind.binary.version}
    for figure, words in FIGURES.items():
        arms = {arm: spread([run[figure] for run in runs[arm]]) for arm in runs}
        extra = more(runs, "with", "without", figure)
        rows.append(
            (words, arms["with"], arms["without"], f"{extra.median:+.1f} % ({extra.low:+.1f} to {extra.high:+.1f})")
        )
        found[figure] = {**{arm: vars(one) for arm, one in arms.items()}, "percent": vars(extra)}
    title = f"{kind.id}: microseconds per enqueue of {payload} bytes, median (quartiles) of {rounds} rounds of {calls}"
    table(title, ("", "with", "without", "more"), rows)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench once", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--payload", type=int, default=100)
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    figures = {kind.id: measure(kind, args.rounds, args.calls, args.payload) for kind in (VALKEY_9_1, REDIS_7_0)}
    print(f"\nwritten to {save('once', figures, args.json)}")
    return 0
