"""
What the jobs of every peer do: note that they ran, in memory that the bench shares.

Run in the interpreters of the peers, so: the standard library alone, and the same for all.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time

URL = os.environ["BENCH_URL"]
_COUNT = struct.Struct("Q")  # jobs done
_TIMES = struct.Struct("dd")  # when, and CPU of this process by then: behind the count for the first, then for the last
_LAST = int(os.environ.get("BENCH_JOBS", 0))


def _notes() -> mmap.mmap:
    path = os.environ.get("BENCH_COUNT")
    if path is None:  # a producer, which runs no job
        return mmap.mmap(-1, 5 * _COUNT.size)
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0)


_count = _notes()
_lock = threading.Lock()  # in one worker there are threads, or processes of which one at a time runs a job
_stamps = os.open(os.environ.get("BENCH_STAMPS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def noop(text: str) -> None:
    """Nothing, counted: a third of a microsecond, and no system call but for the first and the last."""
    with _lock:
        number = _COUNT.unpack_from(_count)[0] + 1
        if number == 1 or number == _LAST:
            at = _COUNT.size + (_TIMES.size if number == _LAST else 0)
            _TIMES.pack_into(_count, at, time.monotonic(), time.process_time())
        _COUNT.pack_into(_count, 0, number)


def stamp(sent: float) -> None:
    """Note how long ago it was sent, by the clock that all processes of a machine share."""
    os.write(_stamps, struct.pack("d", time.monotonic() - sent))


async def noop_async(text: str) -> None:
    """The same, for those that run coroutines."""
    noop(text)


async def stamp_async(sent: float) -> None:
    """The same, for those that run coroutines."""
    stamp(sent)
