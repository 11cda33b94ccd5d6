"""A server that loses its scripts, its connections or itself between two calls, or in the middle of one."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis

from boundq import AsyncQueue, LeaseLost, Queue, Unavailable
from boundq._scripts import every
from tests._proxy import Command, Proxy
from tests._servers import Server, wait_until
from tests.conftest import FreshServer
from tests.contract._env import payloads, take
from tests.faults._fake import Fake
from tests.faults._shell import SMALL, Shell, audit
from tests.faults.test_deadlines import CALLS

FLUSHES = [
    pytest.param(["SCRIPT FLUSH SYNC"], id="script-sync"),
    pytest.param(["SCRIPT FLUSH ASYNC", "FUNCTION FLUSH"], id="script-async-function"),
]


def flush(server: Server, commands: list[str]) -> None:
    for command in commands:
        server.cli(*command.split())


@pytest.mark.parametrize("commands", FLUSHES)
def test_flushed_before_each_call(shell: Shell, server: Server, queue_name: str, commands: list[str]) -> None:
    """Every public method, right after all scripts were flushed: it does what it does, and says nothing."""
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    for name, call in CALLS.items():
        queue.enqueue_bytes(b"for a lease")
        (lease,) = queue.claim()
        flush(server, commands)
        result = call(queue, lease)
        if name == "settle" or name == "extend":
            assert result == [], name
        queue.resume()
        queue.unseal()
    audit(queue)


def test_flushed_before_an_empty_handed_wait(shell: Shell, any_server: Server, queue_name: str) -> None:
    """A claim that waits is woken although the scripts were flushed while it waited."""
    queue = shell.queue(queue_name, any_server.url, limits=SMALL)
    queue.claim()

    def later() -> None:
        wait_until(lambda: int(any_server.info("clients")["blocked_clients"]) >= 1, "somebody who waits")
        any_server.cli("SCRIPT", "FLUSH")
        Queue(queue_name, any_server.url, limits=SMALL).enqueue_bytes(b"job")

    thread = threading.Thread(target=later)
    thread.start()
    assert payloads(queue.claim(wait=10)) == [b"job"]
    thread.join()


def test_flushed_while_they_are_loaded(shell: Shell, server: Server, queue_name: str) -> None:
    """Somebody flushes after each script that a call loads but the last: that is its own, and so known."""
    known: bytes = b""
    called: list[str] = []

    def answer(command: Command) -> bytes | None:
        nonlocal known
        if command[:2] == (b"SCRIPT", b"LOAD"):
            known = hashlib.sha1(command[2], usedforsecurity=False).hexdigest().encode()
        elif command[0] == b"EVALSHA":
            called.append(next(script.name for script in every() if script.sha == command[1]))
            return None if command[1] == known else b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        return None

    with Fake(answer, server) as fake:
        assert shell.queue(queue_name, fake.url, limits=SMALL).get("8") is None
    assert called == ["get", "get", "attach", "attach", "get", "get"]  # not known, then known


class Flusher:
    """Flushes again and again while something runs; at least so many times."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.times = 0

    def __enter__(self) -> Flusher:
        self._thread.start()
        wait_until(lambda: self.times > 0, "the first flush")
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        client = redis.Redis(unix_socket_path=self._server.socket_path)
        while not self._done.is_set():
            client.script_flush("SYNC")
            client.function_flush()
            self.times += 1
            self._done.wait(0.002)  # the server has to do something else too
        client.close()


def test_flushed_during_a_run_of_threads(server: Server, queue_name: str) -> None:
    """Eight threads enqueue, claim and ack while scripts are flushed all the time: no error, each job once."""
    done: list[bytes] = []

    def work(number: int) -> None:
        queue = Queue(queue_name, server.url, limits=SMALL)
        for n in range(20):
            options: dict[str, Any] = {"unique": f"{number}-{n}"} if n % 2 else {}
            queue.enqueue_bytes(b"%d-%d" % (number, n), **options)
            for lease in queue.claim(2):
                lease.ack()
                done.append(lease.payload)

    with Flusher(server) as flusher, ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()
    assert flusher.times > 3
    queue = Queue(queue_name, server.url, limits=SMALL)
    done += take(queue)
    assert Counter(done) == Counter([b"%d-%d" % (number, n) for number in range(8) for n in range(20)])
    audit(queue)


def test_flushed_during_a_run_of_tasks(server: Server, queue_name: str) -> None:
    """The same with 50 tasks of one event loop, whose enqueues are merged."""
    done: list[bytes] = []

    async def work(queue: AsyncQueue, number: int) -> None:
        for n in range(6):
            await queue.enqueue_bytes(b"%d-%d" % (number, n))
            for lease in await queue.claim(2):
                await lease.ack()
                done.append(lease.payload)

    async def run() -> None:
        queue = AsyncQueue(queue_name, server.url, limits=SMALL)
        await asyncio.gather(*(work(queue, number) for number in range(50)))
        await queue.close()

    with Flusher(server) as flusher:
        asyncio.run(run())
    assert flusher.times > 3
    queue = Queue(queue_name, server.url, limits=SMALL)
    done += take(queue)
    assert Counter(done) == Counter([b"%d-%d" % (number, n) for number in range(50) for n in range(6)])
    audit(queue)


