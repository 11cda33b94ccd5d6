"""What Python reckons a job is charged, against what each server charges for it."""

from __future__ import annotations

import pytest

from boundq import Limits, Queue
from boundq._charge import COSTS, UNIQUE, WINDOW, charge_of, text_charge
from boundq._job import prepare
from tests._servers import Server

# Around every place where the formula changes its mind, as sizes of an envelope.
SIZES = sorted(
    {
        max(edge + step, 9)
        for edge in (9, 16, 112, 124, 128, 252, 256, 1018, 1024, 32762, 32768, 65526, 65536, 130990, 131000, 2**20)
        for step in range(-6, 7)
    }
)


def test_charge_is_the_server_s(server: Server, queue_name: str) -> None:
    """To the byte, at every edge of the formula: jobs, unique keys, windows, and the text of dead letters."""
    limits = Limits(max_jobs=10**6, max_bytes=2**40, max_job_bytes=2**21, max_dead_bytes=2**40)
    queue = Queue(queue_name, server.url, limits=limits)
    queue.stats()
    cost = int(server.cli("HGET", f"boundq:{{{queue_name}}}:state", "cost"))
    allocator = "libc" if server.info("memory")["mem_allocator"] == "libc" else "jemalloc"
    assert cost == COSTS[allocator]
    held = 0
    for size in SIZES:
        job = prepare(queue_name, "", b"x" * (size - 9), {})
        assert job.size == size
        (result,) = queue.enqueue_many([job])
        assert result.receipt is not None
        assert result.receipt.bytes - held == charge_of(size, cost), size
        held = result.receipt.bytes
    for extra, options in ((UNIQUE, {}), (UNIQUE + WINDOW, {"unique_for": 60})):
        receipt = queue.enqueue_bytes(b"x", unique=str(extra), **options)  # type: ignore[arg-type]  # as chosen above
        assert receipt.bytes - held == charge_of(10 + 16, cost) + extra
        held = receipt.bytes
    queue.purge()
    dead = 0
    for text in ("", "x" * 100, "x" * 1999):
        queue.enqueue_bytes(b"y" * 50)
        (lease,) = queue.claim()
        lease.bury("why", text)
        now = queue.stats().dead_bytes
        assert now - dead == charge_of(59, cost) + text_charge(len("why\n") + len(text), cost)
        dead = now


@pytest.mark.parametrize("cost", COSTS.values())
def test_no_text_costs_nothing(cost: int) -> None:
    """Nor is a charge ever below the bytes it is for."""
    assert text_charge(0, cost) == 0
    assert all(charge_of(size, cost) > size for size in SIZES)
