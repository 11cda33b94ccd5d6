"""What a bench has left running."""

from __future__ import annotations

import psutil


def started() -> set[str]:
    """Command lines of what this process has started, servers and their guard aside."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            found.add(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue  # it has just ended
    return {line for line in found if " -m " in line}
