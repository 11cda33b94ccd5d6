"""
Floors for workers: loops around a list, without anything that a queue does. ``python -m bench._loops HOW URL KEY``

``brpop`` takes and forgets: a job is lost with its worker. ``blmove`` keeps it in a second list until it is done, as
one has to at the least. A job of eight bytes is the time at which it was sent: how long ago that was is appended to
``BENCH_STAMPS``.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

import redis

from bench._stages import recorder

WAIT_S = 1


def main(how: str, url: str, key: str) -> None:
    """Loop until it is killed."""
    client = redis.Redis.from_url(url)
    record = recorder()
    while True:
        if how == "brpop":
            reply: Any = client.brpop([key], WAIT_S)
            job: Any = reply and reply[1]
        else:
            job = client.blmove(key, f"{key}:taken", WAIT_S, "RIGHT", "LEFT")
        if job is None:
            continue
        if len(job) == 8:
            record(*struct.unpack("d", job))
        if how == "blmove":
            client.lrem(f"{key}:taken", 1, job)


if __name__ == "__main__":
    main(*sys.argv[1:])
