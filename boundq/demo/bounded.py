"""Acts 2 and 3: the same two queues with boundq, each with its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec

from boundq import BoundqError, Limits, Queue, Rejection, Stats, Task, Worker
from boundq.demo.load import Answer, Crew
from boundq.demo.render import Message
from boundq.model import State

__all__ = ["BoundedArm"]

_PAGE = 500


class BoundedArm:
    """
    The demo's queues with boundq.

    Args:
        url: Of the server.
        limits: By queue.
        handle: What a worker does with a message of a queue.
    """

    def __init__(self, url: str, limits: dict[str, Limits], handle: Callable[[str, Message], None]) -> None:
        self._queues = {name: Queue(name, url, limits=its) for name, its in limits.items()}
        self._send = {name: _declare(queue, handle) for name, queue in self._queues.items()}

    def offer(self, queue: str, message: Message) -> Answer:
        """Enqueue, or be told which limit is reached."""
        try:
            outcome = self._send[queue].try_enqueue(message)
        except BoundqError as error:
            return Answer(False, type(error).__name__, certain=False)
        if isinstance(outcome, Rejection):
            return Answer(False, outcome.reason, outcome.retry_after)
        return Answer(True, jobs=outcome.jobs, bytes=outcome.bytes)

    def employ(self, crew: Crew, queue: str, threads: int) -> None:
        """Start a worker."""
        self._employ(crew, queue, threads, burst=False)

    def drain(self, crew: Crew, queue: str, threads: int) -> None:
        """Start a worker that ends by itself when the queue is empty."""
        self._employ(crew, queue, threads, burst=True)

    def stats(self, queue: str) -> Stats:
        """The queue's own account."""
        return self._queues[queue].stats()

    def held(self, queue: str) -> tuple[int, int]:
        """Jobs, and the bytes charged for them; dead ones too, of which there should be none."""
        stats = self.stats(queue)
        return stats.jobs + stats.dead, stats.bytes + stats.dead_bytes

    def held_ids(self, queue: str) -> list[str]:
        """Looked up in every state, page by page."""
        ids: list[str] = []
        states: tuple[State, ...] = get_args(State)
        for state in states:
            after: str | None = None
            while True:
                page = self._queues[queue].peek(state, _PAGE, after)
                ids += [_id_in(job.payload) for job in page.jobs]
                after = page.after
                if after is None:
                    break
        return ids

    def close(self) -> None:
        """Hang up."""
        for queue in self._queues.values():
            queue.close()

    def _employ(self, crew: Crew, queue: str, threads: int, *, burst: bool) -> None:
        worker = Worker([self._queues[queue]], threads=threads, grace=5.0, burst=burst)
        crew.start(worker.run, worker.stop)


def _declare(queue: Queue, handle: Callable[[str, Message], None]) -> Task[[Message], None]:
    # No retries: a message that cannot be rendered is a fault of the demo, and is to be seen as such.
    @queue.task(retries=0)
    def send(message: Message) -> None:
        handle(queue.name, message)

    return send


def _id_in(payload: bytes) -> str:
    (message,), _ = msgspec.json.decode(payload, type=tuple[tuple[Message], dict[str, str]])
    return message.id
