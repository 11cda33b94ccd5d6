"""
Act 1: the queue that a service writes for itself in an afternoon, and writes well.

    {name}          list  waiting, the newest at the head
    {name}:taken    list  in the hands of a worker
    {name}:leases   zset  message id -> when another worker may have it

A message is moved from list to list in one step, so none is lost when a worker dies; leases that have ended are
looked for once a second. Errors are caught, and tried again at a bounded rate. It lacks one thing: a bound.

`redis` is imported here, against the rule of this package: this is the queue that boundq is compared with.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from boundq.demo.load import Answer, Crew
from boundq.demo.render import Message

__all__ = ["ListArm", "ListQueue"]

LEASE = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_PAGE = 200


class ListQueue:
    """
    A queue on a Redis list.

    Args:
        client: A redis-py client; its errors come through.
        name: Key of the list.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._waiting, self._taken, self._leases = name, f"{name}:taken", f"{name}:leases"

    def push(self, message: Message) -> int:
        """Add a message; how many are waiting then."""
        waiting: int = self._client.lpush(self._waiting, msgspec.json.encode(message))
        return waiting

    def take(self, wait: float) -> bytes | None:
        """The oldest message, under a lease; None when there is none for ``wait`` seconds."""
        import redis

        payload: bytes | None = self._client.blmove(self._waiting, self._taken, wait, "RIGHT", "LEFT")
        if payload is not None:
            # It is ours, with a lease or without; `recover` adds one that is missing.
            with contextlib.suppress(redis.exceptions.OutOfMemoryError):
                self._client.zadd(self._leases, {_id_in(payload): time.time() + LEASE})
        return payload

    def done(self, payload: bytes) -> None:
        """Forget a message that was taken."""
        with self._client.pipeline() as both:
            both.lrem(self._taken, 1, payload)
            both.zrem(self._leases, _id_in(payload))
            both.execute()

    def recover(self) -> None:
        """Put back what was taken by a worker that did not finish it in time."""
        now = time.time()
        for payload in self._client.lrange(self._taken, 0, -1):
            message_id = _id_in(payload)
            until = self._client.zscore(self._leases, message_id)
            if until is None:
                self._client.zadd(self._leases, {message_id: now + LEASE}, nx=True)
            elif until < now and self._client.zrem(self._leases, message_id):  # of several workers, one gets to do it
                with self._client.pipeline() as both:
                    both.rpush(self._waiting, payload)
                    both.lrem(self._taken, 1, payload)
                    both.execute()
        # Of messages that were forgotten between our two looks; a lost lease only means that a new one is given.
        self._client.zremrangebyscore(self._leases, "-inf", now - LEASE)

    def held(self) -> tuple[int, int]:
        """Messages waiting and taken, and the memory of their lists."""
        with self._client.pipeline(transaction=False) as all_of_it:
            for key in (self._waiting, self._taken):
                all_of_it.llen(key)
                all_of_it.memory_usage(key, samples=5)
            waiting, waiting_bytes, taken, taken_bytes = all_of_it.execute()
        return waiting + taken, (waiting_bytes or 0) + (taken_bytes or 0)

    def held_ids(self) -> list[str]:
        """The ids of all messages in both lists, page by page: one reply of all would take the server's memory."""
        ids: list[str] = []
        for key in (self._waiting, self._taken):
            start = 0
            while page := self._client.lrange(key, start, start + _PAGE - 1):
                ids += map(_id_in, page)
                start += len(page)
        return ids


class ListArm:
    """
    The demo's queues as lists.

    Args:
        url: Of the server.
        handle: What a worker does with a message of a queue.

    Attributes:
        stuck: When a worker's call was refused for want of memory, by the monotonic clock.
    """

    def __init__(self, url: str, handle: Callable[[str, Message], None]) -> None:
        import redis

        self._handle = handle
        self._client: Any = redis.Redis.from_url(url)
        self.stuck: list[float] = []

    def offer(self, queue: str, message: Message) -> Answer:
        """LPUSH. A server without memory says so, and stores nothing."""
        import redis

        try:
            return Answer(True, jobs=ListQueue(self._client, queue).push(message))
        except redis.exceptions.OutOfMemoryError:
            return Answer(False, "OOM")
        except redis.exceptions.RedisError as error:
            return Answer(False, type(error).__name__, certain=False)

    def employ(self, crew: Crew, queue: str, threads: int) -> None:
        """Start threads that take, handle and forget."""
        for _ in range(threads):
            crew.start(lambda: self._work(queue, crew.ending))

    def held(self, queue: str) -> tuple[int, int]:
        """See `ListQueue.held`."""
        return ListQueue(self._client, queue).held()

    def held_ids(self, queue: str) -> list[str]:
        """See `ListQueue.held_ids`."""
        return ListQueue(self._client, queue).held_ids()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _work(self, name: str, ending: threading.Event) -> None:
        import redis

        queue = ListQueue(self._client, name)
        pause, recover_at = _FIRST_PAUSE, 0.0
        finished: bytes | None = None  # handled, but not forgotten yet
        while not ending.is_set():
            try:
                if finished is not None:
                    queue.done(finished)
                    finished = None
                if time.monotonic() >= recover_at:
                    recover_at = time.monotonic() + 1.0
                    queue.recover()
                payload = queue.take(wait=0.2)
            except redis.exceptions.RedisError as error:
                if isinstance(error, redis.exceptions.OutOfMemoryError):
                    self.stuck.append(time.monotonic())
                ending.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            if payload is not None:
                self._handle(name, msgspec.json.decode(payload, type=Message))
                finished = payload
        if finished is not None:
            with contextlib.suppress(redis.exceptions.RedisError):
                queue.done(finished)


def _id_in(payload: bytes) -> str:
    return msgspec.json.decode(payload, type=Message).id
