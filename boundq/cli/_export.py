"""Jobs into a file that other programs read: NDJSON, or CSV that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

import click

from boundq._sizes import moment
from boundq.cli._jobs import in_full
from boundq.model import Job

_COLUMNS = ("id", "priority", "task", "call", "created", "buried", "deliveries", "reason", "error", "payload")


def write(jobs: Iterable[Job], path: str, kind: Literal["ndjson", "csv"]) -> int:
    """Write them to a new file, which is there when it is complete, or to standard output; how many they were."""
    if path == "-":
        return _write(jobs, sys.stdout, kind)
    target, part = Path(path), Path(f"{path}.part")
    if target.exists():
        raise click.UsageError(f"{path!r} is there already; give another name")
    try:
        file = open(part, "x", encoding="ascii", newline="")  # noqa: SIM115  # closed below, and then renamed
    except FileExistsError:
        raise click.UsageError(f"{str(part)!r} is there: another export runs, or was killed; remove it") from None
    except OSError as error:
        raise click.UsageError(f"cannot write {str(part)!r}: {error.strerror}") from None
    try:
        with file:
            count = _write(jobs, file, kind)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return count


def _write(jobs: Iterable[Job], file: IO[str], kind: str) -> int:
    count = 0
    out = csv.writer(file, lineterminator="\n")
    if kind == "csv":
        out.writerow(_COLUMNS)
    for job in jobs:
        count += 1
        full = in_full(job)
        if kind == "ndjson":
            file.write(json.dumps(full, ensure_ascii=True, separators=(",", ":")) + "\n")
            continue
        full |= {"created": moment(job.created), "buried": moment(job.due or 0)}
        full["payload"] = full["payload"] if full["payload"] is not None else f"base64:{full['payload_base64']}"
        out.writerow(cell(full[name]) for name in _COLUMNS)
    return count


def cell(value: object) -> str:
    """One cell, ASCII: other characters as escapes, and an apostrophe before what a spreadsheet would calculate."""
    if value is None:
        return ""
    text = str(value)
    text = "".join(
        one if one.isascii() and one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )
    # Spreadsheets skip blanks, and take these for the beginning of a formula.
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and text.strip() else text
