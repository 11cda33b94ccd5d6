"""
Producers that do not let up. ``python -m bench._flood URL QUEUE RATE WORK_SECONDS``

Enqueues at that rate, one at a time, until SIGTERM, whatever the queue says; then says as JSON how long each answer
took: ``{"accepted": [...], "refused": [...]}``, in seconds.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time

from bench._workers import paced
from boundq import Queue, Receipt


def main(url: str, name: str, rate: str, work: str) -> None:
    """Flood the queue."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    queue = Queue(name, url, create=False)
    task = queue.named("work")
    accepted: list[float] = []
    refused: list[float] = []

    def send(jobs: int) -> None:
        for _ in range(jobs):
            begun = time.perf_counter()
            outcome = task.try_enqueue(float(work))
            took = time.perf_counter() - begun
            (accepted if isinstance(outcome, Receipt) else refused).append(took)

    paced(float(rate), math.inf, send, stop=lambda: bool(stopped))
    queue.close()
    json.dump({"accepted": accepted, "refused": refused}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
