"""
Threads that enqueue as fast as they can, when told. ``python -m bench._producers URL QUEUE THREADS PAYLOAD``

On stdin, for each run: how many jobs each thread adds. It says ``ready`` when each thread has added one, waits for a
line, and says ``done`` when all have added the rest.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from boundq import Queue


def main(url: str, name: str, threads: str, payload: str) -> None:
    """Runs until the end of the input."""
    queue, text = Queue(name, url), "x" * int(payload)
    task = queue.named("noop")
    begin = Barrier(int(threads) + 1)

    def add(jobs: int) -> None:
        task.enqueue(text)  # connects; and the server may have forgotten us
        begin.wait()
        begin.wait()
        for _ in range(jobs):
            task.enqueue(text)

    with ThreadPoolExecutor(int(threads)) as crew:
        for line in sys.stdin:
            under_way = [crew.submit(add, int(line)) for _ in range(int(threads))]
            begin.wait()
            _say("ready")
            sys.stdin.readline()
            begin.wait()
            for one in under_way:
                one.result()
            _say("done")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
