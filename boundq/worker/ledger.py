"""
Ledger: the leases that a worker process holds, in memory that it shares with its supervisor.

The supervisor has to know them even where a handler keeps the worker's interpreter from saying anything. A message for
each job, and one more when it is done, took a fifth of the CPU that workers take for a no-op job (`bench drain`, before
and after). A line in the ledger is written when a job begins and struck out when it ends: no system call, and nobody
wakes up for it. The supervisor reads it when it extends leases, which is three times in the length of one.

A line is two words of 64 bits: the job's id; and the queue's number, from 1, above 32 bits of the fence. The second one
is 0 in a free line, and written last.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Iterator

from boundq._core.delivery import Delivery
from boundq.lease import BaseLease
from boundq.sync.queue import Queue
from boundq.worker.started import Key, key_of

# What finds no free line is said aloud.
LINES = 16_384
_SIZE = LINES * 16


def new_ledger() -> int:
    """Memory for a ledger, all lines free; a file descriptor, for the worker process to inherit."""
    descriptor = _memory()
    os.ftruncate(descriptor, _SIZE)
    return descriptor


def _memory() -> int:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some sandboxes have none
            return os.memfd_create("boundq-ledger")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _words(descriptor: int) -> memoryview:
    """The memory; each word is written in one go. It lasts as long as this."""
    return memoryview(mmap.mmap(descriptor, _SIZE)).cast("Q")


class LedgerWriter:
    """
    The worker's end. Not for several threads at once.

    Args:
        descriptor: Of `new_ledger`; it is closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._words = _words(descriptor)
        os.close(descriptor)
        self._lines: dict[BaseLease, tuple[int, Queue]] = {}
        self._free: list[int] = []
        self._used = 0  # lines that have ever been written: the rest are free, too

    def enter(self, number: int, queue: Queue, lease: BaseLease) -> bool:
        """Write a line; False: there is no room. ``number``: the queue's."""
        if lease in self._lines:
            return True
        if self._free:
            line = self._free.pop()
        elif self._used < LINES:
            line, self._used = self._used, self._used + 1
        else:
            return False
        self._lines[lease] = line, queue
        self._words[2 * line] = int(lease.id)
        self._words[2 * line + 1] = number << 32 | lease.delivery.fence
        return True

    def strike(self, lease: BaseLease) -> bool:
        """Free its line; False: it has none."""
        written = self._lines.pop(lease, None)
        if written is None:
            return False
        line = written[0]
        self._words[2 * line + 1] = 0
        self._free.append(line)
        return True

    def find(self, key: Key) -> BaseLease | None:
        """The lease of this queue, job and fence."""
        return next((lease for queue, lease in self if key_of(queue.name, lease) == key), None)

    def __iter__(self) -> Iterator[tuple[Queue, BaseLease]]:
        """What is written."""
        return iter([(queue, lease) for lease, (_, queue) in self._lines.items()])


class LedgerReader:
    """
    The supervisor's end.

    Args:
        descriptor: Of `new_ledger`.

    Attributes:
        names: Of queues, by the worker's numbers. It tells them before it uses them; what we do not know yet is new,
            and its lease need not be extended yet.
    """

    def __init__(self, descriptor: int) -> None:
        self._words = _words(descriptor)
        self.names: dict[int, str] = {}

    def read(self) -> list[Key]:
        """What the worker holds now."""
        found = []
        for line, word in enumerate(self._words[1::2].tolist()):
            name = self.names.get(word >> 32)
            if name is not None:
                job = self._words[2 * line]
                if self._words[2 * line + 1] == word:  # else another job's by now
                    found.append((name, str(job), word & 0xFFFFFFFF))
        return found


def bare_lease(job_id: str, fence: int) -> BaseLease:
    """As much of a lease as an extension needs."""
    return BaseLease(Delivery(job_id, fence, None, b"", None, 0.0, 0.0, time.monotonic()))
