"""
Every call ends: whatever the server or the network does, each public method returns, or says `Unavailable`, within its
deadline and a quarter of a second. The methods are found by introspection, so a new one is tested from its first day.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from boundq import AsyncQueue, BoundqError, Limits, Queue, Unavailable
from boundq._gate import Gate
from boundq.aio.lease import AsyncLease
from boundq.sync.lease import Lease
from tests._proxy import Proxy
from tests._servers import Server
from tests.conftest import FreshServer
from tests.faults._fake import Fake
from tests.faults._shell import SHELLS, SMALL, Shell

SLACK = 0.25
WAIT = 0.1

# How each method is called; those that do no I/O, or stay apart, are named below.
ARGUMENTS: dict[str, Callable[[Any, Any], Any]] = {
    "enqueue": lambda queue, _: queue.enqueue("task", 1),
    "try_enqueue": lambda queue, _: queue.try_enqueue("task", 1),
    "enqueue_bytes": lambda queue, _: queue.enqueue_bytes(b"job", delay=1),
    "try_enqueue_bytes": lambda queue, _: queue.try_enqueue_bytes(b"job"),
    "enqueue_many": lambda queue, _: queue.enqueue_many([b"job"] * 3),
    "claim": lambda queue, _: queue.claim(),
    "settle": lambda queue, lease: queue.settle(acks=[lease]),
    "extend": lambda queue, lease: queue.extend([lease]),
    "cancel": lambda queue, _: queue.cancel("8"),
    "get": lambda queue, _: queue.get("8"),
    "position": lambda queue, _: queue.position("8"),
    "peek": lambda queue, _: queue.peek(),
    "stats": lambda queue, _: queue.stats(),
    "recount": lambda queue, _: queue.recount(),
    "audit": lambda queue, _: queue.audit(),
    "pause": lambda queue, _: queue.pause(),
    "resume": lambda queue, _: queue.resume(),
    "seal": lambda queue, _: queue.seal(),
    "unseal": lambda queue, _: queue.unseal(),
    "configure": lambda queue, _: queue.configure(Limits(max_jobs=50)),
    "purge": lambda queue, _: queue.purge("dead"),
    "matching": lambda queue, _: queue.matching("dead"),
    "retry_dead": lambda queue, _: queue.retry_dead(["8"]),
    "drop_dead": lambda queue, _: queue.drop_dead(["8"]),
    "events": lambda queue, _: queue.events(),
    "drain": lambda queue, _: queue.drain(0.05),
}
LEASES: dict[str, Callable[[Any, Any], Any]] = {
    "ack": lambda _, lease: lease.ack(),
    "retry": lambda _, lease: lease.retry(1),
    "release": lambda _, lease: lease.release(),
    "bury": lambda _, lease: lease.bury("why"),
    "extend": lambda _, lease: lease.extend(5),
}
# Calls that wait, and so may take that much longer.
WAITING: dict[str, Callable[[Any, Any], Any]] = {
    "claim-wait": lambda queue, _: queue.claim(wait=WAIT),
    "enqueue-wait": lambda queue, _: queue.enqueue_bytes(b"job", wait=WAIT),
    "enqueue-atomic": lambda queue, _: queue.enqueue_many([b"job"] * 3, atomic=True),
}
NO_IO = {"task", "named", "close", "sync", "aio"}
# A sequence of other calls, which ends with the first that fails, after a look into a file.
COMPOSED = {"restore"}


def public(kind: type) -> set[str]:
    return (
        {name for name, value in inspect.getmembers(kind) if not name.startswith("_") and callable(value)}
        - NO_IO
        - COMPOSED
    )


def test_no_method_is_forgotten() -> None:
    """The table above has every public method of both queues and both leases."""
    assert public(Queue) == public(AsyncQueue) == set(ARGUMENTS)
    for kind in (Lease, AsyncLease):
        own = {name for name in vars(kind) if not name.startswith("_")}
        assert own == set(LEASES), kind


CALLS = {**ARGUMENTS, **{f"lease-{name}": call for name, call in LEASES.items()}, **WAITING}


# ---------------------------------------------------------------- what goes wrong


class Line(NamedTuple):
    """A way to a server, and what is done to it."""

    url: str
    server: Server
    fail: Callable[[], object]
    mend: Callable[[], object]


@contextmanager
def proxied(fresh: FreshServer, fault: str, *, tcp: bool = False) -> Iterator[Line]:
    server = fresh()
    with Proxy(server.socket_path, tcp=tcp) as line:

        def fail() -> None:
            getattr(line, fault)()
            if fault == "stop_accepting":
                line.cut_all()

        yield Line(line.url, server, fail, line.heal)


@contextmanager
def black_hole(fresh: FreshServer) -> Iterator[Line]:
    """Packets are dropped, on old connections and new ones."""
    with proxied(fresh, "black_hole") as line:
        yield line


@contextmanager
def not_accepting(fresh: FreshServer) -> Iterator[Line]:
    """The connection is gone, and TCP's handshake for another does not end."""
    with proxied(fresh, "stop_accepting", tcp=True) as line:
        yield line


@contextmanager
def stopped(fresh: FreshServer) -> Iterator[Line]:
    """The server's process is frozen: it takes connections and bytes, and answers nothing."""
    server = fresh()
    yield Line(server.url, server, server.pause, server.resume)


