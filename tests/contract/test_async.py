"""What only asyncio has: many enqueues at once on one connection, merged into few scripts, answered each by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from boundq import JobTooLarge, Limits, QueueFull, Receipt
from tests.contract._env import Env, take


def gathered(env: Env, *coroutines: Any) -> list[Any]:
    async def all_of() -> list[Any]:
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return env.run(all_of())


@pytest.fixture
def asynchronous(env: Env) -> Env:
    """The asyncio half of the contract."""
    if env.shell == "sync":
        pytest.skip("there is nothing to merge in a shell that does one call at a time")
    return env


def test_merged_enqueues_keep_their_order(asynchronous: Env) -> None:
    """Each gets a receipt of its own, in the order of the calls."""
    queue = asynchronous.queue()
    inner = queue.inner
    receipts = gathered(asynchronous, *(inner.enqueue_bytes(b"%d" % number) for number in range(700)))
    ids = [int(receipt.id) for receipt in receipts]
    assert ids == sorted(set(ids))
    assert take(queue) + take(queue) == [b"%d" % number for number in range(700)]


def test_merged_enqueues_stop_at_the_limit(asynchronous: Env) -> None:
    """The limit is exact for those that were merged, and each refusal is its own caller's."""
    queue = asynchronous.queue(max_jobs=50)
    results = gathered(asynchronous, *(queue.inner.enqueue_bytes(b"x") for _ in range(80)))
    assert [type(one) for one in results] == [Receipt] * 50 + [QueueFull] * 30
    assert queue.stats().jobs == 50


def test_merged_enqueues_of_every_kind(asynchronous: Env) -> None:
    """Priorities, delays, keys and sizes side by side: everybody is told of his own job."""
    queue = asynchronous.queue(limits=Limits(max_job_bytes=1000))
    inner = queue.inner
    options: list[dict[str, Any]] = [
        *(
            {},
            {"priority": "high"},
            {"delay": 60},
            {"unique": "k"},
            {"unique": "k"},
            {"expires": 60},
            {"headers": {"a": "b"}},
        ),
    ]
    calls = [inner.enqueue_bytes(b"%d" % n, **option) for _ in range(5) for n, option in enumerate(options)]
    calls.insert(3, inner.enqueue_bytes(b"x" * 5000))
    calls.insert(17, inner.enqueue_bytes(b"y" * 5000))
    results = gathered(asynchronous, *calls)
    assert [place for place, one in enumerate(results) if isinstance(one, JobTooLarge)] == [3, 17]
    receipts = [one for one in results if isinstance(one, Receipt)]
    assert len(receipts) == 35
    for place, receipt in enumerate(receipts):
        option = options[place % 7]
        job = queue.get(receipt.id)
        assert job.priority == option.get("priority", "normal")
        assert job.state == ("scheduled" if "delay" in option else "ready")
        assert (job.unique is not None, job.headers) == ("unique" in option, option.get("headers", {}))
        assert "unique" in option or job.payload == b"%d" % (place % 7)
    assert len({receipt.id for receipt in receipts if queue.get(receipt.id).unique}) == 1


def test_cancelled_task_harms_nobody(asynchronous: Env) -> None:
    """Where one of the callers is cancelled, the others get their receipts, and nothing is stored twice."""
    queue = asynchronous.queue()

    async def go() -> list[Any]:
        tasks = [asyncio.ensure_future(queue.inner.enqueue_bytes(b"%d" % n)) for n in range(20)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[7].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asynchronous.run(go())
    receipts = [one for one in results if isinstance(one, Receipt)]
    assert len({one.id for one in receipts}) == len(receipts) >= 18
    queue.stats()  # behind whatever is still under way on the connection
    found = take(queue)
    assert len(set(found)) == len(found)
    assert {b"%d" % n for n in range(20) if n not in (0, 7)} <= set(found)


def test_claims_and_enqueues_side_by_side(asynchronous: Env) -> None:
    """Waiting claims share the loop with producers, and none waits in vain."""
    queue = asynchronous.queue()
    inner = queue.inner

    async def go() -> list[bytes]:
        waiting = [asyncio.ensure_future(inner.claim(wait=20)) for _ in range(5)]
        for number in range(5):
            await inner.enqueue_bytes(b"%d" % number)
        found = await asyncio.gather(*waiting)
        await inner.settle(acks=[lease for leases in found for lease in leases])
        return [lease.payload for leases in found for lease in leases]

    assert sorted(asynchronous.run(go())) == [b"0", b"1", b"2", b"3", b"4"]


def test_waiting_producers_in_one_loop(asynchronous: Env) -> None:
    """Producers of one loop stand in line as those of many do: all come in, one for each place."""
    queue = asynchronous.queue(max_jobs=1)
    queue.enqueue_bytes(b"old")
    inner = queue.inner

    async def go() -> list[bytes]:
        waiting = [asyncio.ensure_future(inner.enqueue_bytes(b"%d" % n, wait=20)) for n in range(3)]
        found: list[bytes] = []
        while len(found) < 4:
            for lease in await inner.claim(wait=5):
                found.append(lease.payload)
                await lease.ack()
        await asyncio.gather(*waiting)
        return found

    assert sorted(asynchronous.run(go())) == [b"0", b"1", b"2", b"old"]
