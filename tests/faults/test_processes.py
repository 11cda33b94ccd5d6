"""Forks, threads, event loops, cancelled tasks, Ctrl-C: who shares a queue, and who is stopped in mid-call."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from boundq import AsyncQueue, Queue
from tests._proxy import Proxy, anything
from tests._servers import Server, wait_until
from tests.conftest import FreshServer, NewProxy
from tests.contract._env import payloads, take, until_claimed
from tests.faults._shell import SMALL, audit, is_first, is_script

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, in development mode, where a warning is an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    # Development mode also says when a step of an event loop took long, as it does on a busy machine.
    assert [line for line in done.stderr.splitlines() if not line.startswith("Executing <")] == []


# ---------------------------------------------------------------- forks

FORKS = """
import os, sys, asyncio, warnings
from boundq import AsyncQueue, Queue
warnings.filterwarnings("ignore", message=".*use of fork.*")
url, name, kind = sys.argv[1:]
options = dict(max_jobs=10_000)
if kind == "sync":
    queue = Queue(name, url, **options)
    def add(payload): queue.enqueue_bytes(payload)
    add(b"parent-before")
else:
    def add(payload):
        async def go():
            queue = AsyncQueue(name, url, **options)
            await queue.enqueue_bytes(payload)
            await queue.close()
        asyncio.run(go())
    queue = AsyncQueue(name, url, **options)
    async def first(): await queue.enqueue_bytes(b"parent-before"); await queue.close()
    asyncio.run(first())
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for n in range(25):
                add(b"%d-%d" % (child, n))
            status = 0
        finally:
            os._exit(status)
    children.append(pid)
for n in range(25):
    add(b"parent-%d" % n)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
add(b"parent-after")
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_forked_children_enqueue(any_server: Server, proxy: NewProxy, queue_name: str, kind: str) -> None:
    """A queue that was used before four forks is used by all five at once, on own connections: each job once."""
    line = proxy(any_server)
    assert_clean(run(FORKS, line.url, queue_name, kind))
    queue = Queue(queue_name, any_server.url, limits=SMALL)
    expected = [b"parent-before", b"parent-after", *(b"parent-%d" % n for n in range(25))]
    assert Counter(take(queue)) == Counter(
        [*expected, *(b"%d-%d" % (child, n) for child in range(4) for n in range(25))]
    )
    if kind == "sync":
        assert len(line.connections) == 5
        assert queue.stats().producers == 5
    audit(queue)


# ---------------------------------------------------------------- threads


def test_32_threads_on_one_queue(any_server: Server, proxy: NewProxy, queue_name: str) -> None:
    """Each thread has one connection, whatever it calls and however many queues it uses; it ends with its thread."""
    line = proxy(any_server)
    queue, other = (Queue(name, line.url, limits=SMALL) for name in (queue_name, f"{queue_name}.b"))
    together = threading.Barrier(33)

    def work(number: int) -> list[str]:
        ids = [queue.enqueue_bytes(b"%d-%d" % (number, n)).id for n in range(5)]
        other.enqueue_bytes(b"job")
        for lease in queue.claim(2, wait=1):
            lease.ack()
        together.wait(30)
        together.wait(30)
        return ids

    with ThreadPoolExecutor(32) as pool:
        futures = [pool.submit(work, number) for number in range(32)]
        together.wait(30)
        assert len(line.connections) == 32
        assert all(one.open for one in line.connections)
        together.wait(30)
        ids = [job_id for future in futures for job_id in future.result()]
    assert len(set(ids)) == 160
    wait_until(lambda: not any(one.open for one in line.connections), "the connections of ended threads to close")
    direct = Queue(queue_name, any_server.url, limits=SMALL)
    assert direct.stats().jobs == 160 - 64
    audit(direct)


