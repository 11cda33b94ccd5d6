"""
Keeps a processor from going to sleep, and takes nothing from anybody. ``python -m bench._awake PROCESSOR``

It computes at the lowest priority that Linux has, where it runs only while nobody else would.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench._place import Place
from bench._processes import Process

POSSIBLE = hasattr(os, "SCHED_IDLE")


class Awake:
    """
    A process for each processor, which keeps it awake when told.

    Args:
        place: Whose folder their logs go to.
        stack: They are ended with it.
    """

    def __init__(self, place: Place, stack: ExitStack) -> None:
        self._processes = []
        for number in sorted(os.sched_getaffinity(0)) if POSSIBLE else []:
            log = place.server.folder / f"awake-{number}"
            self._processes.append(stack.enter_context(Process("bench._awake", str(number), log=log)))
        self._tell(signal.SIGSTOP)
        stack.callback(self._tell, signal.SIGCONT)  # a stopped process does not hear that it is to end

    @contextmanager
    def kept(self) -> Iterator[None]:
        """They are awake meanwhile."""
        self._tell(signal.SIGCONT)
        try:
            yield
        finally:
            self._tell(signal.SIGSTOP)

    def _tell(self, number: signal.Signals) -> None:
        for one in self._processes:
            one.check()
            one.process.send_signal(number)


def main(processor: str) -> None:
    """Compute until it is killed."""
    os.sched_setaffinity(0, {int(processor)})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):  # where sessions share the processors, ours is to have the least of them
        Path("/proc/self/autogroup").write_text("19")
    while True:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