@contextmanager
def paused(fresh: FreshServer) -> Iterator[Line]:
    """CLIENT PAUSE."""
    server = fresh()
    yield Line(
        server.url,
        server,
        lambda: server.cli("CLIENT", "PAUSE", 60_000, "ALL"),
        lambda: (server.kill(), server.start()),  # CLIENT UNPAUSE would have to wait itself
    )


@contextmanager
def dropped(fresh: FreshServer) -> Iterator[Line]:
    """Every connection is cut as soon as something is said on it."""
    server = fresh()
    with Proxy(server.socket_path) as line:
        yield Line(line.url, server, lambda: line.cut(request_of=lambda _: True, times=None), line.heal)


@contextmanager
def slow_greeting(fresh: FreshServer) -> Iterator[Line]:
    """The connection is gone, and the next one's SELECT is never answered."""
    server = fresh()
    fake = Fake(lambda command: None, server)

    def fail() -> None:
        fake.answer = lambda _: b""

    with fake:
        yield Line(f"{fake.url[:-1]}1", server, fail, lambda: setattr(fake, "answer", lambda _: None))


FAULTS: dict[str, Callable[[FreshServer], Any]] = {
    "black-hole": black_hole,
    "not-accepting": not_accepting,
    "stopped": stopped,
    "client-pause": paused,
    "dropped": dropped,
    "slow-greeting": slow_greeting,
}


def took(call: Callable[[], object]) -> tuple[float, object]:
    """How long a call took, and what it returned or raised."""
    started = time.monotonic()
    try:
        result = call()
    except BoundqError as error:
        result = error
    return time.monotonic() - started, result


def check(name: str, seconds: float, result: object) -> float:
    """The call said `Unavailable`; how long it took, what it was allowed to wait apart."""
    for one in result if isinstance(result, list) else [result]:
        error = getattr(one, "error", one)
        assert isinstance(error, Unavailable), f"{name}: {one!r}"
    return seconds - (WAIT if "wait" in name else 0)


CASES = [
    *((fault, 0.3, warm) for fault in FAULTS for warm in ("connected", "new")),
    ("black-hole", 1.5, "connected"),
    ("client-pause", 1.5, "new"),
]


@pytest.mark.everywhere
@pytest.mark.parametrize(("fault", "deadline", "warm"), CASES)
@pytest.mark.parametrize("kind", SHELLS)
def test_each_method_ends(
    kind: str,
    fault: str,
    deadline: float,
    warm: str,
    fresh_server: FreshServer,
    queue_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    All methods, each in a thread and on a connection of its own, at once: the deadline holds, connected or not.

    On a busy machine so many threads get in each other's way: those that took too long are tried again, by themselves.
    """
    monkeypatch.setattr(Gate, "open", lambda _: True)  # each of them has to meet the fault by itself
    with FAULTS[fault](fresh_server) as line:
        names, late = list(CALLS), {}
        for turn in range(3):
            # Another queue each time: what was sent in vain may yet pause, or seal, the first one.
            late = at_once(names, line, kind, f"{queue_name}.{turn}", deadline, new=warm == "new")
            if not late:
                return
            names = list(late)
        raise AssertionError(f"over the deadline, three times: {late}")


def at_once(
    names: list[str], line: Line, kind: str, queue_name: str, deadline: float, *, new: bool
) -> dict[str, float]:
    """Prepare a client for each call; break the line; call. Those that took too long, and how long."""
    ready, over = threading.Barrier(len(names) + 1), threading.Barrier(len(names) + 1)
    broken = threading.Event()

    def one(name: str) -> tuple[float, object]:
        shell = Shell(kind)
        try:
            queue = shell.queue(queue_name, line.url, limits=SMALL, deadline=deadline)
            patient = shell.queue(queue_name, line.url, limits=SMALL, deadline=10)
            patient.enqueue_bytes(b"job")
            (lease,) = patient.claim(lease=60)
            lease = type(lease)(queue, lease.delivery) if kind == "sync" else rebound(lease, queue)
            if new and kind == "sync":
                queue._hub.link().close()
            elif new:
                queue.close()
            ready.wait(30)
            broken.wait(30)
            measured = took(lambda: CALLS[name](queue, lease))
            over.wait(30)
        except BaseException:
            ready.abort()  # nobody has to wait for this one
            over.abort()
            raise
        finally:
            shell.close()
        return measured

    with ThreadPoolExecutor(len(names)) as pool:
        futures = [pool.submit(one, name) for name in names]
        try:
            ready.wait(30)
            line.fail()
            broken.set()
            over.wait(30)
        except threading.BrokenBarrierError:
            errors = [error for error in (future.exception() for future in futures) if error is not None]
            errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
            raise errors[0] from None  # what went wrong with the first, not that the others waited for it in vain
        line.mend()
        times = {name: check(name, *future.result()) for name, future in zip(names, futures, strict=True)}
    return {name: seconds for name, seconds in times.items() if seconds > deadline + SLACK}


def rebound(lease: Any, queue: Any) -> Any:
    """The same lease of another client."""
    return type(lease)(AsyncLease(queue.inner, lease.inner.delivery), lease._run)