def test_close_while_threads_call(any_server: Server, proxy: NewProxy, queue_name: str) -> None:
    """`close` in one thread, again and again, while others enqueue: their calls end well, each job is there once."""
    line = proxy(any_server)
    queue = Queue(queue_name, line.url, limits=SMALL)
    done = threading.Event()

    def closing() -> None:
        while not done.wait(0.01):
            queue.close()

    closer = threading.Thread(target=closing)
    closer.start()

    def work(number: int) -> None:
        for n in range(25):
            queue.enqueue_bytes(b"%d-%d" % (number, n))

    try:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(work, number) for number in range(4)]:
                future.result()
    finally:
        done.set()
        closer.join()
    direct = Queue(queue_name, any_server.url, limits=SMALL)
    assert Counter(take(direct)) == Counter([b"%d-%d" % (number, n) for number in range(4) for n in range(25)])
    audit(direct)


# ---------------------------------------------------------------- event loops


def test_several_event_loops(any_server: Server, queue_name: str) -> None:
    """One `AsyncQueue` in the loops of four threads, and its `Queue` beside them: each job once."""
    queue: AsyncQueue = AsyncQueue(queue_name, any_server.url, limits=SMALL)

    def loop(number: int) -> None:
        async def main() -> None:
            await asyncio.gather(*(queue.enqueue_bytes(b"%d-%d" % (number, n)) for n in range(50)))
            for lease in await queue.claim(20):
                await lease.ack()
            await queue.close()

        asyncio.run(main())
        asyncio.run(main_again(number))

    async def main_again(number: int) -> None:
        await queue.enqueue_bytes(b"%d-again" % number)
        await queue.close()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(loop, number) for number in range(4)]:
            future.result()
    assert queue.sync.stats().jobs == 4 * (50 - 20 + 1)
    assert queue.sync.stats().admitted == 4 * 51
    audit(queue.sync)
    queue.sync.close()


TWICE = """
import asyncio, sys
from boundq import AsyncQueue, Queue
url, name = sys.argv[1:]
queue = AsyncQueue(name, url, max_jobs=1000)
async def main():
    await asyncio.gather(*(queue.enqueue_bytes(b"job") for _ in range(20)))
    assert await queue.claim(1, wait=1)
asyncio.run(main())
asyncio.run(main())
Queue(name, url, max_jobs=1000).enqueue_bytes(b"job")
"""


def test_asyncio_run_twice_without_close(any_server: Server, queue_name: str) -> None:
    """Two `asyncio.run` with one queue that nobody closes: no warning, no error, no connection left."""
    assert_clean(run(TWICE, any_server.url, queue_name))
    assert Queue(queue_name, any_server.url, create=False).stats().admitted == 41


@pytest.mark.parametrize("kind", ["sync", "async", "twin"])
def test_embedded(tmp_path: Path, kind: str) -> None:
    """An ``embedded:`` URL serves both shells, in one process after the other; the data stay, nothing is left."""
    code = """
import asyncio, sys
from boundq import AsyncQueue, Queue
url, kind = sys.argv[1:]
def sync():
    queue = Queue("q", url, max_jobs=100)
    receipt = queue.enqueue_bytes(b"job")
    queue.close()
    return receipt.jobs
def aio():
    async def main():
        queue = AsyncQueue("q", url, max_jobs=100)
        receipt = await queue.enqueue_bytes(b"job")
        await queue.close()
        return receipt.jobs
    return asyncio.run(main())
def twin():
    queue = AsyncQueue("q", url, max_jobs=100)
    async def main():
        receipt = await queue.enqueue_bytes(b"job")
        await queue.close()
        return receipt.jobs
    jobs = asyncio.run(main())
    assert queue.sync.stats().jobs == jobs
    return jobs
print({"sync": sync, "async": aio, "twin": twin}[kind]())
"""
    url = f"embedded://{tmp_path}/q"
    for jobs in (1, 2):
        done = run(code, url, kind)
        assert_clean(done)
        assert done.stdout == f"{jobs}\n"


# ---------------------------------------------------------------- stopped in the middle


