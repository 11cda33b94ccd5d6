"""Concurrent enqueues of one event loop, on a line that is slow: how many scripts are under way, and who waits."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from boundq import AsyncQueue, Queue, Receipt, Unavailable
from boundq.aio._combine import Combiner
from tests._proxy import Proxy
from tests._servers import Server, wait_until
from tests.conftest import NewProxy
from tests.faults._shell import SMALL, is_first, is_script, stored


async def _until(condition: Any, what: str) -> None:
    await asyncio.get_running_loop().run_in_executor(None, wait_until, condition, what)


def test_two_scripts_are_under_way_and_the_rest_gathers(
    any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """While the first call's answer is held back one more goes out; the others wait, and go together."""
    line, is_plain = proxy(any_server), is_script("enqueue")

    async def run() -> None:
        queue = AsyncQueue(queue_name, line.url, limits=SMALL)
        await asyncio.gather(*(queue.enqueue_bytes(b"before") for _ in range(2)))  # both producers are known
        line.clear_log()
        held = line.hold(reply_of=is_plain)
        first = asyncio.ensure_future(queue.enqueue_bytes(b"0"))
        await _until(lambda: held.hits == 1, "the first answer to be held back")
        others = [asyncio.ensure_future(queue.enqueue_bytes(b"%d" % n)) for n in (1, 2, 3)]
        await _until(lambda: line.count(is_plain) == 2, "the second to be on its way")
        assert not any(task.done() for task in (first, *others))
        held.release()
        receipts = await asyncio.gather(first, *others)
        assert all(isinstance(one, Receipt) for one in receipts)
        assert line.count(is_plain) in (3, 4), "the two went together, unless one answer came before the other"
        await queue.close()

    asyncio.run(run())
    assert sorted(stored(direct)) == [b"0", b"1", b"2", b"3", b"before", b"before"]


