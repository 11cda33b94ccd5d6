"""The floor: LPUSH, pipelines of LPUSH, and a BRPOP loop with redis-py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import redis

from bench.peers import _handlers

_KEY = "bench"
_HANDLERS: dict[str, Any] = {"noop": _handlers.noop, "stamp": _handlers.stamp}
_client = redis.Redis.from_url(_handlers.URL)


def enqueue(text: str) -> None:
    """One job."""
    _client.lpush(_KEY, json.dumps(["noop", text]))


def stamp(sent: float) -> None:
    """One job."""
    _client.lpush(_KEY, json.dumps(["stamp", sent]))


def bulk(texts: Sequence[str]) -> None:
    """As many jobs."""
    with _client.pipeline(transaction=False) as pipeline:
        for text in texts:
            pipeline.lpush(_KEY, json.dumps(["noop", text]))
        pipeline.execute()


def work() -> None:
    """One after the other, until it is killed."""
    while True:
        if reply := _client.brpop([_KEY], 1):
            name, argument = json.loads(reply[1])
            _HANDLERS[name](argument)
