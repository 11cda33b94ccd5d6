"""What the fault tests share: queues of either shell at any address, and commands told apart as the proxy sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from boundq import AsyncQueue, Limits, Queue
from boundq._keys import PARTS
from boundq._scripts import load
from tests._proxy import Command, Proxy
from tests._servers import Server, wait_until
from tests.contract._env import Blocking, Runners

SHELLS = ("sync", "async")
SMALL = Limits(max_jobs=10_000, max_bytes="16 MiB")


class Shell:
    """
    Makes queues that look like `Queue`, whichever shell does the work.

    Args:
        kind: ``sync`` or ``async``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._runners = Runners()
        self._queues: list[Queue | AsyncQueue] = []

    def queue(self, name: str, url: str, **options: Any) -> Any:
        """A queue at an address; a thread makes the ones that it uses itself."""
        if self.kind == "sync":
            queue: Queue | AsyncQueue = Queue(name, url, **options)
        else:
            queue = AsyncQueue(name, url, **options)
        self._queues.append(queue)
        return queue if isinstance(queue, Queue) else Blocking(queue, self._runners.run)

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in this thread's loop."""
        return self._runners.run(coroutine)

    def close(self) -> None:
        for queue in self._queues:
            if isinstance(queue, Queue):
                queue.close()
        self._runners.close()


# ---------------------------------------------------------------- commands


def is_script(*names: str) -> Callable[[Command], bool]:
    """A call of one of these scripts."""
    shas = {load(name).sha for name in names}
    return lambda command: command[:1] == (b"EVALSHA",) and command[1] in shas


_ENQUEUE = is_script("enqueue", "enqueue_general")


def flags_of(command: Command) -> int:
    """The flags of an enqueue's call."""
    return int(command[3 + int(command[2]) + 2])


def is_first(command: Command) -> bool:
    """An enqueue as it is sent for the first time."""
    return _ENQUEUE(command) and flags_of(command) < 2


def is_resend(command: Command) -> bool:
    """An enqueue that says that it was sent before."""
    return _ENQUEUE(command) and flags_of(command) >= 2


def meddle(line: Proxy, before: Callable[[Command], bool], action: Callable[[], object]) -> None:
    """Do something each time such a command has arrived, before the server gets it."""

    def matches(command: Command) -> bool:
        if before(command):
            action()
        return False

    line.hold(request_of=matches)


def all_answered(line: Proxy) -> None:
    """Wait until the server has answered whatever it got through the proxy: ghosts too."""
    wait_until(lambda: all(link.replies == link.commands for link in line.connections), "the last answers")


# ---------------------------------------------------------------- what is stored


def dump(server: Server, name: str, without: str = "") -> dict[str, Any]:
    """Every key of a queue as the server would save it, but for the part ``without``."""
    parts = [part for part in PARTS if part != without]
    with redis.Redis(unix_socket_path=server.socket_path) as client, client.pipeline(transaction=False) as pipeline:
        for part in parts:
            pipeline.dump(f"boundq:{{{name}}}:{part}")
        return dict(zip(parts, pipeline.execute(), strict=True))


def stored(direct: Queue) -> list[bytes]:
    """The payloads of all jobs that are held."""
    found = []
    for state in ("ready", "scheduled", "active"):
        after: str | None = None
        while True:
            page = direct.peek(state, 100, after)
            found += [job.payload for job in page.jobs]
            if (after := page.after) is None:
                break
    return found


def forget(server: Server, name: str) -> None:
    """Delete a queue as FLUSHALL would, and leave the others alone."""
    server.cli("DEL", *(f"boundq:{{{name}}}:{part}" for part in PARTS))


def audit(queue: Any) -> None:
    """The queue's books are right: no job unaccounted for, every byte where it should be."""
    stats, count = queue.stats(), queue.recount()
    assert stats.imbalance == 0, stats
    assert count.ok, count