def test_what_is_known_of_each_when_nothing_answers(
    any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """Sent, alone or with others: `unknown`. Still waiting to be sent: `not_sent`, and it never is."""
    line = proxy(any_server)

    async def run() -> list[Any]:
        queue = AsyncQueue(queue_name, line.url, limits=SMALL, deadline=5)
        await asyncio.gather(*(queue.enqueue_bytes(b"before") for _ in range(2)))
        held = line.hold(request_of=is_first)
        calls = [queue.enqueue_bytes(b"%d" % n, deadline=0.3) for n in range(5)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        held.release()
        await queue.close()
        return errors

    errors = asyncio.run(run())
    assert all(isinstance(error, Unavailable) and error.reason == "timeout" for error in errors)
    assert [error.outcome for error in errors] == ["unknown"] * 2 + ["not_sent"] * 3
    assert not {b"2", b"3", b"4"} & set(stored(direct))


def test_a_deadline_of_ones_own(any_server: Server, proxy: NewProxy, queue_name: str) -> None:
    """Of several that wait for one answer, each gives up at its own deadline; who has more time gets the answer."""
    line = proxy(any_server)

    async def run() -> None:
        queue = AsyncQueue(queue_name, line.url, limits=SMALL, deadline=30)
        await asyncio.gather(*(queue.enqueue_bytes(b"before") for _ in range(4)))
        held = line.hold(reply_of=is_first)
        patient = [asyncio.ensure_future(queue.enqueue_bytes(b"patient")) for _ in range(4)]
        hasty = asyncio.ensure_future(queue.enqueue_bytes(b"hasty", deadline=0.2))
        done, _ = await asyncio.wait([*patient, hasty], return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert done == {hasty}
        assert isinstance(hasty.exception(), Unavailable)
        held.release()
        assert all(isinstance(one, Receipt) for one in await asyncio.gather(*patient))
        await queue.close()

    asyncio.run(run())


async def _tried_again(line: Proxy, queue: AsyncQueue, payload: bytes) -> tuple[Combiner, asyncio.Future[Receipt]]:
    """A call under way that finds the server gone; ``line.heal()`` brings it back."""
    await queue.enqueue_bytes(b"before")
    (combiner,) = queue._combiners.values()
    await _until(lambda: not combiner._tasks, "the end of the first call's task")
    line.refuse()
    line.cut_all()
    call = asyncio.ensure_future(queue.enqueue_bytes(payload))
    await _until(lambda: combiner._tasks, "it to be tried again")
    return combiner, call


def test_who_gives_up_has_it_tried_no_more(any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str) -> None:
    """A call that is cancelled while the server is away is not made when it is back."""
    line = proxy(any_server)

    async def run() -> None:
        queue = AsyncQueue(queue_name, line.url, limits=SMALL, deadline=30)
        combiner, call = await _tried_again(line, queue, b"given up")
        call.cancel()
        await asyncio.wait([call])
        line.heal()
        await _until(lambda: not combiner._tasks, "the end of the trying")
        await queue.enqueue_bytes(b"after")
        await queue.close()

    asyncio.run(run())
    assert sorted(stored(direct)) == [b"after", b"before"]


def test_who_cancels_all_tasks(any_server: Server, proxy: NewProxy, queue_name: str) -> None:
    """Also those that are ours: who waits for one is told that nobody knows, and the next call goes out."""
    line = proxy(any_server)

    async def run() -> None:
        queue = AsyncQueue(queue_name, line.url, limits=SMALL, deadline=30)
        combiner, call = await _tried_again(line, queue, b"?")
        for task in list(combiner._tasks):
            task.cancel()
        with pytest.raises(Unavailable) as raised:
            await call
        assert raised.value.outcome == "unknown"
        line.heal()
        assert isinstance(await queue.enqueue_bytes(b"after"), Receipt)
        await queue.close()

    asyncio.run(run())


def test_cancelled_at_any_moment(any_server: Server, direct: Queue, queue_name: str) -> None:
    """Whenever calls are cancelled, before the connection or after, nothing of them is left, and others go out."""

    async def cancel_some(queue: AsyncQueue) -> None:
        for turns in range(6):
            for count in (1, 2, 5):
                calls = [asyncio.ensure_future(queue.enqueue_bytes(b"cancelled")) for _ in range(count)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                await asyncio.wait(calls)

    async def run() -> None:
        queue = AsyncQueue(queue_name, any_server.url, limits=SMALL)
        await cancel_some(queue)
        for _ in range(3):
            await asyncio.gather(*(queue.enqueue_bytes(b"wanted") for _ in range(5)))
            await cancel_some(queue)
        (combiner,) = queue._combiners.values()
        await _until(lambda: not combiner._sent, "the last answers")
        assert (len(combiner._free), combiner._under_way, list(combiner._gathered)) == (2, 0, [])
        await queue.close()

    asyncio.run(run())
    assert stored(direct).count(b"wanted") == 15


def test_loop_after_loop(any_server: Server, queue_name: str) -> None:
    """A program that calls `asyncio.run` for each job keeps nothing of the loops that have ended."""
    queue = AsyncQueue(queue_name, any_server.url, limits=SMALL)
    for n in range(20):
        asyncio.run(queue.enqueue_bytes(b"%d" % n))
    assert len(queue._hub._links) <= 2
    assert len(queue._combiners) <= 2


def test_loops_of_many_threads(any_server: Server, direct: Queue, queue_name: str) -> None:
    """Twenty threads, each with loop after loop: a queue may be shared by all; one that connects disturbs none."""
    queue = AsyncQueue(queue_name, any_server.url, limits=SMALL)

    def work() -> None:
        for _ in range(40):
            asyncio.run(queue.enqueue_bytes(b"job"))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # whatever can come between two steps of another thread does
    try:
        with ThreadPoolExecutor(20) as pool:
            for future in [pool.submit(work) for _ in range(20)]:
                future.result()
    finally:
        sys.setswitchinterval(interval)
    assert direct.stats().ready == 800


def test_an_error_that_nobody_expected_reaches_all(
    any_server: Server, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those whose script could not even be made, each is told; the next ones go well."""

    async def run() -> None:
        queue = AsyncQueue(queue_name, any_server.url, limits=SMALL)
        await asyncio.gather(*(queue.enqueue_bytes(b"before") for _ in range(9)))
        with monkeypatch.context() as broken:
            broken.setattr(queue._express, "request", lambda *_: 1 / 0)
            errors = await asyncio.gather(*(queue.enqueue_bytes(b"x") for _ in range(9)), return_exceptions=True)
        assert [type(error) for error in errors] == [ZeroDivisionError] * 9
        assert all(isinstance(one, Receipt) for one in await asyncio.gather(*(queue.enqueue_bytes(b"y") for _ in "ab")))
        await queue.close()

    asyncio.run(run())
