"""Where a bench runs: a server of its own, ways to it, and what it costs whom."""

from __future__ import annotations

import gc
import resource
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

import hiredis
import redis
from redis import asyncio as redis_asyncio

from bench._harness import Figures
from bench._processes import Process
from boundq import AsyncQueue, Limits, Queue
from boundq._call import pack
from boundq._keys import Keys
from tests._servers import Kind, Server

LIMITS = Limits(max_jobs=50_000_000, max_bytes="64 GiB")
"""Out of the way: what a bench measures is not refused, unless that is what it measures."""

BARE_PUSH = "return redis.call('LPUSH', KEYS[1], ARGV[1])"
"""The least that a script can do to store a job."""


class Wire:
    """A bare socket: what a client costs that does nothing."""

    def __init__(self, place: Place) -> None:
        address = place.server.socket_path if not place.tcp else ("127.0.0.1", place.server.port)
        self._socket = socket.socket(socket.AF_INET if place.tcp else socket.AF_UNIX)
        self._socket.connect(address)
        if place.tcp:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def exchange(self, request: bytes) -> Any:
        """Send a packed command, and return its reply."""
        self.send(request)
        return self.receive()

    def send(self, request: bytes) -> None:
        """Send packed commands."""
        self._socket.sendall(request)

    def receive(self) -> Any:
        """The next reply."""
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def say(self, *words: bytes | str | int) -> Any:
        """Run a command."""
        return self.exchange(pack(*words))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Place:
    """
    A server of this kind, for one bench. Entering starts it.

    Args:
        kind: Which.
        tcp: Talk to it through TCP on this machine, not through a unix socket.
    """

    def __init__(self, kind: Kind, *, tcp: bool = False) -> None:
        self.kind = kind
        self.tcp = tcp
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        self.server = self.stack.enter_context(Server(self.kind, tcp=True))
        self.url = self.server.tcp_url if self.tcp else self.server.url
        self.reconnect()
        self.stack.callback(lambda: self.wire.close())
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    def reconnect(self) -> None:
        """After ``wire`` was closed, to leave the server alone."""
        self.wire = Wire(self)

    def new_wire(self, stack: ExitStack) -> Wire:
        """A bare socket of one's own."""
        wire = Wire(self)
        stack.callback(wire.close)
        return wire

    def redis(self, stack: ExitStack) -> redis.Redis:
        """A client as redis-py makes it."""
        client: redis.Redis = stack.enter_context(redis.Redis.from_url(self.url))
        return client

    def redis_asyncio(self) -> redis_asyncio.Redis:
        """Likewise; whoever asks for it closes it, in its event loop."""
        return redis_asyncio.Redis.from_url(self.url)

    def queue(self, stack: ExitStack, name: str = "bench", limits: Limits = LIMITS) -> Queue:
        """A queue with room."""
        queue = Queue(name, self.url, limits=limits)
        stack.callback(queue.close)
        return queue

    def async_queue(self, name: str = "bench") -> AsyncQueue:
        """Likewise; whoever asks for it closes it, in its event loop."""
        return AsyncQueue(name, self.url, limits=LIMITS)

    def flush(self) -> None:
        """Forget everything but the scripts."""
        self.wire.say("FLUSHALL")

    def key(self, queue: str, part: str) -> bytes:
        """A key of a queue."""
        (key,) = Keys(queue).of(part)
        return key

    def acked(self, queue: str) -> int:
        """How many of its jobs are done, by the server's count."""
        return int(self.wire.say("HGET", self.key(queue, "state"), "acked") or 0)

    def blocked(self) -> int:
        """Clients that wait on a list."""
        return int(self.server.info("clients")["blocked_clients"])

    def cpu(self) -> float:
        """Seconds of CPU that the server has had, the kernel's work for it included."""
        info = self.server.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def forget_commands(self) -> None:
        """Let `spent` begin at 0."""
        self.wire.say("CONFIG", "RESETSTAT")

    def spent(self, *commands: str) -> tuple[int, float]:
        """Calls of these commands since then, and microseconds that the server was in them."""
        calls, micros = 0, 0.0
        stats = self.server.info("commandstats")
        for command in commands:
            if line := stats.get(f"cmdstat_{command}"):
                parts = dict(part.split("=") for part in line.split(","))
                calls, micros = calls + int(parts["calls"]), micros + float(parts["usec"])
        return calls, micros

    def spent_by_scripts(self) -> float:
        """Microseconds since then in the commands that scripts have run, where nobody else ran any."""
        stats = self.server.info("commandstats")
        ours = ("evalsha", "config|resetstat", "config", "info")
        return self.spent(*(name for key in stats if (name := key.removeprefix("cmdstat_")) not in ours))[1]

    def meter(self, workers: Sequence[Process] = ()) -> Meter:
        """Start measuring."""
        return Meter(self, workers)


class Meter:
    """Wall time, and CPU time of this process, of the server and of worker processes, since it was made."""

    def __init__(self, place: Place, workers: Sequence[Process]) -> None:
        gc.collect()  # nobody pays for what another left
        self._place, self._workers = place, workers
        self._worker_cpu = sum(one.cpu() for one in workers)
        self._server_cpu = place.cpu()
        self._cpu, self._kernel, self._wall = time.process_time(), _kernel_time(), time.perf_counter()

    def read(self, jobs: int) -> Figures:
        """Microseconds of each for a job, and jobs a second."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        kernel = _kernel_time() - self._kernel
        server = self._place.cpu() - self._server_cpu
        found = {
            "rate": jobs / wall,
            "wall": wall / jobs * 1e6,
            "client": cpu / jobs * 1e6,
            "kernel": kernel / jobs * 1e6,
            "server": server / jobs * 1e6,
        }
        if self._workers:
            found["workers"] = (sum(one.cpu() for one in self._workers) - self._worker_cpu) / jobs * 1e6
        return found


def _kernel_time() -> float:
    """Seconds of this process's CPU time that the kernel had, in system calls."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime
