"""
One body for every behaviour: where a contract test runs, and the clients that it gets.

`Queue` is used as it is. `AsyncQueue` is wrapped so that it looks like `Queue`: each method goes through an
`asyncio.Runner`, one for each thread. On fakeredis the server's clock is ours (`Env.elapse`), on a real server
the same call waits until that server's clock has moved on.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import fakeredis

from boundq import AsyncQueue, DataError, Limits, Queue
from boundq._call import Answer, Call
from boundq.aio.lease import AsyncLease
from boundq.task import Enqueuer
from tests._servers import Server, wait_until

# ---------------------------------------------------------------- AsyncQueue, looking like Queue


class Runners:
    """One event loop for each thread that asks."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._all: list[asyncio.Runner] = []

    def run(self, coroutine: Any) -> Any:
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            runner = self._local.runner = asyncio.Runner()
            self._all.append(runner)
        return runner.run(coroutine)

    def close(self) -> None:
        """Call it when the other threads have ended."""
        for runner in self._all:
            runner.close()


class Blocking:
    """An object of the asyncio shell whose coroutine functions are plain ones."""

    def __init__(self, inner: Any, run: Callable[[Any], Any]) -> None:
        self.inner = inner
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return _wrap(getattr(self.inner, name), self._run)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocking) and self.inner is other.inner

    def __hash__(self) -> int:
        return id(self.inner)

    def __repr__(self) -> str:
        return f"<blocking {self.inner!r}>"


class BlockingLease(Blocking):
    """`async with` as `with`."""

    def __enter__(self) -> BlockingLease:
        self._run(self.inner.__aenter__())
        return self

    def __exit__(self, *failure: Any) -> Any:
        return self._run(self.inner.__aexit__(*failure))


class BlockingTask(Blocking):
    """A task's asyncio methods under the names of the others."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    @property
    def enqueue(self) -> Any:
        return _wrap(self.inner.aenqueue, self._run)

    @property
    def try_enqueue(self) -> Any:
        return _wrap(self.inner.atry_enqueue, self._run)


def _wrap(value: Any, run: Callable[[Any], Any]) -> Any:
    if isinstance(value, Blocking):
        return value
    if isinstance(value, AsyncLease):
        return BlockingLease(value, run)
    if isinstance(value, Enqueuer):
        return BlockingTask(value, run)
    if isinstance(value, list):
        return [_wrap(one, run) for one in value]
    if inspect.iscoroutinefunction(value):
        return lambda *args, **kwargs: _wrap(run(value(*_unwrap(args), **_unwrap(kwargs))), run)
    if inspect.isroutine(value):
        return lambda *args, **kwargs: _wrap(value(*_unwrap(args), **_unwrap(kwargs)), run)
    return value


def _unwrap(value: Any) -> Any:
    if isinstance(value, Blocking):
        return value.inner
    if isinstance(value, (list, tuple)):
        return type(value)(_unwrap(one) for one in value)
    if isinstance(value, dict):
        return {key: _unwrap(one) for key, one in value.items()}
    return value


# ---------------------------------------------------------------- where a test runs


class FakeClock:
    """The clock of fakeredis: real time plus what the test has let pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


class Env:
    """
    A server, real or fake, and a shell.

    Args:
        name: The test's queue.
        shell: ``sync`` or ``async``.
        server: A real one; None: fakeredis, a new ``FakeServer``.
        clock: Of fakeredis.
    """

    def __init__(self, name: str, shell: str, server: Server | None, clock: FakeClock) -> None:
        self.name = name
        self.shell = shell
        self.server = server
        self.clock = clock
        self._fake = None if server else fakeredis.FakeServer()
        self._runners = Runners()
        self._pool: ThreadPoolExecutor | None = None
        self._queues: list[Queue | AsyncQueue] = []
        self._damaged: set[str] = set()

    def queue(self, name: str | None = None, **options: Any) -> Any:
        """A client of its own, of the test's queue by default. A thread makes the clients that it uses itself."""
        name = name or self.name
        if self.shell == "sync":
            queue: Queue | AsyncQueue = Queue(name, self._target(asynchronous=False), **options)
        else:
            queue = AsyncQueue(name, self._target(asynchronous=True), **options)
        self._queues.append(queue)
        return queue if isinstance(queue, Queue) else Blocking(queue, self._runners.run)

    def other(self, suffix: str) -> str:
        """The name of one more queue for this test."""
        return f"{self.name}.{suffix}"

    def _target(self, *, asynchronous: bool) -> Any:
        if self.server is not None:
            return self.server.url
        kind = fakeredis.FakeAsyncRedis if asynchronous else fakeredis.FakeRedis
        return kind(server=self._fake)

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the loop of this thread."""
        return self._runners.run(coroutine)

    def background(self, work: Callable[[], Any]) -> Future[Any]:
        """Start work in a thread of its own."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=16)
        return self._pool.submit(work)

    def elapse(self, seconds: float) -> None:
        """Let the server's clock go on by so much: at once on fakeredis; waiting for it on a real server."""
        if self.server is None:
            self.clock.ahead += seconds
            return
        until = self.now() + seconds
        wait_until(lambda: self.now() > until, f"{seconds} s of the server's clock", timeout=seconds + 10)

    def now(self) -> float:
        """The server's clock."""
        whole, micro = self.command("TIME")
        return int(whole) + int(micro) / 1e6

    def command(self, *words: Any) -> Any:
        """One raw command: to look at what is stored, or to break it."""
        if self.server is not None:
            return self.server.cli(*words)
        return fakeredis.FakeRedis(server=self._fake).execute_command(*words)

    def answer(self, call: Call) -> Answer:
        """Run one call of a flow that the test drives by hand; what it would wait on is not waited on."""
        script = call.script.text if self.server is not None else call.script.plain
        return Answer(self.command("EVAL", script, len(call.keys), *call.keys, *call.args), False)

    def key(self, part: str, name: str | None = None) -> str:
        """A key of the test's queue."""
        return f"boundq:{{{name or self.name}}}:{part}"

    def until_blocked(self, clients: int) -> None:
        """Wait until so many clients wait on a list; fakeredis cannot say, there the order of events is left open."""
        if self.server is not None:
            server = self.server
            wait_until(lambda: int(server.info("clients")["blocked_clients"]) >= clients, f"{clients} who wait")

    def damaged(self, name: str | None = None) -> None:
        """This test loses or edits keys, so the books cannot be right at its end."""
        self._damaged.add(name or self.name)

    def charge(self, payload: bytes, **options: Any) -> int:
        """What a raw job is charged on this server."""
        scratch = self.queue(self.other("scratch"), limits=Limits(max_job_bytes="4 MiB"))
        receipt = scratch.enqueue_bytes(payload, **options)
        scratch.purge()
        if "unique_for" in options:  # the purge leaves an open window charged
            raise AssertionError("measure a window by hand")
        return int(receipt.bytes)

    def audit(self) -> None:
        """The books of every queue that the test used: nothing unaccounted for, every byte where it should be."""
        for name in {queue.name for queue in self._queues} - self._damaged:
            target = self._target(asynchronous=False)
            queue = Queue(name, target, create=False)
            with suppress(DataError):  # "missing": the test never stored anything
                stats = queue.stats()
                count = queue.recount()
                assert stats.imbalance == 0, f"the ledger does not add up: {stats}"
                assert count.steady, f"something is still moving: {count}"
                assert count.ok, f"byte counters differ from the stored jobs: {count}"
                assert min(stats.ready, stats.scheduled, stats.active, stats.dead, stats.bytes) >= 0, stats
                assert stats.jobs == stats.ready + stats.scheduled + stats.active, stats
            queue.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for queue in self._queues:
            if isinstance(queue, Queue):
                queue.close()
            twin = queue._twin
            if isinstance(twin, Queue):
                twin.close()
        self._runners.close()


@contextmanager
def patch_clock(clock: FakeClock) -> Iterator[None]:
    """Make fakeredis answer TIME by this clock."""
    from fakeredis.commands_mixins import server_mixin

    real = server_mixin.time
    server_mixin.time = SimpleNamespace(time=clock.time)
    try:
        yield
    finally:
        server_mixin.time = real


# ---------------------------------------------------------------- words that tests share


def payloads(leases: list[Any]) -> list[bytes]:
    return [lease.payload for lease in leases]


def take(queue: Any, n: int = 500, **options: Any) -> list[bytes]:
    """Claim and ack: the payloads, in the order in which they came."""
    leases = queue.claim(n, **options)
    assert queue.settle(acks=leases) == []
    return payloads(leases)


def claim_one(queue: Any, **options: Any) -> Any:
    """The one lease that there has to be."""
    (lease,) = queue.claim(1, **options)
    return lease


def until_claimed(queue: Any, n: int = 1, **options: Any) -> list[Any]:
    """Claim until something comes: a lease has to run out first, or a delay to pass."""
    found: list[Any] = []

    def claimed() -> bool:
        found.extend(queue.claim(n, **options))
        return bool(found)

    wait_until(claimed, "a job to claim")
    return found
