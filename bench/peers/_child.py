"""
A peer at work, in its own interpreter: ``python -m bench.peers._child MODULE [work]``.

MODULE is the adapter. It is imported with ``BENCH_URL`` set, and has, each a function or a coroutine function:

- ``enqueue(text)``: send one job ``noop(text)``, and return when the server has it;
- ``stamp(sent)``: send one job ``stamp(sent)``;
- ``bulk(texts)``: send many with what the peer has for that; absent where it has nothing;
- ``open()``: called first; absent where the client connects by itself;
- ``WORKER``: the words after ``python -m`` that start one worker; or ``work()``, which is one.

With ``work`` it works. Without, it answers requests on stdin, each a line of JSON with the name of a function below
and its arguments, on stdout, likewise. Only the standard library: the peers' interpreters have nothing of ours.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

BATCH = 100


class Producer:
    """What can be asked of an adapter. All of it runs in one asyncio task: some clients insist on it."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    async def hello(self) -> dict[str, Any]:
        """Connect; what there is."""
        if hasattr(self._adapter, "open"):
            await _each(self._adapter.open, [()])
        worker = getattr(self._adapter, "WORKER", ("bench.peers._child", self._adapter.__name__, "work"))
        return {"bulk": hasattr(self._adapter, "bulk"), "worker": worker}

    async def enqueue(self, seconds: float, payload: int) -> dict[str, Any]:
        """One job after the other, for so long."""
        return await _timed(self._adapter.enqueue, "x" * payload, seconds, 1)

    async def bulk(self, seconds: float, payload: int) -> dict[str, Any]:
        """A hundred jobs a call, for so long."""
        return await _timed(self._adapter.bulk, ["x" * payload] * BATCH, seconds, BATCH)

    async def fill(self, jobs: int, payload: int) -> dict[str, Any]:
        """Exactly so many, however."""
        text, bulk = "x" * payload, getattr(self._adapter, "bulk", None)
        if bulk:
            await _each(bulk, (([text] * min(BATCH, jobs - start),) for start in range(0, jobs, BATCH)))
        else:
            await _each(self._adapter.enqueue, ((text,) for _ in range(jobs)))
        return {}

    async def stamps(self, jobs: int, rate: float) -> dict[str, Any]:
        """So many at this rate, each with the time of its call; late ones follow at once."""
        begun = time.monotonic()
        for number in range(jobs):
            await asyncio.sleep(max(begun + number / rate - time.monotonic(), 0))
            await _each(self._adapter.stamp, [(time.monotonic(),)])
        return {}


async def _timed(call: Callable[..., Any], argument: object, seconds: float, jobs: int) -> dict[str, Any]:
    await _each(call, [(argument,)])  # connects
    begun, cpu = time.perf_counter(), time.process_time()
    end, calls = begun + seconds, 0

    def again() -> Iterable[tuple[object]]:
        nonlocal calls
        while time.perf_counter() < end:
            yield (argument,)
            calls += 1

    await _each(call, again())
    return {"jobs": calls * jobs, "wall": time.perf_counter() - begun, "cpu": time.process_time() - cpu}


async def _each(call: Callable[..., Any], times: Iterable[tuple[Any, ...]]) -> None:
    if inspect.iscoroutinefunction(call):
        for arguments in times:
            await call(*arguments)
    else:
        for arguments in times:
            call(*arguments)


async def _answer(producer: Producer, answers: TextIO) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        answer = await getattr(producer, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")


def main(name: str, *words: str) -> None:
    """Work, or answer."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a peer prints belongs into the log
    adapter = importlib.import_module(name)
    if words == ("work",):
        adapter.work()
    else:
        asyncio.run(_answer(Producer(adapter), answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
