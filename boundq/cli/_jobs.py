"""A job as it is shown: its fields in words, and as JSON of a documented shape (docs/cli.md, "A job")."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec

from boundq._sizes import duration
from boundq.cli._text import printable, when
from boundq.model import Job

# A listing shows so many characters of a call, and decodes payloads up to so many bytes.
CALL_WIDTH = 200
DECODED = 64 * 2**10


def arguments(job: Job, most: int | None = None) -> tuple[list[Any], dict[str, Any]] | None:
    """Arguments of a task's job; None for raw bytes, and for what is no such payload."""
    if not job.task or (most is not None and len(job.payload) > most):
        return None
    try:
        found = msgspec.json.decode(job.payload)
        args, kwargs = found
        json.dumps(found)  # what cannot be nested so deep
    except (ValueError, TypeError, RecursionError):
        return None
    return (args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else None


def call_text(job: Job, width: int | None = CALL_WIDTH) -> str:
    """``send(42, to="ada")``; of other payloads the text, or the bytes as escapes. Safe on a terminal."""
    found = arguments(job, None if width is None else DECODED)
    if found is not None:
        args, kwargs = found
        words = [_value(value) for value in args] + [f"{name}={_value(value)}" for name, value in kwargs.items()]
        return printable(f"{job.task}({', '.join(words)})", width)
    # One byte is one character at most but four at least as an escape: no more is needed for the width.
    raw = job.payload if width is None else job.payload[: 4 * width]
    shown = printable(raw.decode("utf-8", "backslashreplace"))
    return printable(f"{job.task}(...) {shown}" if job.task else shown, width)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def summary(job: Job) -> dict[str, Any]:
    """A job in a listing, as JSON: no payload, its call cut."""
    return {
        "id": job.id,
        "state": job.state,
        "priority": job.priority,
        "task": job.task or None,
        "call": call_text(job),
        "payload_bytes": len(job.payload),
        "created": job.created,
        "age": _ago(job, job.created),
        "due": job.due,
        "expires": job.expires,
        "deliveries": job.deliveries,
        "failures": job.failures,
        "expired_leases": job.expired_leases,
        "reason": job.reason or None,
        "error": job.error or None,
        "ahead": job.ahead,
    }


def in_full(job: Job) -> dict[str, Any]:
    """A job by itself, as JSON: `summary`, with all of its payload."""
    found = arguments(job)
    try:
        text: str | None = job.payload.decode()
    except UnicodeDecodeError:
        text = None
    return {
        **summary(job),
        "args": found[0] if found else None,
        "kwargs": found[1] if found else None,
        "payload": text,
        "payload_base64": b64encode(job.payload).decode("ascii") if text is None else None,
        "headers": job.headers,
        "unique": job.unique,
    }


def _ago(job: Job, at: float) -> float:
    return round(max(job.seen - at, 0.0), 3)


def columns(jobs: list[Job]) -> tuple[list[str], list[list[str]]]:
    """A listing of jobs of one state for people: titles, and a row a job. Safe on a terminal."""
    state = jobs[0].state
    titles = ["id", "priority", "age", *_MORE.get(state, ()), "tries", "call"]
    if state == "dead":
        titles = ["id", "age", "tries", "dead for", "reason", "call", "error"]
    return titles, [_row(job) for job in jobs]


_MORE = {"scheduled": ["due in"], "active": ["lease"]}
# Columns of numbers and times.
RIGHT = {"age", "due in", "lease", "tries", "dead for"}


def _row(job: Job) -> list[str]:
    age, tries = duration(_ago(job, job.created)), str(job.deliveries)
    if job.state == "dead":
        error = printable(last_line(job.error), CALL_WIDTH)
        dead_for = duration(_ago(job, job.due or 0))
        return [job.id, age, tries, dead_for, printable(job.reason, 20), call_text(job), error]
    row = [job.id, job.priority, age]
    if job.state in _MORE:
        left = (job.due or 0) - job.seen
        row.append(duration(left) if left > 0 else "now" if job.state == "scheduled" else "over")
    return [*row, tries, call_text(job)]


def last_line(text: str) -> str:
    """Where a traceback says what went wrong."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def details(job: Job) -> list[tuple[str, str]]:
    """Everything about a job, as name and text, safe on a terminal."""
    rows = [("job", f"{job.id}, {job.state}, priority {job.priority}")]
    if job.ahead is not None:
        rows.append(("ahead", f"{job.ahead} ready jobs of its priority, at most"))
    rows.append(("task", printable(job.task, 64) or "none: a raw payload"))
    rows.append(("admitted", when(job.created, job.seen)))
    names = {"scheduled": "due", "active": "lease ends", "dead": "buried"}
    if job.due is not None:
        rows.append((names[job.state], when(job.due, job.seen)))
    if job.expires is not None:
        rows.append(("expires", when(job.expires, job.seen)))
    rows.append(
        ("tries", f"{job.deliveries} deliveries: {job.failures} failures, {job.expired_leases} leases expired"),
    )
    if job.unique:
        rows.append(("unique key", f"digest {printable(job.unique, 64)}"))
    rows += [("header", printable(f"{name}: {value}", 500)) for name, value in job.headers.items()]
    if job.reason:
        rows.append(("reason", printable(job.reason, 200)))
    rows += [("error" if number == 0 else "", printable(line, 500)) for number, line in _numbered(job.error)]
    rows.append(("payload", f"{len(job.payload)} bytes"))
    rows.append(("call" if job.task else "", call_text(job, 2000)))
    return rows


def _numbered(text: str) -> list[tuple[int, str]]:
    lines = text.splitlines()
    return list(enumerate(lines[:200]))
