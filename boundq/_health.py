"""
The health file of a worker, read: ``boundq health``. Probes run this all the time, so it imports next to nothing.

The file is JSON; times are readings of the machine's monotonic clock, which all its processes share:

    {"boundq": 1, "pid": 7, "at": 812.4, "state": "running", "workers": {"1": {
        "pid": 8, "heard": 812.1, "state": "running", "loop": 812.1,
        "queues": {"emails": {"round": 811.9, "away": false}}}}}

    at      when it was written, by the process that runs no handlers: the supervisor
    state   running, quiet (nothing new is claimed), stopping
    heard   when the worker process last said anything
    loop    when its event loop last turned; null where it has none
    round   when this queue's loop last ended a round: it claimed, found nothing, or failed and backs off
    away    whether the last round failed: the server cannot be reached; null before the first round of this process
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

FORMAT = 1
# How often the file is written, and how old what it says may be, in seconds.
WRITE_SECONDS, MAX_AGE, LEAST_AGE = 1.0, 60.0, 3.0


def look(path: str, *, max_age: float = MAX_AGE, ready: bool = False) -> tuple[bool, str]:
    """
    Whether the worker that writes this file is well, and a line that says why.

    Args:
        path: The file.
        max_age: Seconds that any sign of life may be old.
        ready: Ask for more: it claims, each process is there, and the server answers.
    """
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read())
        if record["boundq"] != FORMAT:
            return False, f"{path} was written by another version of boundq (format {record['boundq']!r})"
        problem = next(_problems(record, max_age, ready), None)
        return (False, problem) if problem else (True, _summary(record))
    except FileNotFoundError:
        return False, f"no file {path}: the worker has not started, has stopped, or runs without --health-file"
    except OSError as error:
        return False, f"{path} cannot be read: {os.strerror(error.errno or 0)}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return False, f"{path} is not a worker's health file"


def _problems(record: dict[str, Any], max_age: float, ready: bool) -> Iterator[str]:
    now = time.monotonic()

    def old(age: float) -> str:
        return f"{age:.0f} s (at most {max_age:g})"

    # Each age is counted up to when it was told: where the writer hangs, it is the writer that is named.
    written = record["at"]
    if written > now + 1:
        yield "the file is from before this machine was started"
    if now - written > max_age:
        yield f"process {record['pid']} has not written the file for {old(now - written)}: it hangs, or is gone"
    if ready and record["state"] != "running":
        yield f"not ready: the worker is {record['state']}"
    for place, worker in record["workers"].items():
        who = f"worker {place} (process {worker['pid'] or 'gone'})"
        heard = worker["heard"]
        if record["state"] != "stopping" and written - heard > max_age:
            yield f"{who} has said nothing for {old(written - heard)}"
        if worker["state"] == "stopping" or record["state"] == "stopping":
            continue
        if worker["loop"] is not None and heard - worker["loop"] > max_age:
            yield f"{who}: a handler has held up the event loop for {old(heard - worker['loop'])}"
        if ready and (worker["pid"] is None or not worker["queues"]):
            yield f"not ready: {who} has not started"
        for queue, loop in worker["queues"].items():
            if heard - loop["round"] > max_age:
                yield f"{who}: queue {queue} has ended no round for {old(heard - loop['round'])}"
            if ready and loop["away"] is not False:
                why = "the server cannot be reached" if loop["away"] else "has claimed nothing yet"
                yield f"not ready: {who}: queue {queue}: {why}"


def _summary(record: dict[str, Any]) -> str:
    workers = list(record["workers"].values())
    queues = {name for worker in workers for name in worker["queues"]}
    away = {name for worker in workers for name, loop in worker["queues"].items() if loop["away"]}
    text = f"{record['state']}: {_count(len(workers), 'worker')}, {_count(len(queues), 'queue')}"
    return text + (f"; the server of {', '.join(sorted(away))} cannot be reached, backing off" if away else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def quick(words: Sequence[str]) -> int | None:
    """
    ``boundq health`` with these words, without the machinery of a command line; its exit code.

    None: they are not of the plain kind; let the command line say what is wrong with them, or help.
    """
    path: str | None = None
    max_age, ready = MAX_AGE, False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--ready":
            ready = True
        elif word == "--max-age" and rest:
            rest[0] = f"--max-age={rest[0]}"
        elif word.startswith("--max-age="):
            try:
                max_age = float(word.partition("=")[2])
            except ValueError:
                return None
            if not LEAST_AGE <= max_age < float("inf"):
                return None
        elif word.startswith("-") or path is not None:
            return None
        else:
            path = word
    if path is None:
        return None
    return say(*look(path, max_age=max_age, ready=ready))


def say(well: bool, why: str) -> int:
    """Print the line; the exit code."""
    print(f"{'ok' if well else 'unhealthy'}: {why}")  # noqa: T201  # this is a command's output, without click
    return 0 if well else 1
