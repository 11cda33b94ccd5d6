"""
The short way of ``claim`` for one job (lib/claim_one.lua) does what the rest of the script would have done.

Both texts are run on equal queues in states drawn by lot, at the same time of day; replies and all keys are compared.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import redis

from boundq import Queue
from boundq._keys import ENDINGS, Keys
from boundq._scripts import source
from tests._servers import Server

PARTS = (*ENDINGS, "wake", "room", "turn")
NOW = 1_790_000_000_000
FAR = 2**53 - 1
SHORT_ANSWER = "return { OK, now, expiry, -1, 0, id, fence, envelope }"


def _texts() -> tuple[str, str]:
    """With the short way, whose answers have one element more, and without it; either at `NOW`."""
    text = source("claim").replace("redis.call('TIME')", f"{{ '{NOW // 1000}', '0' }}")
    assert SHORT_ANSWER in text
    assert "if n == 1 then" in text
    marked = text.replace(SHORT_ANSWER, SHORT_ANSWER.replace("envelope", "envelope, 'short'"))
    return marked, text.replace("if n == 1 then", "if false then")


def _envelope(lot: random.Random) -> bytes:
    """A job's: plain, with an expiry that has passed or not, or with a unique key."""
    created, kind = (NOW - 5000).to_bytes(6, "big"), lot.random()
    if kind < 0.6:
        return b"\x01\x00" + created + b"\x00" + bytes(lot.randrange(50))
    if kind < 0.8:
        return b"\x01\x01" + created + (NOW + lot.choice([-1000, 0, 1000])).to_bytes(6, "big") + b"\x00x"
    return b"\x01\x02" + created + b"0123456789abcdef\x00x"


def _furnish(client: redis.Redis, queue: Queue, lot: random.Random) -> None:
    """A queue in some state."""
    state, jobs, leases = (Keys(queue.name).of(part)[0] for part in ("state", "jobs", "leases"))
    queue.stats()
    held = 0
    for priority in range(4):
        head = lot.randrange(5)
        tail = head + lot.choice([0, 0, 1, 2])
        client.hset(state, mapping={f"head{priority}": head, f"tail{priority}": tail})
        for place in range(head + 1, tail + 1):
            if lot.random() < 0.9:  # else a hole: it was cancelled
                client.hset(jobs, str(place * 8 + priority), _envelope(lot))
                held += 1
    if lot.random() < 0.3:  # one that is active; its lease may have run out
        client.hset(jobs, "4004", _envelope(lot))
        held += 1
        tick = (NOW - 1_704_067_200_000) // 100 + lot.choice([-5, 100, 10_000])
        client.zadd(leases, {"4004": tick * 2**20 + 1})
    client.hset(
        state,
        mapping={
            "bytes": held * 300,
            "deliveries": lot.randrange(10),
            "gate": lot.choice([0, 0, 1, 1, 1, 2, 3, 9]),
            "paused_at": lot.choice([0] * 9 + [NOW - 10]),
            "next_event": lot.choice([0, NOW - 1, NOW] + [NOW + 1, NOW + 2000, FAR] * 3),
            "drain_at": lot.choice([NOW, NOW - 500, NOW - 500, NOW - 500, NOW - 999, NOW - 1000]),
        },
    )
    if lot.random() < 0.3:
        client.rpush(Keys(queue.name).of("wake")[0], 1)


def _dump(client: redis.Redis, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in PARTS:
        (key,) = Keys(name).of(part)
        kind = client.type(key)
        if kind == b"hash":
            found[part] = client.hgetall(key)
        elif kind == b"zset":
            found[part] = client.zrange(key, 0, -1, withscores=True)
        elif kind == b"list":
            found[part] = client.lrange(key, 0, -1)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_one_job_the_short_way_and_the_long_way(server: Server, queue_name: str, seed: int) -> None:
    """Same reply, same keys; and the short way is taken often, by each kind of caller."""
    lot, queue = random.Random(seed), Queue(queue_name, server.url)
    client = redis.Redis.from_url(server.url)
    short, long = (client.register_script(text) for text in _texts())
    other = f"{queue_name}.long"
    ways: Counter[tuple[str, int]] = Counter()
    for _ in range(200):
        client.delete(*(key for name in (queue_name, other) for key in Keys(name).of(*PARTS)))
        _furnish(client, queue, lot)
        for part in PARTS:
            (ours,), (theirs,) = Keys(queue_name).of(part), Keys(other).of(part)
            client.copy(ours, theirs)
        before = _dump(client, queue_name)
        wait = lot.choice([0, 1, 2])
        args = [1, 4_000_000, lot.choice([100, 30_000]), lot.randrange(256), wait]
        taken = short(keys=Keys(queue_name).of(*PARTS), args=args)
        expected = long(keys=Keys(other).of(*PARTS), args=args)
        if taken[-1] == b"short":
            taken.pop()
            ways["short", wait] += 1
        else:
            ways["long", wait] += 1
        assert taken == expected, (before, args)
        assert _dump(client, queue_name) == _dump(client, other), (before, args)
    assert all(ways[way, wait] > 5 for way in ("short", "long") for wait in range(3)), ways
    queue.close()
    client.close()
