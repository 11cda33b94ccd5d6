"""A peer at all the work of one round: its producer and its worker are processes of its own interpreter."""

from __future__ import annotations

import json
import struct
import time
from contextlib import ExitStack
from typing import Any, NamedTuple

import click

from bench._harness import Arm, Figures, percentile
from bench._place import Place
from bench._processes import Process
from bench._workers import Stamps
from bench.peers._peer import NotRun, Peer
from tests._memory import used_memory
from tests._servers import new_folder, wait_until

RATE = 100.0
_NOTES = struct.Struct("Qdddd")  # what `bench.peers._handlers` writes
_DRAIN_S = 60.0


class Size(NamedTuple):
    """Seconds of enqueueing and of bulk, and of a drain; jobs for latency and for memory; rounds."""

    enqueue_s: float
    drain_s: float
    stamps: int
    stored: int
    rounds: int


class Asked(Process):
    """A process that answers (see `bench.peers._child`)."""

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """What it answers; NotRun where it ends instead."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            line = b""
        else:
            line = stdout.readline()
        if not line:
            raise NotRun(f"{do}: {last_line(self.said)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def last_line(said: str) -> str:
    """Of what a process said, what is most likely to be the reason."""
    return (said.strip().splitlines() or ["it ended without a word"])[-1][:300]


class PeerArm(Arm):
    """
    Enqueue, bulk, drain and latency; memory once. One that fails says why in ``failure``, and is left alone from then.

    Args:
        peer: Who.
        place: Where.
        size: Of the work.
        payload: Bytes of a job's argument.
    """

    def __init__(self, peer: Peer, place: Place, size: Size, payload: int) -> None:
        super().__init__(peer.name)
        self.peer, self.failure = peer, ""
        self._place, self._size, self._payload = place, size, payload
        self._number, self._bytes = 0, 0.0
        self._python = ""

    def set_up(self) -> None:
        try:
            self._python = self.peer.interpreter()
            self._bytes = self._memory()
        except (NotRun, TimeoutError, RuntimeError) as error:
            self._fail(error)

    def run(self) -> Figures:
        if self.failure:
            return {}
        self._number += 1
        try:
            with ExitStack() as stack:
                found = self._round(stack)
        except (NotRun, TimeoutError, RuntimeError) as error:
            self._fail(error)
            return {}
        self._say(
            f"round {self._number}: enqueue {found['enqueue_rate']:,.0f}/s, "
            + (f"bulk {found['bulk_rate']:,.0f}/s, " if "bulk_rate" in found else "")
            + f"drain {found['drain_rate']:,.0f}/s, p50 {found['p50']:.2f} ms, p99 {found['p99']:.2f} ms"
        )
        return found

    def _round(self, stack: ExitStack) -> Figures:
        found: dict[str, float] = {"bytes": self._bytes}
        producer, hello = self._producer(stack)
        for do in ("enqueue", "bulk") if hello["bulk"] else ("enqueue",):
            self._place.flush()
            cpu = self._place.cpu()
            answer = producer.ask(do, seconds=self._size.enqueue_s, payload=self._payload)
            jobs = answer["jobs"]
            found[f"{do}_rate"] = jobs / answer["wall"]
            found[f"{do}_client"] = answer["cpu"] / jobs * 1e6
            found[f"{do}_server"] = (self._place.cpu() - cpu) / jobs * 1e6
        self._place.flush()
        jobs = max(int(self.peer.drain * self._size.drain_s), 20)
        producer.ask("fill", jobs=jobs, payload=self._payload)
        found.update(self._worked(stack, producer, hello["worker"], jobs))
        return found

    def _worked(self, stack: ExitStack, producer: Asked, words: list[str], jobs: int) -> Figures:
        """What a worker does that finds so many jobs, and then gets some now and then."""
        notes, stamps = new_folder() / "notes", Stamps(self._place)
        notes.write_bytes(bytes(_NOTES.size))

        def done() -> int:
            worker.check()
            return int(_NOTES.unpack(notes.read_bytes())[0])

        environment = {
            "BENCH_URL": self._place.url,
            "BENCH_COUNT": str(notes),
            "BENCH_JOBS": str(jobs),
            "BENCH_STAMPS": str(stamps.path),
        }
        server = self._place.cpu()
        log = notes.with_name("log")
        worker = stack.enter_context(Process(*words, log=log, python=self._python, **environment))
        try:
            wait_until(lambda: done() >= jobs, f"{jobs} jobs to be done", _DRAIN_S)
            server = self._place.cpu() - server
            producer.ask("stamps", jobs=self._size.stamps, rate=RATE)
            waits = [seconds * 1000 for seconds in stamps.wait_for(self._size.stamps)]
        except TimeoutError as error:
            raise NotRun(f"{error}; {done()} were done; its worker: {last_line(worker.said)}") from None
        # The worker's own notes: its start is not the work, and we may have been late to look.
        _, began, cpu_began, ended, cpu_ended = _NOTES.unpack(notes.read_bytes())
        return {
            "drain_rate": (jobs - 1) / (ended - began),
            "drain_worker": (cpu_ended - cpu_began) / (jobs - 1) * 1e6,
            "drain_server": server / jobs * 1e6,
            "p50": percentile(waits, 50),
            "p99": percentile(waits, 99),
        }

    def _memory(self) -> float:
        """Bytes of a waiting job, on a server that nobody else is connected to."""
        self._place.flush()
        with ExitStack() as stack:  # what is there whatever is stored, scripts for one
            self._fill(stack, 1)
        self._place.flush()
        before = self._used()
        with ExitStack() as stack:
            self._fill(stack, self._size.stored)
        found = (self._used() - before) / self._size.stored
        self._say(f"memory: {found:,.0f} bytes a waiting job")
        return found

    def _fill(self, stack: ExitStack, jobs: int) -> None:
        producer, _ = self._producer(stack)
        producer.ask("fill", jobs=jobs, payload=self._payload)

    def _used(self) -> int:
        self._place.wire.close()  # the only client left
        try:
            return used_memory(self._place.server)
        finally:
            self._place.reconnect()

    def _producer(self, stack: ExitStack) -> tuple[Asked, dict[str, Any]]:
        words, log = ("bench.peers._child", self.peer.module), new_folder() / "log"
        producer = Asked(*words, log=log, python=self._python, talks=True, BENCH_URL=self._place.url)
        stack.enter_context(producer)
        return producer, producer.ask("hello")

    def _fail(self, error: Exception) -> None:
        self.failure = str(error).strip().splitlines()[-1]
        self._say(f"not run: {self.failure}")

    def _say(self, what: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {self._place.kind.id} {self.name}: {what}", err=True)