def test_cancelled_enqueues(any_server: Server, proxy: NewProxy, queue_name: str) -> None:
    """
    Tasks are cancelled while their enqueues are under way, or gathered for the next script: the others get their own
    receipts, no job is there twice, and a cancelled one at most once.
    """
    line = proxy(any_server)

    async def main() -> tuple[dict[bytes, str], set[bytes]]:
        queue: AsyncQueue = AsyncQueue(queue_name, line.url, limits=SMALL)
        await queue.enqueue_bytes(b"first")
        ids, cancelled = {}, set()
        for turn in range(10):
            held = line.hold(request_of=is_first)
            names = [b"%d-%d" % (turn, n) for n in range(10)]
            tasks = {name: asyncio.create_task(queue.enqueue_bytes(name)) for name in names}
            await asyncio.to_thread(held.wait)
            victims = names[turn % 3 :: 3]
            for name in victims:
                tasks[name].cancel()
            held.release()
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
            for name, result in zip(names, results, strict=True):
                if name in victims:
                    assert isinstance(result, asyncio.CancelledError)
                    cancelled.add(name)
                else:
                    ids[name] = result.id
        await queue.close()
        return ids, cancelled

    ids, cancelled = asyncio.run(main())
    direct = Queue(queue_name, any_server.url, limits=SMALL)
    assert {name: direct.get(job_id).payload for name, job_id in ids.items()} == {name: name for name in ids}  # type: ignore[union-attr]
    found = Counter(take(direct))
    assert max(found.values()) == 1
    assert set(ids) | {b"first"} <= set(found) <= set(ids) | cancelled | {b"first"}
    audit(direct)


def test_cancelled_claims(any_server: Server, queue_name: str) -> None:
    """A task is cancelled while its claim waits: the job that comes then goes to another, or back when a lease ends."""

    async def main() -> None:
        queue: AsyncQueue = AsyncQueue(queue_name, any_server.url, limits=SMALL)
        await queue.claim()
        for _ in range(5):
            task = asyncio.create_task(queue.claim(wait=30, lease=0.2))
            await asyncio.to_thread(until_blocked, any_server)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await queue.enqueue_bytes(b"job")
        await queue.close()

    asyncio.run(main())
    direct = Queue(queue_name, any_server.url, limits=SMALL)
    (lease,) = until_claimed(direct)
    lease.ack()
    assert direct.stats().jobs == 0
    audit(direct)


def until_blocked(server: Server) -> None:
    wait_until(lambda: int(server.info("clients")["blocked_clients"]) >= 1, "somebody who waits")


def interrupted(line: Proxy, call: Any, script: str) -> None:
    """Run a call whose reply is held until Ctrl-C is pressed."""
    held = line.hold(reply_of=is_script(script))

    def press() -> None:
        held.wait()
        os.kill(os.getpid(), signal.SIGINT)

    # Where the tests are a shell's background job, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    thread.join()
    signal.signal(signal.SIGINT, before)
    held.release()


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
def test_keyboard_interrupt_in_a_call(any_server: Server, proxy: NewProxy, queue_name: str) -> None:
    """Ctrl-C while an answer is read: the next call gets its own answer, not that one, and nothing is stored twice."""
    line = proxy(any_server)
    queue = Queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_bytes(b"job-0")
    for number in (1, 3, 5):
        interrupted(line, lambda number=number: queue.enqueue_bytes(b"job-%d" % number), "enqueue")
        receipt = queue.enqueue_bytes(b"job-%d" % (number + 1))
        assert queue.get(receipt.id).payload == b"job-%d" % (number + 1)  # type: ignore[union-attr]
        assert receipt.jobs == number + 2
    interrupted(line, lambda: queue.claim(lease=0.2), "claim")
    found: list[Any] = []
    wait_until(lambda: found.extend(queue.claim(10)) or len(found) == 7, "all seven jobs")
    assert sorted(payloads(found)) == [b"job-%d" % n for n in range(7)]
    audit(queue)


def test_exit_while_a_call_hangs(fresh_server: FreshServer, queue_name: str) -> None:
    """A program that is interrupted in a call that hangs ends at once, with the traceback of KeyboardInterrupt only."""
    server = fresh_server()
    with Proxy(server.socket_path) as line:
        line.hold(request_of=anything, times=None)
        code = (
            "import sys, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from boundq import Queue; Queue(sys.argv[2], sys.argv[1], deadline=60).enqueue_bytes(b'job')"
        )
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-c", code, line.url, queue_name],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        wait_until(lambda: line.commands > 0, "the first command", 30)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert text.rstrip().endswith("KeyboardInterrupt")
    assert "Warning" not in text
