"""
The tasks that worker processes of these tests run. Copied as ``tasks.py`` into a folder of the test's own.

Every run leaves a line in ``runs``, written in one write, so that it is there even when the process dies at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from boundq import Bury, Queue, Retry, current_job

RUNS = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

jobs = Queue(os.environ["BQ_QUEUE"], deadline=float(os.environ.get("BQ_DEADLINE", "5")))

MOOD: ContextVar[str] = ContextVar("mood")


def note(what: str, key: object) -> None:
    """One line: what happened, to which key, in which delivery of which job, in which process, when."""
    job = current_job()
    os.write(RUNS, json.dumps([what, key, job.id, job.attempt, os.getpid(), time.monotonic()]).encode() + b"\n")


def wait_for(name: str, seconds: float) -> bool:
    """Whether the test has made this file within so many seconds."""
    end = time.monotonic() + seconds
    while not Path(name).exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@jobs.task(retries=5)
def work(key: int, seconds: float = 0.0) -> None:
    """Take some time."""
    note("start", key)
    time.sleep(seconds)
    note("done", key)


@jobs.task(retries=0)
def nothing() -> None:
    """Do nothing, and leave no line."""


@jobs.task(retries=0)
async def anothing() -> None:
    """Likewise on the event loop."""


@jobs.task(retries=5)
def gate(key: int, name: str = "go", seconds: float = 60.0) -> None:
    """Run until the test opens the gate."""
    note("start", key)
    wait_for(name, seconds)
    note("done", key)


@jobs.task(retries=1)
def poison(key: int) -> None:
    """Take the process down."""
    note("start", key)
    os.kill(os.getpid(), signal.SIGKILL)


@jobs.task(retries=1)
def fellow(key: int, seconds: float) -> None:
    """As `work`, with no more retries than `poison` has."""
    work(key, seconds)


@jobs.task(retries=5)
def hold_gil(key: int, seconds: float) -> None:
    """A C call that keeps the interpreter lock: no other thread of this process runs meanwhile."""
    note("start", key)
    end = time.monotonic() + seconds
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    assert time.monotonic() >= end - 0.01
    note("done", key)


_usleep = ctypes.PyDLL(None).usleep


@jobs.task(retries=5)
def hold_gil_at_once(key: int, microseconds: int) -> None:
    """Likewise, as its very first act."""
    _usleep(microseconds)
    note("done", key)


@jobs.task(retries=0)
def typed(number: int, word: str = "") -> None:
    """Want arguments of these types."""
    note("done", number)


@dataclass
class Picky:
    """Says no in its own words."""

    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise RuntimeError("no negative values")


@jobs.task(retries=0)
def picky(one: Picky) -> None:
    """Want an argument whose type has opinions."""
    note("done", one.value)


@jobs.task(retries=0)
def odd(one: "sys.no_such_thing") -> None:  # noqa: UP037  # type: ignore[name-defined]
    """Have an annotation that cannot be resolved."""
    note("done", one)


@jobs.task(retries=1)
def leave(key: int) -> None:
    """Raise what is no Exception."""
    note("start", key)
    sys.exit(3)


@jobs.task(retries=1)
async def aleave(key: int) -> None:
    """The same on the event loop."""
    note("start", key)
    sys.exit(3)


@jobs.task(retries=5)
async def awork(key: int, seconds: float = 0.0) -> None:
    """Take some time on the event loop."""
    note("start", key)
    await asyncio.sleep(seconds)
    note("done", key)


@jobs.task(retries=0)
def says(key: int, how: str) -> None:
    """End in the way that is asked for."""
    note("start", key)
    if how == "bury":
        raise Bury("unwanted", "nobody wants this")
    raise Retry(after=30)


@jobs.task(retries=20)
def storm(key: int, chance: float = 0.01) -> None:
    """One in a hundred fails, one in a hundred is slow."""
    note("start", key)
    if random.random() < chance:
        raise ValueError("one of those days")
    if random.random() < chance:
        time.sleep(0.3)
    note("done", key)


@jobs.task(retries=1)
def die(key: int, how: str) -> None:
    """End the process, in the way that is asked for."""
    note("start", key)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@jobs.task(retries=0, timeout=1)
def hang(key: int, how: str) -> None:
    """Run for ever."""
    note("start", key)
    if how == "C":
        ctypes.PyDLL(None).sleep(3600)
    while True:
        pass


@jobs.task(retries=0)
def look(key: int) -> None:
    """What can be seen of the job from inside, and what an earlier one in this process has left."""
    job = current_job()
    note("headers", [job.queue, job.task, job.headers, job.cancelled, MOOD.get("fresh")])
    MOOD.set("used")
    job.extend(60)
    note("done", key)


@jobs.task(retries=5)
def parent(key: int) -> None:
    """Start a program and wait for it, in vain."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    note("program", program.pid)
    program.wait()


@jobs.task(retries=5)
def again(key: int) -> None:
    """Ask to be run later."""
    note("start", key)
    raise Retry(after=30)


@jobs.task(retries=0)
def fails(key: int) -> None:
    """Fail, with words that no encoding has."""
    note("start", key)
    raise ValueError("unheard-of \udc80")