# ---------------------------------------------------------------- restarts, and connections that end


@pytest.mark.parametrize("graceful", [True, False], ids=["stop", "kill"])
def test_restart_with_its_data(shell: Shell, fresh_server: FreshServer, queue_name: str, graceful: bool) -> None:
    """The server is restarted from its AOF between two calls: the next call goes well, and everything is there."""
    server = fresh_server(appendonly="yes", appendfsync="always")
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    queue.enqueue_many([b"job-%d" % n for n in range(5)])
    leases = queue.claim(2)
    for n in range(2):
        if not graceful:
            server.kill()
        else:
            server.stop()
        server.start()
        leases[n].ack()
        queue.enqueue_bytes(b"later-%d" % n)
    assert queue.stats().jobs == 5
    assert sorted(take(queue)) == [b"job-2", b"job-3", b"job-4", b"later-0", b"later-1"]
    audit(queue)


def test_restart_without_its_data(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """The server comes back empty: every call goes on with a new queue, and an old lease is lost, its job gone."""
    server = fresh_server()
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    for name, call in CALLS.items():
        queue.enqueue_many([b"job"] * 2)
        (lease,) = queue.claim()
        server.kill()
        server.start()
        noticed(shell, queue)
        if name.startswith("lease-"):
            with pytest.raises(LeaseLost) as caught:
                call(queue, lease)
            assert caught.value.cancelled or name == "lease-extend"
        else:
            call(queue, lease)
        queue.resume()
        queue.unseal()
    queue.enqueue_bytes(b"job")
    audit(queue)


def test_restart_within_a_call(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """A call that is made while the server is down, or on its way up, waits for it within the deadline."""
    server = fresh_server(appendonly="yes", appendfsync="always")
    queue = shell.queue(queue_name, server.url, limits=SMALL, deadline=8)
    queue.enqueue_bytes(b"job-0")
    server.kill()
    timer = threading.Timer(0.1, server.start)
    timer.start()
    receipt = queue.enqueue_bytes(b"job-1")
    timer.join()
    assert receipt.jobs == 2


def kill_clients(server: Server) -> None:
    """Every connection but the one that says so."""
    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_connections_killed_between_calls(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """Before each public method all connections were killed: nobody notices, claims included."""
    server = fresh_server()
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    for name, call in CALLS.items():
        queue.enqueue_bytes(b"for a lease")
        (lease,) = queue.claim()
        kill_clients(server)
        wait_until(lambda: int(server.info("clients")["connected_clients"]) == 1, "all but one gone")
        noticed(shell, queue)
        try:
            call(queue, lease)
        except Exception as error:
            raise AssertionError(f"{name} after CLIENT KILL") from error
        queue.resume()
        queue.unseal()
    audit(queue)


def noticed(shell: Shell, queue: Any) -> None:
    """Give the client what it needs to see a closed connection: a round of its loop, or 10 ms of silence."""
    if shell.kind == "async":
        shell.run(asyncio.sleep(0.02))
    else:
        wire = queue._hub.link()._once._wire
        wait_until(lambda: wire.idle, "a connection to have been idle")


def test_connections_killed_during_a_claim_that_waits(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """
    The connection ends while a claim waits for a job. A claim is not repeated blindly: it says `unknown`, or it goes
    on; nothing is lost, and the next claim has the job.
    """
    server = fresh_server()
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    queue.claim()

    def kill() -> None:
        wait_until(lambda: int(server.info("clients")["blocked_clients"]) >= 1, "somebody who waits")
        kill_clients(server)

    thread = threading.Thread(target=kill)
    thread.start()
    found: list[Any] = []
    with suppress(Unavailable):
        found = queue.claim(wait=1.5)
    thread.join()
    assert found == []
    queue.enqueue_bytes(b"job")
    assert payloads(queue.claim(wait=5)) == [b"job"]
    audit(queue)


def test_unblocked(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """CLIENT UNBLOCK with an error, as a fail-over does it, ends the wait of a claim, and the claim goes on."""
    server = fresh_server()
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    queue.claim()

    def unblock() -> None:
        wait_until(lambda: int(server.info("clients")["blocked_clients"]) >= 1, "somebody who waits")
        for line in server.cli("CLIENT", "LIST").decode().splitlines():
            fields = dict(word.partition("=")[::2] for word in line.split())
            if "b" in fields["flags"]:
                server.cli("CLIENT", "UNBLOCK", fields["id"], "ERROR")
        Queue(queue_name, server.url, limits=SMALL).enqueue_bytes(b"job")

    thread = threading.Thread(target=unblock)
    thread.start()
    assert payloads(queue.claim(wait=5)) == [b"job"]
    thread.join()


def test_connections_are_few(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """100 calls over a line that is cut ten times: 11 connections for the shell's calls, none of them left open."""
    server = fresh_server()
    with Proxy(server.socket_path) as line:
        queue = shell.queue(queue_name, line.url, limits=SMALL)
        for n in range(100):
            if n % 10 == 5:
                line.cut_all()
                if n > 10:
                    noticed(shell, queue)
            queue.enqueue_bytes(b"job")
        assert len(line.connections) == 11
        assert sum(one.open for one in line.connections) == 1
