"""
What benches share: arms in turns, medians and spread, CPU time beside wall time, a table and a JSON file.

On a busy machine wall times move twofold, so arms that are compared run in turns, in random order within a round, and
are compared pair by pair: a ratio is the median of the rounds' ratios, never a ratio of medians.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Figures = Mapping[str, float]
Arm = Callable[[], Figures]


@dataclass(frozen=True)
class Spread:
    """The middle of some runs, and the quarter of them below and above it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Spread(statistics.median(values), low, high)


class Clock:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds so far: on the wall, of our CPU."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def in_turns(arms: Mapping[str, Arm], rounds: int, *, warm_up: int = 1) -> dict[str, list[Figures]]:
    """Run every arm once a round, in random order. The first rounds warm up and are thrown away."""
    found: dict[str, list[Figures]] = {name: [] for name in arms}
    for number in range(-warm_up, rounds):
        for name in random.sample(list(arms), len(arms)):
            figures = arms[name]()
            if number >= 0:
                found[name].append(figures)
    return found


def more(runs: Mapping[str, Sequence[Figures]], arm: str, base: str, figure: str) -> Spread:
    """How many percent more one arm takes than another, round by round."""
    pairs = zip(runs[arm], runs[base], strict=True)
    return spread([(one[figure] / other[figure] - 1) * 100 for one, other in pairs])


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns, aligned."""
    cells = [list(map(str, row)) for row in (columns, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    print(f"\n{title}\n")
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def circumstances() -> dict[str, Any]:
    """Commit, versions and machine."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--", "boundq", "lua", "bench")),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in ("redis", "hiredis", "msgspec")},
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def save(name: str, figures: Mapping[str, Any], path: str | None = None) -> Path:
    """Write the figures beside what they were taken under; ``path`` or bench/results/NAME.json."""
    target = Path(path) if path else ROOT / "bench" / "results" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"bench": name, **circumstances(), "figures": figures}, indent=1) + "\n")
    return target
