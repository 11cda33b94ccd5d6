"""What is shown and kept of a bench: its tables, and a JSON file that also says what it was taken under."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench._harness import Group, Options, Result, Spread

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def show(console: Console, server: str, result: Result) -> None:
    """Print the tables of one server."""
    for group in result.groups:
        rounds = len(next(iter(group.runs.values())))
        median = "one round" if rounds == 1 else f"median (quartiles) of {rounds} rounds"
        console.print(f"{server}: {group.title}; {median}", highlight=False, style="italic", soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for column in group.columns:
            table.add_column(column.heading, justify="right")
            if column.compared:
                table.add_column("x base", justify="right")
        for arm in group.runs:
            cells = [arm]
            for column in group.columns:
                cells.append(_cell(group.values(arm, column.figure), column.digits))
                if column.compared:
                    cells.append("base" if arm == group.base else _cell(group.ratio(arm, column.figure), 2))
            table.add_row(*cells)
        console.print(table, "")
    for note in result.notes:
        console.print(note, highlight=False)


def _cell(found: Spread | None, digits: int) -> str:
    if found is None:
        return "-"
    if found.low == found.high:
        return f"{found.median:,.{digits}f}"
    return f"{found.median:,.{digits}f} ({found.low:,.{digits}f}-{found.high:,.{digits}f})"


def save(folder: Path, name: str, options: Options, found: Mapping[str, tuple[str, Result]]) -> Path:
    """
    Write ``NAME.json``.

    Args:
        folder: Made where it is missing.
        name: Of the bench.
        options: It ran with.
        found: Kind of server -> its version and what was found there.
    """
    servers = {
        kind: {
            "version": version,
            "groups": [_group(group) for group in result.groups],
            "curves": [asdict(curves) for curves in result.curves],
            "facts": dict(result.facts),
        }
        for kind, (version, result) in found.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    data = {"bench": name, **circumstances(), "options": asdict(options), "servers": servers}
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path


def _group(group: Group) -> dict[str, Any]:
    arms = {}
    for arm, runs in group.runs.items():
        figures = {}
        for figure in runs[0]:
            values, ratio = group.values(arm, figure), group.ratio(arm, figure)
            assert values is not None
            figures[figure] = {**values._asdict(), "runs": [run[figure] for run in runs]}
            if ratio is not None:
                figures[figure]["x_base"] = ratio._asdict()
        arms[arm] = figures
    columns = [column._asdict() for column in group.columns]
    return {"title": group.title, "base": group.base, "columns": columns, "arms": arms}


def circumstances() -> dict[str, Any]:
    """Commit, versions and machine."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return ""  # no git here; nor a commit, then
        return done.stdout.strip()

    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--", "boundq", "lua", "bench")),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in ("redis", "hiredis", "msgspec")},
        "machine": platform.machine(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    """Its name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
