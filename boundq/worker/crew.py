"""
Crew: threads that do what is put in their queue.

Not a ThreadPoolExecutor: that makes a future of each call, which nobody here asks for, and it has the interpreter wait
at its exit for handlers that may never end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

LEAVE = object()

log = logging.getLogger("boundq.worker")


class Crew:
    """
    Args:
        size: Threads.
        name: By which they are known.
    """

    def __init__(self, size: int, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(size)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], object]) -> None:
        """Have it called by the next free thread; after `stop`, by none. One that returns `LEAVE` ends its thread."""
        self._calls.put(call)

    def stop(self, *, wait: bool) -> None:
        """What has been submitted is done; whether to wait for that."""
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                if call() is LEAVE:
                    return
            except BaseException:  # ours: a handler's errors are verdicts. The thread is still needed.
                log.exception("unexpected error in a thread of the worker")
            del call  # what it holds is not kept until the next one
