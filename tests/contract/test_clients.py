"""A redis-py client in the place of a URL: its settings that matter are used, the others rest with boundq (R-44)."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from boundq import AsyncQueue, Queue
from tests._servers import Server


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decode_responses": True},
        {"protocol": 3},
        {"db": 3, "client_name": "mine"},
        {"protocol": 3, "decode_responses": True},
    ],
    ids=str,
)
def test_any_client_of_threads(any_server: Server, queue_name: str, options: dict[str, Any]) -> None:
    """RESP2 or RESP3, decoding or not, another database: payloads are bytes, and what is stored is where it says."""
    client = redis.Redis(unix_socket_path=any_server.socket_path, **options)
    queue = Queue(queue_name, client, max_jobs=5)
    try:
        receipt = queue.enqueue_bytes(b"\xff\x00")
        (lease,) = queue.claim()
        assert (lease.id, lease.payload) == (receipt.id, b"\xff\x00")
        lease.ack()
        assert client.exists(f"boundq:{{{queue_name}}}:state") == 1
        assert queue.stats().imbalance == 0
    finally:
        client.delete(*client.keys(f"boundq:{{{queue_name}}}:*"))
        queue.close()
        client.close()


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}], ids=str)
def test_any_client_of_asyncio(any_server: Server, queue_name: str, options: dict[str, Any]) -> None:
    """The same for asyncio."""
    import asyncio

    async def go() -> None:
        client = redis.asyncio.Redis(unix_socket_path=any_server.socket_path, **options)
        queue = AsyncQueue(queue_name, client)
        receipt = await queue.enqueue_bytes(b"\xff\x00")
        (lease,) = await queue.claim()
        assert (lease.id, lease.payload) == (receipt.id, b"\xff\x00")
        await lease.ack()
        assert (await queue.stats()).jobs == 0
        await queue.close()
        await client.aclose()

    asyncio.run(go())


def test_one_queue_through_many_clients(any_server: Server, queue_name: str) -> None:
    """A URL and a client are the same queue."""
    with redis.Redis(unix_socket_path=any_server.socket_path) as client:
        one, two = Queue(queue_name, client, max_jobs=1), Queue(queue_name, any_server.url, max_jobs=1)
        one.enqueue_bytes(b"x")
        assert two.try_enqueue_bytes(b"y").reason == "jobs"
        (lease,) = two.claim()
        assert one.settle(acks=[]) == []
        lease.ack()
        one.close()
        two.close()
